"""Plausibility: the least time that physics leaves an operation, so that a broken clock or a skipped kernel shows.

Bytes that must cross the memory of the GPU at its peak bandwidth, or products at its peak rate, whichever takes
longer. Lower bounds only: they say nothing about what good kernels reach.
"""

from dataclasses import dataclass

from profiler.errors import DeviceError
from profiler.models.rank import Rank
from profiler.point import Point
from traces.architecture import BYTES_PER_VALUE
from traces.hardware import Gpu
from traces.latency import Operation

TARGET_PASSES = (Operation.PREFILL, Operation.DECODE, Operation.VERIFY)
CACHE_BYTES = 60e6
"""Weights that a GPU may still hold in its L2 cache from the replay before: that of H200 (60 MB), the largest here."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What one run of an operation must at least move and compute, on one GPU."""

    num_bytes: float
    num_flops: float

    def seconds(self, gpu: Gpu, precision: str) -> float:
        """Return the time that takes at the datasheet's peaks."""
        flops = gpu.fp8_flops if precision == "fp8" and gpu.fp8_flops is not None else gpu.bf16_flops
        return max(max(self.num_bytes - CACHE_BYTES, 0.0) / gpu.hbm_bytes_per_s, self.num_flops / flops)


def floor_of(point: Point, rank: Rank, precision: str) -> Floor:
    """Return what a pass must move and compute; zero for operations without a bound here.

    Of a mixture of experts only one token's experts are certain to be read; with experts spread over GPUs, none.
    """
    a, width = rank.local, BYTES_PER_VALUE[precision]
    tokens = point.batch * point.tokens_per_seq
    experts = (a.num_experts_per_token or 0) * a.expert_params if a.is_moe else 0
    unsure = 0 if rank.ep_size == 1 else experts
    if point.operation in TARGET_PASSES:
        visited = a.active_params - a.num_moe_layers * unsure - (0 if a.tied_embeddings else a.lm_head_params)
        kv = point.batch * point.context_tokens * a.kv_bytes_per_token(precision)
        num_written = point.tokens_per_seq if point.operation is Operation.VERIFY else 1
        states = point.batch * a.state_bytes_per_seq * (1 + num_written)
        in_head = tokens if point.operation is not Operation.PREFILL else point.batch
        flops = 2.0 * tokens * (visited - a.lm_head_params) + 2.0 * in_head * a.lm_head_params
        return Floor(visited * width + kv + (states if point.context_tokens else 0), flops)
    if point.operation is Operation.DRAFT:
        others = (a.num_experts or 0) * a.expert_params - experts if a.is_moe else 0
        visited = a.mtp_layer_params - others - unsure
        kv = point.batch * point.context_tokens * a.kv_bytes_per_token_per_layer(precision)
        return Floor(visited * width + kv, 2.0 * tokens * visited)
    if point.operation is Operation.LM_HEAD:
        return Floor(a.lm_head_params * width, 2.0 * tokens * a.lm_head_params)
    return Floor(0.0, 0.0)


def check(point: Point, latency_s: float, rank: Rank, precision: str, gpu: Gpu | None) -> None:
    """Raise DeviceError where a point was faster than the peaks of its GPU allow; without known peaks, never."""
    if gpu is None:
        return
    floor = floor_of(point, rank, precision)
    least_s = floor.seconds(gpu, precision)
    if latency_s < least_s:
        raise DeviceError(
            f"{point}: {latency_s:.3g} s is faster than {gpu.name} can move {floor.num_bytes / 1e9:.3g} GB or compute "
            f"{floor.num_flops / 1e12:.3g} TFLOP ({least_s:.3g} s); timer or work is broken, report it"
        )
