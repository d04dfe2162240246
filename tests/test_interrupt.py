"""Ctrl-C ends a simulation soon, with its exit code and one line."""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG = ("simulate", "--replications", "400")


def test_an_interrupted_simulation_ends_soon_with_its_own_exit_code() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "bebop.py"), *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(6.0)  # past the imports, in the middle of the runs
        begin_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120.0)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "bebop: interrupted\n")
    assert time.monotonic() - begin_s < 60.0
