"""`bebop testbed predict` and `compare`: what a testbed's run will take, and how far that is from what it took.

Progress on stderr. Here and not in the profiler, because no package below knows runs, predictions and pictures.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from dashboard.testbed_plan import Plan
from profiler.errors import UsageError
from profiler.testbed.cli import count_option, read_config
from simulator.run import simulate
from simulator.testbed_rows import Round, Row, as_json, row_of
from simulator.testbed_scenario import scenario_of
from traces.console import ExitCode, Parser
from traces.measured import MeasuredRun
from traces.report import RunReport
from traces.store import load_trace, write_atomically
from traces.testbed import TestbedConfig, TestbedProfile

CONFIGS: Final = Path(__file__).parent.parent / "profiler" / "testbed" / "configs"
ENGINES: Final = {"torch": "torch", "llamacpp": "xllamacpp"}
"""Module that each engine needs."""
QUICK: Final = "quick"
"""Folder, among the configs, of those that `--quick` compares."""
QUICK_SWEEPS: Final = 4
"""Of their profiles."""


def main(argv: Sequence[str]) -> int:
    """Run `bebop testbed predict|compare` and return the exit code.

    Raises:
        UsageError: No such config, or none that drafts.
        RunError: A profile or a run failed.
        ScenarioError: A profile that is not of this config.
    """
    arguments = _parser().parse_args(list(argv))
    if arguments.subverb == "predict":
        report = predict(read_config(arguments.config), arguments.profile)
        write_atomically(arguments.output, report.to_json().encode() + b"\n")
        said = next(iter(report.arms.values())).end_to_end_speedup
        print(f"{report.scenario}: {said.mean:.2f}x ({said.low:.2f} to {said.high:.2f}) over plain decoding")
        return ExitCode.OK
    rows = chosen_rows(arguments.only, quick=arguments.quick, engine=arguments.engine)
    is_chosen = arguments.only is not None or arguments.engine is not None
    with TemporaryDirectory(prefix="bebop-testbed-") as spare:
        plan = Plan(tuple(rows), arguments.output or Path(spare), arguments.sittings)
        if arguments.quick:
            plan = replace(plan, num_sweeps=QUICK_SWEEPS)
        if not is_chosen:
            plan = replace(plan, rows=tuple(possible_rows(plan)))
        found = compare(plan)
    print(json.dumps(as_json(found)) if arguments.json else _table(found))
    if arguments.write is not None:
        from dashboard.figures.testbed import speedups
        from dashboard.picture import write_picture
        from dashboard.testbed_page import write_page

        write_page(found, arguments.write)
        write_picture(speedups(found), arguments.write.with_suffix(".png"), WIDTH_PX)
    return ExitCode.OK


WIDTH_PX: Final = 760


def predict(config: TestbedConfig, profile: Path) -> RunReport:
    """Return the prediction of a config from a profile's folder; no run is looked at."""
    folder = profile if profile.is_dir() else profile.parent
    return simulate(scenario_of(config, load_trace(folder / "profile.json", TestbedProfile), folder))


def compare(plan: Plan) -> list[Row]:
    """Profile, predict and run what a folder does not hold yet; return measured beside predicted."""
    plan.make(lambda text: print(text, file=sys.stderr, flush=True))
    found = []
    for config in plan.rows:
        rounds = []
        for number, sitting in enumerate(plan.sittings(config), start=1):
            report = predict(config, sitting.profile)
            path = plan.folder / "predicted" / config.name / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, report.to_json().encode() + b"\n")
            rounds.append(
                Round(report, load_trace(sitting.plain, MeasuredRun), load_trace(sitting.drafting, MeasuredRun))
            )
        found.append(row_of(config, rounds))
    return found


def chosen_rows(only: Sequence[str] | None, *, quick: bool, engine: str | None = None) -> list[TestbedConfig]:
    """Return the shipped configs that draft, of one engine or of all, or those named: shipped ones or TOML files.

    Raises:
        UsageError: No such config, or one that drafts nothing.
    """
    shipped = {path.stem: path for path in sorted((CONFIGS / QUICK if quick else CONFIGS).glob("*.toml"))}
    paths = [shipped.get(name, Path(name)) for name in only] if only else list(shipped.values())
    for path in paths:
        if not path.is_file():
            raise UsageError(f"--only {path}: no such config; the shipped are {', '.join(shipped)}, or name a file")
    rows = [read_config(path) for path in paths]
    plain = [config.name for config in rows if config.k == 0]
    if plain and only:
        raise UsageError(f"--only {plain[0]}: it drafts nothing, so there is no speedup; name one with k above 0")
    return [config for config in rows if config.k > 0 and engine in (None, config.engine)]


def possible_rows(plan: Plan) -> list[TestbedConfig]:
    """Return the rows whose engine is installed, or of which nothing is left to measure; say which are left out.

    Where no engine is, all of them, so that the first one that runs says what it misses.
    """
    installed = {engine for engine, module in ENGINES.items() if importlib.util.find_spec(module) is not None}
    possible = [row for row in plan.rows if row.engine in installed or plan.is_measured(row)]
    left_out = [row.name for row in plan.rows if row not in possible]
    if not possible:
        return list(plan.rows)
    if left_out:
        print(f"left out, as their engine is not installed: {', '.join(left_out)}", file=sys.stderr)
    return possible


def _table(rows: Sequence[Row]) -> str:
    head = f"{'configuration':34}{'measured':>10}{'predicted':>11}{'error':>8}   interval"
    lines = [
        f"{row.config.name:34}{row.speedup.measured:9.2f}x{row.speedup.predicted:10.2f}x{row.speedup.error:+8.1%}   "
        f"{row.speedup.low:.2f} to {row.speedup.high:.2f}"
        for row in rows
    ]
    figures = as_json(rows)
    sums = [
        f"median error {figures['median_error']:.1%}, worst {figures['worst_error']:.1%}, "
        f"sign right {figures['sign_accuracy']:.0%}"
    ]
    return "\n".join([head, *lines, "", *sums])


def _parser() -> Parser:
    parser = Parser(prog="bebop testbed", description="Predict a testbed's run; compare predictions with runs.")
    subverbs = parser.add_subparsers(dest="subverb", required=True, metavar="profile|run|predict|compare")
    for name, meaning in (
        ("profile", "measure step latencies, acceptance and phases of a config"),
        ("run", "run a config for real, and log what happens"),
    ):
        subverbs.add_parser(name, help=meaning, add_help=False)
    predicts = subverbs.add_parser("predict", help="predict a config from a profile", description=predict.__doc__)
    predicts.add_argument("config", type=Path, metavar="CONFIG", help="TOML; examples in profiler/testbed/configs")
    predicts.add_argument("profile", type=Path, metavar="PROFILE", help="folder that `bebop testbed profile` wrote")
    predicts.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json", help="report to write")
    compares = subverbs.add_parser(
        "compare", help="profile, predict and run configs; lay both side by side", description=compare.__doc__
    )
    compares.add_argument("--quick", action="store_true", help="two small configurations, in under three minutes")
    compares.add_argument("--json", action="store_true", help="print one line of JSON")
    compares.add_argument("--engine", choices=("torch", "llamacpp"), help="configs of this engine only")
    compares.add_argument("--only", action="append", metavar="NAME", help="one of the shipped configs, or a TOML file")
    compares.add_argument(
        "--sittings",
        type=count_option,
        default=1,
        metavar="N",
        help="times that all is profiled, and run with drafts and without, at least (default 1)",
    )
    compares.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="keep profiles, runs and predictions; what is there is kept"
    )
    compares.add_argument("--write", type=Path, metavar="FILE.md", help="put tables and figure into a page")
    return parser
