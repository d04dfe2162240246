"""A real browser walks the views as a new user would, and reads the numbers of the command line."""

import contextlib
import functools
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as NotThere

from dashboard import data, words
from simulator.run import simulate
from simulator.scenario_file import DEFAULT_SCENARIO
from traces.report import RunReport

P = ParamSpec("P")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT_MS = 45_000
expect.set_options(timeout=WAIT_MS)
TRIES = 4
LOOK_MS = 1_000
"""A visitor looks at a page before going on."""


def tried_again(test: Callable[P, None]) -> Callable[P, None]:
    """Walk again from the beginning where a page did not come, or not whole: one in some dozen on a busy machine.

    Seen: somebody who goes back before the page has written its address, and, once, a slider that stood at its least
    value and not at its own. A number that is wrong each time still fails.
    """

    @functools.wraps(test)
    def walk(*arguments: P.args, **named: P.kwargs) -> None:
        for _ in range(TRIES - 1):
            with contextlib.suppress(NotThere, AssertionError):
                return test(*arguments, **named)
        return test(*arguments, **named)

    return walk


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("ui") / "log"
    code = "import sys; from dashboard.cli import main; sys.exit(main(sys.argv[1:]))"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "--no-browser", "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            wait_until_healthy(server, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=20)


def wait_until_healthy(server: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(300):
        assert server.poll() is None, "the launcher ended early"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail("the page did not come up in 30 s")


@tried_again
def test_a_browser_runs_the_default_scenario_and_shows_simulates_own_number(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            elsewhere: list[str] = []
            page.on("request", lambda request: elsewhere.append(request.url) if address not in request.url else None)
            page.goto(address)
            first = page.locator(".st-key-first_look")
            first.wait_for(timeout=WAIT_MS)
            expect(first).to_contain_text("faster")
            page.get_by_role("button", name="Cancel").wait_for(timeout=WAIT_MS)
            # Here and in the server at once: half the time on two cores.
            report = simulate(data.load(data.Source(DEFAULT_SCENARIO)))
            arm = report.arms[report.best_arm]
            answer = page.locator(".st-key-answer")
            answer.wait_for(timeout=WAIT_MS)
            expect(answer).to_contain_text(words.times(arm.end_to_end_speedup.mean))
            expect(answer).to_contain_text(f"({words.between(arm.end_to_end_speedup)})")
            expect(first).to_have_count(0)
            waterfall = page.locator(".st-key-waterfall .js-plotly-plot")
            for factor in arm.waterfall:
                expect(waterfall).to_contain_text(words.factor_name(factor.name))
                expect(waterfall).to_contain_text(f"×{factor.factor:.2f}")
            expect(waterfall).to_contain_text(words.times(arm.end_to_end_speedup.mean))
            remote = [url for url in elsewhere if re.match(r"(https?|wss?):", url) and "//127.0.0.1:" not in url]
            assert not remote, "the page loads nothing from another host"
        finally:
            browser.close()


SMALL = ("run.num_steps=10", "run.replications=2", "workload.prompts_per_step=32")
DRAFTS_OF_TO = f".st-key-num_draft_tokens-{DEFAULT_SCENARIO}-to input"
VIEWS = ("What if", "Entropy and acceptance", "Profiles", "Measured vs predicted", "Timeline")


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


def press_run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click(timeout=WAIT_MS)


def expect_answer(page: Page, report: RunReport, arm: str) -> None:
    speedup = report.arms[arm].end_to_end_speedup
    answer = page.locator(".st-key-answer")
    expect(answer).to_contain_text(words.times(speedup.mean))
    expect(answer).to_contain_text(f"({words.between(speedup)})")


def settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def open_view(page: Page, view: str) -> None:
    page.get_by_role("link", name=view).first.click(timeout=WAIT_MS)
    page.get_by_role("heading", name=view, level=2).wait_for(timeout=WAIT_MS)
    settle(page)


@tried_again
def test_a_new_user_predicts_changes_k_shares_a_link_and_takes_a_report_away(address: str, tmp_path: Path) -> None:
    link = f"{address}/?{urlencode({'scenario': DEFAULT_SCENARIO, 'arm': 'to', 'set': SMALL}, doseq=True)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(link)
            expect_answer(page, command_line(*SMALL), "to")

            slider = page.locator(DRAFTS_OF_TO)
            slider.focus()
            slider.press("ArrowLeft")
            page.get_by_text("The inputs changed since this run").wait_for(timeout=WAIT_MS)
            press_run(page)
            changed = command_line(*SMALL, "arms.to.k=2")
            expect_answer(page, changed, "to")
            page.wait_for_function("location.search.includes('arm=to&k=2')", timeout=WAIT_MS)

            other = browser.new_context().new_page()
            other.goto(page.url)
            expect_answer(other, changed, "to")
            expect(other.locator(DRAFTS_OF_TO)).to_have_value("2")
            other.context.close()

            with page.expect_download(timeout=WAIT_MS) as waiting:
                page.get_by_role("button", name="Report (HTML)").click()
            waiting.value.save_as(tmp_path / "report.html")
            text = (tmp_path / "report.html").read_text()
            assert words.times(changed.arms[changed.best_arm].end_to_end_speedup.mean) in text
            assert changed.scenario_hash[:12] in text

            page.get_by_role("button", name="Add to basket").click()
            page.get_by_role("button", name="Basket: 1 of 6 runs").click(timeout=WAIT_MS)
            page.get_by_role("dialog").get_by_text(DEFAULT_SCENARIO).first.wait_for(timeout=WAIT_MS)
        finally:
            browser.close()


@tried_again
def test_the_views_open_one_after_the_other_and_keep_the_controls(address: str) -> None:
    link = f"{address}/?{urlencode({'scenario': DEFAULT_SCENARIO, 'set': [*SMALL, 'arms.to.k=1']}, doseq=True)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(link)
            page.get_by_role("button", name="Run", exact=True).wait_for(timeout=WAIT_MS)
            for view in VIEWS:
                open_view(page, view)
                expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")

            open_view(page, "Entropy and acceptance")
            page.get_by_role("button", name="Carry to Predict").click(timeout=WAIT_MS)
            page.get_by_role("link", name="Predict with it").click(timeout=WAIT_MS)
            page.get_by_role("button", name="Run", exact=True).wait_for(timeout=WAIT_MS)
            settle(page)
            expect(page.locator(DRAFTS_OF_TO)).to_have_value("1")
        finally:
            browser.close()


@tried_again
def test_back_and_forward_restore_the_controls_and_nobody_is_kept_on_the_page(address: str) -> None:
    def at(value: str) -> None:
        page.wait_for_function(f"document.querySelector('{DRAFTS_OF_TO}')?.value === '{value}'", timeout=WAIT_MS)
        settle(page)
        page.wait_for_timeout(LOOK_MS)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto("about:blank")
            page.goto(f"{address}/acceptance")
            at("3")
            expect(page, "what is as it was at first is not in the address").to_have_url(f"{address}/acceptance")
            for value in ("2", "1"):
                page.locator(DRAFTS_OF_TO).press("ArrowLeft")
                # Two presses at once are one change, and one entry of the history.
                page.wait_for_url(re.compile(rf"arms\.to\.k%3D{value}"), timeout=WAIT_MS)
                at(value)
            open_view(page, "Profiles")
            at("1")
            while "/profiles" in page.url:
                page.go_back()
                settle(page)
            page.get_by_role("heading", name="Entropy and acceptance", level=2).wait_for(timeout=WAIT_MS)
            at("1")
            page.go_back()
            at("2")
            page.go_forward()
            at("1")
            page.go_back()
            page.go_back()
            at("3")
            page.go_back()
            expect(page).to_have_url("about:blank")
        finally:
            browser.close()
