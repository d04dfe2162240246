"""`bebop import`: read the log of a run, say what was understood, and write it as a trace."""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from traces.complaint import complaint
from traces.console import ExitCode, Parser
from traces.errors import TraceError
from traces.importers.formats import FRAMEWORKS
from traces.importers.log import read_log
from traces.measured import ImportAccount, MeasuredRun, Quality, Setup
from traces.store import save_trace

SHOWN_LINES = 12
"""Lines per part of the account that are printed; `--json` and the trace hold all."""


def main(argv: list[str]) -> int:
    """Import the files that the arguments name; the exit code is 2 where nothing can be imported."""
    arguments = _parser().parse_args(argv)
    stated = _stated(arguments.set)
    _check_output(arguments.output, arguments.files)
    run = read_log(arguments.files, arguments.format, stated, name=arguments.name)
    if arguments.output is not None:
        save_trace(run, arguments.output)
    print(json.dumps(_summary(run, arguments.output)) if arguments.json else "\n".join(_lines(run, arguments.output)))
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="bebop import", description="Read the log of an RL run or an engine, and write it as a trace.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="log, event file or metrics of one run")
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"auto (default), {', '.join(FRAMEWORKS)}")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="trace to write (.json, .parquet)")
    parser.add_argument("--name", help="name of the run (default: that of the first file)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="setup.FIELD=VALUE", help="what the log does not say, repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print the account as one line of JSON")
    return parser


def _stated(overrides: list[str]) -> Setup | None:
    """Return the facts in `setup.num_gpus=4 ...`."""
    facts: dict[str, Any] = {}
    for override in overrides:
        path, equals, raw = override.partition("=")
        field = path.strip().removeprefix("setup.")
        if not equals or not path.strip().startswith("setup."):
            raise TraceError(
                f"--set {override}: is no setup.FIELD=VALUE; the fields are {', '.join(Setup.model_fields)}"
            )
        try:
            facts[field] = tomllib.loads(f"value = {raw.strip()}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            facts[field] = raw.strip()
    try:
        return Setup(**facts) if facts else None
    except ValidationError as error:
        raise TraceError(f"--set setup.{complaint(error, Setup)}; see `bebop schema measured`") from None


def _check_output(output: Path | None, files: list[Path]) -> None:
    if output is None:
        return
    if output.suffix not in (".json", ".parquet"):
        raise TraceError(f"-o {output}: the suffix names the format; end it in .parquet or .json")
    if any(output.resolve() == file.resolve() for file in files):
        raise TraceError(f"-o {output}: is the log itself; name another file")


def _summary(run: MeasuredRun, output: Path | None) -> dict[str, Any]:
    return {
        "framework": run.framework,
        "name": run.name,
        "num_steps": len(run.steps),
        "setup": run.setup.model_dump(exclude_none=True),
        "quality": _quality(run),
        "account": run.account.model_dump(mode="json") if run.account else None,
        "output": str(output) if output else None,
    }


def _lines(run: MeasuredRun, output: Path | None) -> list[str]:
    account = run.account
    assert account is not None  # read_log always gives one
    steps = run.steps
    first, last = steps[0], steps[-1]
    restarts = f", {last.segment} restarts" if last.segment else ""
    lines = [
        f"run         {run.name}: {run.framework}, {len(steps)} steps, {first.step} to {last.step}{restarts}",
        f"read        {account.num_lines} lines, {account.num_step_lines} of them with numbers of a step",
    ]
    facts = run.setup.model_dump(exclude_none=True)
    lines += _part("setup", [f"{name} = {value}" for name, value in facts.items()])
    lines += _part(
        "understood", [f"{field:24}{key}" for field, key in account.understood.items()], limit=len(account.understood)
    )
    lines += _part("missing", [", ".join(account.missing)] if account.missing else [])
    lines += _part("ignored", [f"{what}: {why}" for what, why in account.ignored.items()])
    lines += _dropped(account)
    lines += _part("marked", [f"{count} steps {quality}" for quality, count in _quality(run).items()])
    lines.append(
        f"written     {output}" if output else "written     nothing; -o FILE.json or FILE.parquet writes the trace"
    )
    return lines


def _dropped(account: ImportAccount) -> list[str]:
    if not account.num_dropped:
        return ["dropped     nothing"]
    shown = list(account.dropped[:SHOWN_LINES])
    if account.num_dropped > len(shown):
        shown.append(f"and {account.num_dropped - len(shown)} more")
    return _part("dropped", shown, limit=len(shown))


def _part(title: str, items: list[str], limit: int = SHOWN_LINES) -> list[str]:
    shown = items[:limit] + ([f"and {len(items) - limit} more"] if len(items) > limit else [])
    return [f"{title if index == 0 else '':12}{item}" for index, item in enumerate(shown)]


def _quality(run: MeasuredRun) -> dict[str, int]:
    counts = {quality.value: sum(quality in step.quality for step in run.steps) for quality in Quality}
    return {name: count for name, count in counts.items() if count}
