"""Scorecard: public rows, or a visitor's own, predicted and held against what was measured; a part of Measured."""

import json
import shlex
from collections.abc import Sequence

import streamlit as st

from dashboard import scorecard_tables, shell, state
from dashboard.figures.scorecard import scorecard
from dashboard.uploads import Upload, on_disk
from simulator.scorecard.cli import own_entries, shipped_entries
from simulator.scorecard.page import MISS
from simulator.scorecard.rows import COLUMNS, NEEDED_COLUMNS
from simulator.scorecard.score import Entry, Scored, as_json, scored

ROWS, OWN, SCORE, DETAILS = "scorecard_rows", "scorecard_own", "measured_score", "scorecard_details"
ENGINES, RUNS, MINE = "engines", "runs", "mine"
CHOICES = {ENGINES: "Engines (seconds)", RUNS: "Engines and RL runs (minutes)", MINE: "My own rows (CSV)"}
MAX_ROWS_SHOWN = 12
ALL_ROWS_HEIGHT = 600
"""A long table scrolls inside this many pixels."""

_SCORED = "_measured_scored"


def render() -> None:
    """Draw the scores of the rows that were chosen, once they were asked for."""
    st.markdown(
        "Every public measured row that states enough, predicted with no parameter fitted to it: engines' times per "
        "token and speedups, and whole RL runs. Or your own measurements, by the same rules."
    )
    kept = state.preset(ROWS, ENGINES)
    rows = st.segmented_control("Rows", list(CHOICES), default=kept, format_func=CHOICES.__getitem__, key=ROWS)
    rows = rows or ENGINES
    own = _own_rows() if rows == MINE else None
    if rows == MINE and own is None:
        return
    asked = rows if own is None else f"{rows}/{own.sha256}"
    if st.button("Score these rows", key=SCORE, icon=":material/rule:"):
        st.session_state[_SCORED] = asked
        state.resume(_work(asked))
    if st.session_state.get(_SCORED) != asked:
        st.caption("Takes some seconds." if rows != RUNS else "Simulates eight scenarios whole, two at a time.")
        return
    entries = _entries(asked, own)
    if entries is not None:
        _scores(entries, asked)
        st.code(_command(rows, own), language="shell")


def _command(rows: str, own: Upload | None) -> str:
    if own is not None:
        return f"bebop scorecard --rows {shlex.quote(own.file_name)} --json"
    return "bebop scorecard --json" if rows == RUNS else "bebop scorecard --no-runs --json"


def _own_rows() -> Upload | None:
    file = st.file_uploader("Measured rows (CSV, up to 8 MB)", type=["csv"], key=OWN)
    st.caption(
        f"Columns {', '.join(NEEDED_COLUMNS)} are needed, and what was measured: tpot_ms, tok_s_out or speedup_vs_AR. "
        "What a row does not state is assumed, and said; what cannot be assumed makes it unpredictable."
    )
    st.download_button(
        "An empty table with all columns",
        ",".join(COLUMNS) + "\n",
        file_name="rows.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
    )
    return None if file is None else Upload(file.name, file.getvalue())


def _work(asked: str) -> str:
    return f"scorecard/{asked}"


def _entries(asked: str, own: Upload | None) -> tuple[Entry, ...] | None:
    """Return the entries, None where they were cancelled, which the page then says."""
    known: tuple[Entry, ...] | None = shell.kept().get(_work(asked))
    if known is not None:
        return known
    if asked == RUNS:
        return _entries_with_runs(asked)
    kept = shell.kept()
    return shell.waited_for(
        "Predicting the rows", "scorecard", asked, lambda: kept.take(_work(asked), lambda: _quick_entries(own))
    )


def _quick_entries(own: Upload | None) -> tuple[Entry, ...]:
    if own is None:
        return tuple(shipped_entries(with_runs=False))
    with on_disk([own]) as (path,):
        return tuple(own_entries(path))


def _entries_with_runs(asked: str) -> tuple[Entry, ...] | None:
    if state.was_cancelled(_work(asked)):
        st.info("Scoring was cancelled; press **Score these rows** to start it again.", icon=":material/cancel:")
        return None
    with shell.working("Simulating the published runs", _work(asked)) as progress:
        found: tuple[Entry, ...] = shell.kept().take(
            _work(asked), lambda: tuple(shipped_entries(with_runs=True, progress=progress))
        )
    return found


def _scores(entries: Sequence[Entry], asked: str) -> None:
    with st.container(key="scorecard_classes"):
        st.table(scorecard_tables.classes_table(entries), border="horizontal")
    predicted = [one for one in entries if isinstance(one, Scored)]
    shell.chart("scorecard", scorecard(predicted, dark=shell.dark()))
    rows = sorted(scored(entries), key=lambda row: -abs(row.error))
    missed = [row for row in rows if abs(row.error) >= MISS]
    st.markdown(f"#### Furthest off ({len(missed)} of {len(rows)} rows by {MISS:.0%} or more)")
    st.table(scorecard_tables.rows_table(rows[:MAX_ROWS_SHOWN]), border="horizontal")
    if len(rows) > MAX_ROWS_SHOWN:
        with st.expander(f"All rows ({len(rows)})"), st.container(height=ALL_ROWS_HEIGHT, border=False):
            st.table(scorecard_tables.rows_table(rows), border="horizontal")
    _details(sorted(predicted, key=lambda row: -abs(row.error)), asked)
    missing = scorecard_tables.unpredictable_table(entries)
    with st.expander(f"Rows that cannot be predicted ({len(missing['row'])})"):
        if missing["row"]:
            st.table(missing, border="horizontal")
    st.download_button(
        "Download all rows (JSON)",
        json.dumps(as_json(entries)),
        file_name="scorecard.json",
        mime="application/json",
        on_click="ignore",
        icon=":material/download:",
    )


def _details(rows: Sequence[Scored], asked: str) -> None:
    """Let the reader choose a row, and say everything about it."""
    if not rows:
        return
    st.markdown("#### One row, and what was assumed of it")
    names = [f"{row.id}: {row.quantity}" for row in rows]
    chosen = st.selectbox("Row", range(len(rows)), format_func=names.__getitem__, key=state.keyed(DETAILS, asked))
    row = rows[chosen]
    with st.container(key="scorecard_row"):
        st.table(scorecard_tables.details_table(row), border="horizontal")
    if row.assumptions:
        with st.expander(f"Assumed: {len(row.assumptions)} facts that the row does not state", expanded=True):
            st.table(scorecard_tables.assumptions_table(row), border="horizontal")
    else:
        st.caption("Nothing was assumed of this row.")
