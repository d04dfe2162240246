"""`bebop study`: measurements that answer a question of the paper on models trained here. Answers on stdout."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import UsageError
from traces.console import Parser

if TYPE_CHECKING:
    from profiler.mtp.results import Results


def main(argv: Sequence[str]) -> int:
    """Run `bebop study` with `argv` (the verb left out) and return the exit code.

    Raises:
        UsageError: An option outside its range.
        ModuleNotFoundError: torch is not installed.
    """
    arguments = _parser().parse_args(list(argv))
    if not 1 <= arguments.threads <= 256:
        raise UsageError(f"--threads {arguments.threads} is outside 1..256; choose a value inside")
    if arguments.output is not None and arguments.output.suffix:
        raise UsageError(f"-o {arguments.output}: several files are written; name a folder")
    if arguments.measured is not None and (arguments.quick or arguments.large):
        which = "--quick" if arguments.quick else "--large"
        raise UsageError(f"--from and {which}: nothing is measured with --from; leave one of them out")
    if arguments.large and arguments.device == "cpu":
        raise UsageError("--large: takes days on a CPU; add --device cuda, or leave it out")
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here; leave it out to measure on the CPU")
    from profiler.mtp.publish import as_json, as_text, traces
    from profiler.mtp.results import ResultsFile
    from traces.store import save_trace

    if arguments.output is not None:
        # Before an hour of work, not after: it needs an extra.
        from profiler.mtp.figures import figures, page

    torch.set_num_threads(1)
    results = _measure(arguments) if arguments.measured is None else ResultsFile(arguments.measured).read()
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for trace in traces(results, f"bebop study {shlex.join(argv)}"):
            save_trace(trace, arguments.output / f"{trace.name}.json")
        (arguments.output / "figures.html").write_text(page(figures(results).values()), encoding="utf-8")
    print(json.dumps(as_json(results)) if arguments.json else as_text(results))
    return 0


def _measure(arguments: argparse.Namespace) -> "Results":
    """Run the study, or what a folder does not hold of it yet."""
    from profiler.mtp.results import ResultsFile
    from profiler.mtp.study import FULL, LARGE, QUICK, run_study

    began, size = time.monotonic(), QUICK if arguments.quick else LARGE if arguments.large else FULL

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    # A GPU is not shared: units take turns.
    run = partial(run_study, size, say, device=arguments.device)
    num_workers = arguments.threads if arguments.device == "cpu" else 1
    if arguments.output is None:
        return run(num_workers=num_workers)
    file = ResultsFile(arguments.output)
    done = file.begin(size)
    if done:
        say(f"{len(done)} units are in {file.path} already")
    return run(num_workers=num_workers, done=done, keep=file.add)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bebop study",
        description="Train small models with MTP heads from nothing and count how many drafts are accepted: five "
        "losses, three verify rules, temperature, and acceptance while reinforcement learning moves entropy.",
    )
    parser.add_argument("study", choices=["mtp"], help="which study")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="minutes instead of an hour: smaller models")
    sizes.add_argument("--large", action="store_true", help="models of 85 million values, with --device cuda")
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="cores to work on (default 2)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where models lie (default cpu)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="keep what is measured in this folder as it comes (a study that was stopped goes on there), and write "
        "AcceptanceTraces and figures.html",
    )
    parser.add_argument(
        "--from", dest="measured", type=Path, metavar="DIR", help="measure nothing: read what -o has kept in a folder"
    )
    return parser
