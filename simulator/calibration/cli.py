"""`bebop calibrate`: parse, call one function, print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.scenario_file import parse_fields, read_scenario, scenario_fields
from traces.console import ExitCode, Parser


def main(argv: list[str]) -> int:
    """Run `calibrate ...`; return the exit code."""
    parser = Parser(
        prog="bebop calibrate",
        description="Fit to a log what physics leaves open of a scenario, and say what the log does not tell.",
    )
    parser.add_argument("log", nargs="+", type=Path, help="log files of one run, or a measured run (`bebop import`)")
    parser.add_argument("--scenario", required=True, help="bundled name or TOML file that states the run")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("-o", "--out", type=Path, metavar="NEW.toml", help="write the calibrated scenario")
    parser.add_argument("--format", default="auto", metavar="NAME", help="framework of the log (auto)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args(argv)
    content, name = read_fields(arguments.scenario, arguments.set)

    from simulator.calibration.calibrate import calibrate  # compiled kernels: slow to import
    from simulator.calibration.report import calibration_report
    from simulator.forecast.log_file import read_run

    source = ", ".join(path.name for path in arguments.log)
    done = calibrate(read_run(arguments.log, arguments.format), content, name, source)
    if arguments.out is not None:
        from traces.store import write_atomically

        write_atomically(arguments.out, done.toml(source).encode())
    report = calibration_report(done)
    if arguments.json:
        print(report.model_dump_json())
    else:
        from simulator.calibration.show import render

        print(render(report))
        print(f"\nwritten: {arguments.out}" if arguments.out else "\n-o NEW.toml writes the calibrated scenario")
    return ExitCode.OK


def read_fields(name_or_path: str, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return a scenario's fields as they are written, overrides among them, and the name of its file.

    Raises:
        ScenarioError: No such scenario, or one that cannot be run; one line.
    """
    text, path = read_scenario(name_or_path)
    fields = scenario_fields(text, path.name, overrides)
    parse_fields(fields, path.name)  # what is wrong with it shows before anything is fitted
    return fields, path.name
