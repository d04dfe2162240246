"""Measure: from the options of `bebop profile --device` to a LatencyTrace in a file, resumable through its ledger."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.all_reduce import load_all_reduce
from profiler.device import Device, num_gpus, open_device
from profiler.errors import UnsupportedModelError, UsageError
from profiler.grid import GridRequest, coarse_grid
from profiler.ledger import Ledger
from profiler.models.hf_config import BUNDLED, find_architecture
from profiler.models.rank import Rank, slice_rank
from profiler.models.recorded_routing import load_routing, sha256_of
from profiler.plausibility import TARGET_PASSES
from profiler.point import Point
from profiler.request import ProfileRequest, check_range
from profiler.result import make_trace
from profiler.runner import Runner
from profiler.sweeps import Crew
from traces.architecture import Architecture
from traces.latency import LatencyTrace, Operation
from traces.store import save_trace

MAX_DRAFT_TOKENS = 15
"""Largest k that the profiler measures."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is not said on the command line."""

    precision: str
    max_draft_tokens: int
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefills: tuple[int, ...]
    cached: tuple[int, ...]
    budget_s: float
    held_out: int


DEFAULTS = {
    "cuda": Defaults(
        "bf16", 8, (1, 4, 16, 64, 256), (512, 4096, 32768), (128, 1024, 8192), (0, 16384), budget_s=480, held_out=24
    ),
    "cpu": Defaults("fp32", 3, (1, 4, 16), (64, 256, 1024), (16, 64, 256), (0, 512), budget_s=30, held_out=8),
}
"""A card's worth, and what a laptop measures in under a minute."""


def request_of(arguments: argparse.Namespace, argv: Sequence[str]) -> ProfileRequest:
    """Return the request that the parsed options make.

    Raises:
        UsageError: A value outside its range.
        UnsupportedModelError: A configuration that cannot be built.
        TraceFormatError: A name that nobody knows.
    """
    default = DEFAULTS[arguments.device]
    most = default.max_draft_tokens if arguments.max_draft_tokens is None else arguments.max_draft_tokens
    budget_s = default.budget_s if arguments.budget_s is None else arguments.budget_s
    num_held_out = default.held_out if arguments.held_out is None else arguments.held_out
    check_range("--max-draft-tokens", most, 0, MAX_DRAFT_TOKENS)
    check_range("--budget-s", budget_s, 0, 86_400)
    check_range("--held-out", num_held_out, 0, 10_000)
    check_range("--sweeps", arguments.sweeps, 1, 100)
    check_range("--expert-skew", arguments.expert_skew, 0, 4)
    check_range("--threads", 1 if arguments.threads is None else arguments.threads, 1, 4096)
    check_range("--tp", arguments.tp, 1, 64)
    check_range("--ep", arguments.ep, 1, 64)
    model = find_architecture(arguments.model or BUNDLED)
    precision = arguments.precision or default.precision
    if precision == "fp8":
        _check_fp8(model, arguments)
    is_cuda = arguments.device == "cuda"
    layout = f"-tp{arguments.tp}" + (f"-ep{arguments.ep}" if arguments.ep > 1 else "") if is_cuda else ""
    grid = GridRequest(
        batches=arguments.batches or default.batches,
        contexts_tokens=arguments.contexts or default.contexts,
        max_draft_tokens=most,
        prefill_tokens=arguments.prefills or default.prefills,
        prefill_cached_tokens=default.cached,
        extra=_extra(arguments),
    )
    return ProfileRequest(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model.name}-{arguments.device}{layout}-measured").lower(),
        model=model,
        device=arguments.device,
        precision=precision,
        grid=grid,
        tp_size=arguments.tp,
        ep_size=arguments.ep,
        num_threads=arguments.threads,
        num_sweeps=arguments.sweeps,
        num_held_out=num_held_out,
        budget_s=budget_s,
        verify_rule=arguments.verify_rule,
        sync_to=arguments.sync_to,
        expert_skew=arguments.expert_skew,
        routing_file=None if arguments.routing is None else str(arguments.routing),
        routing_sha256=None if arguments.routing is None else _checked_routing(arguments.routing, model, grid),
        fuses_glue=not arguments.eager,
        is_shared=arguments.shared,
        seed=arguments.seed,
        command=shlex.join(["bebop", "profile", *argv])[:2000],
        num_workers=_num_workers(arguments),
    )


def measure(request: ProfileRequest, output: Path | None) -> tuple[LatencyTrace, Path]:
    """Measure what the ledger beside the output does not hold yet; return the trace and where it was written.

    Raises:
        DeviceError: No such device, or the model does not fit it.
        UsageError: The ledger belongs to another request.
    """
    path = output or Path(f"{request.name}.parquet")
    rank = slice_rank(request.model, request.tp_size, request.ep_size)
    if request.num_workers is None:
        return _measure(request, rank, _open(request), None, path)
    from profiler.fleet import Fleet, OpenSampler  # an extra: Ray

    make = OpenSampler(request, rank, request.num_workers)
    with Fleet(make, request.num_workers, on_gpus=request.device == "cuda") as fleet:
        return _measure(request, rank, fleet.device, fleet, path)


def _open(request: ProfileRequest) -> Device:
    return open_device(request.device, request.num_threads, is_shared=request.is_shared)


def _measure(
    request: ProfileRequest, rank: Rank, device: Device, crew: Crew | None, path: Path
) -> tuple[LatencyTrace, Path]:
    all_reduce = load_all_reduce(device.name, request.tp_size)
    # What was measured elsewhere, or by other versions, is not continued here.
    identity = {**request.identity(), "device_name": device.name, "versions": device.versions}
    ledger = Ledger.open(path.with_name(f"{path.stem}.samples.jsonl"), identity)
    if ledger.samples:
        print(f"continuing {ledger.path} after {len(ledger.samples)} samples", file=sys.stderr)
    try:
        Runner(request, rank, device, ledger, crew=crew).run()
    except KeyboardInterrupt:
        print(f"{len(ledger.samples)} samples are kept in {ledger.path}; repeat the command to go on", file=sys.stderr)
        raise
    trace = make_trace(request, rank, device, ledger, all_reduce)
    save_trace(trace, path)
    return trace, path


def _checked_routing(path: Path, model: Architecture, grid: GridRequest) -> str:
    """Return the hash of a record that holds tokens enough for every pass of the grid."""
    routing = load_routing(path, model)
    for point in coarse_grid(grid):
        if point.operation in (*TARGET_PASSES, Operation.DRAFT, Operation.TRAIN_STEP):
            routing.check(point.batch, point.tokens_per_seq)
    return sha256_of(path)


def _check_fp8(model: Architecture, arguments: argparse.Namespace) -> None:
    if model.is_moe or model.mla is not None:
        raise UnsupportedModelError(
            f"{model.name}: fp8 is built for dense layers with grouped-query attention or gated DeltaNet, not for "
            "experts or MLA; use --precision bf16"
        )
    if arguments.train_tokens is not None:
        raise UsageError("--train-tokens trains in bf16 or fp32; drop it or --precision fp8")


def _num_workers(arguments: argparse.Namespace) -> int | None:
    """Return the size of the fleet; None without one."""
    if not arguments.fleet:
        if arguments.fleet_workers is not None:
            raise UsageError(f"--fleet-workers {arguments.fleet_workers} belongs to --fleet; add it")
        return None
    if arguments.device == "cpu" and arguments.fleet_workers is None:
        raise UsageError("--fleet on a CPU needs --fleet-workers; for tests only: its workers disturb each other")
    most = num_gpus() if arguments.device == "cuda" else 64
    wanted = most if arguments.fleet_workers is None else arguments.fleet_workers
    check_range("--fleet-workers", wanted, 1, max(most, 1))
    return wanted


def _extra(arguments: argparse.Namespace) -> tuple[Point, ...]:
    points = [Point(Operation.WEIGHT_SYNC, 1, 1)]
    if arguments.train_tokens is not None:
        check_range("--train-tokens", arguments.train_tokens, 1, 10_000_000)
        points.append(Point(Operation.TRAIN_STEP, arguments.train_tokens, 1))
    if arguments.tp > 1 and arguments.train_tokens is not None:
        raise UsageError("--train-tokens times whole models, --tp slices them; drop one or the other")
    return tuple(points)
