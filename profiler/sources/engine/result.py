"""Result: the traces that a ledger of an engine's samples amounts to. Measures nothing.

An engine shows whole steps only. One without drafts is a decode row. One with k drafts is a verify row at k + 1 tokens
that holds everything, beside draft rows of the shortest time that a trace can hold, taken off the verify row, so that
the simulator's sum over a speculative step (`simulator/latency.py`) is the step that was measured.
"""

import datetime
import importlib.metadata
import re
from collections.abc import Iterator

from profiler.errors import UsageError
from profiler.grid import between, leave_one_out, surfaces
from profiler.ledger import GRID, HELD_OUT, Ledger
from profiler.point import Point
from profiler.sources.engine.facts import Facts
from profiler.sources.engine.request import EngineRequest
from profiler.sources.engine.session import BUSY_SHARE
from profiler.statistics import NOISY_SPREAD, Collected, collect
from traces.acceptance import AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Provenance
from traces.latency import MIN_LATENCY_S, InfeasiblePoint, LatencyRow, LatencyTrace, Measurement, Operation


def trace_name(request: EngineRequest, facts: Facts, num_draft_tokens: int) -> str:
    """Return the name of the trace, also its file's."""
    tp_size, _ = _layout(request, facts)
    model = request.model or facts.model
    name = f"{model}-{request.gpu}-tp{tp_size}-{facts.engine}-k{num_draft_tokens}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._").lower()[:200]


def check_nature(request: EngineRequest, facts: Facts, plain: LatencyTrace | None) -> None:
    """Complain before anything is measured unless the trace can be named, and `plain` may lend it rows.

    Raises:
        UsageError: Nobody told the precision, or `plain` is of another model, GPU, precision or layout.
    """
    ours = {**_nature(request, facts), "tp_size, ep_size": [_layout(request, facts)]}
    if plain is None:
        return
    layouts = sorted({(row.tp_size, row.ep_size) for row in plain.rows})
    theirs = {"model": plain.model, "gpu": plain.gpu, "precision": plain.precision, "tp_size, ep_size": layouts}
    for name, value in theirs.items():
        if value != ours[name]:
            raise UsageError(f"--plain {request.plain}: {name} is {value}, here {ours[name]}; both must be the same")


def make_trace(
    request: EngineRequest,
    facts: Facts,
    num_draft_tokens: int,
    ledger: Ledger,
    plain: LatencyTrace | None = None,
    busy_share: float = 0.0,
) -> LatencyTrace:
    """Return the trace, with the rows of `plain` at points that were not measured here.

    Raises:
        UsageError: It would hold no prefill.
    """
    grid = collect(ledger.of(GRID))
    rows = [row for point in sorted(grid.latencies) for row in _rows(request, facts, point, grid)]
    keys = {row.key() for row in rows}
    if plain is not None:
        rows += [row for row in plain.rows if row.key() not in keys]
    if not any(row.operation is Operation.PREFILL for row in rows):
        raise UsageError(
            "no prefill was measured yet, and no trace goes without; repeat the command, or choose other --prefills"
        )
    versions = {"bebop-rollout": _own_version(), facts.engine: facts.version}
    return LatencyTrace(
        name=trace_name(request, facts, num_draft_tokens),
        **_nature(request, facts),
        engine=f"{facts.engine} {facts.version}",
        rows=tuple(rows),
        measurement=_measurement(grid, ledger),
        provenance=Provenance(
            source=f"timed on a running {facts.engine} {facts.version} with {facts.model_id}, from outside"[:2000],
            created=_today(),
            command=request.command,
            versions=versions,
            notes=_notes(num_draft_tokens, ledger, plain, busy_share),
        ),
    )


def make_acceptance(
    request: EngineRequest, facts: Facts, num_draft_tokens: int, ledger: Ledger
) -> AcceptanceTrace | None:
    """Return what the engine counted by position over all samples, None where it does not."""
    counted = [sample.counters for sample in ledger.samples if sample.counters and sample.latency_s is not None]
    drafts = sum(counters.get("num_drafts", 0.0) for counters in counted)
    accepted = [sum(c.get(f"accepted_{j}", 0.0) for c in counted) for j in range(1, num_draft_tokens + 1)]
    if not any(f"accepted_{num_draft_tokens}" in counters for counters in counted) or drafts < 1:
        # SGLang counts no positions, but with one draft the accepted tokens are those of the first.
        return None
    return AcceptanceTrace(
        name=f"{trace_name(request, facts, num_draft_tokens)[:180]}-acceptance",
        model=request.model or facts.model,
        rows=(
            AcceptanceRow(
                loss="unknown",
                verify_rule=VerifyRule(request.verify_rule),
                temperature=request.temperature,
                task="random tokens",
                cumulative=tuple(min(count / drafts, 1.0) for count in accepted),
                num_steps=round(drafts),
            ),
        ),
        provenance=Provenance(
            source=f"counters of a running {facts.engine} {facts.version} with {facts.model_id}"[:2000],
            created=_today(),
            command=request.command,
            versions={"bebop-rollout": _own_version(), facts.engine: facts.version},
            notes="Counted while the engine was profiled: responses to prompts of random tokens, or whatever "
            "acceptance the server was started to force. It tells what the timed steps accepted, not what a workload "
            f"would. The verify rule is what --verify-rule said ({request.verify_rule}); an engine does not tell.",
        ),
    )


def _rows(request: EngineRequest, facts: Facts, point: Point, grid: Collected) -> Iterator[LatencyRow]:
    tp_size, ep_size = _layout(request, facts)
    k = point.tokens_per_seq - 1 if point.operation is Operation.VERIFY else 0
    row = LatencyRow(
        operation=point.operation,
        batch=point.batch,
        context_tokens=point.context_tokens,
        tokens_per_seq=point.tokens_per_seq,
        latency_s=max(grid.latencies[point] - k * MIN_LATENCY_S, MIN_LATENCY_S),
        tp_size=tp_size,
        ep_size=ep_size,
        relative_spread=round(grid.spreads[point], 6) if grid.counts[point] > 1 else None,
    )
    yield row
    for tokens in {k + 1, 1} if k > 1 else {k + 1} if k else ():
        folded = {"operation": Operation.DRAFT, "tokens_per_seq": tokens, "latency_s": MIN_LATENCY_S}
        yield row.model_copy(update={**folded, "relative_spread": None})


def _measurement(grid: Collected, ledger: Ledger) -> Measurement:
    found = surfaces(grid.latencies.items())
    return Measurement(
        num_sweeps=min(grid.counts.values()),
        num_samples=sum(sample.latency_s is not None for sample in ledger.samples),
        noisy_spread=NOISY_SPREAD,
        num_noisy=sum(spread > NOISY_SPREAD for spread in grid.spreads.values()),
        leave_one_out=leave_one_out(found),
        held_out=between(found, collect(ledger.of(HELD_OUT)).latencies),
        infeasible=tuple(
            InfeasiblePoint(
                operation=point.operation,
                batch=point.batch,
                context_tokens=point.context_tokens,
                tokens_per_seq=point.tokens_per_seq,
                reason=reason,
            )
            for point, reason in sorted(grid.infeasible.items())
        ),
    )


def _nature(request: EngineRequest, facts: Facts) -> dict[str, str]:
    precision = request.precision or facts.precision
    if precision is None:
        raise UsageError(f"{facts.engine} does not tell the precision of its weights; give it: --precision bf16")
    return {"model": request.model or facts.model, "gpu": request.gpu, "precision": precision}


def _layout(request: EngineRequest, facts: Facts) -> tuple[int, int]:
    return facts.tp_size or request.tp_size, facts.ep_size or request.ep_size


def _notes(num_draft_tokens: int, ledger: Ledger, plain: LatencyTrace | None, busy_share: float) -> str:
    notes = [
        "Whole engine steps, scheduler, sampling and host included, between the tokens of streamed responses, while "
        "all requests of a batch decode; the context is that half way through them. Median over shuffled sweeps.",
        "Prefill is the time to the first token of one request on the idle server, HTTP included; with cached prefixes "
        "it was not measured.",
    ]
    if num_draft_tokens:
        notes.append(
            f"A verify row holds the whole speculative step of {num_draft_tokens} drafts, its draft passes too; draft "
            f"rows of {MIN_LATENCY_S:g} s stand for them and are taken off it, so that sums over a step are what was "
            "measured. Steps were counted by the engine."
        )
    if not any(sample.counters for sample in ledger.samples):
        notes.append("The server offered no counters: requests of somebody else would have gone unnoticed.")
    if plain is not None:
        notes.append(f"Other rows are those of {plain.name} (sha256 {plain.content_hash()}).")
    if busy_share > BUSY_SHARE:
        notes.append(f"Reading the streams took {busy_share:.0%} of a core at worst, which may be what was timed.")
    return " ".join(notes)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _own_version() -> str:
    try:
        return importlib.metadata.version("bebop-rollout")
    except importlib.metadata.PackageNotFoundError:
        return "from source"
