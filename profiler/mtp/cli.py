"""`bebop study`: measurements that answer a question of the paper on models trained here. Answers on stdout."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from profiler.errors import UsageError
from traces.console import Parser


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
        raise UsageError(f"-o {arguments.output}: several traces are written; name a folder")
    import torch

    from profiler.mtp.publish import as_json, as_text, traces
    from profiler.mtp.study import FULL, QUICK, run_study
    from traces.store import save_trace

    torch.set_num_threads(arguments.threads)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    results = run_study(QUICK if arguments.quick else FULL, say)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for trace in traces(results, f"bebop study {shlex.join(argv)}"):
            save_trace(trace, arguments.output / f"{trace.name}.json")
    print(json.dumps(as_json(results)) if arguments.json else as_text(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bebop study",
        description="Train small models with MTP heads from nothing and count how many drafts are accepted: five "
        "losses, three verify rules, temperature, and acceptance while reinforcement learning moves entropy.",
    )
    parser.add_argument("study", choices=["mtp"], help="which study")
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours: smaller models, one seed")
    parser.add_argument("--json", action="store_true", help="answer with one line of JSON")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default 2)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="also write AcceptanceTraces into this folder")
    return parser
