"""The address: what is followed, what is not, and that a control which is drawn late is drawn with its own value."""

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, state
from simulator.scenario_file import DEFAULT_SCENARIO
from tests.dashboard.pages import APP, held, open_view

DRAFTS = state.keyed(state.NUM_DRAFT_TOKENS, DEFAULT_SCENARIO, "to")


def opened(**parameters: str | list[str]) -> AppTest:
    page = held(AppTest.from_file(str(APP), default_timeout=240))
    page.query_params.update(parameters)
    return page.run()


def come_with(page: AppTest, parameters: dict[str, Any]) -> AppTest:
    """Draw the page as for a browser whose address is another than the one last written."""
    page.query_params.clear()
    page.query_params.update(parameters)
    return page.run()


@pytest.mark.parametrize("start", [{}, {"scenario": DEFAULT_SCENARIO, "set": ["arms.rs_ce.k=2"]}])
def test_a_control_counts_though_the_browser_has_not_heard_the_last_address(start: dict[str, Any]) -> None:
    page = opened(**start)
    before = dict(page.query_params)
    page.slider(key=DRAFTS).set_value(2).run()
    page.slider(key=DRAFTS).set_value(1)
    come_with(page, before)
    assert page.slider(key=DRAFTS).value == 1
    assert "arms.to.k=1" in page.query_params["set"], "and the address is written anew"
    come_with(page, before)
    assert page.slider(key=DRAFTS).value == 3, "nothing was used: the visitor went back"
    assert dict(page.query_params) == before


def test_a_button_counts_too_and_only_in_the_run_of_its_click() -> None:
    page = opened()
    page.slider(key=DRAFTS).set_value(2).run()
    come_with(page.switch_page("views/measured.py"), {})  # a browser opens another view without parameters
    page.slider(key=DRAFTS).set_value(1).run()
    page.button(key="measured_example").click()
    come_with(page, {})
    assert page.slider(key=DRAFTS).value == 1
    come_with(page, {})
    assert page.slider(key=DRAFTS).value == 2, "as it was when the view was opened"


def test_going_back_twice_is_followed_though_the_controls_come_as_they_were() -> None:
    page = opened()
    for k in (2, 1):
        page.slider(key=DRAFTS).set_value(k).run()
    come_with(page, {"scenario": DEFAULT_SCENARIO, "set": "arms.to.k=2"})
    assert page.slider(key=DRAFTS).value == 2
    page.slider(key=DRAFTS).set_value(1)  # the browser has not heard of the 2
    come_with(page, {})
    assert page.slider(key=DRAFTS).value == 3


def test_an_address_that_the_visitor_never_was_at_is_not_followed() -> None:
    page = opened(scenario=DEFAULT_SCENARIO, set="arms.to.k=1")
    come_with(page, {})
    assert page.slider(key=DRAFTS).value == 1
    assert page.query_params["set"] in ("arms.to.k=1", ["arms.to.k=1"])


DRAWN_FROM: dict[str, Callable[[Any], Any]] = {
    "slider": lambda proto: list(proto.default),
    "select_slider": lambda proto: [proto.options[int(each)] for each in proto.default],
    "number_input": lambda proto: proto.default,
    "text_input": lambda proto: proto.default,
    "text_area": lambda proto: proto.default,
    "selectbox": lambda proto: proto.options[proto.default],
    "button_group": lambda proto: [proto.options[each].content for each in proto.default],
}
"""What a browser draws a control with that it has not heard the value of, by kind."""


@pytest.mark.parametrize("view", ["predict", "what_if", "acceptance", "profiles", "measured", "timeline"])
def test_every_control_is_drawn_with_its_own_value_by_a_browser_that_missed_it_being_set(view: str) -> None:
    rates = data.override_rates("to", [0.8])
    page = open_view(view, scenario="verl-one-step-off", k="2", set=rates)
    page.run()
    assert not page.exception
    num_seen = 0
    for kind, drawn_from in DRAWN_FROM.items():
        controls: list[Any] = list(page.get(kind))
        for control in controls:
            shown = control.value if isinstance(control.value, list | tuple) else [control.value]
            drawn = drawn_from(control.proto)
            drawn = drawn if isinstance(drawn, list) else [drawn]
            as_shown = [control.format_func(each) for each in shown] if hasattr(control, "format_func") else shown
            assert drawn == list(as_shown), control.label
            num_seen += 1
    assert num_seen > 10
