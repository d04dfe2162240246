"""`bebop simulate` and `bebop scenarios`: parse, call one function, print."""

import argparse
import errno
import json
import os
from pathlib import Path

from simulator.progress_bar import progress_bar
from simulator.scenario_file import DEFAULT_SCENARIO, list_scenarios, load_scenario, parse_scenario, read_scenario
from traces.console import ExitCode, Parser


def main(argv: list[str]) -> int:
    """Run `simulate ...` or `scenarios ...`; return the exit code."""
    verb, *rest = argv
    return {"simulate": _simulate, "scenarios": _scenarios}[verb](rest)


def _simulate(argv: list[str]) -> int:
    parser = Parser(prog="bebop simulate", description="Predict the speedup of a scenario, and say why.")
    parser.add_argument("scenario", nargs="?", default=DEFAULT_SCENARIO, help="bundled name or TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("--seed", type=int, help="root of all random numbers")
    parser.add_argument("--replications", type=int, help="runs to take intervals from")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    parser.add_argument("-o", "--out", type=Path, help="also write the report's JSON to a file")
    arguments = parser.parse_args(argv)
    scenario = load_scenario(arguments.scenario, _overrides(arguments))
    if arguments.out is not None:
        _check_writable(arguments.out)

    from simulator.run import simulate  # compiled kernels: slow to import, and not needed for a mistake above

    with progress_bar(scenario.name) as advance:
        report = simulate(scenario, progress=advance)
    if arguments.out is not None:
        from traces.store import write_atomically

        write_atomically(arguments.out, (report.to_json() + "\n").encode())
    if arguments.json:
        print(report.to_json())
    else:
        from simulator.table import render

        print(render(report))
    return ExitCode.OK


def _scenarios(argv: list[str]) -> int:
    parser = Parser(prog="bebop scenarios", description="List the bundled scenarios, or print one.")
    parser.add_argument("name", nargs="?", help="print this scenario's TOML, to copy and change")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.name is not None:
        text, path = read_scenario(arguments.name)
        scenario = parse_scenario(text, path.name)
        print(scenario.model_dump_json() if arguments.json else text, end="\n" if arguments.json else "")
        return ExitCode.OK
    listed = list_scenarios()
    if arguments.json:
        print(json.dumps([{"name": name, "question": question} for name, question in listed]))
        return ExitCode.OK
    width = max(len(name) for name, _ in listed)
    for name, question in listed:
        print(f"{name:{width}}  {question}")
    return ExitCode.OK


def _check_writable(path: Path) -> None:
    """Raise now what writing the file would raise after the work."""
    folder = path.parent
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


def _overrides(arguments: argparse.Namespace) -> list[str]:
    overrides: list[str] = list(arguments.set)
    if arguments.seed is not None:
        overrides.append(f"run.seed={arguments.seed}")
    if arguments.replications is not None:
        overrides.append(f"run.replications={arguments.replications}")
    return overrides
