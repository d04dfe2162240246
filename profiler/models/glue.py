"""Glue: the pointwise work between matrix products, in one place so that it can be fused into single kernels.

Engines run each of these as one kernel. Eagerly torch runs several, which on a GPU costs launches that no engine
pays; `Glue.fused()` compiles them with torch.compile. Does not know layers.
"""

# Shape letters: B sequences, Q new tokens of each, N heads, D head size, K key size, V value size, H hidden, I inner.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_EPSILON = 1e-6
FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
MAX_VARIANTS = 64
"""Compiled variants of one function."""


@dataclass(frozen=True, slots=True)
class Glue:
    """The pointwise functions of a model, eager or compiled."""

    norm: Callable[[Tensor, Tensor], Tensor]
    add_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    swiglu: Callable[[Tensor], Tensor]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor, Tensor], Tensor]
    gated_norm: Callable[[Tensor, Tensor, Tensor], Tensor]
    merge: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    delta_step: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]]

    @classmethod
    def eager(cls) -> "Glue":
        """Return the functions as they stand: for CPUs and for tests."""
        return cls(norm, add_norm, swiglu, rotate, gate, gated_norm, merge, delta_step, quantize)

    @classmethod
    def fused(cls) -> "Glue":
        """Return the functions compiled: for GPUs; the first calls of each take seconds.

        What changes from call to call (batch, new tokens) becomes symbolic by itself, widths stay constants.
        """
        import torch._dynamo

        # Ranks and sizes of 1 are variants of their own; beyond the limit torch would go on eagerly, without a word.
        torch._dynamo.config.recompile_limit = MAX_VARIANTS

        def fuse(function: Any) -> Any:
            return torch.compile(function)

        return cls(*map(fuse, (norm, add_norm, swiglu, rotate, gate, gated_norm, merge, delta_step, quantize)))


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x in e4m3 over one scale per row, and the scales (fp32, last axis 1)."""
    scales = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / FP8_MAX
    return (x.float() / scales).to(FP8), scales


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Return RMSNorm over the last axis."""
    return F.rms_norm(x, (x.shape[-1],), weight, NORM_EPSILON)


def add_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return RMSNorm of x + residual, and the sum itself."""
    total = x + residual
    return F.rms_norm(total, (total.shape[-1],), weight, NORM_EPSILON), total


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, of the two halves of the last axis."""
    first, second = gate_up.chunk(2, dim=-1)
    return F.silu(first) * second


def rotate(x_BQND: Tensor, cos_QD: Tensor, sin_QD: Tensor) -> Tensor:
    """Return x with rotary positions; cos and sin hold each half twice."""
    first, second = x_BQND.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BQND * cos_QD[None, :, None, :] + turned * sin_QD[None, :, None, :]).to(x_BQND.dtype)


def gate(x: Tensor, by: Tensor) -> Tensor:
    """Return x * sigmoid(by): the output gate of Qwen3-Next's attention."""
    return x * torch.sigmoid(by)


def gated_norm(x: Tensor, by: Tensor, weight: Tensor) -> Tensor:
    """Return RMSNorm(x) * silu(by), over the last axis: the output of gated DeltaNet."""
    return (F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), NORM_EPSILON) * F.silu(by)).to(by.dtype)


def merge(first: Tensor, first_log: Tensor, second: Tensor, second_log: Tensor) -> Tensor:
    """Return attention over two sets of keys from attention over each and the log of each one's softmax sum."""
    share = torch.sigmoid(first_log - second_log)[..., None]
    return (first * share + second * (1.0 - share)).to(first.dtype)


def delta_step(
    state_BNKV: Tensor, q_BNK: Tensor, k_BNK: Tensor, v_BNV: Tensor, log_decay_BN: Tensor, beta_BN: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the next state and the output of one token of gated DeltaNet.

    S' = a S + k (beta (v - a S^T k))^T, o = S'^T q with a = exp(log_decay). The output is written in terms of S, so
    that one pass over S yields both products and a second one S'.

    Source: Gated Delta Networks (arXiv:2412.06464), eq. 10.
    """
    decay = torch.exp(log_decay_BN)[..., None]
    from_k = (state_BNKV * k_BNK[..., None]).sum(-2) * decay
    from_q = (state_BNKV * q_BNK[..., None]).sum(-2) * decay
    delta = (v_BNV - from_k) * beta_BN[..., None]
    out = from_q + (q_BNK * k_BNK).sum(-1, keepdim=True) * delta
    return state_BNKV * decay[..., None] + k_BNK[..., None] * delta[..., None, :], out
