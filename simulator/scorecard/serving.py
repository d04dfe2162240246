"""A serving deployment's time per output token, from the same latency path as `bebop simulate`.

A closed loop of B requests decodes together; whenever one ends, its successor's prefill stops the others, so that

    tpot = step(B, C, k) / accept length + (B - 1) prefill(isl) / osl

B is what fits into the KV cache. Does not know rows, nor where its inputs come from.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from simulator.engine_habits import EngineHabits
from simulator.latency import Need, TraceLatency
from simulator.roofline import roofline_trace
from simulator.roofline_drafts import DraftKind
from simulator.roofline_precision import BF16, FORMATS
from simulator.step_table import StepTable
from traces.architecture import Architecture
from traces.hardware import Gpu
from traces.latency import LatencyTrace

MEMORY_SHARE = 0.9
"""vLLM's default `gpu_memory_utilization`."""
PCIE_BYTES_PER_S = 64e9
"""PCIe 4.0 x16, both directions: what cards without NVLink talk over."""
HOST_BYTES_PER_S = 51.2e9
"""Two channels of DDR4-3200 (JEDEC JESD79-4): memory of a host that computes the experts its card cannot hold."""
HOST_FLOPS = 1e12
"""bf16 products of such a host's cores; assumed, decode is bound by memory."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on the GPUs of one replica, under one engine."""

    architecture: Architecture
    gpu: Gpu
    tp_size: int = 1
    ep_size: int = 1
    precision: str = "bf16"
    draft: DraftKind = "mtp"
    habits: EngineHabits = field(default_factory=EngineHabits)

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights of the whole model."""
        a, layers = self.architecture, self.architecture.num_params - self.architecture.embedding_params
        return layers * FORMATS[self.precision].weight_bytes + a.embedding_params * BF16.weight_bytes

    @property
    def needs_host_experts(self) -> bool:
        """Whether the weights exceed the cards' memory and experts can stay on the host."""
        return self.architecture.is_moe and self.weight_bytes > self.gpu.memory_bytes * self.tp_size

    @property
    def kv_capacity_tokens(self) -> float:
        """Tokens that the KV cache holds; endless where the weights do not even fit."""
        free_bytes = MEMORY_SHARE * self.gpu.memory_bytes * self.tp_size - self.weight_bytes
        per_token = self.architecture.kv_bytes_per_token()
        return free_bytes / per_token if free_bytes > 0 and per_token else float("inf")


@dataclass(frozen=True, slots=True)
class Load:
    """What the requests are like."""

    concurrency: int = 1
    prompt_tokens: float = 0.0
    response_tokens: float | None = None
    """None: long against every prompt, so that prefills do not count."""
    context_tokens: float = 512.0
    """Mean context while decoding."""


def tpot_s(deployment: Deployment, load: Load, num_draft_tokens: int = 0, accept_length: float = 1.0) -> float:
    """Return the mean seconds between two output tokens of one request."""
    whole = load.prompt_tokens + (load.response_tokens or 0.0)
    fitting = deployment.kv_capacity_tokens / whole if whole else float("inf")
    batch = int(max(1.0, min(load.concurrency, fitting)))
    table = step_table(deployment, batch, load.context_tokens, num_draft_tokens)
    step_s = step_seconds_at(table, batch, load.context_tokens)
    prefill_s = 0.0
    if load.response_tokens and load.prompt_tokens and batch > 1:
        prefill_s = (batch - 1) * prefill_seconds(table, load.prompt_tokens) / load.response_tokens
    return step_s / accept_length + prefill_s


def step_table(deployment: Deployment, batch: int, context_tokens: float, num_draft_tokens: int) -> StepTable:
    """Return the costs of one replica around a batch and a context."""
    a = deployment.architecture
    trace = _trace(
        replace(deployment, habits=deployment.habits.of_kernels),
        batch,
        round(context_tokens),
        num_draft_tokens,
    )
    latency = TraceLatency(
        trace,
        tp_size=deployment.tp_size,
        ep_size=deployment.ep_size,
        allow_extrapolation=True,
        habits=deployment.habits,
        num_piecewise_layers=a.num_layers if a.num_linear_attention_layers else 0,
    )
    table, _ = latency.step_table(Need("row", num_draft_tokens, batch, round(context_tokens), float("inf")))
    return table


def step_seconds_at(table: StepTable, batch: int, context_tokens: float) -> float:
    """Return the seconds of one step of `batch` sequences."""
    return float(np.interp(context_tokens, table.knots, table.step_s[batch]))


def prefill_seconds(table: StepTable, tokens: float) -> float:
    """Return the seconds of one prompt's prefill; linear beyond the last point."""
    known, seconds = table.prefill_tokens, table.prefill_s
    alone = float(np.interp(tokens, known, seconds))
    if tokens > known[-1]:
        alone += (tokens - known[-1]) * (seconds[-1] - seconds[-2]) / (known[-1] - known[-2])
    return alone + table.attention_s_per_token2 * tokens**2 / 2


@lru_cache(maxsize=1024)
def _trace(deployment: Deployment, batch: int, context_tokens: int, num_draft_tokens: int) -> LatencyTrace:
    gpu = deployment.gpu
    if deployment.tp_size > 1 and gpu.nvlink_bytes_per_s is None:
        gpu = gpu.model_copy(update={"nvlink_bytes_per_s": PCIE_BYTES_PER_S})
    host = gpu.model_copy(
        update={"name": "host", "hbm_bytes_per_s": HOST_BYTES_PER_S, "bf16_flops": HOST_FLOPS, "fp8_flops": None}
    )
    return roofline_trace(
        deployment.architecture,
        gpu,
        tp_size=deployment.tp_size,
        ep_size=deployment.ep_size,
        max_draft_tokens=num_draft_tokens,
        batches=(batch,),
        contexts_tokens=(context_tokens,),
        precision=deployment.precision,
        draft=deployment.draft,
        habits=deployment.habits,
        expert_gpu=host if deployment.needs_host_experts else None,
    )
