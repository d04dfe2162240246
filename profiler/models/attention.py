"""Attention of new tokens to cached and to new keys, and grouped-query attention (GQA) on top of it.

The cache of a sequence is read once however many new tokens there are: all query heads of one key/value head and all
new tokens are the rows of one product with the cached keys. Does not know layers.
"""

# Shape letters: B sequences, Q new tokens of each, L tokens in the cache, N query heads, K key/value heads,
# G = N / K, D head size, H hidden.

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.glue import Glue
from profiler.models.projection import Projection, project
from profiler.models.step import Step
from profiler.models.weights import WeightMaker
from traces.architecture import Architecture

MAX_FUSED_HEAD_SIZE = 256
"""Largest head that torch's fused attention takes on a GPU (FlashAttention-2)."""


@dataclass(slots=True)
class KvCache:
    """Keys and values of all tokens so far, [B, K, L, D]; room for the longest sequence from the start."""

    k_BKLD: Tensor
    v_BKLD: Tensor

    def extend(self, k_BKQD: Tensor, v_BKQD: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Write new keys and values behind the cached ones; return all of them."""
        end = step.position + step.num_new
        self.k_BKLD[:, :, step.position : end] = k_BKQD
        self.v_BKLD[:, :, step.position : end] = v_BKQD
        return self.k_BKLD[:, :, :end], self.v_BKLD[:, :, :end]

    def accept(self, num_new: int) -> None:
        """Keep the first `num_new` new tokens: nothing to do, later ones are overwritten."""


@dataclass(slots=True)
class GroupedQueryAttention:
    """Weights of one GQA block, query and key norms as in Qwen3, output gate as in Qwen3-Next."""

    qkv: Projection
    out: Projection
    q_norm: Tensor
    k_norm: Tensor
    num_q_heads: int
    num_kv_heads: int
    head_size: int
    output_gate: bool
    glue: Glue

    @classmethod
    def build(cls, a: Architecture, maker: WeightMaker, glue: Glue) -> "GroupedQueryAttention":
        """Make the block of this shape."""
        n, k, d = a.num_q_heads, a.fact("num_kv_heads"), a.fact("head_size")
        queries = 2 * n if a.output_gate else n
        return cls(
            qkv=maker.projection((queries + 2 * k) * d, a.hidden_size),
            out=maker.projection(a.hidden_size, n * d),
            q_norm=maker.ones(d),
            k_norm=maker.ones(d),
            num_q_heads=n,
            num_kv_heads=k,
            head_size=d,
            output_gate=a.output_gate,
            glue=glue,
        )

    def new_cache(self, batch: int, max_tokens: int, num_states: int, maker: WeightMaker) -> KvCache:
        """Return a cache filled with random keys and values."""
        del num_states
        shape = (batch, self.num_kv_heads, max_tokens, self.head_size)
        return KvCache(maker.normal(*shape), maker.normal(*shape))

    def forward(self, x_BQH: Tensor, cache: KvCache | None, step: Step, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the block's output, without the residual.

        Writes the new keys and values into the cache; without one (training) the tokens see only each other.
        """
        b, q, _ = x_BQH.shape
        n, k, d = self.num_q_heads, self.num_kv_heads, self.head_size
        heads = project(x_BQH, self.qkv, self.glue).view(b, q, -1, d)
        queries, gates, keys, values = torch.split(heads, [n, n if self.output_gate else 0, k, k], dim=2)
        queries = self.glue.rotate(self.glue.norm(queries, self.q_norm), *rotary).transpose(1, 2)
        keys = self.glue.rotate(self.glue.norm(keys, self.k_norm), *rotary).transpose(1, 2)
        values = values.transpose(1, 2)
        if cache is not None:
            keys, values = cache.extend(keys, values, step)
        mixed = attend(queries, keys, values, self.glue).transpose(1, 2).reshape(b, q, n * d)
        if self.output_gate:
            mixed = self.glue.gate(mixed, gates.reshape(b, q, n * d))
        return project(mixed, self.out, self.glue)


def attend(q_BNQD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, glue: Glue) -> Tensor:
    """Return attention of the last Q of L tokens to all tokens up to themselves, [B, N, Q, D]."""
    num_new, length = q_BNQD.shape[2], k_BKLD.shape[2]
    cached = length - num_new
    if cached == 0:
        return F.scaled_dot_product_attention(q_BNQD, k_BKLD, v_BKLD, is_causal=True, enable_gqa=True)
    if num_new == 1:
        packed = _pack(q_BNQD, k_BKLD.shape[1])
        return F.scaled_dot_product_attention(packed, k_BKLD, v_BKLD).reshape(*q_BNQD.shape[:3], v_BKLD.shape[-1])
    old, old_log = attend_to_cached(q_BNQD, k_BKLD[:, :, :cached], v_BKLD[:, :, :cached])
    new, new_log = _fused(q_BNQD, _spread(q_BNQD, k_BKLD[:, :, cached:]), _spread(q_BNQD, v_BKLD[:, :, cached:]), True)
    return glue.merge(old, old_log, new, new_log)


def attend_to_cached(q_BNQD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention to tokens that are all visible, [B, N, Q, D], and its log softmax sums [B, N, Q]."""
    b, n, q, _ = q_BNQD.shape
    out, log = _fused(_pack(q_BNQD, k_BKLD.shape[1]), k_BKLD, v_BKLD, False)
    return out.reshape(b, n, q, -1), log.reshape(b, n, q)


def _pack(q_BNQD: Tensor, num_kv_heads: int) -> Tensor:
    """Make all query heads of one key/value head rows of one product: [B, K, G * Q, D]."""
    b, n, q, d = q_BNQD.shape
    return q_BNQD.reshape(b, num_kv_heads, n // num_kv_heads * q, d)


def _spread(q_BNQD: Tensor, kv_BKLD: Tensor) -> Tensor:
    """Repeat each key/value head for its query heads."""
    return kv_BKLD.repeat_interleave(q_BNQD.shape[1] // kv_BKLD.shape[1], dim=1)


def _fused(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Return attention with its log softmax sums, by torch's flash kernel where it can, else by two products."""
    if q.device.type == "cpu" and v.shape[-1] == k.shape[-1]:
        out, log = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal)
        return out, log
    halves = (torch.bfloat16, torch.float16)
    if q.dtype in halves and k.shape[-1] <= MAX_FUSED_HEAD_SIZE and v.shape[-1] == k.shape[-1]:
        out, log, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal, False)
        return out, log[..., : q.shape[2]]
    scores = (q @ k.transpose(-1, -2)).float() * (1.0 / math.sqrt(q.shape[-1]))
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    log = scores.logsumexp(-1)
    return torch.exp(scores - log[..., None]).to(v.dtype) @ v, log
