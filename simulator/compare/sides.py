"""Sides of a comparison: a measured run, or one arm of a report, in the same columns by RL step number.

Knows what makes a step unfit to be compared. Does not know the other side.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from simulator.compare.steps import (
    FACTS,
    MEASURED_COLUMNS,
    TERMS,
    TINY,
    accept_lengths,
    count_tokens,
    decodes_plainly,
    exposed_generation,
)
from simulator.errors import ComparisonError
from traces.measured import MeasuredRun, MeasuredStep, Quality
from traces.report import ArmReport, RunReport

F64 = NDArray[np.float64]

UNFIT: Final = (
    Quality.VALIDATION,
    Quality.CHECKPOINT,
    Quality.COLLAPSED,
    Quality.RESTARTED,
    Quality.PARTIAL,
)
"""Qualities whose steps are left out, in the order in which they are counted."""

BASELINE: Final = "baseline"


@dataclass(frozen=True, slots=True)
class Side:
    """One run; every column has an entry per RL step, NaN where the run does not say."""

    name: str
    kind: Literal["measured", "predicted"]
    about: str
    rl_steps: NDArray[np.int64]
    """Ascending, each once."""
    columns: dict[str, F64]
    left_out: dict[int, str]
    """RL step -> why it cannot be used."""
    superseded: int = 0
    """Steps done again after a restart."""
    setup: dict[str, str] = field(default_factory=dict)
    """Model, GPU and so on, where known."""
    notes: tuple[str, ...] = ()
    is_taken_as_plain: bool = False
    """Nothing says whether the run drafts."""
    report: RunReport | None = None
    arm: str | None = None

    def excluded(self) -> dict[str, int]:
        """Return why steps were left out, and how many."""
        counts = dict(Counter(self.left_out.values()))
        if self.superseded:
            counts["done again after a restart"] = self.superseded
        return counts


def measured_side(run: MeasuredRun, name: str | None = None) -> Side:
    """Return a measured run as a side; of a step done again after a restart the last is taken.

    Raises:
        ComparisonError: No step has a step time.
    """
    name = name or run.name
    latest = {step.step: step for step in run.steps}
    left_out: dict[int, str] = {}
    fit: list[MeasuredStep] = []
    for number, step in sorted(latest.items()):
        reason = _unfit(step)
        if reason is None:
            fit.append(step)
        else:
            left_out[number] = reason
    if all(step.step_s is None for step in latest.values()):
        raise ComparisonError(
            f"{name}: none of {len(latest)} steps has a step time; import a log that has one (`bebop import` shows "
            "what was understood)"
        )
    columns = {column: _column(fit, column) for column in MEASURED_COLUMNS}
    count_tokens(columns)
    columns["exposed_s"], notes = exposed_generation(run, columns)
    plain = decodes_plainly(run)
    columns["accept_length"] = np.ones(len(fit)) if plain else accept_lengths(fit)
    if any(step.speculation is not None and step.speculation.is_request_weighted for step in fit):
        notes.append("its accept length is a mean over requests: short responses count as much as long ones")
    return Side(
        name=name,
        kind="measured",
        about=f"measured, {run.framework}",
        rl_steps=np.array([step.step for step in fit], dtype=np.int64),
        columns=columns,
        left_out=left_out,
        superseded=len(run.steps) - len(latest),
        setup=_setup(run),
        notes=tuple(f"{name}: {note}" for note in notes),
        is_taken_as_plain=plain and run.setup.num_draft_tokens is None,
    )


def predicted_side(report: RunReport, arm: str, name: str | None = None) -> Side:
    """Return one arm of a report, or its baseline, as a side; warm-up steps are left out.

    Step time, entropy and accept length are by RL step, everything else is the arm's mean over its steps.

    Raises:
        ComparisonError: No such arm.
    """
    name = name or report.scenario
    if arm != BASELINE and arm not in report.arms:
        known = ", ".join([BASELINE, *report.arms])
        raise ComparisonError(f"{name}: no arm {arm!r}; its arms are {known}: choose one with --arm")
    of = report.baseline if arm == BASELINE else report.arms[arm]
    points = [point for point in of.by_step if not point.is_warmup]
    means = _arm_means(report, of)
    columns = {column: np.full(len(points), value) for column, value in means.items()}
    columns["step_s"] = np.array([point.step_s for point in points])
    columns["entropy_nats"] = _or_nan([point.entropy_nats for point in points])
    plain = 1.0 if of.num_draft_tokens == 0 else None
    columns["accept_length"] = _or_nan([plain or point.accept_length for point in points])
    provenance = {row.name: row.value for row in report.provenance}
    keys = {"model": "model.name", "GPU": "cluster.gpu"}
    setup = {word: provenance[key] for word, key in keys.items() if key in provenance}
    setup["GPUs"] = str(report.num_gpus)
    return Side(
        name=f"{name} ({arm})",
        kind="predicted",
        about=f"predicted, {report.scenario}, {arm}, k = {of.num_draft_tokens}",
        rl_steps=np.array([point.rl_step for point in points], dtype=np.int64),
        columns=columns,
        left_out={point.rl_step: "warm-up" for point in of.by_step if point.is_warmup},
        setup=setup,
        report=report,
        arm=arm,
    )


def _arm_means(report: RunReport, arm: ArmReport) -> dict[str, float]:
    """Return the columns that a report has as means over its steps."""
    missing = float("nan")
    return dict.fromkeys((*MEASURED_COLUMNS, *TERMS, *FACTS), missing) | {
        "exposed_s": arm.exposed_generation_s,
        "generation_s": arm.rollout_s,
        "train_s": arm.train_s,
        "sync_s": arm.weight_sync_s,
        "response_tokens": arm.tokens_per_s_per_gpu * report.num_gpus * arm.step_s,
        "staleness_mean_versions": sum(bin_.versions * bin_.fraction for bin_ in arm.staleness),
    }


def _unfit(step: MeasuredStep) -> str | None:
    for quality in UNFIT:
        if quality in step.quality:
            return quality.value
    return None if step.step_s is not None and step.step_s > TINY else "no step time"


def _column(steps: Sequence[MeasuredStep], name: str) -> F64:
    """Return one column; times of a line that stands for several steps are per step."""
    values = _or_nan([getattr(step, name) for step in steps])
    if name.endswith("_s") or name in ("num_sequences", "total_tokens", "dropped_samples"):
        values = values / np.array([step.num_aggregated for step in steps], dtype=np.float64)
    return values


def _or_nan(values: Sequence[float | None]) -> F64:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _setup(run: MeasuredRun) -> dict[str, str]:
    said = {
        "framework": run.framework,
        "model": run.setup.model,
        "GPU": run.setup.gpu,
        "GPUs": run.setup.num_gpus,
        "longest response": run.setup.max_response_tokens,
        "temperature": run.setup.temperature,
    }
    return {word: str(value) for word, value in said.items() if value is not None}
