"""The one command, `bebop VERB`: hands each verb to its package, imported only when the verb runs."""

import argparse
import importlib
import sys
from collections.abc import Callable

VERBS = {
    "simulate": "predict the speedup of a scenario, and say why",
    "scenarios": "list the bundled scenarios",
    "plan": "search for the best use of so many GPUs",
    "sweep": "simulate a scenario at many points",
    "sensitivity": "say which unknown input the answer depends on most",
    "serve": "answer over HTTP, with a queue",
    "report": "write runs as one HTML page, or for other programs",
    "trace": "write a run's timeline for Perfetto",
    "import": "read the log of a run as a trace",
    "compare": "compare two runs, measured or predicted, and say why they differ",
    "calibrate": "fit to a log what a scenario leaves open",
    "forecast": "predict the later steps of a logged run from its first ones",
    "whatif": "predict a logged run with MTP drafts",
    "scorecard": "predict public measurements, and say how far off",
    "profile": "make a latency trace; show one; compare two",
    "study": "train small models with MTP heads and count acceptance",
    "testbed": "run a small real RL system, and compare it with its prediction",
    "ui": "open the dashboard in a browser",
    "schema": "print the JSON Schema of a file format",
    "doctor": "show what this installation can do",
}

_MODULES = {
    "simulate": "simulator.cli",
    "scenarios": "simulator.cli",
    "plan": "simulator.plan_cli",
    "sweep": "simulator.sweep.cli",
    "sensitivity": "simulator.sensitivity_cli",
    "serve": "simulator.service.cli",
    "report": "dashboard.report.cli",
    "trace": "simulator.timeline_cli",
    "import": "traces.importers.cli",
    "compare": "simulator.compare.cli",
    "calibrate": "simulator.calibration.cli",
    "forecast": "simulator.forecast.cli",
    "whatif": "simulator.calibration.whatif_cli",
    "scorecard": "simulator.scorecard.cli",
    "profile": "profiler.cli",
    "study": "profiler.mtp.cli",
    "testbed": "dashboard.testbed_cli",
    "ui": "dashboard.cli",
    "doctor": "traces.doctor",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"bebop {version('bebop-rollout')}")
        return 0
    if arguments.verb is None:
        _parser().print_help(sys.stderr)
        return 2
    if arguments.verb not in VERBS:
        print(f"bebop: no verb {arguments.verb!r}{_did_you_mean(arguments.verb)}", file=sys.stderr)
        return 2
    debug = arguments.debug or "--debug" in arguments.rest
    rest = [argument for argument in arguments.rest if argument != "--debug"]
    try:
        from traces.console import run_command
    except ImportError as error:
        print(f"bebop: {error}; run `make setup`, which repairs the installation", file=sys.stderr)
        return 5
    return run_command(lambda: _find(arguments.verb, rest)(rest), debug=debug)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    parser = argparse.ArgumentParser(
        prog="bebop",
        usage="bebop VERB ...",
        description="Predict how much faster an LLM-RL run finishes with MTP speculative decoding, and why.",
        epilog="verbs:\n"
        + "\n".join(f"  {verb:{width}}  {meaning}" for verb, meaning in VERBS.items())
        + "\n\n`bebop VERB --help` says more. --debug, anywhere, shows the traceback of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("verb", nargs="?", metavar="VERB", help="what to do")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _find(verb: str, rest: list[str]) -> Callable[[list[str]], int]:
    """Import the package of a verb and return its entry point."""
    if verb == "profile" and rest[:1] in (["show"], ["compare"]):  # figures are the dashboard's
        return _entry("dashboard.profile_cli")
    if verb == "profile" and "roofline" in [each.removeprefix("--source=") for each in rest]:
        return _entry("simulator.roofline_cli")
    if verb == "testbed" and rest[:1] in (["profile"], ["run"]):  # predictions and pictures are not the profiler's
        return _entry("profiler.testbed.cli")
    if verb == "schema":
        return _schema
    command = _entry(_MODULES[verb])
    if _MODULES[verb] == "simulator.cli":  # one entry point for two verbs
        return lambda rest: command([verb, *rest])
    return command


def _entry(module: str) -> Callable[[list[str]], int]:
    main: Callable[[list[str]], int] = importlib.import_module(module).main
    return main


def _schema(argv: list[str]) -> int:
    """Print or write JSON Schemas; lives here because no package below knows both traces and scenarios."""
    import json
    from pathlib import Path

    from pydantic import BaseModel

    from simulator.config import Scenario
    from traces.console import Parser
    from traces.schema import FORMATS, schema_text
    from traces.store import write_atomically

    models: dict[str, type[BaseModel]] = {**FORMATS, "scenario": Scenario}
    parser = Parser(prog="bebop schema", description="Print the JSON Schema of a file format.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(models)}; none lists them")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write DIR/NAME.json instead; no name writes all")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        if name not in models:
            print(f"bebop: no format {name!r}; the formats are {', '.join(models)}", file=sys.stderr)
            return 2
    if arguments.write:
        for name in arguments.names or models:
            write_atomically(arguments.write / f"{name}.json", schema_text(models[name]).encode())
    elif arguments.json:
        schemas = {name: models[name].model_json_schema() for name in arguments.names}
        print(json.dumps(schemas if schemas else list(models)))
    elif arguments.names:
        print("".join(schema_text(models[name]) for name in arguments.names), end="")
    else:
        width = max(map(len, models))
        for name, model in models.items():
            print(f"{name:{width}}  {(model.__doc__ or '').splitlines()[0]}")
    return 0


def _did_you_mean(verb: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(verb, VERBS, n=1)
    return f"; did you mean `bebop {close[0]}`?" if close else f"; the verbs are {', '.join(VERBS)}"


if __name__ == "__main__":
    sys.exit(main())
