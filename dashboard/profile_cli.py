"""`bebop profile show` and `bebop profile compare`: latency traces as tables and pictures. Measures nothing.

Stands here because no package below knows both traces and figures.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dashboard.latency_tables import render_comparison, render_trace
from dashboard.picture import SUFFIXES, WIDTH_PX, write_picture
from profiler.comparison import compare
from profiler.errors import UsageError
from profiler.step_times import StepTimes, step_times, typical_contexts
from traces.console import ExitCode, Parser
from traces.latency import LatencyTrace
from traces.store import find_trace, load_trace

MAX_PANELS = 6
WIDTHS_PX = (320, 8000)


def main(argv: Sequence[str]) -> int:
    """Run `show` or `compare`, the first of `argv`, and return the exit code.

    Raises:
        TraceError: No such trace, or not a latency trace.
        UsageError: Options outside their range, or traces without a common point.
        PictureError: A PNG or SVG without a browser.
    """
    verb, *rest = argv
    return {"show": _show, "compare": _compare}[verb](rest)


def _show(argv: list[str]) -> int:
    parser = Parser(
        prog="bebop profile show",
        description="Print decode and verify times of a latency trace by batch, context and q, and draw them over the "
        "least time that the GPU's datasheet allows.",
    )
    parser.add_argument("trace", metavar="TRACE", help="a shipped latency trace, or a .parquet or .json file")
    parser.add_argument("--contexts", type=_contexts, metavar="N,...", help="contexts to show; default three, or `all`")
    parser.add_argument("--tp", type=int, metavar="N", help="rows of this tensor-parallel size")
    parser.add_argument("--ep", type=int, metavar="N", help="rows of this expert-parallel size")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="picture: .html, .png, .svg; no -o: NAME.html"
    )
    parser.add_argument("--width", type=int, default=WIDTH_PX, metavar="PX", help="of a PNG or SVG (default 1440)")
    parser.add_argument("--no-picture", action="store_true", help="print only")
    parser.add_argument("--json", action="store_true", help="one line of JSON; draws only with -o")
    arguments = parser.parse_args(argv)
    _check(arguments)
    trace = load_trace(find_trace(arguments.trace, "latency"), LatencyTrace)
    found = step_times(trace, arguments.tp, arguments.ep)
    contexts = _chosen(trace, found, arguments.contexts)
    print(_as_json(trace, found) if arguments.json else render_trace(trace, found, contexts))
    if arguments.no_picture or (arguments.json and arguments.output is None):
        return ExitCode.OK
    path = arguments.output or Path(f"{trace.name}.html")
    from dashboard.figures.step_latency import step_latency  # Plotly takes its time, and printing needs none

    write_picture(step_latency(trace, found, contexts[:MAX_PANELS]), path, arguments.width)
    print(f"picture: {path}", file=sys.stderr)
    return ExitCode.OK


def _compare(argv: list[str]) -> int:
    parser = Parser(
        prog="bebop profile compare",
        description="Print the ratio of two latency traces, B over A, by operation, range of batches and of contexts.",
    )
    for name in ("A", "B"):
        parser.add_argument(name.lower(), metavar=name, help="a shipped latency trace, or a .parquet or .json file")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    first, second = (load_trace(find_trace(name, "latency"), LatencyTrace) for name in (arguments.a, arguments.b))
    found = compare(first, second)
    if arguments.json:
        print(json.dumps({"a": first.name, "b": second.name, **asdict(found)}))
    else:
        print(render_comparison(first, second, found))
    return ExitCode.OK


def _contexts(text: str) -> tuple[int, ...]:
    if text == "all":
        return ()
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is neither `all` nor whole numbers separated by commas")
    return tuple(sorted({int(part) for part in parts}))


def _check(arguments: argparse.Namespace) -> None:
    if arguments.output is not None and arguments.output.suffix not in SUFFIXES:
        raise UsageError(f"-o {arguments.output}: the suffix names the format; end it in {', '.join(SUFFIXES)}")
    if not WIDTHS_PX[0] <= arguments.width <= WIDTHS_PX[1]:
        raise UsageError(f"--width {arguments.width} is outside {WIDTHS_PX[0]}..{WIDTHS_PX[1]}; choose a value inside")


def _chosen(trace: LatencyTrace, found: StepTimes, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is None:
        return typical_contexts(found.times)
    unknown = [context for context in wanted if context not in found.contexts_tokens]
    if unknown:
        known = ", ".join(map(str, found.contexts_tokens)) or "none"
        raise UsageError(f"--contexts {unknown[0]}: {trace.name} has no pass there; it has {known}")
    return wanted or found.contexts_tokens


def _as_json(trace: LatencyTrace, found: StepTimes) -> str:
    measurement = None if trace.measurement is None else trace.measurement.model_dump(mode="json")
    head = {field: getattr(trace, field) for field in ("name", "model", "gpu", "precision", "engine")}
    return json.dumps({**head, **asdict(found), "measurement": measurement})
