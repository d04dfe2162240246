"""Address: the page's query parameters: followed when the browser comes with other ones, written as the state changes.

A visitor arrives by a link, or goes back and forth in the browser's history; both are followed. Streamlit pushes an
entry into that history at every write and cannot replace one. So the address is written once for all that has changed,
says nothing of what is as it was at first, and is left alone while it is followed: otherwise nobody could go back.

A control that is used before the browser has heard of the last write comes with the address from before it. Nobody went
back then: the control counts, and the address is written anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

from dashboard import data, links, state

_SEEN = "_address_seen"
_PAGE = "_address_page"
_BARE = "_address_bare"
_SHARED, _OWN = "_address_shared", "_address_own"
_IS_FOLLOWED, _APPLIED = "_address_is_followed", "_address_applied"

Parameters = dict[str, list[str]]
T = TypeVar("T", str, int)


def arrive(page: str) -> links.Link | None:
    """Return where to go: a link with which the visitor came, or an address that they went back or forth to.

    Call it first at every run of a page; None: nothing to follow, because a control was used or another view opened.
    """
    kept: Any = st.session_state
    now: Parameters = {name: st.query_params.get_all(name) for name in st.query_params}
    is_first, is_other = _SEEN not in kept, kept.get(_PAGE) != page
    was_used = state.was_used()
    if is_first or is_other:
        kept[_OWN] = {}
        if not now:
            kept.setdefault(_BARE, {})[page] = kept.get(_SHARED, {})
    # Another view that is opened comes without parameters, one that is gone back to with those that it had.
    is_bare = not now and page in kept.get(_BARE, {})
    is_moved = bool(now) if is_other else now != kept[_SEEN] and not was_used and (bool(now) or is_bare)
    kept[_SEEN], kept[_PAGE] = now, page
    kept[_IS_FOLLOWED] = is_first or is_moved
    if is_first or is_other or kept[_IS_FOLLOWED]:
        kept[_APPLIED] = set()
    if not kept[_IS_FOLLOWED]:
        return None
    # An address without parameters stands for the state in which the view was opened.
    link = links.read(now or kept[_BARE][page])
    return link if link is not None or is_first else links.read({links.SCENARIO: [data.bundled_scenarios()[0][0]]})


def preset(name: str, key: str, allowed: Sequence[T], default: T) -> T:
    """Give a view's widget its value: what an address that was just followed says, else what it had, else its own.

    Returns the value that it has now, for its default, as `state.preset` does.
    """
    applied: set[str] = st.session_state.setdefault(_APPLIED, set())
    given = st.query_params.get(name)
    value = next((each for each in allowed if str(each) == given), default)
    if name not in applied:
        applied.add(name)
        st.session_state[key] = value
    return state.preset(key, value)


def keep(name: str, value: T, default: T) -> None:
    """Say what a view's own parameter is now, for the address."""
    own: dict[str, str] = st.session_state.setdefault(_OWN, {})
    own.pop(name, None)
    if value != default:
        own[name] = str(value)


def share(parameters: Mapping[str, list[str]]) -> None:
    """Say what the state that all views share is now, for the address."""
    st.session_state[_SHARED] = dict(parameters)


def show(*, is_last: bool = False) -> None:
    """Write what was said, if that is not what the address says already; `is_last` ends a run of the page."""
    kept: Any = st.session_state
    wanted: Parameters = kept.get(_SHARED, {}) | {name: [value] for name, value in kept.get(_OWN, {}).items()}
    if not kept.get(_IS_FOLLOWED) and wanted != kept.get(_SEEN):
        kept[_SEEN] = wanted
        st.query_params.from_dict({name: values[0] if len(values) == 1 else values for name, values in wanted.items()})
    if is_last:
        kept[_IS_FOLLOWED] = False
