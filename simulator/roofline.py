"""Roofline: a LatencyTrace from a model's shape and a GPU's datasheet, where nothing was measured.

Efficiencies are fitted to H200 kernels (`roofline_fit`) and carried to other cards unchanged. Does not know how rows
are combined into a speculative step, and whether batch and context fit into memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.engine_habits import EngineHabits
from simulator.roofline_drafts import DraftKind, kind_lm_head_s, kind_pass_s
from simulator.roofline_parameters import RooflineParameters, load_roofline_parameters
from simulator.roofline_passes import (
    HOST_GAP_S,
    Machine,
    prefill_pass_s,
    sample_s,
    target_pass_s,
)
from simulator.roofline_precision import FORMATS, NumberFormat
from traces.architecture import Architecture
from traces.base import Origin, Provenance
from traces.hardware import Gpu
from traces.latency import LatencyRow, LatencyTrace, Operation

Array = NDArray[np.float64]

DEFAULT_BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
DEFAULT_CONTEXTS_TOKENS = (0, 512, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
PREFILL_TOKENS = tuple(2**power for power in range(4, 16))
"""New tokens of the prefill rows: 16 to 32768."""
PREFILL_CACHED_TOKENS = (0, 4096, 16384, 65536)
"""Cached prefix of the prefill rows."""
_CREATED = "2026-11-22"
"""Day of the fit, not of the call: the same arguments give the same bytes."""


def roofline_trace(
    architecture: Architecture,
    gpu: Gpu,
    *,
    tp_size: int = 1,
    ep_size: int = 1,
    max_draft_tokens: int = 8,
    batches: Sequence[int] = DEFAULT_BATCHES,
    contexts_tokens: Sequence[int] = DEFAULT_CONTEXTS_TOKENS,
    precision: str = "bf16",
    draft: DraftKind = "mtp",
    habits: EngineHabits | None = None,
    expert_gpu: Gpu | None = None,
) -> LatencyTrace:
    """Return modelled latencies of every operation of a rollout engine, for up to `max_draft_tokens` drafts.

    `tp_size` GPUs hold the model; `ep_size` of them share out whole experts (must divide tp_size); `precision` names a
    number format of `roofline_precision`; `habits` says what an engine's kernels reach (its host work is not in the
    rows); routed experts are computed on `expert_gpu` if not on `gpu`. A parallel draft is made for exactly
    `max_draft_tokens`. A ValueError says which argument does not fit the model; a fact missing in the architecture is
    a TraceFormatError.
    """
    if precision not in FORMATS:
        raise ValueError(f"precision {precision!r}: known are {', '.join(FORMATS)}")
    if not 0 <= max_draft_tokens <= 64:
        raise ValueError(f"max_draft_tokens {max_draft_tokens}: must be 0 to 64")
    if not batches or not contexts_tokens or min(batches) < 1 or min(contexts_tokens) < 0:
        raise ValueError("batches and contexts_tokens: at least one each, batches from 1, contexts from 0")
    kernels = habits or EngineHabits()
    machine = Machine(
        architecture,
        gpu,
        load_roofline_parameters(),
        tp_size,
        ep_size,
        number_format=_format(precision, kernels.fp8_bandwidth_factor),
        recurrence_efficiency=kernels.recurrence_efficiency,
        draft_expert_reuse=kernels.draft_expert_reuse,
        expert_gpu=expert_gpu,
    )
    points = roofline_points(machine, max_draft_tokens, batches, contexts_tokens, draft)
    rows = [
        _row(operation, int(b), int(c), int(q), float(latency_s), tp_size, ep_size)
        for operation, batch, context, tokens, seconds in points
        for b, c, q, latency_s in zip(batch, context, tokens, seconds, strict=True)
    ]
    split = f"-tp{tp_size}" + (f"-ep{ep_size}" if ep_size > 1 else "")
    return LatencyTrace(
        name=f"{architecture.name}-{gpu.name}{split}-roofline",
        provenance=_provenance(machine),
        gpu=gpu.name,
        model=architecture.name,
        precision=precision,
        engine="roofline",
        rows=tuple(rows),
    )


def _format(precision: str, fp8_bandwidth_factor: float) -> NumberFormat:
    known = FORMATS[precision]
    return replace(known, bandwidth_factor=fp8_bandwidth_factor) if known.name == "fp8" else known


def roofline_points(
    machine: Machine,
    max_draft_tokens: int,
    batches: Sequence[int],
    contexts_tokens: Sequence[int],
    draft: DraftKind = "mtp",
) -> list[tuple[Operation, Array, Array, Array, Array]]:
    """Return (operation, batch, context, tokens per sequence, seconds) columns of every operation of the trace."""
    batch = sorted(set(batches))
    context = sorted(set(contexts_tokens))
    lengths = range(1, max_draft_tokens + 2)
    passes: list[tuple[Operation, Sequence[int], Sequence[int], Sequence[int], _Latency]] = [
        (Operation.DECODE, batch, context, [1], lambda b, c, q: target_pass_s(machine, b, c, q)),
        (Operation.VERIFY, batch, context, lengths[1:], lambda b, c, q: target_pass_s(machine, b, c, q)),
        (Operation.DRAFT, batch, context, lengths, lambda b, c, q: kind_pass_s(machine, draft, b, c, q)),
        (
            Operation.LM_HEAD,
            batch,
            [0],
            [1],
            lambda b, _c, _q: kind_lm_head_s(machine, draft, b, max(1, max_draft_tokens)),
        ),
        (Operation.SAMPLE, batch, [0], lengths, lambda b, _c, q: sample_s(machine, b * q)),
        (Operation.HOST_GAP, batch, [0], [1], lambda b, _c, _q: np.full_like(b, HOST_GAP_S)),
        (
            Operation.PREFILL,
            [1],
            PREFILL_CACHED_TOKENS,
            PREFILL_TOKENS,
            lambda _b, c, q: prefill_pass_s(machine, c, q),
        ),
    ]
    points = []
    for operation, some_batches, some_contexts, some_tokens, latency in passes:
        axes = [np.asarray(axis, dtype=np.float64) for axis in (some_batches, some_contexts, some_tokens)]
        b, c, q = (column.ravel() for column in np.meshgrid(*axes, indexing="ij"))
        if len(b):
            points.append((operation, b, c, q, latency(b, c, q)))
    return points


_Latency = Callable[[Array, Array, Array], Array]
_ASSUMED = (Operation.SAMPLE, Operation.HOST_GAP)
"""Operations of which no kernel was fitted: constants with a reason."""


def _row(
    operation: Operation, batch: int, context: int, tokens: int, latency_s: float, tp_size: int, ep_size: int
) -> LatencyRow:
    return LatencyRow(
        operation=operation,
        batch=batch,
        context_tokens=context,
        tokens_per_seq=tokens,
        latency_s=latency_s,
        tp_size=tp_size,
        ep_size=ep_size,
        origin=Origin.ASSUMED if operation in _ASSUMED else Origin.MODELLED,
        measured_fraction=0.0,
    )


def _provenance(machine: Machine) -> Provenance:
    fit: RooflineParameters = machine.fit
    architecture, gpu = machine.architecture, machine.gpu
    notes = [
        f"Analytic roofline; efficiencies fitted to {fit.gpu} kernels: {fit.source}; errors: benchmarks/roofline.py.",
        f"Peaks: {gpu.source}. Shape: {architecture.source}.",
        "Stated or assumed, not fitted: attention flop efficiency, gated-DeltaNet recurrence, small kernels, sampler, "
        "pass floor, host gap. No padding to graph sizes, no check that batch and context fit into memory.",
    ]
    if gpu.name != fit.gpu:
        notes.append(f"Efficiencies are extrapolated from {fit.gpu} to this card ({gpu.name}) unchanged.")
    if architecture.is_moe:
        notes.append(f"MoE router: {machine.router} of the fitted kernels; tokens route independently.")
    if architecture.num_mtp_layers == 0:
        notes.append(f"{architecture.name} was released without an MTP head: draft rows assume one layer of its shape.")
    return Provenance(
        source=f"roofline of {architecture.name} on {machine.tp_size} x {gpu.name}",
        created=_CREATED,
        notes=" ".join(notes),
    )
