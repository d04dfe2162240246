"""Scorecard tables: public rows, or a visitor's own, beside their predictions -> columns of Markdown cells, escaped."""

from collections.abc import Sequence

from dashboard.tables import NOTHING, Table
from dashboard.words import escape_markdown, signed_percent, times, unbroken
from simulator.scorecard.page import MISS, TITLES
from simulator.scorecard.score import Entry, Scored, Unpredictable, summaries
from simulator.scorecard.why import why


def classes_table(entries: Sequence[Entry]) -> Table:
    """Return the figures of every class of the scorecard."""
    found = summaries(entries)
    return {
        "class": [f"**{escape_markdown(TITLES.get(kind, kind))}**" for kind in found],
        "rows": [str(figures["n"]) for figures in found.values()],
        **{
            title: [NOTHING if figures[name] is None else f"{figures[name]:.1%}" for figures in found.values()]
            for title, name in (
                ("median error", "median_error"),
                ("p90", "p90_error"),
                ("sign right", "sign_accuracy"),
                ("inside the interval", "inside_interval"),
            )
        },
    }


def rows_table(rows: Sequence[Scored]) -> Table:
    """Return rows of the scorecard as they are given."""
    return {
        "measured": [_value(row, row.measured) for row in rows],
        "predicted": [_value(row, row.predicted) for row in rows],
        "error": [unbroken(f"**{signed_percent(row.error)}**") for row in rows],
        "sign": [sign(row) for row in rows],
        "row": [f"**{escape_markdown(row.id)}**" for row in rows],
        "configuration": [escape_markdown(row.configuration) for row in rows],
    }


def details_table(row: Scored) -> Table:
    """Return everything that `bebop scorecard --json` says of a row but its assumptions."""
    inside = "holds it" if row.low <= row.measured <= row.high else "**misses it**"
    interval = f"{_value(row, row.low)} to {_value(row, row.high)}"
    facts = {
        "configuration": escape_markdown(row.configuration),
        "quantity": escape_markdown(row.quantity),
        "measured": _value(row, row.measured),
        "predicted": f"{_value(row, row.predicted)} ({interval}, which {inside})",
        "error": f"**{signed_percent(row.error)}**",
        "sign": sign(row),
        "decided the fit": NOTHING if row.fitted is None else escape_markdown(row.fitted),
        "why it is missed": escape_markdown(why(row.id)) if is_missed(row) else NOTHING,
        "source": escape_markdown(row.source) or NOTHING,
    }
    return {"fact": list(facts), "of this row": list(facts.values())}


def assumptions_table(row: Scored) -> Table:
    """Return what a row does not state, and what was taken instead."""
    return {
        "assumed": [escape_markdown(entry.name) for entry in row.assumptions],
        "value": [escape_markdown(entry.value) for entry in row.assumptions],
        "because": [escape_markdown(entry.source) for entry in row.assumptions],
    }


def unpredictable_table(entries: Sequence[Entry]) -> Table:
    """Return the rows that lack a fact."""
    rows = [entry for entry in entries if isinstance(entry, Unpredictable)]
    return {
        "row": [f"**{escape_markdown(row.id)}**" for row in rows],
        "configuration": [escape_markdown(row.configuration) for row in rows],
        "missing fact": [escape_markdown(row.missing) for row in rows],
        "source": [escape_markdown(row.source) or NOTHING for row in rows],
    }


def sign(row: Scored) -> str:
    """Return whether faster was predicted as faster; nothing for a time."""
    return NOTHING if not row.is_speedup else "right" if row.has_right_sign else "**wrong**"


def is_missed(row: Scored) -> bool:
    """Return whether docs/scorecard.md lists a row under misses."""
    return abs(row.error) >= MISS or (row.is_speedup and not row.has_right_sign)


def _value(row: Scored, value: float) -> str:
    return times(value) if row.is_speedup else unbroken(f"{value * 1e3:.3g} ms")
