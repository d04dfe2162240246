"""`bebop forecast`: parse, call one function, print."""

from pathlib import Path

from traces.console import ExitCode, Parser


def main(argv: list[str]) -> int:
    """Run `forecast ...`; return the exit code."""
    parser = Parser(
        prog="bebop forecast",
        description="Fit the first part of a logged run, predict its later steps from their lengths, say how far off.",
    )
    parser.add_argument("log", nargs="+", type=Path, help="log files of one run, or a measured run (`bebop import`)")
    parser.add_argument("--train-fraction", type=float, default=0.2, metavar="X", help="share to fit on (0.2)")
    parser.add_argument("--format", default="auto", metavar="NAME", help="framework of the log (auto)")
    parser.add_argument("--json", action="store_true", help="print the forecast as one line of JSON")
    arguments = parser.parse_args(argv)

    from simulator.forecast.forecast import forecast  # scipy: not needed for a mistake above
    from simulator.forecast.log_file import read_run
    from simulator.forecast.report import forecast_report

    done = forecast(read_run(arguments.log, arguments.format), arguments.train_fraction)
    report = forecast_report(done, arguments.train_fraction)
    if arguments.json:
        print(report.model_dump_json())
    else:
        from simulator.forecast.show import render

        print(render(report))
    return ExitCode.OK
