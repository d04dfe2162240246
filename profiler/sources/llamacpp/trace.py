"""Trace: the LatencyTrace that whole steps of an engine amount to. Measures nothing.

An engine shows whole steps. A step whose k drafts are made and dropped is a plain step, one pass of the MTP layer over
the new token, and k passes over one token; D_k is its time, T_0 a plain step's, T_k a speculative step's. Then

    pass 0 of the draft     = D_1 - T_0
    each later pass         = (D_K - D_1) / (K - 1),  K the largest k
    verify                  = T_k - pass 0 - (k - 1) later passes

so that the composition of `simulator/latency.py` gives T_k back, exactly. What the MTP layer's pass costs more over
k + 1 tokens than over one is therefore in verify, as are lm_head, sampling and the gaps between passes.
"""

import datetime
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.grid import between, leave_one_out, surfaces
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.result import infeasible_point, own_version
from profiler.statistics import NOISY_SPREAD, Collected, collect
from profiler.surface import Surface
from traces.base import Provenance
from traces.latency import MIN_LATENCY_S, ComposedStep, LatencyRow, LatencyTrace, Measurement, Operation

ACCEPTED = "all accepted"
"""Purpose of samples of whole speculative steps whose every draft is accepted; those of GRID reject all."""
DROPPED = "drafts dropped"
"""Purpose of samples of steps that make k drafts and verify none."""
PLAIN = "plain prefill"
"""Purpose of samples of prompts in an engine without drafts; those of GRID fill the MTP layer's cache too."""
MAX_DRAFT_SHARE = 0.9
"""Of a whole step; more can only be noise."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    cpu: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class WholeSteps:
    """Medians of what a ledger holds."""

    grid: Collected
    accepted: Collected
    dropped: Collected
    plain_prefill: Collected

    @classmethod
    def of(cls, ledger: Ledger) -> "WholeSteps":
        """Return what a ledger holds."""
        return cls(*(collect(ledger.of(purpose)) for purpose in (GRID, ACCEPTED, DROPPED, PLAIN)))

    def step_s(self, point: Point, accepted_share: float) -> float:
        """Return the time of a whole step, interpolated between no draft accepted and all."""
        rejected_s = self.grid.latencies[point]
        return rejected_s + accepted_share * (self.accepted.latencies.get(point, rejected_s) - rejected_s)

    def points(self, operation: Operation) -> list[Point]:
        """Return the measured points of one operation, in order."""
        return sorted(point for point in self.grid.latencies if point.operation is operation)


def compose_trace(
    request: ProfileRequest, machine: Machine, ledger: Ledger, accepted_share: float, *, plain_prefill: bool = False
) -> LatencyTrace:
    """Return the trace for engines that accept this share of their drafts; `plain_prefill` for one without drafts."""
    steps = WholeSteps.of(ledger)
    if plain_prefill:
        steps.grid.latencies.update(steps.plain_prefill.latencies)
    version = machine.versions["xllamacpp"]
    return LatencyTrace(
        name=request.name,
        gpu=machine.cpu,
        model=request.model.name,
        precision=request.precision,
        engine=f"llama.cpp (xllamacpp {version}), {max(request.grid.batches)} slots"[:100],
        rows=tuple(_rows(request, steps, accepted_share)),
        measurement=_measurement(steps, ledger, accepted_share),
        provenance=Provenance(
            source=f"whole steps of llama.cpp timed on {machine.cpu}: random weights of {request.model.name}'s shape "
            f"({request.model.source})"[:2000],
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=request.command,
            versions={"bebop-rollout": own_version(), **machine.versions},
            notes=_notes(request, steps, accepted_share),
        ),
    )


def _rows(request: ProfileRequest, steps: WholeSteps, accepted_share: float) -> Iterator[LatencyRow]:
    for operation in (Operation.DECODE, Operation.PREFILL):
        for point in steps.points(operation):
            yield _row(point, steps.grid.latencies[point], _spread(point, steps.grid))
    first, later = _drafts(request, steps, accepted_share)
    most = request.grid.max_draft_tokens
    for batch, row in sorted(first.rows.items()):
        for context, seconds in sorted(row.items()):
            for k in range(1, most + 1):
                yield _row(Point(Operation.DRAFT, k + 1, batch, context), seconds)
            if most > 1:
                yield _row(Point(Operation.DRAFT, 1, batch, context), later.rows[batch][context])
    for point in steps.points(Operation.VERIFY):
        if not first.covers(point.batch, point.context_tokens):
            continue  # its drafts are among the infeasible points
        drafting_s = _drafting_s(point, first, later)
        whole_s = steps.step_s(point, accepted_share)
        spread = max(_spread(point, steps.grid) or 0.0, _spread(point, steps.accepted) or 0.0)
        yield _row(point, whole_s - drafting_s, spread or None)


def _drafts(request: ProfileRequest, steps: WholeSteps, accepted_share: float) -> tuple[Surface, Surface]:
    """Return pass 0 and the later passes of a draft, where both ends of k were measured."""
    most, first, later = request.grid.max_draft_tokens, Surface(), Surface()
    for point in steps.points(Operation.DECODE):
        batch, context = point.batch, point.context_tokens
        one, all_k = (Point(Operation.VERIFY, k + 1, batch, context) for k in (1, most))
        if one not in steps.dropped.latencies or all_k not in steps.dropped.latencies:
            continue
        one_s, all_s = steps.dropped.latencies[one], steps.dropped.latencies[all_k]
        first_s = max(one_s - steps.grid.latencies[point], MIN_LATENCY_S)
        later_s = max((all_s - one_s) / max(most - 1, 1), MIN_LATENCY_S)
        room = [
            MAX_DRAFT_SHARE * steps.step_s(whole, accepted_share) / (first_s + (whole.tokens_per_seq - 2) * later_s)
            for whole in steps.points(Operation.VERIFY)
            if (whole.batch, whole.context_tokens) == (batch, context)
        ]
        factor = min(room, default=1.0)
        first.add(batch, context, max(min(factor, 1.0) * first_s, MIN_LATENCY_S))
        later.add(batch, context, max(min(factor, 1.0) * later_s, MIN_LATENCY_S))
    return first, later


def _drafting_s(point: Point, first: Surface, later: Surface) -> float:
    """Return what the simulator will add for the drafts of a step at this point."""
    batch, context, k = point.batch, point.context_tokens, point.tokens_per_seq - 1
    return first.predict(batch, context) + (k - 1) * later.predict(batch, context)


def _row(point: Point, latency_s: float, spread: float | None = None) -> LatencyRow:
    return LatencyRow(
        operation=point.operation,
        batch=point.batch,
        context_tokens=point.context_tokens,
        tokens_per_seq=point.tokens_per_seq,
        latency_s=latency_s,
        relative_spread=round(spread, 6) if spread is not None else None,
    )


def _spread(point: Point, samples: Collected) -> float | None:
    return samples.spreads[point] if samples.counts.get(point, 0) > 1 else None


def _measurement(steps: WholeSteps, ledger: Ledger, accepted_share: float) -> Measurement:
    found = surfaces(steps.grid.latencies.items())
    parts = (steps.grid, steps.accepted, steps.dropped)
    apart = {
        point: seconds
        for point, seconds in collect(ledger.of(HELD_OUT)).latencies.items()
        if (point.operation, point.tokens_per_seq) in found
    }
    return Measurement(
        num_sweeps=min(count for part in parts for count in part.counts.values()),
        num_samples=sum(sample.latency_s is not None for sample in ledger.samples),
        noisy_spread=NOISY_SPREAD,
        num_noisy=sum(spread > NOISY_SPREAD for part in parts for spread in part.spreads.values()),
        leave_one_out=leave_one_out(found),
        held_out=between(found, apart),
        infeasible=tuple(infeasible_point(point, reason) for point, reason in sorted(steps.grid.infeasible.items())),
        composed=tuple(
            ComposedStep(
                num_draft_tokens=point.tokens_per_seq - 1,
                batch=point.batch,
                context_tokens=point.context_tokens,
                measured_s=seconds,
                sum_of_parts_s=steps.step_s(point, accepted_share),
            )
            for point, seconds in collect(ledger.of(COMPOSED)).latencies.items()
            if point in steps.grid.latencies
        ),
    )


def _notes(request: ProfileRequest, steps: WholeSteps, accepted_share: float) -> str:
    notes = [
        "Wall time of whole steps, continuous batching, one KV cache per slot, temperature 1; sampling, lm_head and "
        "host gaps are inside the passes.",
        "A batch below the number of slots is the mean over typical arrangements of busy and idle slots.",
    ]
    most = request.grid.max_draft_tokens
    ratios, prompts = (_changes(part, steps.grid) for part in (steps.accepted, steps.plain_prefill))
    if ratios and prompts:
        notes += [
            "Drafts are differences: pass 0 is a step that makes one draft and drops it, minus a plain step; a later "
            f"pass is the mean of drafts 2 to {most}, likewise; verify is the rest of the whole step, the MTP layer's "
            "pass over its k further tokens included.",
            f"Holds where {accepted_share:.0%} of the drafts are accepted: from none to all of them a step takes "
            f"{statistics.median(ratios):+.1%} (median).",
            "Prefill is all that a request takes beyond its decode steps, the server's work on request and answer "
            "included, and fills the MTP layer's cache too; in an engine without drafts it takes "
            f"{statistics.median(prompts):+.1%}.",
        ]
    if request.model.num_mtp_layers == 0:
        notes.append("The MTP layer is hypothetical: none was released with the model.")
    return " ".join(notes)


def _changes(part: Collected, grid: Collected) -> list[float]:
    """Return how much longer the points of a part take than those of the grid, relatively."""
    return [seconds / grid.latencies[p] - 1 for p, seconds in part.latencies.items() if p in grid.latencies]
