"""A real browser opens the page, runs the default scenario and reads the answer."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from dashboard import data, words
from simulator.run import simulate
from simulator.scenario_file import DEFAULT_SCENARIO

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WAIT_MS = 300_000

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


def test_a_browser_runs_the_default_scenario_and_shows_simulates_own_number(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            elsewhere: list[str] = []
            page.on("request", lambda request: elsewhere.append(request.url) if address not in request.url else None)
            page.goto(address)
            page.get_by_role("button", name="Run", exact=True).click(timeout=WAIT_MS)
            # Here and in the server at once: half the time on two cores.
            report = simulate(data.load(data.Source(DEFAULT_SCENARIO)))
            arm = report.arms[report.best_arm]
            answer = page.locator(".st-key-answer")
            answer.wait_for(timeout=WAIT_MS)
            assert words.times(arm.end_to_end_speedup.mean) in answer.inner_text()
            assert f"({words.between(arm.end_to_end_speedup)})" in answer.inner_text()
            waterfall = page.locator(".st-key-waterfall .js-plotly-plot")
            waterfall.wait_for(timeout=WAIT_MS)
            drawn = waterfall.inner_text()
            for factor in arm.waterfall:
                assert words.factor_name(factor.name) in drawn
                assert f"×{factor.factor:.2f}" in drawn
            assert words.times(arm.end_to_end_speedup.mean) in drawn
            remote = [url for url in elsewhere if re.match(r"(https?|wss?):", url) and "//127.0.0.1:" not in url]
            assert not remote, "the page loads nothing from another host"
        finally:
            browser.close()
