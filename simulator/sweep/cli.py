"""`bebop sweep`: many points of one scenario. Parse, run, print."""

import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulator.config import UncertaintyConfig
from simulator.scenario_file import DEFAULT_SCENARIO, load_scenario, read_scenario
from simulator.sweep.design import Design, parse_design
from simulator.sweep.executor import Executor
from traces.console import ExitCode, Parser, print_error

if TYPE_CHECKING:
    from simulator.sweep.driver import Sweep

MAX_REASONS = 5
"""Reasons of failure that are printed; results.parquet has them all."""


def main(argv: list[str]) -> int:
    """Run `sweep ...`; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and not 1 <= arguments.workers <= 1024:
        parser.error(f"--workers {arguments.workers} is not between 1 and 1024")
    if arguments.address is not None and arguments.executor != "ray":
        parser.error("--address is of a Ray cluster; add --executor ray")
    if arguments.timeout <= 0:
        parser.error(f"--timeout {arguments.timeout:g} is not above 0")
    if arguments.memory is not None and arguments.memory <= 0:
        parser.error(f"--memory {arguments.memory:g} is not above 0")
    if arguments.memory is not None and arguments.executor == "ray":
        parser.error("--memory is of local workers; on Ray its own monitor of each node ends tasks")
    design = parse_design(
        arguments.grid,
        arguments.range,
        draws=arguments.sobol or arguments.random or 0,
        kind="sobol" if arguments.sobol else "random",
        seed=arguments.design_seed,
    )
    fixed = list(arguments.set)
    if arguments.replications is None:
        fixed += ["run.replications=1", *(f"uncertainty.{name}=0.0" for name in UncertaintyConfig.model_fields)]
    else:
        fixed.append(f"run.replications={arguments.replications}")
    scenario = load_scenario(arguments.scenario, fixed)
    folder = arguments.out or Path(f"sweep-{scenario.name}")

    from simulator.sweep.driver import RESULTS, run_sweep  # compiled kernels: slow to import, and not needed above
    from simulator.sweep.point import Base

    text, path = read_scenario(arguments.scenario)
    base = Base(text, path.name, tuple(fixed), tuple(arguments.arm))
    executor = _executor(arguments)
    try:
        with _progress(scenario.name, design) as advance:
            sweep = run_sweep(base, design, executor, folder, resume=arguments.resume, progress=advance)
    except KeyboardInterrupt:
        print_error(f"interrupted; `--out {folder} --resume` goes on where it stopped")
        return ExitCode.INTERRUPTED
    _report(sweep, folder / RESULTS, as_json=arguments.json)
    return ExitCode.PARTIAL if sweep.num_failed else ExitCode.OK


def _report(sweep: "Sweep", path: Path, *, as_json: bool) -> None:
    for note in sweep.notes:
        print_error(note)
    num_points, wall_s = len(sweep.outcomes), round(sweep.wall_s, 3)
    if as_json:
        print(json.dumps({"points": num_points, "failed": sweep.num_failed, "wall_s": wall_s, "digest": sweep.digest}))
        return
    reused = f", {sweep.num_reused} of them known before" if sweep.num_reused else ""
    print(f"{num_points} points{reused}, {sweep.num_failed} failed, {wall_s:.1f} s")
    print(f"{path}, digest {sweep.digest}")
    reasons = Counter(outcome.reason for outcome in sweep.outcomes if outcome.status == "failed")
    for reason, count in reasons.most_common(MAX_REASONS):
        print(f"  failed {count}x: {reason}")


def _parser() -> Parser:
    parser = Parser(
        prog="bebop sweep",
        description="Simulate a scenario at many points, resumable. Each point is the middle of the prediction: one "
        "replication without input errors; --replications N draws errors and gives intervals.",
    )
    add = parser.add_argument
    add("scenario", nargs="?", default=DEFAULT_SCENARIO, help="bundled name or TOML file")
    add(
        "--grid",
        action="append",
        default=[],
        metavar="PATH=VALUES",
        help="1,2,3 or 0..8 or 0.1..0.5:0.1; repeatable, every combination. arms.*.k is k of every arm",
    )
    add("--range", action="append", default=[], metavar="PATH=LO..HI", help="drawn by --random or --sobol, repeatable")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--random", type=positive_number, metavar="N", help="points drawn from the ranges")
    many.add_argument("--sobol", type=positive_number, metavar="N", help="the same, spread evenly (Sobol)")
    add("--design-seed", type=int, default=0, metavar="SEED", help="of the draws")
    add("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field at every point, repeatable")
    add("--arm", action="append", default=[], metavar="NAME", help="keep only this arm and the baseline, repeatable")
    add("--replications", type=int, metavar="N", help="runs of a point, with input errors")
    add("--executor", choices=["local", "ray"], default="local", help="processes of this machine, or Ray")
    add("--address", help="of a Ray cluster; none starts one here")
    add("--workers", type=int, metavar="N", help="default: the CPUs there are")
    add("--timeout", type=float, default=600.0, metavar="S", help="a point that takes longer has failed (default 600)")
    add("--memory", type=float, metavar="GB", help="a point whose worker holds more has failed (default: no limit)")
    add("--out", type=Path, metavar="DIR", help="ledger and results.parquet (default sweep-NAME)")
    add("--resume", action="store_true", help="go on with the sweep in --out; failed points are tried again")
    add("--json", action="store_true", help="print one line of JSON")
    return parser


def positive_number(text: str) -> int:
    """Return a count; argparse quotes the name of this function."""
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _executor(asked: Namespace) -> Executor:
    if asked.executor == "ray":
        from simulator.sweep.on_ray import RayExecutor

        return RayExecutor(asked.address, asked.workers, timeout_s=asked.timeout)
    from simulator.sweep.local import LocalExecutor

    memory_bytes = None if asked.memory is None else round(asked.memory * 1e9)
    return LocalExecutor(asked.workers or os.cpu_count() or 1, timeout_s=asked.timeout, memory_bytes=memory_bytes)


@contextmanager
def _progress(label: str, design: Design) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr while the block runs; nothing where stderr is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(label, total=len(design))
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)
