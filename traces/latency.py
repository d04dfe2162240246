"""LatencyTrace: how long each operation of a rollout engine, a trainer or a weight sync takes.

One row is one point: an operation at a batch, a context and a number of tokens per sequence. How points are
combined into a speculative step, and what lies between them, is the simulator's business.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from traces.base import Origin, Strict, Trace

MIN_LATENCY_S = 1e-7
MAX_LATENCY_S = 600.0
"""Plausible latency of one operation, seconds; outside, the unit is probably wrong. A step takes 1 us to 600 s, one
operation such as a sampler may be shorter."""


class Operation(StrEnum):
    """What a row times."""

    PREFILL = "prefill"
    """One forward pass over `tokens_per_seq` new tokens of each of `batch` sequences, with `context_tokens` cached."""
    DECODE = "decode"
    """One forward pass over one token per sequence, its lm_head included, sampling and host gap not."""
    VERIFY = "verify"
    """One target forward pass over `tokens_per_seq` = k + 1 tokens per sequence, lm_head at every position included."""
    DRAFT = "draft"
    """One pass of the MTP layer, its lm_head not included; pass 0 has k + 1 tokens per sequence, later passes one."""
    DRAFT_PREFILL = "draft_prefill"
    """What a prefill over as many tokens takes longer where the MTP layer reads the prompt too."""
    LM_HEAD = "lm_head"
    """The draft head's projection to the vocabulary, one row per sequence; runs once per draft pass."""
    SAMPLE = "sample"
    """Sampling or verification of `tokens_per_seq` positions per sequence."""
    HOST_GAP = "host_gap"
    """Time per forward pass during which the GPU waits for the host."""
    TRAIN_STEP = "train_step"
    """Forward, backward and optimizer over `batch` x `tokens_per_seq` tokens."""
    WEIGHT_SYNC = "weight_sync"
    """One transfer of the policy's weights from trainer to rollout replicas."""


class LatencyRow(Strict):
    """One timed point."""

    operation: Operation
    batch: Annotated[int, Field(ge=1, le=1_000_000)]
    """Sequences in the pass."""
    context_tokens: Annotated[int, Field(ge=0, le=10_000_000)]
    """Tokens already in the KV cache, per sequence."""
    tokens_per_seq: Annotated[int, Field(ge=1, le=10_000_000)]
    """New tokens per sequence: 1 for decode, k + 1 for verify and draft pass 0, the prompt for prefill."""
    latency_s: Annotated[float, Field(ge=MIN_LATENCY_S, le=MAX_LATENCY_S)]
    """Duration of the whole operation on all GPUs of the replica, seconds."""
    tp_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Tensor-parallel GPUs of the replica."""
    ep_size: Annotated[int, Field(ge=1, le=4096)] = 1
    """Expert-parallel GPUs of the replica."""
    origin: Literal[Origin.MEASURED, Origin.MODELLED, Origin.ASSUMED] = Origin.MEASURED
    """Where the number comes from."""
    measured_fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of a modelled row: share of its time that comes from measured kernels."""
    relative_spread: Annotated[float, Field(ge=0)] | None = None
    """Of a measured row: interquartile range over median."""

    def key(self) -> tuple[str, int, int, int, int, int]:
        """Return what identifies the point: operation, tp, ep, tokens per sequence, batch, context."""
        return (
            self.operation.value,
            self.tp_size,
            self.ep_size,
            self.tokens_per_seq,
            self.batch,
            self.context_tokens,
        )


class ErrorSummary(Strict):
    """How far predictions between points were off: absolute relative errors."""

    num_points: Annotated[int, Field(ge=1)]
    median: Annotated[float, Field(ge=0)]
    p90: Annotated[float, Field(ge=0)]
    worst: Annotated[float, Field(ge=0)]


class InfeasiblePoint(Strict):
    """A point that could not be timed."""

    operation: Operation
    batch: Annotated[int, Field(ge=1)]
    context_tokens: Annotated[int, Field(ge=0)]
    tokens_per_seq: Annotated[int, Field(ge=1)]
    reason: str = Field(min_length=1, max_length=300)
    """Why, e.g. the memory that it needs and the memory that there is."""


class ComposedStep(Strict):
    """One whole speculative step timed as a piece, beside the sum of the rows that a predictor adds up for it."""

    num_draft_tokens: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    context_tokens: Annotated[int, Field(ge=0)]
    measured_s: Annotated[float, Field(gt=0)]
    sum_of_parts_s: Annotated[float, Field(gt=0)]


class DistinctExperts(Strict):
    """How many different experts one pass of the target visited: what decides the cost of a mixture of experts."""

    batch: Annotated[int, Field(ge=1)]
    tokens_per_seq: Annotated[int, Field(ge=1)]
    mean: Annotated[float, Field(gt=0)]
    """Mean over layers."""


class Measurement(Strict):
    """How the rows of a measured trace were timed, and what that says about the space between them."""

    num_sweeps: Annotated[int, Field(ge=1)]
    """Samples of every point at least, each from another pass over all points in another order."""
    num_samples: Annotated[int, Field(ge=1)]
    noisy_spread: Annotated[float, Field(gt=0)]
    """A point whose `relative_spread` exceeds this was measured again."""
    num_noisy: Annotated[int, Field(ge=0)]
    """Points whose spread exceeds it all the same."""
    leave_one_out: ErrorSummary | None = None
    """Each inner point predicted from the others: two to four times the error between neighbours."""
    held_out: ErrorSummary | None = None
    """Points that were timed but are not among the rows, predicted from the rows."""
    infeasible: tuple[InfeasiblePoint, ...] = Field(default=(), max_length=200_000)
    """Points of the grid that could not be timed."""
    composed: tuple[ComposedStep, ...] = Field(default=(), max_length=10_000)
    """Whole steps against the sums of their parts."""
    distinct_experts: tuple[DistinctExperts, ...] = Field(
        default=(), max_length=10_000, exclude_if=lambda value: not value
    )
    """By pass of decode and verify; empty for dense models."""
    sm_clock_hz: tuple[float, float, float] | None = None
    """Smallest, median and largest clock of the GPU over all samples."""
    power_w: tuple[float, float, float] | None = None
    """Smallest, median and largest power of the GPU over all samples."""


class LatencyTrace(Trace):
    """Latencies of one model on one GPU type, in one precision, under one engine."""

    kind: Literal["latency"] = "latency"
    gpu: str = Field(min_length=1, max_length=100)
    """GPU name as the vendor writes it, e.g. `H200`."""
    model: str = Field(min_length=1, max_length=200)
    """Model name without its owner, e.g. `Qwen3-32B`."""
    precision: str = Field(min_length=1, max_length=50)
    """Weights and activations, e.g. `bf16`, `fp8`."""
    engine: str = Field(min_length=1, max_length=100)
    """Engine (and version) whose kernels and habits the rows reflect."""
    graph_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Captured CUDA-graph sizes in tokens: a pass is padded to the next one. None: latency is not a step function."""
    measurement: Measurement | None = Field(default=None, exclude_if=lambda value: value is None)
    """How the rows were timed; None for traces that nobody timed."""
    rows: tuple[LatencyRow, ...] = Field(min_length=1, max_length=200_000)
    """The points, in any order; two rows at one point must be equal."""

    @model_validator(mode="after")
    def _points_are_unique(self) -> Self:
        seen: dict[tuple[str, int, int, int, int, int], float] = {}
        for index, row in enumerate(self.rows):
            known = seen.setdefault(row.key(), row.latency_s)
            if known != row.latency_s:
                raise ValueError(
                    f"row {index}, column latency_s: {row.latency_s:g} contradicts {known:g} of an earlier row at the "
                    f"same point {row.key()}; keep one of them"
                )
        return self

    @model_validator(mode="after")
    def _graph_sizes_ascend(self) -> Self:
        sizes = self.graph_batch_sizes
        if sizes is not None and (not sizes or list(sizes) != sorted(set(sizes))):
            raise ValueError(f"graph_batch_sizes: {sizes} must be ascending, without repeats and not empty")
        return self
