"""A measured run as arrays: what each step had to do, how long it took, and which steps say nothing.

Does not know any law. Features come from lengths and counts alone; times only ever stand in `seconds`.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.errors import ForecastError
from simulator.forecast import regimes
from simulator.forecast.counts import trained_sequences
from simulator.forecast.tail import Tail, tail
from traces.measured import MeasuredRun, MeasuredStep, Quality

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

TERMS: Final = ("generation", "train", "log_prob", "reference", "critic", "sync", "step")
"""Terms of a step that are forecast, under their names in a report."""
_FIELDS: Final = {
    "generation": "generation_s",
    "wait": "generation_wait_s",
    "train": "train_s",
    "log_prob": "log_prob_s",
    "reference": "reference_s",
    "critic": "critic_s",
    "sync": "sync_s",
    "step": "step_s",
}
_UNSTATED_SEQUENCES: Final = 512.0
"""Responses per step where nothing tells: it only scales what the fit finds anyway. Assumed."""


@dataclass(frozen=True, slots=True)
class LoggedSteps:
    """The usable steps of a run, in order; NaN where the log is silent."""

    run: MeasuredRun
    steps: tuple[MeasuredStep, ...]
    is_warmup: Bools
    """[steps]: first one after a start or restart, when kernels are compiled and caches are cold."""
    seconds: dict[str, F64]
    """Term -> [steps], per RL step; "wait" is exposed generation."""
    tails: tuple[Tail, ...]
    num_sequences: F64
    """[steps]: responses generated."""
    generation: F64
    """[steps, 3]: longest, tokens generated, context tokens read; the sums per replica."""
    all_tokens: F64
    """[steps, 1]: tokens of all responses and prompts."""
    trained_tokens: F64
    """[steps, 1]: of those that were trained on; NaN where unknown."""
    mean_tokens: F64
    """[steps]: mean response length as logged."""
    is_asynchronous: bool
    left_out: tuple[str, ...]
    """One sentence per reason that steps were left out for."""
    collapsed_from: int | None
    """Number of the first collapsed step."""
    num_collapsed: int
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.steps)

    def measured(self, term: str) -> F64:
        """Return the seconds of a term; generation is the wait for it where that is all that is logged."""
        seconds = self.seconds[term]
        return self.seconds["wait"] if term == "generation" and np.isnan(seconds).all() else seconds

    @property
    def entropy(self) -> F64:
        """[steps]: policy entropy, nats."""
        return _values(self.steps, "entropy_nats")


def logged_steps(run: MeasuredRun) -> LoggedSteps:
    """Return a run's usable steps as arrays.

    Raises:
        ForecastError: No step has both a time and a mean response length.
    """
    left_out: list[str] = []
    steps = list(run.steps)
    fallen = regimes.collapsed(_values(steps, "response_tokens_mean"))
    fallen |= np.array([Quality.COLLAPSED in step.quality for step in steps])
    collapsed_from = steps[int(np.argmax(fallen))].step if fallen.any() else None
    if collapsed_from is not None:
        left_out.append(
            f"{int(fallen.sum())} of {len(steps)} steps: the run has collapsed from step {collapsed_from} on, its "
            f"responses are a mean of {np.nanmedian(_values(steps, 'response_tokens_mean')[fallen]):.3g} tokens long"
        )
    steps = [step for step, gone in zip(steps, fallen, strict=True) if not gone]
    silent = [step for step in steps if not _is_usable(step)]
    if silent:
        left_out.append(f"{len(silent)} steps: no times, or no mean response length (steps {_listed(silent)})")
    steps = [step for step in steps if _is_usable(step)]
    if not steps:
        raise ForecastError(
            f"{run.name}: none of its {len(run.steps)} steps has both seconds and a mean response length that is not "
            "collapsed; give a log that holds both"
        )
    sequences, notes = _sequences(run, steps)
    mean = _values(steps, "response_tokens_mean")
    prompt = np.nan_to_num(_values(steps, "prompt_tokens_mean"), nan=0.0)
    clipped = np.nan_to_num(_values(steps, "clipped_fraction"), nan=0.0)
    # Statistics may be of the responses trained on alone; any longer response that is logged was generated too.
    longest = np.fmax(_values(steps, "response_tokens_max"), _values(steps, "slowest_tokens"))
    tails = tuple(
        tail(m, None if np.isnan(x) else x, c, n) for m, x, c, n in zip(mean, longest, clipped, sequences, strict=True)
    )
    replicas = num_replicas(run)
    square = np.array([one.moment(2) for one in tails])
    generated, read = sequences * mean / replicas, sequences * (square / 2 + prompt * mean) / replicas
    total = _positive(steps, "total_tokens") / _aggregated(steps)
    all_tokens = np.where(np.isnan(total), sequences * (mean + prompt), total)
    return LoggedSteps(
        run=run,
        steps=tuple(steps),
        is_warmup=np.array([i == 0 or steps[i].segment != steps[i - 1].segment for i in range(len(steps))]),
        seconds=_seconds(steps),
        tails=tails,
        num_sequences=sequences,
        generation=np.stack([np.array([one.maximum for one in tails]), generated, read], axis=1),
        all_tokens=all_tokens[:, None],
        trained_tokens=(trained_sequences(steps) * (mean + prompt))[:, None],
        mean_tokens=mean,
        is_asynchronous=bool(run.setup.is_asynchronous),
        left_out=tuple(left_out),
        collapsed_from=collapsed_from,
        num_collapsed=int(fallen.sum()),
        notes=tuple(notes),
    )


def num_replicas(run: MeasuredRun) -> int:
    """Return the rollout engines of a run as far as its setup tells; 1 where it does not."""
    gpus = run.setup.num_rollout_gpus or run.setup.num_gpus
    return max(gpus // run.setup.rollout_tp, 1) if gpus and run.setup.rollout_tp else 1


def _is_usable(step: MeasuredStep) -> bool:
    has_time = any(getattr(step, name) for name in ("step_s", "generation_s", "generation_wait_s"))
    return bool(has_time and step.response_tokens_mean)


def _sequences(run: MeasuredRun, steps: list[MeasuredStep]) -> tuple[F64, list[str]]:
    """Return how many responses each step generated, and what had to be assumed for it."""
    per_response = _values(steps, "response_tokens_mean") + _values(steps, "prompt_tokens_mean")
    # A filtered mean stands for more responses than were generated; what counts is that tokens come out right.
    sequences = _positive(steps, "total_tokens") / per_response
    sequences = np.where(np.isnan(sequences), _positive(steps, "num_sequences"), sequences) / _aggregated(steps)
    setup, notes = run.setup, []
    if np.isnan(sequences).any():
        stated = (setup.groups_per_step or 0) * (setup.group_size or 1)
        known = float(np.nanmedian(sequences)) if not np.isnan(sequences).all() else float(stated)
        if not known:
            known = _UNSTATED_SEQUENCES
            notes.append(f"neither token totals nor the number of responses are logged: {known:.0f} a step are assumed")
        sequences = np.where(np.isnan(sequences), known, sequences)
    return np.maximum(sequences, 1.0), notes


def _seconds(steps: list[MeasuredStep]) -> dict[str, F64]:
    """Return the times of every term; a validation or checkpoint inside a step is taken out, or the step with it."""
    seconds = {term: _values(steps, name) / _aggregated(steps) for term, name in _FIELDS.items()}
    for quality, name in ((Quality.VALIDATION, "validation_s"), (Quality.CHECKPOINT, "checkpoint_s")):
        flagged = np.array([quality in step.quality for step in steps])
        extra = _values(steps, name) / _aggregated(steps)
        seconds["step"] = np.where(flagged, seconds["step"] - extra, seconds["step"])
    with np.errstate(invalid="ignore"):
        return {term: np.where(values > 0, values, np.nan) for term, values in seconds.items()}


def _aggregated(steps: list[MeasuredStep]) -> F64:
    return np.array([step.num_aggregated for step in steps], float)


def _values(steps: list[MeasuredStep] | tuple[MeasuredStep, ...], name: str) -> F64:
    return np.array([np.nan if getattr(step, name) is None else getattr(step, name) for step in steps], float)


def _positive(steps: list[MeasuredStep], name: str) -> F64:
    """Return a count whose 0 says that nobody counted."""
    values = _values(steps, name)
    return np.where(values > 0, values, np.nan)


def _listed(steps: list[MeasuredStep]) -> str:
    numbers = [str(step.step) for step in steps]
    return ", ".join(numbers) if len(numbers) <= 8 else ", ".join(numbers[:7]) + f" and {len(numbers) - 7} more"
