"""A real browser on a slow line: what the page says comes late, and what the visitor does before that counts."""

import re

from playwright.sync_api import Page, Route, WebSocketRoute, expect

from dashboard import data
from tests.dashboard.browsing import DRAFTS_OF_TO, link_to, needs_chromium, open_view, settle

pytestmark = needs_chromium
DRAWN_MS = 4_000
"""Enough for the server to draw a page."""


def test_controls_that_the_browser_loads_late_show_their_own_values(page: Page) -> None:
    held: list[Route] = []
    kinds = ("Slider", "Selectbox", "NumberInput", "TextInput", "TextArea")
    page.route(re.compile(rf"/({'|'.join(kinds)})\.[^/]*\.js"), lambda route: held.append(route))
    page.goto(link_to("arms.to.k=1", data.override_rates("to", [0.8]), "trainer.mfu=0.3"))
    page.get_by_role("button", name="Run", exact=True).wait_for()
    open_view(page, "Profiles")
    assert len(held) == len(kinds), "each was asked for"
    expect(page.locator(DRAFTS_OF_TO), "none has come").to_have_count(0)
    for route in held:
        route.continue_()
    expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")
    expect(page.get_by_role("combobox", name=re.compile("to: acceptance"))).to_have_value("fixed rates")
    expect(page.get_by_label("P(first j drafts accepted)")).to_have_value("0.8")
    page.get_by_text("Workload and run").click()
    expect(page.get_by_label("RL steps", exact=True)).to_have_value("10")
    page.get_by_text("Other settings").click()
    expect(page.locator("textarea")).to_have_value("trainer.mfu=0.3")


def test_a_control_counts_that_is_used_before_the_page_has_written_its_address(page: Page) -> None:
    late: list[tuple[WebSocketRoute, str | bytes]] = []
    is_held = False

    def slow(line: WebSocketRoute) -> None:
        server = line.connect_to_server()
        server.on_message(lambda message: late.append((line, message)) if is_held else line.send(message))

    page.route_web_socket("**/_stcore/stream", slow)
    page.goto("/acceptance?set=arms.rs_ce.k%3D2")
    expect(page.locator(DRAFTS_OF_TO)).to_have_value("3")
    settle(page)
    is_held = True
    for _ in range(2):
        num_late = len(late)
        page.locator(DRAFTS_OF_TO).press("ArrowLeft")
        page.wait_for_timeout(DRAWN_MS)
        assert len(late) > num_late, "the page was drawn anew"
    is_held = False
    for line, message in late:
        line.send(message)
    page.wait_for_url(re.compile(r"arms\.to\.k%3D1"))
    settle(page)
    expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")
