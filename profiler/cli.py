"""`bebop profile`: writes LatencyTraces. Answers on stdout, progress on stderr; errors carry their exit code."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import UsageError
from traces.console import Parser
from traces.latency import LatencyTrace, Operation

if TYPE_CHECKING:
    from profiler.sources.aiconfigurator import TraceRequest


def main(argv: Sequence[str]) -> int:
    """Run `bebop profile` with `argv` (the verb left out) and return the exit code.

    Raises:
        ProfilerError: one line for the user, with its exit code: 2 for a mistake, 5 for a missing package.
        TraceError: nobody knows the model.
    """
    arguments = _parser().parse_args(list(argv))
    _check(arguments)
    from profiler.sources.aiconfigurator import TraceRequest, compose_trace
    from profiler.sources.committed import committed_requests
    from traces.store import save_trace

    requests = committed_requests() if arguments.all else (_request(TraceRequest, arguments),)
    for request, path in zip(requests, _paths(requests, arguments), strict=True):
        print(f"composing {request.name}", file=sys.stderr)
        trace = compose_trace(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_trace(trace, path)
        print(_answer(trace, path, as_json=arguments.json))
    return 0


def measured_share(trace: LatencyTrace) -> float:
    """Return the mean measured_fraction of the decode and verify rows."""
    shares = [
        row.measured_fraction or 0.0 for row in trace.rows if row.operation in (Operation.DECODE, Operation.VERIFY)
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bebop profile",
        description="Write a LatencyTrace: how long decode, verify and draft passes of a model take on a GPU.",
    )
    parser.add_argument("--source", choices=["aiconfigurator"], required=True, help="where the latencies come from")
    parser.add_argument("--model", help="model name without its owner, e.g. Qwen3-32B")
    parser.add_argument("--gpu", help="GPU name, e.g. H200")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor-parallel GPUs (default 1)")
    parser.add_argument("--ep", type=int, default=1, metavar="N", help="expert-parallel GPUs (default 1)")
    parser.add_argument("--max-draft-tokens", type=int, default=8, metavar="K", help="largest k (default 8)")
    parser.add_argument("--all", action="store_true", help="write every committed trace; -o is then a folder")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="file (.parquet, .json), a folder with --all")
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON per trace")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    output = arguments.output
    if arguments.all:
        if arguments.model or arguments.gpu:
            raise UsageError("--all writes every committed trace, --model and --gpu choose one; drop one or the other")
        if output is None or output.suffix:
            raise UsageError(f"-o {output}: --all needs a folder; e.g. -o traces/data/latency")
        return
    if not arguments.model or not arguments.gpu:
        raise UsageError("--model and --gpu are needed unless --all is given; e.g. --model Qwen3-32B --gpu H200")
    ranges = (
        ("--tp", arguments.tp, 64),
        ("--ep", arguments.ep, 64),
        ("--max-draft-tokens", arguments.max_draft_tokens, 32),
    )
    for flag, value, high in ranges:
        if not 1 <= value <= high:
            raise UsageError(f"{flag} {value} is outside 1..{high}; choose a value inside")
    if output is not None and output.suffix not in (".parquet", ".json"):
        raise UsageError(f"-o {output}: the suffix names the format; end it in .parquet or .json")


def _request(kind: "type[TraceRequest]", arguments: argparse.Namespace) -> "TraceRequest":
    return kind(arguments.model, arguments.gpu, arguments.tp, arguments.ep, arguments.max_draft_tokens)


def _paths(requests: "Iterable[TraceRequest]", arguments: argparse.Namespace) -> list[Path]:
    if arguments.output is not None and not arguments.all:
        return [arguments.output]
    folder = arguments.output or Path()
    return [folder / f"{request.name}.parquet" for request in requests]


def _answer(trace: LatencyTrace, path: Path, *, as_json: bool) -> str:
    measured = measured_share(trace)
    if as_json:
        answer = {
            "path": str(path),
            "name": trace.name,
            "engine": trace.engine,
            "rows": len(trace.rows),
            "measured_fraction": round(measured, 4),
            "sha256": trace.content_hash(),
        }
        return json.dumps(answer)
    return (
        f"{path}: {trace.model} on {trace.gpu}, {trace.engine}, {len(trace.rows)} rows, "
        f"{measured:.0%} of decode and verify time from measured kernels"
    )
