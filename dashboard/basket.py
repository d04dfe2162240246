"""Basket: up to six runs of one visitor, compared side by side and downloaded as one report."""

import streamlit as st

from dashboard import state, words
from dashboard.report.tables import runs_cells
from dashboard.tables import Table
from traces.report import RunReport

MAX_RUNS = 6
DOWNLOAD = "download_basket"
OPEN = "open_basket"
EMPTY = "empty_basket"


def why_not_add(report: RunReport) -> str | None:
    """Return why a run cannot go into the basket, None if it can."""
    runs = state.basket()
    if any(run == report for run in runs):
        return "This run is in the basket."
    if len(runs) >= MAX_RUNS:
        return f"The basket holds {MAX_RUNS} runs; remove one first."
    return None


def add(report: RunReport) -> None:
    """Put a run into the basket if it has room and does not hold it yet."""
    if why_not_add(report) is None:
        state.basket().append(report)


def remove(index: int) -> None:
    """Take one run out."""
    del state.basket()[index]


def render() -> None:
    """Draw the basket's button, in the sidebar."""
    runs = state.basket()
    label = f"Basket: {len(runs)} of {MAX_RUNS} runs"
    if st.button(label, key=OPEN, icon=":material/shopping_basket:", width="stretch", disabled=not runs):
        _compare()


def comparison(runs: list[RunReport]) -> Table:
    """Return one row per run: its best arm."""
    cells = runs_cells(runs)
    columns = zip(*cells.rows, strict=True) if cells.rows else ((),) * len(cells.titles)
    return {
        title: [words.escape_markdown(text) for text, _ in column]
        for title, column in zip(cells.titles, columns, strict=True)
    }


@st.dialog("Basket", width="large")
def _compare() -> None:
    runs = state.basket()
    if not runs:
        st.info("The basket is empty; **Add to basket** on Predict fills it.")
        return
    st.table(comparison(runs), border="horizontal")
    st.caption("Speedups of each run's best arm over plain decoding of the same scenario, 90 % ranges.")
    with st.container(horizontal=True):
        for index, run in enumerate(runs):
            name = f"Remove {index + 1}: {words.escape_markdown(run.scenario)}"
            st.button(name, key=f"remove_run/{index}", on_click=remove, args=(index,))
    st.download_button(
        "Download one report of all (HTML)",
        lambda: html(runs),
        file_name="bebop-runs.html",
        mime="text/html",
        key=DOWNLOAD,
        on_click="ignore",
        icon=":material/download:",
    )


def html(runs: list[RunReport]) -> bytes:
    """Return the runs as one offline page."""
    from dashboard.report.page import Section, page  # Plotly's script is read only when somebody downloads

    return page([Section(run) for run in runs]).encode()
