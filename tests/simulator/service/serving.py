"""A service for tests: inside the test without workers, or a real `bebop serve` in a process of its own."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from simulator.client import Client
from simulator.config import Scenario
from simulator.scenario_file import load_scenario
from simulator.service.app import create_app
from simulator.service.ledger import Ledger
from simulator.service.settings import Limits, Settings
from simulator.service.tokens import TokenFile, add_token
from tests.simulator.small_scenario import SMALL

ROOT = Path(__file__).resolve().parents[3]
BEBOP = ROOT / "bebop.py"


def small(*overrides: str) -> Scenario:
    return load_scenario("bebop-reasoning", (*SMALL, *overrides))


def body(*overrides: str) -> dict[str, Any]:
    """A run that takes a fraction of a second."""
    return small(*overrides).model_dump(mode="json", exclude_unset=True)


@dataclass
class Inside:
    """A service in the test's own process; its scheduler does not run, so jobs stay queued."""

    app: Any
    client: TestClient
    writer: dict[str, str]
    reader: dict[str, str]
    settings: Settings


@contextmanager
def inside(folder: Path, ray_address: str | None = None, **limits: float) -> Iterator[Inside]:
    found = Limits(**limits)  # type: ignore[arg-type]
    settings = Settings(folder, ray_address=ray_address, hosts=("testserver",), limits=found)
    tokens = folder / "tokens.json"
    writer = add_token(tokens, "writer", "write")
    reader = add_token(tokens, "reader", "read")
    ledger = Ledger(folder)
    app = create_app(settings, ledger, TokenFile(tokens), "test")
    client = TestClient(app, raise_server_exceptions=False)
    try:
        yield Inside(app, client, _bearer(writer), _bearer(reader), settings)
    finally:
        client.close()
        ledger.close()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Outside:
    """A real service."""

    process: subprocess.Popen[str]
    url: str
    token: str
    folder: Path

    @property
    def client(self) -> Client:
        return Client(self.url, self.token)

    def ask(self, path: str) -> tuple[int, Any]:
        request = urllib.request.Request(self.url + path, headers=_bearer(self.token))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def wait_until_ready(self, timeout_s: float = 120.0) -> None:
        wait_for(lambda: self.ask("/readyz")[0] == 200, timeout_s)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def outside(
    folder: Path, *options: str, file_bytes: int | None = None, site: Path | None = None, program: Path = BEBOP
) -> Iterator[Outside]:
    """Serve on a free port of loopback.

    Args:
        folder: Its data.
        options: Of `bebop serve`.
        file_bytes: No file of the service may grow beyond (as on a full disk).
        site: A folder with a `sitecustomize.py` for its processes.
        program: What to run as `bebop`.
    """
    folder.mkdir(exist_ok=True)
    tokens = folder / "tokens.json"
    token_file = folder / "token.txt"
    if not tokens.exists():
        token_file.write_text(add_token(tokens, "test", "write"))
    limited: Callable[[], None] | None = None
    if file_bytes is not None:
        limit = file_bytes

        def limited() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    command = [sys.executable, str(program), "serve", "--data", str(folder), "--port", "0", *options]
    log = (folder / "service.log").open("a+")
    began = log.tell()
    path = os.pathsep.join(map(str, filter(None, (site, ROOT))))
    process = subprocess.Popen(
        command, stderr=log, stdout=log, text=True, preexec_fn=limited, env={**os.environ, "PYTHONPATH": path}
    )
    found = Outside(process, "", token_file.read_text(), folder)
    try:
        wait_for(lambda: process.poll() is not None or "serving on" in (folder / "service.log").read_text()[began:], 60)
        text = (folder / "service.log").read_text()[began:]
        address = re.search(r"serving on (http://\S+),", text)
        assert address, text
        found.url = address.group(1)
        wait_for(lambda: _answers(found), 60)
        yield found
    finally:
        found.stop()
        log.close()


def wait_for(is_so: Callable[[], object], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end_s, f"not so after {timeout_s:g} s"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and they in turn."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _answers(service: Outside) -> bool:
    try:
        return service.ask("/healthz")[0] == 200
    except OSError:
        return False
