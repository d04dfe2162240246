"""Roofline of single operators: seconds from shapes, a card's peaks and fitted efficiencies; numpy, element by element.

Does not know models, passes or traces. Time on one GPU of a replica; whoever composes a pass divides by tp first.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.roofline_parameters import AllReduceParameters, AttentionParameters, GemmParameters
from simulator.roofline_precision import BF16, NumberFormat
from traces.hardware import Gpu

Array = NDArray[np.float64]

BF16_BYTES = 2
FP32_BYTES = 4
L2_BYTES = 50e6
"""L2 cache of GH100 (H100 architecture whitepaper): scale over which streaming reaches its full rate."""
ATTENTION_FLOP_EFFICIENCY = 0.6
"""Of the bf16 peak, causal attention at head width 128: 600-650 of 989 TFLOP/s (FlashAttention-3, arXiv:2407.08608,
fig. 5). Stated, not fitted: the measured rows hold no prefill."""
ELEMENTWISE_FLOOR_S = 2e-6
"""One small kernel (norm, rotation, activation) inside a CUDA graph; assumed."""


def gemm_s(
    gpu: Gpu,
    fit: GemmParameters,
    num_tokens: ArrayLike,
    out_size: float,
    in_size: float,
    count: float = 1,
    number_format: NumberFormat = BF16,
) -> Array:
    """Return the time of `count` products (num_tokens x in_size) @ (in_size x out_size).

    floor + (memory^p + compute^p)^(1/p), memory = (w nk + a mk + 2 mn) / (e_b * BW), compute = 2mnk / (e_f * F); w and
    a are the format's bytes of a weight and of an activation. Efficiencies were fitted in bf16.
    Wave quantisation was tried (the best of six tile sizes, with and without split-k): no gain on the fitted rows
    (p90 12.6 % without, 13.6 % and 14.7 % with), so the smooth form stays.
    """
    m = np.asarray(num_tokens, dtype=np.float64)
    read_bytes = number_format.weight_bytes * out_size * in_size + number_format.activation_bytes * m * in_size
    bandwidth = fit.bandwidth_efficiency * number_format.bandwidth_factor * gpu.hbm_bytes_per_s
    memory_s = (read_bytes + BF16_BYTES * m * out_size) / bandwidth
    compute_s = 2 * m * out_size * in_size / (fit.flop_efficiency * number_format.flops(gpu))
    return count * (fit.floor_s + smooth_maximum(memory_s, compute_s, fit.sharpness))


def attention_s(
    gpu: Gpu,
    fit: AttentionParameters,
    *,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    tokens_per_seq: ArrayLike,
    num_kv_heads: float,
    kv_bytes_per_token: float,
    flops_per_query_key: float,
) -> Array:
    """Return the time of attention of `tokens_per_seq` new tokens of each sequence over cache and themselves.

    The cache is read once per sequence, however many tokens are verified: memory = B (C + q) kv_bytes / (e BW) plus
    a ramp. Compute grows with q: B q (C + (q + 1) / 2) flops_per_query_key. Small caches are bound by waves of
    (sequence, KV head) pairs instead.
    """
    b, c, q = (np.asarray(x, dtype=np.float64) for x in (batch, context_tokens, tokens_per_seq))
    cache_bytes = b * (c + q) * kv_bytes_per_token
    ramp_s = fit.ramp_s * -np.expm1(-cache_bytes / L2_BYTES)
    memory_s = cache_bytes / (fit.bandwidth_efficiency * gpu.hbm_bytes_per_s) + ramp_s
    waves_s = fit.wave_s * np.maximum(0.0, b * num_kv_heads / fit.wave_heads - 1)
    compute_s = b * q * (c + (q + 1) / 2) * flops_per_query_key / (ATTENTION_FLOP_EFFICIENCY * gpu.bf16_flops)
    return fit.floor_s + np.maximum(smooth_maximum(memory_s, waves_s, fit.sharpness), compute_s)


def delta_net_decode_s(
    gpu: Gpu,
    fit: GemmParameters,
    batch: ArrayLike,
    tokens_per_seq: ArrayLike,
    state_bytes: float,
    read_efficiency: float | None = None,
) -> Array:
    """Return the time of the gated-DeltaNet recurrence over `tokens_per_seq` tokens of each sequence.

    The state is read once and written after every token, so that a rejected draft can be undone: (1 + q) S bytes,
    2 S at decode, (k + 2) S at verify (vLLM and SGLang keep 1 + k slots). Bandwidth efficiency and floor are those
    of GEMM: the public measurements of this kernel contradict each other (achieved rates above the peak). An engine's
    `read_efficiency`, where given, is that of reading the state, which the recurrence waits for; writes do not wait.
    """
    b, q = (np.asarray(x, dtype=np.float64) for x in (batch, tokens_per_seq))
    if read_efficiency is None:
        return fit.floor_s + b * (1 + q) * state_bytes / (fit.bandwidth_efficiency * gpu.hbm_bytes_per_s)
    transfers = 1 / read_efficiency + q / fit.bandwidth_efficiency
    return fit.floor_s + b * transfers * state_bytes / gpu.hbm_bytes_per_s


def delta_net_prefill_s(
    gpu: Gpu, fit: GemmParameters, num_tokens: ArrayLike, state_bytes: float, flops_per_token: float
) -> Array:
    """Return the time of the chunked gated-DeltaNet form over one sequence's prompt: state read and written once."""
    n = np.asarray(num_tokens, dtype=np.float64)
    memory_s = 2 * state_bytes / (fit.bandwidth_efficiency * gpu.hbm_bytes_per_s)
    compute_s = n * flops_per_token / (ATTENTION_FLOP_EFFICIENCY * gpu.bf16_flops)
    return fit.floor_s + memory_s + compute_s


def elementwise_s(
    gpu: Gpu, fit: GemmParameters, num_tokens: ArrayLike, bytes_per_token: float, num_kernels: int
) -> Array:
    """Return the time of `num_kernels` memory-bound kernels that together move `bytes_per_token` per token."""
    n = np.asarray(num_tokens, dtype=np.float64)
    return num_kernels * ELEMENTWISE_FLOOR_S + n * bytes_per_token / (fit.bandwidth_efficiency * gpu.hbm_bytes_per_s)


def all_reduce_s(gpu: Gpu, fit: AllReduceParameters, message_bytes: ArrayLike, num_gpus: int) -> Array:
    """Return the time of one all-reduce of `message_bytes` per GPU over `num_gpus` GPUs; 0 for one GPU.

    floor + floor' log2(P) + the least of: one shot (P-1) n / (e1 L), two shots f2 log2(P) + 2 (P-1)/P n / (e2 L),
    reduction in the switch f3 + n / (e3 L); L is one direction of NVLink.
    """
    n = np.asarray(message_bytes, dtype=np.float64)
    if num_gpus == 1:
        return np.zeros_like(n)
    link = _link_bytes_per_s(gpu, num_gpus)
    doublings = math.log2(num_gpus)
    one_shot_s = (num_gpus - 1) * n / (fit.one_shot_efficiency * link)
    share = 2 * (num_gpus - 1) / num_gpus
    two_shot_s = fit.two_shot_floor_s * doublings + share * n / (fit.two_shot_efficiency * link)
    in_switch_s = fit.in_switch_floor_s + n / (fit.in_switch_efficiency * link)
    transfer_s = np.minimum(np.minimum(one_shot_s, two_shot_s), in_switch_s)
    total_s: Array = fit.floor_s + fit.floor_per_doubling_s * doublings + transfer_s
    return total_s


def all_gather_s(gpu: Gpu, fit: AllReduceParameters, gathered_bytes: ArrayLike, num_gpus: int) -> Array:
    """Return the time to gather `gathered_bytes` on every GPU: half of the two-shot all-reduce of that size."""
    n = np.asarray(gathered_bytes, dtype=np.float64)
    if num_gpus == 1:
        return np.zeros_like(n)
    link = _link_bytes_per_s(gpu, num_gpus)
    floor_s = fit.floor_s + fit.floor_per_doubling_s * math.log2(num_gpus)
    return floor_s + (num_gpus - 1) / num_gpus * n / (fit.two_shot_efficiency * link)


def smooth_maximum(first: Array, second: Array, sharpness: float) -> Array:
    """Return (first^p + second^p)^(1/p) with p = sharpness: their sum at 1, their maximum as p grows."""
    largest = np.maximum(first, second)
    ratio = np.minimum(first, second) / np.where(largest > 0, largest, 1.0)
    joined: Array = largest * (1 + ratio**sharpness) ** (1 / sharpness)
    return joined


def _link_bytes_per_s(gpu: Gpu, num_gpus: int) -> float:
    if gpu.nvlink_bytes_per_s is None:
        raise ValueError(f"tp_size {num_gpus}: {gpu.name} has no NVLink, only tp_size 1 is modelled for it")
    return gpu.nvlink_bytes_per_s / 2
