"""The testbed for real, small: profiled, predicted and run on this machine, while whatever else runs here runs too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ON_A_BUSY_MACHINE = 0.35
"""Error of a speedup: the targets are 0.10 on a quiet machine (docs/measured_vs_predicted.md), but two cores that also
run other tests do not keep their pace from a profile to a run, or from one run to the next."""
ACCEPT_LENGTH = 0.06
"""Error of the accept length: that of some hundred verify steps of each run, whose samples are its own."""
CLEAR = 0.2
"""Measured difference from 1 that noise does not turn round."""


@pytest.mark.quiet
def test_two_small_runs_go_as_predicted(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the testbed's models are torch's; `make setup` installs it")
    pytest.importorskip("ray", reason="the testbed's actors are Ray's; `make setup` installs it")
    command = [sys.executable, "-m", "bebop", "testbed", "compare", "--quick", "--json", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["rows"]) == 2
    for row in answer["rows"]:
        assert abs(row["error"]) <= ON_A_BUSY_MACHINE, row
        if abs(row["measured"] - 1) > CLEAR:
            assert (row["measured"] > 1) == (row["predicted"] > 1), row
        counted = row["drafting"]["accept_length"]
        assert counted["predicted"] == pytest.approx(counted["measured"], rel=ACCEPT_LENGTH), row
    assert answer["median_error"] <= answer["worst_error"] <= ON_A_BUSY_MACHINE
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (again.stdout, again.stderr) == (done.stdout, ""), "what is there is not measured again"
