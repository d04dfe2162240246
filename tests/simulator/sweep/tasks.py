"""Task functions that misbehave on some points, for workers to import; every other point is a hash of its text."""

import hashlib
import json
import os
import resource
import signal
import time
from pathlib import Path

from simulator.errors import ScenarioError


def fine(text: str) -> str:
    return json.dumps({"spec": {"value": hashlib.sha256(text.encode()).hexdigest()[:8]}})


def _changed(text: str, path: str) -> str | None:
    found = [
        change.partition("=")[2] for change in json.loads(text)["changes"] if change.replace('"', "").startswith(path)
    ]
    return found[0] if found else None


def poison(text: str) -> str:
    """End the worker at seed 3, refuse seed 5, raise at seed 7."""
    seed = _changed(text, "run.seed=")
    if seed == "3":
        os._exit(9)
    if seed == "5":
        raise ScenarioError("run.seed: 5 is not welcome; take another")
    if seed == "7":
        raise ZeroDivisionError("seven")
    return fine(text)


def hung(text: str) -> str:
    if _changed(text, "run.seed=") == "3":
        time.sleep(600)
    return fine(text)


def killed_once(text: str) -> str:
    """SIGKILL the worker the first time that seed 4 is met; `name` says where to remember it."""
    if _changed(text, "run.seed=") == "4":
        mark = Path(str(json.loads(text)["name"]))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return fine(text)


def hungry(text: str) -> str:
    """Ask for a gigabyte more than the worker may have at seed 3 (RLIMIT_AS)."""
    if _changed(text, "run.seed=") == "3":
        held_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held_bytes + 2**28, hard))
        try:
            bytearray(2**30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return fine(text)


def swollen(text: str) -> str:
    """Hold a gigabyte, page by page, at seed 3."""
    if _changed(text, "run.seed=") == "3":
        held = b"x" * 2**30
        time.sleep(60)
        del held
    return fine(text)


def slow(text: str) -> str:
    time.sleep(0.3)
    return fine(text)
