"""Result: the LatencyTrace that a ledger of samples amounts to. Measures nothing."""

import datetime
import importlib.metadata
import statistics
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from profiler.all_reduce import AllReduce
from profiler.grid import between, leave_one_out, surfaces
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger, Sample
from profiler.models.rank import Rank
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.statistics import NOISY_SPREAD, Collected, collect
from traces.base import Origin, Provenance
from traces.latency import (
    MIN_LATENCY_S,
    ComposedStep,
    DistinctExperts,
    InfeasiblePoint,
    LatencyRow,
    LatencyTrace,
    Measurement,
    Operation,
)

if TYPE_CHECKING:
    from profiler.device import Device


def make_trace(
    request: ProfileRequest, rank: Rank, device: "Device", ledger: Ledger, all_reduce: AllReduce | None = None
) -> LatencyTrace:
    """Return the trace; `all_reduce` is added to the passes of one rank of several."""
    grid = collect(ledger.of(GRID))
    rows = [_row(request, rank, point, grid, all_reduce) for point in sorted(grid.latencies)]
    rows += _host_gaps(request, ledger.of(GRID))
    versions = {"bebop-rollout": own_version(), **device.versions}
    return LatencyTrace(
        name=request.name,
        gpu=device.name,
        model=request.model.name,
        precision=request.precision,
        engine=f"bebop profiler {versions['bebop-rollout']}, torch {versions['torch']}"[:100],
        rows=tuple(rows),
        measurement=_measurement(request, grid, ledger),
        provenance=Provenance(
            source=f"timed on {device.name}: decoder of {request.model.name}'s shape with random weights "
            f"({request.model.source})"[:2000],
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=request.command,
            versions=versions,
            notes=_notes(request, device),
        ),
    )


def infeasible_point(point: Point, reason: str) -> InfeasiblePoint:
    """Return the record of a point that could not be timed."""
    return InfeasiblePoint(
        operation=point.operation,
        batch=point.batch,
        context_tokens=point.context_tokens,
        tokens_per_seq=point.tokens_per_seq,
        reason=reason,
    )


def own_version() -> str:
    """Return the version of this package."""
    try:
        return importlib.metadata.version("bebop-rollout")
    except importlib.metadata.PackageNotFoundError:
        return "from source"


def _row(
    request: ProfileRequest, rank: Rank, point: Point, grid: Collected, all_reduce: AllReduce | None
) -> LatencyRow:
    own_s = grid.latencies[point]
    told_s = all_reduce.pass_s(point, rank) if all_reduce is not None else 0.0
    return LatencyRow(
        operation=point.operation,
        batch=point.batch,
        context_tokens=point.context_tokens,
        tokens_per_seq=point.tokens_per_seq,
        latency_s=max(own_s + told_s, MIN_LATENCY_S),
        tp_size=request.tp_size,
        ep_size=request.ep_size,
        origin=Origin.MODELLED if told_s else Origin.MEASURED,
        measured_fraction=own_s / (own_s + told_s) if told_s else None,
        relative_spread=round(grid.spreads[point], 6) if grid.counts[point] > 1 else None,
    )


def _host_gaps(request: ProfileRequest, samples: Iterable[Sample]) -> Iterator[LatencyRow]:
    """Yield the gap of a decode pass by batch: the median over contexts and sweeps; a CPU has none."""
    gaps: dict[int, list[float]] = {}
    for sample in samples:
        if sample.point.operation is Operation.DECODE and sample.host_gap_s is not None:
            gaps.setdefault(sample.point.batch, []).append(sample.host_gap_s)
    for batch, seconds in sorted(gaps.items()):
        yield LatencyRow(
            operation=Operation.HOST_GAP,
            batch=batch,
            context_tokens=0,
            tokens_per_seq=1,
            latency_s=max(statistics.median(seconds), MIN_LATENCY_S),
            tp_size=request.tp_size,
            ep_size=request.ep_size,
        )


def _measurement(request: ProfileRequest, grid: Collected, ledger: Ledger) -> Measurement:
    found = surfaces(grid.latencies.items())
    readings = [sample.telemetry for sample in ledger.samples if sample.telemetry is not None]
    return Measurement(
        num_sweeps=min(grid.counts.values()),
        num_samples=sum(sample.latency_s is not None for sample in ledger.samples),
        noisy_spread=NOISY_SPREAD,
        num_noisy=sum(spread > NOISY_SPREAD for spread in grid.spreads.values()),
        leave_one_out=leave_one_out(found),
        held_out=between(found, collect(ledger.of(HELD_OUT)).latencies),
        infeasible=tuple(infeasible_point(point, reason) for point, reason in sorted(grid.infeasible.items())),
        composed=tuple(_composed(grid, ledger)),
        distinct_experts=tuple(_distinct_experts(request, grid)),
        sm_clock_hz=_range([reading["sm_clock_hz"] for reading in readings]),
        power_w=_range([reading["power_w"] for reading in readings]),
    )


def _composed(grid: Collected, ledger: Ledger) -> Iterator[ComposedStep]:
    for point, seconds in collect(ledger.of(COMPOSED)).latencies.items():
        k, b, c = point.tokens_per_seq - 1, point.batch, point.context_tokens
        parts = [
            (1, Point(Operation.VERIFY, k + 1, b, c)),
            (1, Point(Operation.SAMPLE, k + 1, b)),
            (1, Point(Operation.DRAFT, k + 1, b, c)),
            (k - 1, Point(Operation.DRAFT, 1, b, c)),
            (k, Point(Operation.LM_HEAD, 1, b)),
            (k, Point(Operation.SAMPLE, 1, b)),
        ]
        if all(part in grid.latencies for _, part in parts):
            total = sum(times * grid.latencies[part] for times, part in parts)
            yield ComposedStep(num_draft_tokens=k, batch=b, context_tokens=c, measured_s=seconds, sum_of_parts_s=total)


def _distinct_experts(request: ProfileRequest, grid: Collected) -> Iterator[DistinctExperts]:
    if not request.model.is_moe:
        return
    # Here, because other sources make traces of dense models without torch.
    from profiler.models.experts import visits_of_pass
    from profiler.models.recorded_routing import distinct_experts
    from profiler.sampler import open_routing

    routing = open_routing(request)
    passes = {
        (p.batch, p.tokens_per_seq) for p in grid.latencies if p.operation in (Operation.DECODE, Operation.VERIFY)
    }
    for batch, q in sorted(passes):
        mean = distinct_experts(visits_of_pass(routing, request.model, batch, q))
        yield DistinctExperts(batch=batch, tokens_per_seq=q, mean=round(mean, 3))


def _range(values: list[float]) -> tuple[float, float, float] | None:
    return (min(values), statistics.median(values), max(values)) if values else None


def _notes(request: ProfileRequest, device: "Device") -> str:
    how = "CUDA graphs replayed between events" if device.torch_device.type == "cuda" else "wall clock, no graphs"
    notes = [
        f"Timed as whole passes ({how}), median over shuffled sweeps.",
        f"Drafts are checked by the rule {request.verify_rule}; logits cover the whole vocabulary.",
        f"A weight sync is a copy of all weights inside one machine, to the {request.sync_to}.",
    ]
    if request.precision == "fp8":
        notes.append("Projections are e4m3 with a scale per row, activations quantized per token; the rest is bf16.")
    if request.model.is_moe:
        drawn = f"visited with popularity rank^-{request.expert_skew:g}, independently from token to token"
        recorded = f"those that recorded tokens visited (sha256 {request.routing_sha256})"
        notes.append(f"Experts are {drawn if request.routing_sha256 is None else recorded}.")
    if request.tp_size > 1:
        notes.append("One GPU's share was timed; all-reduce and gathers are added from a measured table of H200.")
    if request.model.num_mtp_layers == 0:
        notes.append("The MTP layer is hypothetical: none was released with the model.")
    if request.num_workers is not None:
        disturbed = "" if device.torch_device.type == "cuda" else ", which disturbed each other"
        notes.append(f"Samples were taken by up to {request.num_workers} workers at once{disturbed}.")
    if device.shared_with is not None:
        notes.append(f"NOT ALONE: {device.shared_with} computed on the GPU when it was opened.")
    if device.torch_device.type == "cpu":
        notes.append("No host gap: on a CPU the host is the device.")
    return " ".join(notes)
