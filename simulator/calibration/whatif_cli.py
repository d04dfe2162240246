"""`bebop whatif`: parse, call one function, print."""

from pathlib import Path

from traces.console import ExitCode, Parser


def main(argv: list[str]) -> int:
    """Run `whatif ...`; return the exit code."""
    parser = Parser(prog="bebop whatif", description="This very run, with drafts: how much faster, step by step.")
    parser.add_argument("log", nargs="+", type=Path, help="log files of one run, or a measured run (`bebop import`)")
    parser.add_argument(
        "--spec", required=True, metavar="k=N", help="draft tokens; also train_overhead=X, dispersion=X"
    )
    parser.add_argument(
        "--acceptance",
        required=True,
        metavar="LAW|TRACE|RATES",
        help="rs_e2e_tv/reasoning, an acceptance trace as NAME:LOSS[:VERIFY_RULE[:TASK]], or c_1,c_2,..",
    )
    parser.add_argument("--scenario", help="bundled name or TOML file that states the run; else what the log says")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field, repeatable")
    parser.add_argument("--format", default="auto", metavar="NAME", help="framework of the log (auto)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args(argv)

    from simulator.calibration.calibrate import calibrate  # compiled kernels: slow to import
    from simulator.calibration.cli import read_fields
    from simulator.calibration.drafts import arm_of
    from simulator.calibration.logged_scenario import scenario_of
    from simulator.calibration.whatif import what_if
    from simulator.calibration.whatif_report import whatif_report
    from simulator.forecast.log_file import read_run

    if arguments.set and not arguments.scenario:
        parser.error("--set changes a scenario, and none is given; add --scenario")
    arm = arm_of(arguments.spec, arguments.acceptance)
    stated = read_fields(arguments.scenario, arguments.set) if arguments.scenario else None
    run = read_run(arguments.log, arguments.format)
    content, name = stated or (scenario_of(run), "from-log")
    calibration = calibrate(run, content, name, ", ".join(path.name for path in arguments.log))
    report = whatif_report(what_if(calibration, arm), arguments.acceptance)
    if arguments.json:
        print(report.model_dump_json())
    else:
        from simulator.calibration.whatif_show import render

        print(render(report))
    return ExitCode.OK
