"""Step laws of an arm along the run: policy version -> how many steps responses need, at which draft length.

Where the engine chooses k by its live batch, a law holds a level for each k, and says which level each batch uses.
Where acceptance changes along the response, a level holds its pieces; an adaptive engine weighs them equally. Does not
know replicas.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.arm_rates import ArmRates
from simulator.config import AdaptiveDraftLength, ArmConfig, DraftLengthByBatch
from simulator.entropy import Entropy
from simulator.speculation import dispersed_classes, emitted_pmf, shifted_log_odds
from simulator.step_law import ONE_LEVEL, StepLaw, build_step_law
from simulator.step_table import StepTable
from simulator.workload import Workload

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MAX_LAWS = 256
"""Step laws kept per run, about 0.1 MB each: enough for the counterfactuals of a run to share them."""


MAX_KNOWN_LAWS = 1024
"""Step laws kept for several runs."""


class KnownLaws:
    """Laws that several runs share: the points of a sweep whose acceptance is the same."""

    def __init__(self) -> None:
        self._laws: dict[str, dict[int, StepLaw]] = {}

    def of(self, arm: str) -> dict[int, StepLaw]:
        """Return policy version -> law, under a text that says everything they depend on."""
        if sum(map(len, self._laws.values())) > MAX_KNOWN_LAWS:
            self._laws.clear()
        return self._laws.setdefault(arm, {})


class ArmInputs(Protocol):
    """What is asked of a scenario's inputs."""

    entropy: Entropy

    @property
    def temperature(self) -> float: ...
    def arm(self, name: str) -> ArmConfig: ...
    def rates(self, name: str, shift: float = 0.0) -> ArmRates | None: ...


def draft_lengths(arm: ArmConfig) -> list[int]:
    """Return the numbers of draft tokens that the arm's engine may use, ascending."""
    choice = arm.draft_length
    if isinstance(choice, DraftLengthByBatch):
        return sorted({k for _, _, k in choice.table})
    return list(range(arm.k + 1)) if isinstance(choice, AdaptiveDraftLength) else [arm.k]


def pieces(arm: ArmConfig) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return where each piece of a response begins, the first at 0, and its shift of the log-odds of acceptance."""
    rows = arm.acceptance_by_position or ()
    if not rows or rows[0][0] > 0:
        rows = ((0, 0.0), *rows)
    return tuple(first for first, _ in rows), tuple(shift for _, shift in rows)


class Laws:
    """Policy version -> step law, made once for each distinct acceptance."""

    def __init__(
        self,
        inputs: ArmInputs,
        name: str,
        shift: float,
        workload: Workload,
        table: StepTable,
        first_step: int,
        known: KnownLaws | None = None,
    ) -> None:
        """Prepare the laws of one arm; `shift` tokens are added to its accept length, `known` ones not made again."""
        self._arm, self._entropy, self._first_step = inputs.arm(name), inputs.entropy, first_step
        self._rates = inputs.rates(name, shift)
        self._choices = draft_lengths(self._arm)
        self.piece_from, self._shifts = pieces(self._arm)
        self._table = table
        self._max_tokens = workload.max_output_tokens
        self._context_tokens = workload.mean_context_tokens
        self._cache: dict[bytes, StepLaw] = {}
        self._known: dict[int, StepLaw] | None = None
        if known is not None and self._arm.draft_length is None:  # an engine that chooses k by its batch looks at costs
            said = (self._arm.model_dump_json(), inputs.temperature, shift, first_step, self._max_tokens)
            self._known = known.of(f"{said} {self._entropy!r}")
        # Rates that are all 0 or 1 have one class only; the kernels need as many at every version.
        self.num_classes = len(dispersed_classes(np.full(self._arm.k, 0.5), self._arm.dispersion)[0])

    def law(self, version: int) -> StepLaw:
        """Return the law under this policy version; the same object while acceptance stays the same."""
        if self._known is None:
            return self._make(version)
        if version not in self._known:
            self._known[version] = self._make(version)
        return self._known[version]

    def _make(self, version: int) -> StepLaw:
        pmf = np.concatenate([self._pmf(k, version) for k in self._choices])
        key = pmf.tobytes()
        if key not in self._cache:
            if len(self._cache) >= MAX_LAWS:
                self._cache.clear()
            self._cache[key] = build_step_law(pmf, self._max_tokens, self._levels(pmf))
        return self._cache[key]

    def _pmf(self, k: int, version: int) -> F64:
        """Return P(emit 1 .. most + 1 tokens) of each class of each piece, most = the largest k of the arm."""
        width = self._arm.k + 1
        if self._rates is None or k == 0:
            return np.eye(1, width).repeat(self.num_classes * len(self._shifts), axis=0)
        cumulative = self._rates.cumulative(k, version, self._entropy.at(self._first_step + version))
        return np.concatenate(
            [self._pmf_of_piece(shifted_log_odds(cumulative, shift), width) for shift in self._shifts]
        )

    def _pmf_of_piece(self, cumulative: F64, width: int) -> F64:
        _, classes = dispersed_classes(cumulative, self._arm.dispersion)
        pmf = np.stack([np.pad(emitted_pmf(row), (0, width - len(row) - 1)) for row in classes])
        return pmf.repeat(self.num_classes // len(pmf), axis=0)

    def _levels(self, pmf: F64) -> I64:
        """Return the index into the choices of k that each live batch uses."""
        choice, table = self._arm.draft_length, self._table
        if choice is None:
            return ONE_LEVEL
        levels = np.zeros(table.rows_per_level, np.int64)
        if isinstance(choice, DraftLengthByBatch):
            for first, last, k in choice.table:
                levels[first : last + 1] = self._choices.index(k)
            levels[choice.table[-1][1] :] = self._choices.index(choice.table[-1][2])
            return levels
        emitted = (pmf @ np.arange(1, pmf.shape[1] + 1)).reshape(len(self._choices), -1).mean(axis=1)
        seconds = np.stack([np.interp(self._context_tokens, table.knots, row) for row in table.step_s])
        goodput = emitted[:, None] / np.maximum(seconds.reshape(len(self._choices), -1), 1e-300)
        levels[1:] = goodput.argmax(axis=0)[1:]  # the smaller k on ties
        return levels
