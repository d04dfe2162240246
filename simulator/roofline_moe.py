"""MoE: how many distinct experts a batch of tokens reaches, and the time of one MoE layer's routed experts.

Does not know the rest of a layer. Routing is independent from token to token; drafts of one sequence are in truth
correlated, so a verify pass reaches somewhat fewer experts than stated here.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.roofline_ops import BF16_BYTES, smooth_maximum
from simulator.roofline_parameters import MoeParameters
from simulator.roofline_precision import BF16, NumberFormat
from traces.hardware import Gpu

Array = NDArray[np.float64]

DEFAULT_ROUTER = "power_law_1.01"
"""Router of the measurements that traces are made for: the milder of the two skewed ones."""


def expert_probabilities(num_experts: int, experts_per_token: int, skew: float) -> Array:
    """Return p_e, the chance that a token visits expert e: proportional to rank^-skew, at most 1, sum = top-k."""
    weights = np.arange(1, num_experts + 1, dtype=np.float64) ** -skew
    probabilities: Array = experts_per_token * weights / weights.sum()
    # A token cannot visit an expert twice: what exceeds 1 goes to the others, until nothing does.
    while (probabilities > 1).any():
        full = probabilities >= 1
        rest = np.where(full, 0.0, weights)
        probabilities = np.where(full, 1.0, rest / rest.sum() * (experts_per_token - full.sum()))
    return probabilities


def distinct_experts(num_tokens: ArrayLike, num_experts: int, experts_per_token: int, skew: float) -> Array:
    """Return D(n) = sum_e 1 - (1 - p_e)^n, the expected number of experts that n tokens reach together."""
    n = np.asarray(num_tokens, dtype=np.float64)
    values, inverse = np.unique(n, return_inverse=True)
    log_miss = _log_miss(num_experts, experts_per_token, skew)
    distinct: Array = -np.expm1(values[:, None] * log_miss[None, :]).sum(axis=1)
    return np.take(distinct, inverse).reshape(n.shape)


def moe_s(
    gpu: Gpu,
    fit: MoeParameters,
    *,
    num_tokens: ArrayLike,
    distinct: ArrayLike,
    experts_per_token: float,
    hidden_size: float,
    inner_size: float,
    imbalance: float,
    number_format: NumberFormat = BF16,
) -> Array:
    """Return the time of the routed experts of one layer on one GPU.

    memory: the weights of `distinct` experts, 3 h i values each, and per token and expert 2h + 3i values of
    activations; compute: 2 n K 3 h i flops times the imbalance; joined like GEMM's, plus a floor and a cost per
    distinct expert. With expert parallelism, pass the GPU's own share of distinct experts and of experts_per_token.
    """
    n, d = (np.asarray(x, dtype=np.float64) for x in (num_tokens, distinct))
    visits = n * experts_per_token
    weights = 3 * hidden_size * inner_size
    weight_bytes = number_format.weight_bytes * (d * weights)
    moved_bytes = weight_bytes + BF16_BYTES * (visits * (2 * hidden_size + 3 * inner_size))
    memory_s = moved_bytes / (fit.bandwidth_efficiency * gpu.hbm_bytes_per_s) + fit.expert_overhead_s * d
    compute_s = imbalance * 2 * visits * weights / (fit.flop_efficiency * number_format.flops(gpu))
    return fit.floor_s + smooth_maximum(memory_s, compute_s, fit.sharpness)


@cache
def _log_miss(num_experts: int, experts_per_token: int, skew: float) -> Array:
    probabilities = expert_probabilities(num_experts, experts_per_token, skew)
    with np.errstate(divide="ignore"):
        return np.log1p(-probabilities)
