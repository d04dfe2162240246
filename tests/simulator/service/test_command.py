"""`bebop serve` from the command line: what it refuses, and the tokens it makes."""

import subprocess
import sys
from pathlib import Path

from simulator.service.tokens import read_tokens
from tests.simulator.service.serving import ROOT


def serve(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "bebop.py"), "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_is_not_reachable_by_others_without_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        found = serve("--host", host, "--data", str(tmp_path / "data"))
        assert found.returncode == 2
        assert f"--host {host}: reachable from other machines, but there is no token" in found.stderr
        assert len(found.stderr.splitlines()) == 1


def test_a_new_token_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = serve("--data", str(data), "--new-token", "ci", "--scope", "write")
    token = made.stdout.strip()
    assert (made.returncode, token.startswith("bebop_")) == (0, True)
    assert token not in (data / "tokens.json").read_text()
    assert [(found.name, found.scope) for found in read_tokens(data / "tokens.json")] == [("ci", "write")]
    twice = serve("--data", str(data), "--new-token", "ci")
    assert (twice.returncode, twice.stdout) == (2, "")
    assert serve("--data", str(data), "--revoke-token", "ci").returncode == 0
    assert read_tokens(data / "tokens.json") == ()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for options, said in (
        (("--workers", "0"), "--workers 0 is not between 1 and 256"),
        (("--port", "70000"), "--port 70000 is not between 0 and 65535"),
        (("--timeout", "0"), "--timeout 0 is not above 0"),
        (("--revoke-token", "x"), "cannot be read"),
    ):
        found = serve("--data", str(tmp_path / "data"), *options)
        assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
        assert said in found.stderr
