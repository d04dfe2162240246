"""A real browser walks the views as a new user would, and reads the numbers of the command line."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from dashboard import data, words
from simulator.run import simulate
from simulator.scenario_file import DEFAULT_SCENARIO
from tests.dashboard.browsing import DRAFTS_OF_TO, SMALL, VIEWS, link_to, needs_chromium, open_view, settle
from traces.report import RunReport

pytestmark = needs_chromium


def test_a_browser_runs_the_default_scenario_and_shows_simulates_own_number(page: Page, address: str) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if address not in request.url else None)
    page.goto("/")
    first = page.locator(".st-key-first_look")
    first.wait_for()
    expect(first).to_contain_text("faster")
    page.get_by_role("button", name="Cancel").wait_for()
    early = page.locator(".st-key-early_answer")
    early.wait_for()
    said = early.inner_text()
    # Here and in the server at once: half the time on two cores.
    report = simulate(data.load(data.Source(DEFAULT_SCENARIO)))
    arm = report.arms[report.best_arm]
    answer = page.locator(".st-key-answer")
    answer.wait_for()
    expect(answer).to_contain_text(words.times(arm.end_to_end_speedup.mean))
    expect(answer).to_contain_text(f"({words.between(arm.end_to_end_speedup)})")
    assert words.times(arm.end_to_end_speedup.mean) in said
    assert f"({words.between(arm.end_to_end_speedup)})" in said, "the same before it is explained"
    expect(early).to_have_count(0)
    expect(first).to_have_count(0)
    waterfall = page.locator(".st-key-waterfall .js-plotly-plot")
    for factor in arm.waterfall:
        expect(waterfall).to_contain_text(words.factor_name(factor.name))
        expect(waterfall).to_contain_text(f"×{factor.factor:.2f}")
    expect(waterfall).to_contain_text(words.times(arm.end_to_end_speedup.mean))
    remote = [url for url in elsewhere if re.match(r"(https?|wss?):", url) and "//127.0.0.1:" not in url]
    assert not remote, "the page loads nothing from another host"


def command_line(*overrides: str) -> RunReport:
    sets = [word for override in overrides for word in ("--set", override)]
    done = subprocess.run(
        [sys.executable, "-m", "bebop", "simulate", DEFAULT_SCENARIO, "--json", *sets],
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    )
    return RunReport.model_validate_json(done.stdout, strict=True)


def expect_answer(page: Page, report: RunReport, arm: str) -> None:
    speedup = report.arms[arm].end_to_end_speedup
    answer = page.locator(".st-key-answer")
    expect(answer).to_contain_text(words.times(speedup.mean))
    expect(answer).to_contain_text(f"({words.between(speedup)})")


def test_a_new_user_predicts_changes_k_shares_a_link_and_takes_a_report_away(page: Page, tmp_path: Path) -> None:
    page.goto(f"{link_to()}&arm=to")
    expect_answer(page, command_line(*SMALL), "to")

    slider = page.locator(DRAFTS_OF_TO)
    slider.focus()
    slider.press("ArrowLeft")
    page.get_by_text("The inputs changed since this run").wait_for()
    page.get_by_role("button", name="Run", exact=True).click()
    changed = command_line(*SMALL, "arms.to.k=2")
    expect_answer(page, changed, "to")
    page.wait_for_function("location.search.includes('arm=to&k=2')")

    browser = page.context.browser
    assert browser is not None
    other = browser.new_context().new_page()
    other.goto(page.url)
    expect_answer(other, changed, "to")
    expect(other.locator(DRAFTS_OF_TO)).to_have_value("2")
    other.context.close()

    with page.expect_download() as waiting:
        page.get_by_role("button", name="Report (HTML)").click()
    waiting.value.save_as(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert words.times(changed.arms[changed.best_arm].end_to_end_speedup.mean) in text
    assert changed.scenario_hash[:12] in text

    page.get_by_role("button", name="Add to basket").click()
    page.get_by_role("button", name="Basket: 1 of 6 runs").click()
    page.get_by_role("dialog").get_by_text(DEFAULT_SCENARIO).first.wait_for()


def test_the_views_open_one_after_the_other_and_keep_the_controls(page: Page) -> None:
    page.goto(link_to("arms.to.k=1"))
    page.get_by_role("button", name="Run", exact=True).wait_for()
    for view in VIEWS:
        open_view(page, view)
        expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")

    open_view(page, "Entropy and acceptance")
    page.get_by_role("button", name="Carry to Predict").click()
    page.get_by_role("link", name="Predict with it").click()
    page.get_by_role("button", name="Run", exact=True).wait_for()
    settle(page)
    expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")


def is_end_of_run(message: str | bytes) -> bool:
    return isinstance(message, bytes) and ForwardMsg.FromString(message).HasField("script_finished")


def test_back_and_forward_restore_the_controls_and_nobody_is_kept_on_the_page(page: Page, address: str) -> None:
    page.goto("about:blank")
    with page.expect_websocket() as waiting:
        page.goto("/acceptance")
    line = waiting.value

    def at(value: str) -> None:
        settle(page)
        expect(page.locator(DRAFTS_OF_TO)).to_have_value(value)

    def go(move: Callable[[], object]) -> None:
        # Streamlit puts an entry of its own into the history where one goes on before it has answered.
        with line.expect_event("framereceived", is_end_of_run):
            move()
        settle(page)

    at("3")
    expect(page, "what is as it was at first is not in the address").to_have_url(f"{address}/acceptance")
    for value in ("2", "1"):
        page.locator(DRAFTS_OF_TO).press("ArrowLeft")
        # Two presses at once are one change, and one entry of the history.
        page.wait_for_url(re.compile(rf"arms\.to\.k%3D{value}"))
        at(value)
    open_view(page, "Profiles")
    at("1")
    while "/profiles" in page.url:
        go(page.go_back)
    page.get_by_role("heading", name="Entropy and acceptance", level=2).wait_for()
    at("1")
    go(page.go_back)
    at("2")
    go(page.go_forward)
    at("1")
    page.go_back()
    go(page.go_back)
    at("3")
    page.go_back()
    expect(page).to_have_url("about:blank")
