"""`bebop profile`: writes LatencyTraces. Answers on stdout, progress on stderr; errors carry their exit code."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import MissingPackageError, UsageError
from traces.console import Parser
from traces.latency import LatencyTrace, Operation

if TYPE_CHECKING:
    from profiler.sources.aiconfigurator import TraceRequest

MAX_DRAFT_TOKENS = 8
"""Largest k of a trace unless told otherwise."""
MAX_SIZE = 10_000_000
"""Largest batch or context of a grid (that of a trace's rows)."""


def main(argv: Sequence[str]) -> int:
    """Run `bebop profile` with `argv` (the verb left out) and return the exit code.

    Raises:
        ProfilerError: one line for the user, with its exit code: 2 for a mistake, 5 for a missing package.
        TraceError: nobody knows the model.
    """
    arguments = _parser().parse_args(list(argv))
    if arguments.source == "llamacpp" or (arguments.source is None and arguments.device is None):
        return _measure_engine(arguments, argv)
    if arguments.source is None:
        return _measure(arguments, argv)
    if arguments.source == "engine":
        return _ask_engine(arguments, argv)
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


def _measure(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Time a model on this machine."""
    if arguments.gpu or arguments.all:
        raise UsageError("--gpu and --all belong to --source; --device cuda measures the GPU of this machine")
    if arguments.precision not in (None, "bf16", "fp32", "fp8"):
        raise UsageError(f"--precision {arguments.precision}: kernels are timed here in bf16, fp32 and fp8; choose one")
    _check_output(arguments.output)
    from profiler.measure import measure, request_of

    trace, path = measure(request_of(arguments, argv), arguments.output)
    print(_measured_answer(trace, path, as_json=arguments.json))
    return 0


def _ask_engine(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Time a running engine from outside."""
    _check_output(arguments.output)
    from profiler.sources.engine.measure import key_from, measure, request_of

    request, key = request_of(arguments, argv), key_from(arguments.api_key_env)
    written = measure(request, arguments.output, key)
    print(_measured_answer(written.trace, written.path, as_json=arguments.json))
    if written.acceptance is not None and not arguments.json:
        counted = written.acceptance.rows[0]
        shares = ", ".join(f"{share:.3f}" for share in counted.cumulative)
        print(f"{written.acceptance_path}: accepted by position {shares}, {counted.num_steps} verify steps")
    return 0


def _measure_engine(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Time a model in llama.cpp."""
    _check_output(arguments.output)
    if arguments.device is not None:
        raise UsageError(
            f"--device {arguments.device} times torch's kernels, --source llamacpp an engine; drop one of them"
        )
    try:
        from profiler.sources.llamacpp.profile import measure_engine, request_of
    except ModuleNotFoundError as error:
        if error.name not in ("xllamacpp", "gguf"):
            raise
        raise MissingPackageError(
            f"{error.name} is not installed; run `pip install '.[llamacpp]'` in the checkout, or time torch's kernels "
            "instead: bebop profile --device cpu"
        ) from None
    trace, path = measure_engine(request_of(arguments, argv), arguments.output)
    print(_measured_answer(trace, path, as_json=arguments.json))
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
        description="Write a LatencyTrace: how long prefill, decode, verify and draft passes of a model take. "
        "Times them on this machine, in an engine (--source llamacpp) or as single passes (--device), or on a running "
        "engine (--source engine), or composes them from a database of kernels (--source aiconfigurator). Without any "
        "option a bundled tiny model is timed in llama.cpp on the CPU.",
        epilog="`bebop profile show TRACE` prints and draws a trace, `bebop profile compare A B` holds two together.",
    )
    parser.add_argument("--model", metavar="NAME", help="a name of the architecture table, or a config.json")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor-parallel GPUs (default 1)")
    parser.add_argument("--ep", type=int, default=1, metavar="N", help="expert-parallel GPUs (default 1)")
    parser.add_argument("--max-draft-tokens", type=int, metavar="K", help="largest k (default 8; 3 on a CPU)")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="file (.parquet, .json), a folder with --all")
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON per trace")
    _add_device_options(parser.add_argument_group("timing on this machine"))
    database = parser.add_argument_group("another source")
    database.add_argument(
        "--source",
        choices=["llamacpp", "engine", "aiconfigurator", "roofline"],
        help="where the latencies come from (default llamacpp, without --device)",
    )
    database.add_argument("--gpu", help="GPU name, e.g. H200")
    database.add_argument("--all", action="store_true", help="write every committed trace; -o is then a folder")
    _add_engine_options(parser.add_argument_group("asking a running engine (--source engine)"))
    return parser


def _add_engine_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--url", metavar="URL", help="of vLLM, SGLang or llama.cpp, e.g. http://127.0.0.1:8000")
    group.add_argument("--k", type=int, metavar="K", help="draft tokens, where the server does not tell")
    group.add_argument("--plain", type=Path, metavar="TRACE", help="take missing rows from here, e.g. those of k = 0")
    group.add_argument("--tokens", type=int, default=256, metavar="N", help="generated by each request (default 256)")
    group.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of sampling (default 1)")
    group.add_argument("--vocab-size", type=int, metavar="N", help="token ids of prompts lie below (default 16000)")
    group.add_argument("--timeout-s", type=float, default=120.0, metavar="S", help="longest silence (default 120)")
    group.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the server's key")


def _add_device_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--device", choices=["cpu", "cuda"], help="time single passes in torch, on this device")
    group.add_argument("--precision", metavar="NAME", help="of weights: bf16, fp32, fp8 (default bf16; fp32 on a CPU)")
    group.add_argument("--batches", type=_sizes, metavar="N,...", help="batches of the coarse grid")
    group.add_argument("--contexts", type=_sizes, metavar="N,...", help="contexts of the coarse grid, tokens")
    group.add_argument("--prefills", type=_sizes, metavar="N,...", help="new tokens of prefill passes")
    group.add_argument("--budget-s", type=float, metavar="S", help="time to measure in (default 480; 30 on a CPU)")
    group.add_argument("--sweeps", type=int, default=3, metavar="N", help="samples of every point (default 3)")
    group.add_argument(
        "--held-out", type=int, metavar="N", help="points that only check the others (default 24; 8 on a CPU)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads, pinned (default all; 1 with llamacpp)")
    group.add_argument(
        "--accepted-share",
        type=float,
        default=0.5,
        metavar="S",
        help="with llamacpp: drafts accepted, 0..1 (default 0.5)",
    )
    group.add_argument(
        "--verify-rule", choices=["greedy_draft", "rejection", "block"], default="rejection", help="default rejection"
    )
    group.add_argument("--expert-skew", type=float, default=1.01, metavar="S", help="expert popularity is rank^-S")
    group.add_argument(
        "--routing",
        type=Path,
        metavar="FILE",
        help="recorded experts instead (.npz, .parquet, .csv; docs/profiling.md)",
    )
    group.add_argument("--sync-to", choices=["device", "host"], default="device", help="where a weight sync copies to")
    group.add_argument("--train-tokens", type=int, metavar="N", help="also time a train step over N tokens")
    group.add_argument("--fleet", action="store_true", help="spread the work over all GPUs of this machine (Ray)")
    group.add_argument("--fleet-workers", type=int, metavar="N", help="GPUs of the fleet; on a CPU for tests only")
    group.add_argument("--shared", action="store_true", help="measure though others compute on the GPU")
    group.add_argument("--eager", action="store_true", help="do not compile pointwise work on a GPU")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, routing and order")


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= MAX_SIZE for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not whole numbers from 1 to {MAX_SIZE}, separated by commas")
    return tuple(sorted({int(part) for part in parts}))


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
        ("--max-draft-tokens", arguments.max_draft_tokens or MAX_DRAFT_TOKENS, 32),
    )
    for flag, value, high in ranges:
        if not 1 <= value <= high:
            raise UsageError(f"{flag} {value} is outside 1..{high}; choose a value inside")
    _check_output(output)


def _check_output(output: Path | None) -> None:
    if output is not None and output.suffix not in (".parquet", ".json"):
        raise UsageError(f"-o {output}: the suffix names the format; end it in .parquet or .json")


def _request(kind: "type[TraceRequest]", arguments: argparse.Namespace) -> "TraceRequest":
    most = arguments.max_draft_tokens or MAX_DRAFT_TOKENS
    return kind(arguments.model, arguments.gpu, arguments.tp, arguments.ep, most)


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


def _measured_answer(trace: LatencyTrace, path: Path, *, as_json: bool) -> str:
    found = trace.measurement
    assert found is not None
    held_out = found.held_out
    parts_off = [abs(step.sum_of_parts_s / step.measured_s - 1) for step in found.composed]
    if as_json:
        answer = {
            "path": str(path),
            "name": trace.name,
            "engine": trace.engine,
            "rows": len(trace.rows),
            "noisy": found.num_noisy,
            "infeasible": len(found.infeasible),
            "held_out": held_out.model_dump() if held_out else None,
            "composed_worst": max(parts_off, default=None),
            "sha256": trace.content_hash(),
        }
        return json.dumps(answer)
    lines = [
        f"{path}: {trace.model} on {trace.gpu}, {trace.precision}, {len(trace.rows)} rows, {found.num_samples} "
        f"samples; {found.num_noisy} noisy points, {len(found.infeasible)} infeasible"
    ]
    if held_out:
        lines.append(
            f"between points: {held_out.num_points} held-out points predicted within {held_out.median:.1%} median, "
            f"{held_out.p90:.1%} p90, {held_out.worst:.1%} worst"
        )
    if parts_off:
        lines.append(f"whole speculative steps: the sum of their parts is off by at most {max(parts_off):.1%}")
    return "\n".join(lines)
