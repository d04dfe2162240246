"""Shell: what every view needs around its own figures: charts, progress, mistakes, theme. Knows no view."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import data, jobs, state, words
from dashboard.kept import Kept

CHART = {"displayModeBar": False}
PULSE_S = 0.3
"""The page is told at least this often how work goes on: only then does the work notice that it was cancelled."""

T = TypeVar("T")


@st.cache_resource
def reports() -> data.ReportCache:
    """Return the reports of this server, by scenario."""
    return data.ReportCache()


def dark() -> bool:
    """Return whether the visitor's theme is dark."""
    return st.context.theme.type == "dark"


def chart(key: str, figure: object) -> None:
    """Draw a figure, found in tests by `.st-key-<key>`."""
    st.plotly_chart(figure, theme=None, key=key, config=CHART)


@st.cache_resource
def kept() -> Kept[Any]:
    """Return the latest results of long work on this server, by `data.key_of` what they were made from."""
    return Kept(most=400)


@contextmanager
def mistakes() -> Iterator[None]:
    """Show a mistake in the input as the command line's one line; let anything else through.

    What follows the first mistake inside the block is not drawn.
    """
    try:
        yield
    except Exception as failure:
        message = data.mistake(failure)
        if message is None:
            raise
        complain(message)


def complain(message: str) -> None:
    """Show one line of complaint, its text escaped."""
    st.error(words.escape_markdown(message), icon=":material/error:")


@contextmanager
def working(label: str, key: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar and a button that cancels; yield what takes the share that is done, 0..1.

    Cancelling, or any other control, starts the page anew: Streamlit ends the work at the next call. So the work must
    call often, and must leave nothing half done. `state.was_cancelled(key)` then says so, until `state.resume(key)`.
    """
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, text=label)
        st.button("Cancel", key=f"cancel/{key}", icon=":material/close:", on_click=state.cancel, args=(key,))
    drawn, sent_s = 0.0, time.monotonic()

    def progress(fraction: float) -> None:
        # Each call is a message to the browser: one per percent is enough.
        nonlocal drawn, sent_s
        now_s = time.monotonic()
        if fraction - drawn >= 0.01 or now_s - sent_s >= PULSE_S:
            drawn, sent_s = max(drawn, min(fraction, 1.0)), now_s
            bar.progress(drawn, text=f"{label}: {words.percent(drawn)}")

    try:
        yield progress
    finally:
        place.empty()


def waited_for(label: str, work: str, asked: str, function: Callable[[], T]) -> T | None:
    """Return what a function comes to, None where the visitor cancelled it, which the page then says.

    Meanwhile the page shows for how long it has worked, and a button that cancels. The work goes on while other
    controls are used; `asked` is what it depends on, and another value begins it anew. What it raises is raised here.
    """
    name = state.keyed(work, asked)
    if state.was_cancelled(name):
        st.info(f"{label}: cancelled.", icon=":material/cancel:")
        st.button("Start again", key=f"again/{work}", on_click=state.resume, args=(name,))
        return None
    future = state.job(work, name, lambda: jobs.start(function))
    begin_s, clock, place = time.monotonic(), None, st.empty()
    try:
        while not jobs.is_done(future, PULSE_S):
            clock = clock or _waiting(place, label, work, name)
            clock.caption(f"{time.monotonic() - begin_s:.0f} s")
    finally:
        if clock is not None:
            place.empty()
    found: T = future.result()
    return found


def _waiting(place: DeltaGenerator, label: str, work: str, name: str) -> DeltaGenerator:
    """Say what is waited for; return where the seconds are shown."""
    with place.container():
        st.markdown(f":material/hourglass_top: {label}")
        clock = st.empty()
        st.button("Cancel", key=f"cancel/{work}", icon=":material/close:", on_click=state.cancel, args=(name,))
    return clock
