"""Words: names and numbers as people read them, and the answer in one sentence. Does not know Streamlit or Plotly."""

import re

from traces.base import Origin
from traces.report import ArmReport, Factor, Interval, RunReport

FACTOR_NAMES = {
    "accept_length": "accept length",
    "draft_verify_cost": "draft and verify cost",
    "tail_batches": "shrinking tail batches",
    "prefill_and_sync": "prefill and sync",
    "trainer_bound": "trainer-bound waiting",
    "staleness_stalls": "staleness stalls",
}
QUANTITY_NAMES = {
    "step_s": "RL step time",
    "rollout_s": "rollout time",
    "trajectory_s": "trajectory time",
    "train_s": "training time",
    "exposed_generation_s": "exposed generation",
    "accept_length": "accept length",
}
ORIGIN_COLOURS = {
    Origin.MEASURED: "green",
    Origin.INTERPOLATED: "blue",
    Origin.MODELLED: "violet",
    Origin.EXTRAPOLATED: "red",
    Origin.STATED: "gray",
    Origin.ASSUMED: "orange",
}
"""Badge colour of each origin: warm where nobody measured anything."""

LEAST_TRUSTED_FIRST = (
    Origin.ASSUMED,
    Origin.EXTRAPOLATED,
    Origin.MODELLED,
    Origin.STATED,
    Origin.INTERPOLATED,
    Origin.MEASURED,
)

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^&@/=\"'])")


def answer(report: RunReport, arm: str) -> str:
    """Return the answer for one arm as one sentence of Markdown, user text escaped."""
    chosen = report.arms[arm]
    speedup = chosen.end_to_end_speedup
    start = f"With **{escape_markdown(arm)}** drafts at k = {chosen.num_draft_tokens} the run"
    if chosen.num_draft_tokens == 0:
        start = f"With **{escape_markdown(arm)}** (plain decoding) the run"
    rollout = f"rollout alone is {times(chosen.rollout_speedup.mean)} as fast"
    return f"{start} {_verdict(speedup)}; {rollout}{_biggest_loss(chosen)}."


def first_look(speedups: dict[str, float]) -> str:
    """Return what short runs say of the best arm before the answer is there, as one sentence of Markdown."""
    arm = max(speedups, key=lambda name: speedups[name])
    speedup = speedups[arm]
    said = f"finishes about **{times(speedup)} faster**" if speedup >= 1 else f"gets slower, about **{times(speedup)}**"
    return f"With **{escape_markdown(arm)}** drafts the run {said}."


def first_look_note(speedups: dict[str, float]) -> str:
    """Return what that sentence rests on, and what it says of every arm."""
    said = ", ".join(f"{escape_markdown(arm)} {times(speedup)}" for arm, speedup in speedups.items())
    return f"First look: a few RL steps of each arm, inputs as stated, no interval yet ({said})."


def biggest_loss(arm: ArmReport) -> Factor | None:
    """Return the waterfall's smallest factor below 1, None where nothing is lost."""
    losses = [factor for factor in arm.waterfall if factor.factor < 1]
    return min(losses, key=lambda factor: factor.factor, default=None)


def factor_name(name: str) -> str:
    """Return a waterfall factor's name in words."""
    return FACTOR_NAMES.get(name, name.replace("_", " "))


def times(value: float) -> str:
    """Return a ratio as people read speedups, e.g. `1.52×`."""
    return f"{value:.2f}×" if value < 100 else f"{value:,.0f}×"


def between(interval: Interval) -> str:
    """Return the ends of an interval, e.g. `1.41 to 1.63`."""
    return f"{interval.low:.2f} to {interval.high:.2f}"


def seconds(value: float) -> str:
    """Return seconds with three to four meaningful digits, e.g. `2,826 s`."""
    return f"{plain(value)} s"


def plain(value: float) -> str:
    """Return a number with as many decimals as its size deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(fraction: float) -> str:
    """Return a fraction as percent, e.g. `34 %`; a share that is small but not zero never prints as 0."""
    if 0 < abs(fraction) < 0.005:
        return "<1 %"
    return f"{fraction * 100:.0f} %"


def signed_percent(fraction: float) -> str:
    """Return a relative error with its sign, e.g. `−9.5 %`."""
    return f"{fraction * 100:+.1f} %".replace("-", "−")


def unbroken(text: str) -> str:
    """Return a number that keeps its unit on its own line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def escape_markdown(text: str) -> str:
    """Return text that Streamlit's Markdown shows letter by letter: no image, HTML, colour, formula or table.

    No hidden link either; a bare http address may still turn into a link to itself.
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _verdict(speedup: Interval) -> str:
    if speedup.low <= 1 <= speedup.high:
        return f"finishes about as fast as without: **{times(speedup.mean)}** ({between(speedup)})"
    if speedup.mean < 1:
        return f"gets slower, **{times(speedup.mean)}** the speed ({between(speedup)})"
    return f"finishes **{times(speedup.mean)} faster** ({between(speedup)})"


def _biggest_loss(arm: ArmReport) -> str:
    loss = biggest_loss(arm)
    if loss is None:
        return ""
    return f"; the largest loss is **{escape_markdown(factor_name(loss.name))}** (×{loss.factor:.2f})"
