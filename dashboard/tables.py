"""Tables: RunReport -> columns of Markdown cells, every text of a user escaped. Does not know Streamlit."""

from collections import Counter
from collections.abc import Sequence

from dashboard.words import (
    LEAST_TRUSTED_FIRST,
    ORIGIN_COLOURS,
    QUANTITY_NAMES,
    between,
    escape_markdown,
    factor_name,
    plain,
    seconds,
    signed_percent,
    times,
)
from simulator.sensitivity import Sensitivity
from traces.base import Origin
from traces.report import ArmReport, Interval, MeasuredComparison, RunReport

UNFOUNDED = (Origin.ASSUMED, Origin.EXTRAPOLATED)

Table = dict[str, list[str]]
"""Column title -> cells, top to bottom."""

NOTHING = "–"
"""A cell that has nothing to say: an en dash, because one hyphen would become the bullet of a list."""


def arms_table(report: RunReport) -> Table:
    """Return one row per arm, the baseline first."""
    arms = {"baseline": report.baseline, **report.arms}
    return {
        "arm": [f"**{escape_markdown(name)}**" for name in arms],
        "k": [str(arm.num_draft_tokens) for arm in arms.values()],
        "accept length": [f"{arm.accept_length:.2f}" for arm in arms.values()],
        "end to end": [_speedup(arm.end_to_end_speedup, arm is report.baseline) for arm in arms.values()],
        "rollout": [_speedup(arm.rollout_speedup, arm is report.baseline) for arm in arms.values()],
        "at most": [_bound(arm, arm is report.baseline) for arm in arms.values()],
        "RL step": [seconds(arm.step_s) for arm in arms.values()],
        "tokens/s per GPU": [plain(arm.tokens_per_s_per_gpu) for arm in arms.values()],
        "GPU-hours": [plain(arm.gpu_hours) for arm in arms.values()],
        **{title: [arm.lost.cells().get(title, NOTHING) for arm in arms.values()] for title in _losses(arms)},
    }


def factors_table(arm: ArmReport) -> Table:
    """Return the waterfall of an arm in words."""
    return {
        "factor": [f"**{escape_markdown(factor_name(factor.name))}**" for factor in arm.waterfall],
        "×": [f"{factor.factor:.3f}" for factor in arm.waterfall],
        "speedup after": [times(factor.speedup_after) for factor in arm.waterfall],
        "meaning": [escape_markdown(factor.meaning) for factor in arm.waterfall],
    }


def measured_table(report: RunReport) -> Table:
    """Return measured, predicted and error of every measured row."""
    rows = report.measured
    return {
        "arm": [f"**{escape_markdown(row.arm)}**" for row in rows],
        "quantity": [QUANTITY_NAMES[row.quantity] for row in rows],
        "measured": [_measured(row) for row in rows],
        "predicted": [_predicted(row) for row in rows],
        "error": [f"**{signed_percent(row.relative_error)}**" for row in rows],
        "source": [escape_markdown(row.source) for row in rows],
    }


def origins_table(report: RunReport) -> Table:
    """Return every input with its origin as a coloured word, the least trustworthy first."""
    rows = sorted(report.provenance, key=lambda row: LEAST_TRUSTED_FIRST.index(row.origin))
    return {
        "origin": [badge(row.origin, row.origin.value) for row in rows],
        "input": [escape_markdown(row.name) for row in rows],
        "value": [escape_markdown(row.value) for row in rows],
        "source": [escape_markdown(row.source) for row in rows],
    }


def origins_summary(report: RunReport) -> str:
    """Return how many inputs have which origin, as badges, and in words how many nobody measured."""
    counts = Counter(row.origin for row in report.provenance)
    parts = [badge(origin, f"{counts[origin]} {origin.value}") for origin in LEAST_TRUSTED_FIRST if counts[origin]]
    if counts[Origin.ASSUMED]:
        verb = "is" if counts[Origin.ASSUMED] == 1 else "are"
        parts.append(
            f"{counts[Origin.ASSUMED]} of {counts.total()} inputs {verb} chosen by a person, measured by nobody."
        )
    return " ".join(parts)


def factor_ranges(found: Sensitivity) -> Table:
    """Return every input that was moved, with its range and what the speedup did."""
    rows = sorted(found.factors, key=lambda factor: -factor.swing)
    return {
        "input": [f"**{escape_markdown(row.meaning)}**" for row in rows],
        "from": [plain(row.low) for row in rows],
        "to": [plain(row.high) for row in rows],
        "speedup": [f"{times(row.speedup_at_low)} to {times(row.speedup_at_high)}" for row in rows],
        "source": [escape_markdown(row.source) for row in rows],
    }


def bullets(texts: Sequence[str]) -> str:
    """Return texts as a list; one text alone as it is."""
    escaped = [escape_markdown(text) for text in texts]
    return escaped[0] if len(escaped) == 1 else "\n".join(f"- {text}" for text in escaped)


def badge(origin: Origin, text: str) -> str:
    """Return a coloured word in Streamlit's Markdown, bold where the number has no measurement under it."""
    return f":{ORIGIN_COLOURS[origin]}-badge[{f'**{text}**' if origin in UNFOUNDED else text}]"


def _losses(arms: dict[str, ArmReport]) -> list[str]:
    """Return the columns of lost work in which any arm has something to show."""
    return list(dict.fromkeys(title for arm in arms.values() for title in arm.lost.cells()))


def _speedup(interval: Interval, is_baseline: bool) -> str:
    return "1×" if is_baseline else f"**{times(interval.mean)}** ({between(interval)})"


def _bound(arm: ArmReport, is_baseline: bool) -> str:
    return "" if is_baseline else times(arm.amdahl_bound)


def _measured(row: MeasuredComparison) -> str:
    absolute = _both(row.measured_baseline, row.measured_arm, row)
    return f"{times(row.measured_speedup)} ({absolute})" if row.measured_speedup is not None else absolute


def _predicted(row: MeasuredComparison) -> str:
    absolute = _both(row.predicted_baseline, row.predicted_arm, row)
    speedup = row.predicted_speedup
    return f"{times(speedup.mean)} ({between(speedup)}; {absolute})" if speedup is not None else absolute


def _both(baseline: float | None, arm: float | None, row: MeasuredComparison) -> str:
    """Baseline's and arm's own values, where stated; plain decoding has no accept length worth printing."""
    unit = "" if row.quantity == "accept_length" else " s"
    if arm is None:
        return "no times stated"
    if baseline is None or row.quantity == "accept_length":
        return f"{plain(arm)}{unit}"
    return f"{plain(baseline)} to {plain(arm)}{unit}"
