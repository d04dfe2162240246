"""docs/measured_vs_predicted.md: the tables of a testbed's comparison, put between the markers of a page.

The words around them are written by hand. Does not measure, predict or draw.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from dashboard.errors import PageError
from simulator.scorecard.score import summary
from simulator.testbed_rows import QUANTITIES, Both, Row
from traces.store import write_atomically

TARGET_WORST, TARGET_MEDIAN, TARGET_ACCEPT = 0.10, 0.05, 0.03
"""Errors that the speedup of every configuration, their median, and the accept length should stay under."""
TARGET_ROWS: Final = {"torch": 6, "llamacpp": 4}
"""Configurations that there should be at least, by engine."""

_SHOWN: Final = ("step_s", "rollout_s", "tokens_per_s", "accept_length", "staleness")
_TERMS: Final = ("step_s", "exposed_s", "train_s", "sync_s", "rollout_s")


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Replace what stands between the markers of each engine that has rows; the rest of the page stays.

    Raises:
        PageError: The page has no markers for an engine.
    """
    text = path.read_text(encoding="utf-8")
    for engine in dict.fromkeys(row.config.engine for row in rows):
        begin, end = markers(engine)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise PageError(f"{path}: no {begin} and {end} around the tables of {engine}; put them where these belong")
        text = f"{before}{begin}\n{tables([row for row in rows if row.config.engine == engine])}{end}{after}"
    write_atomically(path, text.encode())


def markers(engine: str) -> tuple[str, str]:
    """Return the lines between which the tables of an engine stand."""
    return f"<!-- testbed {engine} -->", f"<!-- /testbed {engine} -->"


def tables(rows: Sequence[Row]) -> str:
    """Return the tables of one engine as Markdown: speedups, quantities, terms of the step, and what they amount to."""
    lines = [*_summary(rows), "", *_speedups(rows), "", *_quantities(rows), "", *_terms(rows), ""]
    return "\n".join(lines)


def _summary(rows: Sequence[Row]) -> Iterable[str]:
    figures = summary([row.speedup for row in rows])
    worst = max(rows, key=lambda row: abs(row.speedup.error))
    accept = [row.arm["accept_length"] for row in rows if "accept_length" in row.arm]
    noises = [row.noise for row in rows if row.noise is not None]
    yield "| | found | target |"
    yield "|---|---|---|"
    yield f"| configurations | {len(rows)} | {TARGET_ROWS[rows[0].config.engine]} |"
    yield f"| median error of the speedup | {figures['median_error']:.1%} | {TARGET_MEDIAN:.0%} |"
    yield f"| worst | {abs(worst.speedup.error):.1%} ({worst.config.name}) | {TARGET_WORST:.0%} |"
    yield f"| faster or slower, said right | {figures['sign_accuracy']:.0%} | 100% |"
    yield f"| inside the predicted interval | {figures['inside_interval']:.0%} | 90% |"
    if accept:
        found = max(abs(one.error) for one in accept)
        yield f"| worst error of the accept length | {found:.1%} | {TARGET_ACCEPT:.0%} |"
    if noises:
        single = [abs(both.error) for row in rows for both in row.sittings]
        yield f"| error in a single sitting, median and worst | {median(single):.1%}, {max(single):.1%} | |"
        yield (
            "| noise: half the range of the sittings' measured speedups, median and worst | "
            f"{median(noises):.1%}, {max(noises):.1%} | |"
        )


def _speedups(rows: Sequence[Row]) -> Iterable[str]:
    yield "| configuration | | measured | predicted | interval | error | each sitting, measured / predicted |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        speedup = row.speedup
        each = ", ".join(f"{both.measured:.2f} / {both.predicted:.2f}" for both in row.sittings)
        wrong = "" if speedup.has_right_sign else " **wrong sign**"
        yield (
            f"| {row.config.name} | {speedup.configuration} | {speedup.measured:.2f}x | {speedup.predicted:.2f}x | "
            f"{speedup.low:.2f} - {speedup.high:.2f} | {speedup.error:+.1%}{wrong} | {each} |"
        )


def _quantities(rows: Sequence[Row]) -> Iterable[str]:
    yield "With drafts, measured / predicted:"
    yield ""
    yield f"| configuration | {' | '.join(QUANTITIES[name] for name in _SHOWN)} |"
    yield f"|---{'|---' * len(_SHOWN)}|"
    for row in rows:
        yield f"| {row.config.name} | {' | '.join(_cell(row.arm.get(name)) for name in _SHOWN)} |"


def _terms(rows: Sequence[Row]) -> Iterable[str]:
    yield "What the RL step is made of, measured / predicted, without drafts and with them:"
    yield ""
    yield f"| configuration | drafts | {' | '.join(QUANTITIES[name] for name in _TERMS)} |"
    yield f"|---|---{'|---' * len(_TERMS)}|"
    for row in rows:
        for drafts, numbers in (("no", row.plain), ("yes", row.arm)):
            yield f"| {row.config.name} | {drafts} | {' | '.join(_cell(numbers.get(name)) for name in _TERMS)} |"


def _cell(both: Both | None) -> str:
    if both is None:
        return ""
    return f"{_number(both.measured)} / {_number(both.predicted)}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
