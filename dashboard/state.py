"""State: what one visitor has chosen and last saw, kept over reruns and views. Does not know what widgets mean."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import streamlit as st

from dashboard.data import Question
from traces.report import RunReport

SCENARIO = "scenario"
UPLOAD = "upload"
RUN = "run"
CANCEL = "cancel"
EXPLAINED_ARM = "explained_arm"
NUM_DRAFT_TOKENS = "num_draft_tokens"
ACCEPTANCE = "acceptance"
RATES = "rates"
LATENCY = "latency"
ENTROPY = "entropy"
OTHER_SETTINGS = "other_settings"

_QUESTION = "_question"
_LAST_RUN = "_last_run"
_RUN_WANTED = "_run_wanted"
_ARM = "_arm"
_BASKET = "_basket"
_NOTE = "_note"
_CANCELLED = "_cancelled"
_FAILED = "_failed"
_JOB = "_job"
_ENTROPY_POINTS = "_entropy_points"
_KNOWN = "_known"

T = TypeVar("T")


def keyed(key: str, scenario_id: str, arm: str = "") -> str:
    """Return the key of a widget that belongs to one scenario (and one arm), so that each has its own defaults."""
    return f"{key}/{scenario_id}/{arm}"


def question() -> Question | None:
    """Return what the sidebar asks; None where it cannot be asked, which the page has said already."""
    found: Question | None = st.session_state.get(_QUESTION)
    return found


def ask(asked: Question | None) -> None:
    """Keep what the sidebar asks."""
    st.session_state[_QUESTION] = asked


def last_run() -> tuple[Question, RunReport] | None:
    """Return the run that was last shown, and its question."""
    found: tuple[Question, RunReport] | None = st.session_state.get(_LAST_RUN)
    return found


def keep_run(asked: Question, report: RunReport) -> None:
    """Keep a run as the one last shown."""
    st.session_state[_LAST_RUN] = (asked, report)


def want_run() -> None:
    """Ask Predict for a run when it is drawn next."""
    st.session_state[_RUN_WANTED] = True


def take_run_wish() -> bool:
    """Return whether a run was asked for, and forget it."""
    return bool(st.session_state.pop(_RUN_WANTED, False))


def note(line: str) -> None:
    """Keep one line of Markdown to be shown when the page is drawn next."""
    st.session_state[_NOTE] = line


def take_note() -> str | None:
    """Return the line, once."""
    found: str | None = st.session_state.pop(_NOTE, None)
    return found


def cancel(work: str) -> None:
    """Note that the visitor cancelled a piece of work, so that it does not start again by itself."""
    st.session_state[keyed(_CANCELLED, work)] = True


def resume(work: str) -> None:
    """Forget that it was cancelled, or failed."""
    st.session_state.pop(keyed(_CANCELLED, work), None)
    st.session_state.pop(keyed(_FAILED, work), None)


def fail(work: str, why: str) -> None:
    """Note that a piece of work failed for no fault of its question, so that it does not start again by itself."""
    st.session_state[keyed(_FAILED, work)] = why


def why_failed(work: str) -> str | None:
    """Return why, None if it did not."""
    why: str | None = st.session_state.get(keyed(_FAILED, work))
    return why


def was_cancelled(work: str) -> bool:
    """Return whether the visitor cancelled it."""
    return bool(st.session_state.get(keyed(_CANCELLED, work)))


def job(work: str, name: str, start: "Callable[[], Future[Any]]") -> "Future[Any]":
    """Return the job of a kind of work: the one under way where it has the same name, else one that begins now."""
    kept: tuple[str, Future[Any]] | None = st.session_state.get(keyed(_JOB, work))
    if kept is None or kept[0] != name:
        kept = name, start()
        st.session_state[keyed(_JOB, work)] = kept
    return kept[1]


def arm(names: list[str]) -> str:
    """Return the arm that the views look at: the one chosen last where the scenario has it, else its first."""
    chosen = st.session_state.get(_ARM)
    return chosen if chosen in names else names[0]


def choose_arm(name: str | None) -> None:
    """Keep the arm to look at, for all views and for the link; None: none was chosen."""
    st.session_state[_ARM] = name


def chosen_arm() -> str | None:
    """Return the arm chosen last, None if none was."""
    chosen: str | None = st.session_state.get(_ARM)
    return chosen


def basket() -> list[RunReport]:
    """Return the visitor's basket, to be changed in place."""
    found: list[RunReport] = st.session_state.setdefault(_BASKET, [])
    return found


def entropy_points(scenario_id: str) -> list[tuple[int, float]] | None:
    """Return the entropy trajectory that was drawn or read for a scenario; None: its own."""
    found: list[tuple[int, float]] | None = st.session_state.get(keyed(_ENTROPY_POINTS, scenario_id))
    return found


def keep_entropy_points(scenario_id: str, points: list[tuple[int, float]] | None) -> None:
    """Keep an entropy trajectory for a scenario; None goes back to its own."""
    st.session_state[keyed(_ENTROPY_POINTS, scenario_id)] = points


def preset(key: str, value: T) -> T:
    """Give a widget its value before it is drawn for the first time; return the one it has: a visitor's choice stays.

    Give what is returned to the widget as its default too. A value set here is told to the browser in this run alone,
    and a browser that still loads this kind of widget draws it in a later one, from the default.
    """
    kept: T = st.session_state.setdefault(key, value)
    _told(key, kept)
    return kept


def place(key: str, options: Sequence[T]) -> int:
    """Return where a widget's value stands among its options, 0 if nowhere: the default to draw it from."""
    kept = st.session_state.get(key)
    if kept not in options:
        return 0
    _told(key, kept)
    return options.index(kept)


def _told(key: str, value: Any) -> None:
    values: list[Any] = st.session_state.setdefault(_KNOWN, {}).setdefault(key, [])
    if value not in values:
        values.append(value)


def was_used() -> bool:
    """Return whether the visitor used a control since the last run of the page. Call it once, as a run begins.

    A control that has a value which it neither had when the last run began, nor was given in it, was used; and a
    button, which is True in the run of its click, and False after it by itself.
    """
    known: dict[str, list[Any]] = st.session_state.get(_KNOWN, {})
    now = {str(key): value for key, value in st.session_state.items() if not str(key).startswith("_")}
    st.session_state[_KNOWN] = {key: [value] for key, value in now.items()}
    return any(
        value is True if key not in known else value is not False and value not in known[key]
        for key, value in now.items()
    )
