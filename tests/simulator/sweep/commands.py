"""`bebop sweep` in a process of its own: started, looked at, and finished by somebody else."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.config import UncertaintyConfig
from simulator.sweep import Sweep, parse_design, run_sweep
from simulator.sweep.point import Base, evaluate
from tests.simulator import made_up
from tests.simulator.sweep.in_process import InProcess
from traces.store import save_trace

FIXED = (
    "run.num_steps=60",
    "workload.prompts_per_step=64",
    "run.replications=1",
    *(f"uncertainty.{name}=0.0" for name in UncertaintyConfig.model_fields),
)
GRID = "run.seed=0..39"
"""Points that take long enough to be in the middle of them."""


def write_scenario(folder: Path) -> str:
    """Write a scenario and its trace; return the path of its file."""
    save_trace(made_up.trace(), folder / "trace.json")
    path = folder / "made-up.toml"
    path.write_text(made_up.SCENARIO.format(trace=str(folder / "trace.json")))
    return str(path)


def points(grid: str = GRID) -> list[str]:
    """Return a sweep's points as arguments."""
    return ["--grid", grid, "--set", FIXED[0], "--set", FIXED[1]]


def begun(scenario: str, folder: Path, *arguments: str, grid: str = GRID, **options: Any) -> subprocess.Popen[str]:
    """Start a sweep; `options` are those of Popen."""
    return subprocess.Popen(
        [sys.executable, "-m", "bebop", "sweep", scenario, *points(grid), "--json", "--out", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def children_of(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def stored(folder: Path) -> int:
    """Return how many points the ledger in a folder has."""
    if not (folder / "ledger.sqlite").exists():
        return 0
    database = sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM points").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        database.close()


def finished(scenario: str, folder: Path, grid: str = GRID) -> Sweep:
    """Finish the sweep in this process."""
    base = Base(Path(scenario).read_text(), "made-up.toml", FIXED)
    return run_sweep(base, parse_design([grid]), InProcess(evaluate), folder, resume=True)
