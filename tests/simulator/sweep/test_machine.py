"""A whole `bebop sweep` on a machine that fails: a disk without room, a clock that jumps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.sweep.commands import begun, finished, points, write_scenario

ROOT = Path(__file__).resolve().parents[3]


def mounts() -> bool:
    """Whether this process may mount in a namespace of its own."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("kind", ["quota", "tmpfs"])
def test_a_full_disk_ends_the_sweep_and_with_room_it_goes_on(kind: str, tmp_path: Path) -> None:
    if kind == "tmpfs" and not mounts():
        pytest.skip("may not mount here")
    scenario = write_scenario(tmp_path)
    alone = ["unshare", "-rm"] if kind == "tmpfs" else []
    module = [sys.executable, "-m", "tests.simulator.sweep.on_small_disk", kind, str(tmp_path / "disk")]
    found = subprocess.run(
        [*alone, *module, scenario, *points(), "--workers", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    full, answer, code = found.stdout.splitlines()
    assert (full, code) == ("4", "0")
    said = {"quota": "input/output error", "tmpfs": "no space left"}[kind]
    assert f"bebop: {said} at {tmp_path / 'disk' / 'out' / 'ledger.sqlite'}; make room" in found.stderr
    assert found.stderr.count("\n") == 1
    assert json.loads(answer)["digest"] == finished(scenario, tmp_path / "whole").digest


def test_nothing_depends_on_the_wall_clock(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path)
    path = os.pathsep.join([str(ROOT / "tests" / "simulator" / "jumping_clock"), str(ROOT)])
    driver = begun(scenario, tmp_path / "out", "--workers", "2", env={**os.environ, "PYTHONPATH": path})
    out, err = driver.communicate(timeout=300)
    assert (driver.returncode, err) == (0, "")
    assert json.loads(out)["digest"] == finished(scenario, tmp_path / "whole").digest
