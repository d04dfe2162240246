"""Serves the page, and opens it in a real browser."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.dashboard.browsing import CHROMIUM, FLAGS, WAIT_MS, wait_until_healthy


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
            server.wait(timeout=60)


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            opened = browser.new_page(viewport={"width": 1440, "height": 900}, base_url=address)
            opened.set_default_timeout(WAIT_MS)
            yield opened
        finally:
            browser.close()
