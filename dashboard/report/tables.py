"""Tables of a report as plain cells, for HTML and for other programs. Nothing is escaped here."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.words import LEAST_TRUSTED_FIRST, QUANTITY_NAMES, between, plain, seconds, signed_percent, times
from traces.report import Interval, MeasuredComparison, RunReport

Cell = tuple[str, str]
"""Text and kind: `number`, `text`, or the name of an origin."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A table."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def runs_cells(reports: Sequence[RunReport]) -> Cells:
    """Return a row per run: its best arm."""
    rows = []
    for report in reports:
        if not report.arms:
            continue
        arm = report.arms[report.best_arm]
        rows.append(
            (
                _text(report.scenario),
                _text(report.best_arm),
                _number(str(arm.num_draft_tokens)),
                _number(_speedup(arm.end_to_end_speedup)),
                _number(_speedup(arm.rollout_speedup)),
                _number(seconds(arm.step_s)),
                _number(str(report.num_gpus)),
                _number(plain(arm.gpu_hours)),
            )
        )
    titles = ("scenario", "best arm", "k", "end to end", "rollout", "RL step", "GPUs", "GPU hours")
    return Cells(titles, tuple(rows))


def arms_cells(report: RunReport) -> Cells:
    """Return a row per arm, the baseline first."""
    rows = []
    for name, arm in {"baseline": report.baseline, **report.arms}.items():
        is_baseline = arm is report.baseline
        rows.append(
            (
                _text(name),
                _number(str(arm.num_draft_tokens)),
                _number(f"{arm.accept_length:.2f}"),
                _number("1×" if is_baseline else _speedup(arm.end_to_end_speedup)),
                _number("1×" if is_baseline else _speedup(arm.rollout_speedup)),
                _number("" if is_baseline else times(arm.amdahl_bound)),
                _number(seconds(arm.step_s)),
                _number(plain(arm.tokens_per_s_per_gpu)),
                _number(plain(arm.gpu_hours)),
            )
        )
    titles = (
        "arm",
        "k",
        "accept length",
        "end to end",
        "rollout",
        "at most",
        "RL step",
        "tokens/s per GPU",
        "GPU hours",
    )
    return Cells(titles, tuple(rows))


def measured_cells(report: RunReport) -> Cells:
    """Return measured, predicted and error of every measured row."""
    rows = tuple(
        (
            _text(row.arm),
            _text(QUANTITY_NAMES[row.quantity]),
            _number(_measured(row)),
            _number(_predicted(row)),
            _number(signed_percent(row.relative_error)),
            _text(row.source),
        )
        for row in report.measured
    )
    return Cells(("arm", "quantity", "measured", "predicted", "error", "source"), rows)


def origin_cells(report: RunReport) -> Cells:
    """Return every input with its origin, the least trustworthy first."""
    inputs = sorted(report.provenance, key=lambda row: LEAST_TRUSTED_FIRST.index(row.origin))
    rows = tuple(
        ((row.origin.value, row.origin.value), _text(row.name), _text(row.value), _text(row.source)) for row in inputs
    )
    return Cells(("origin", "input", "value", "source"), rows)


def _text(text: str) -> Cell:
    return text, "text"


def _number(text: str) -> Cell:
    return text, "number"


def _speedup(interval: Interval) -> str:
    return f"{times(interval.mean)} ({between(interval)})"


def _measured(row: MeasuredComparison) -> str:
    if row.measured_speedup is not None:
        return times(row.measured_speedup)
    return "" if row.measured_arm is None else plain(row.measured_arm)


def _predicted(row: MeasuredComparison) -> str:
    return plain(row.predicted_arm) if row.predicted_speedup is None else _speedup(row.predicted_speedup)
