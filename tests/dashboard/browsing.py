"""What the tests share that walk the page in a real browser; `conftest` serves it and opens the browser."""

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

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
WAIT_MS = 45_000
expect.set_options(timeout=WAIT_MS)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
SMALL = ("run.num_steps=10", "run.replications=2", "workload.prompts_per_step=32")
VIEWS = ("What if", "Entropy and acceptance", "Profiles", "Measured vs predicted", "Timeline")
DRAFTS_OF_TO = f".st-key-num_draft_tokens-{DEFAULT_SCENARIO}-to input"


def wait_until_healthy(server: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(300):
        assert server.poll() is None, "the launcher ended early"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail("the page did not come up in 30 s")


def link_to(*overrides: str) -> str:
    """Return the address of Predict with a small run of the default scenario, changed by overrides."""
    return f"/?{urlencode({'scenario': DEFAULT_SCENARIO, 'set': [*SMALL, *overrides]}, doseq=True)}"


def settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=WAIT_MS)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def open_view(page: Page, view: str) -> None:
    page.get_by_role("link", name=view).first.click(timeout=WAIT_MS)
    page.get_by_role("heading", name=view, level=2).wait_for(timeout=WAIT_MS)
    settle(page)
