"""`bebop profile --source roofline`: a LatencyTrace from an architecture and a GPU's datasheet; nothing is measured.

The profiler does not know the simulator, so the command hands this source on to here.
"""

import json
from pathlib import Path

from simulator.errors import ScenarioError
from simulator.roofline import roofline_trace
from traces.architecture import load_architecture
from traces.console import ExitCode, Parser
from traces.hardware import load_gpu
from traces.store import save_trace


def main(argv: list[str]) -> int:
    """Write the trace and say where it is; return the exit code."""
    parser = Parser(
        prog="bebop profile --source roofline",
        description="Write a LatencyTrace of bytes over bandwidth and operations over peak, with the efficiencies that "
        "were fitted to kernels of an H200.",
    )
    parser.add_argument("--source", choices=["roofline"], help="this one")
    parser.add_argument("--model", required=True, metavar="NAME", help="a name of the architecture table")
    parser.add_argument("--gpu", required=True, metavar="NAME", help="a name of the table of GPUs, e.g. H200")
    parser.add_argument("--tp", type=int, default=1, metavar="N", help="tensor-parallel GPUs (default 1)")
    parser.add_argument("--ep", type=int, default=1, metavar="N", help="expert-parallel GPUs (default 1)")
    parser.add_argument("--precision", default="bf16", metavar="NAME", help="of weights and cache (default bf16)")
    parser.add_argument("--max-draft-tokens", type=int, default=8, metavar="K", help="largest k (default 8)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="file (.parquet, .json); default NAME.parquet"
    )
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON")
    arguments = parser.parse_args(argv)
    try:
        trace = roofline_trace(
            load_architecture(arguments.model),
            load_gpu(arguments.gpu),
            tp_size=arguments.tp,
            ep_size=arguments.ep,
            max_draft_tokens=arguments.max_draft_tokens,
            precision=arguments.precision,
        )
    except ValueError as error:
        raise ScenarioError(f"{error}; choose another value") from None
    path = arguments.output or Path(f"{trace.name}.parquet")
    save_trace(trace, path)
    if arguments.json:
        about = {"path": str(path), "name": trace.name, "rows": len(trace.rows), "sha256": trace.content_hash()}
        print(json.dumps(about))
    else:
        print(f"{path}: {trace.model} on {trace.gpu}, {trace.precision}, {len(trace.rows)} rows, all of them modelled")
    return ExitCode.OK
