"""Roles of the testbed compute on cores of their own, also where one process plays both, or starts the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

PROGRAM = """
import multiprocessing, os
from profiler.testbed.actors import pin

def pinned(place):
    pin(place)
    return os.sched_getaffinity(0)

if __name__ == "__main__":
    found = [pinned(0), pinned(1), pinned(0)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found.append(pool.apply(pinned, (1,)))
    print(*(min(cores) for cores in found if len(cores) == 1))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound here")
def test_a_process_bound_to_a_core_and_its_children_find_the_other_core(tmp_path: Path) -> None:
    first, *rest = sorted(os.sched_getaffinity(0))
    second = rest[0] if rest else first
    path = tmp_path / "roles.py"
    path.write_text(PROGRAM)
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, env=known)
    assert done.stdout.split() == [str(core) for core in (first, second, first, second)]
