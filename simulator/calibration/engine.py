"""What the latency source leaves open of an engine: its efficiency, and the host's gap between steps.

Both are fitted to logged generation seconds through replays of the logged steps, so that batches thin out, queue and
prefill as the simulator has it. Generation that overlaps with training is fitted elsewhere, and only as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.replay import delayed, generation_s, replay_parts, slowed
from simulator.forecast.fit import Fit, Prior, fit
from simulator.forecast.laws import GENERATION_NOISE
from simulator.forecast.steps import LoggedSteps
from simulator.inputs import Inputs

F64 = NDArray[np.float64]

EFFICIENCY: Final = 0.8
EFFICIENCY_SD: Final = 0.5
"""Latency traces miss measured serving by 6 % at the median, on the fast side (README); engines inside a trainer, of
old versions or without CUDA graphs fall further behind. Assumed."""
HOST_GAP_S: Final = 1.5e-3
HOST_GAP_SD: Final = 1.0
"""Between two steps, beyond what the latency source has; vLLM's and SGLang's schedulers take 1 to 5 ms. Assumed."""
CONSTANT_SHARE: Final = 0.01
CONSTANT_SD: Final = 1.5
"""Waking the engine and collecting responses, as a share of the phase; assumed within a factor of e^1.5."""
REPLAY_SD: Final = 0.02
"""Error of a replayed phase, whose lengths are drawn again between the logged mean and the longest: replays of the
simulator's own logs miss the efficiency they were written with by 1 to 3 % (tests/simulator/calibration)."""
_SLOWNESS: Final = np.exp(np.linspace(np.log(1 / 4), np.log(8), 9))
_PROBE_S: Final = 1e-3
_PINNED: Final = 1e-6
MAX_REPLAYS: Final = 24


@dataclass(frozen=True, slots=True)
class EngineLaw:
    """Parameters: log of slowness (1 / efficiency), host_gap_s and constant_s."""

    names: ClassVar[tuple[str, ...]] = ("slowness", "host_gap_s", "constant_s")

    def __call__(self, parameters: F64, features: F64) -> F64:
        """Return seconds; features are log seconds at each of `_SLOWNESS`, then the number of engine steps."""
        slowness, gap, constant = np.exp(parameters)
        seconds: F64 = np.exp(_along(parameters[0], features[:, :-1])) + slowness * gap * features[:, -1] + constant
        return seconds


@dataclass(frozen=True, slots=True)
class EngineFit:
    """A fitted engine."""

    fit: Fit
    indices: tuple[int, ...]
    """Steps that were replayed."""
    features: F64
    is_gap_known: bool
    """Whether the log tells the host gap; otherwise it is the scenario's own."""


def fit_engine(inputs: Inputs, logged: LoggedSteps, indices: Sequence[int], arm: str, gap_s: float) -> EngineFit:
    """Return efficiency and host gap that explain the logged generation seconds of some steps.

    Args:
        inputs: The scenario with efficiency 1 and no overhead per layer.
        logged: The run.
        indices: Steps with generation seconds.
        arm: How the run decoded.
        gap_s: The scenario's own gap, kept where the log does not tell it.
    """
    chosen = _spread(indices)
    features = np.array([_features(inputs, logged, index, arm) for index in chosen])
    seconds = logged.seconds["generation"][list(chosen)]
    constant_s = CONSTANT_SHARE * float(np.median(seconds))
    first = fit(EngineLaw(), _prior(None, constant_s), features, seconds)
    is_gap_known = bool(first.learned()[1] > LEARNED)
    final = first if is_gap_known else fit(EngineLaw(), _prior(gap_s, constant_s), features, seconds)
    return EngineFit(final, chosen, features, is_gap_known)


LEARNED: Final = 0.2
"""Share of a prior's width that a log has to take away for its parameter to count as told."""


def _prior(known_gap_s: float | None, constant_s: float) -> Prior:
    gap, gap_sd = (HOST_GAP_S, HOST_GAP_SD) if known_gap_s is None else (max(known_gap_s, 1e-9), _PINNED)
    centre = np.log([1 / EFFICIENCY, gap, constant_s])
    return Prior(centre, np.array([EFFICIENCY_SD, gap_sd, CONSTANT_SD]), GENERATION_NOISE)


def _features(inputs: Inputs, logged: LoggedSteps, index: int, arm: str) -> F64:
    parts = replay_parts(inputs, logged, index, arm)
    seconds = [generation_s(parts, slowed(parts.table, slowness)) for slowness in _SLOWNESS]
    plain = generation_s(parts)
    steps = (generation_s(parts, delayed(parts.table, _PROBE_S)) - plain) / _PROBE_S
    return np.array([*np.log(seconds), max(steps, 1.0)])


def _along(log_slowness: float, log_seconds: F64) -> F64:
    """Return log seconds between the slownesses that were replayed, and proportional to slowness beyond them."""
    known = np.log(_SLOWNESS)
    inside = float(np.clip(log_slowness, known[0], known[-1]))
    place = int(np.clip(np.searchsorted(known, inside) - 1, 0, len(known) - 2))
    share = (inside - known[place]) / (known[place + 1] - known[place])
    along: F64 = log_seconds[:, place] * (1 - share) + log_seconds[:, place + 1] * share + (log_slowness - inside)
    return along


def _spread(indices: Sequence[int]) -> tuple[int, ...]:
    """Return at most as many steps as are replayed, evenly spread."""
    if len(indices) <= MAX_REPLAYS:
        return tuple(int(i) for i in indices)
    return tuple(int(indices[round(i)]) for i in np.linspace(0, len(indices) - 1, MAX_REPLAYS))
