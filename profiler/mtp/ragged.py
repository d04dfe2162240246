"""Passes of a small decoder in which every sequence stands at a position of its own, and sampling with them.

Speculation makes sequences of one batch advance unevenly; `profiler.models` times passes in which they do not. Weights
are those of `profiler.models`, so that what is trained here has the shape that is timed there. Only grouped-query
attention and dense feed-forwards. Does not know draft heads.
"""

# Shape letters: B sequences, Q new tokens of each, L places of a cache, N query heads, K key/value heads, D head size,
# H hidden, V vocabulary, T tokens.

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.attention import GroupedQueryAttention
from profiler.models.decoder import Decoder, Layer
from profiler.models.projection import project
from profiler.models.step import ROTARY_BASE
from profiler.mtp.rejection import draw, process

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [B, N, Q, D], keys and values [B, K, Q, D] of the new tokens -> attention [B, N, Q, D]."""


@dataclass(slots=True)
class PlacedCache:
    """Keys and values by place, [B, L, K, D]: the place is the position, and is written again after a rejection."""

    k_BLKD: Tensor
    v_BLKD: Tensor

    @classmethod
    def empty(cls, layer: Layer, batch: int, num_places: int) -> "PlacedCache":
        """Return a cache of one layer."""
        mixer = grouped(layer)
        shape = (batch, num_places, mixer.num_kv_heads, mixer.head_size)
        return cls(layer.mixer_norm.new_zeros(shape), layer.mixer_norm.new_zeros(shape))

    def attend(self, positions_BQ: Tensor) -> Attend:
        """Return attention that writes new tokens at these places and sees all places up to each token's own."""

        def attend(q_BNQD: Tensor, k_BKQD: Tensor, v_BKQD: Tensor) -> Tensor:
            rows_B1 = torch.arange(positions_BQ.shape[0], device=positions_BQ.device)[:, None]
            self.k_BLKD[rows_B1, positions_BQ] = k_BKQD.transpose(1, 2)
            self.v_BLKD[rows_B1, positions_BQ] = v_BKQD.transpose(1, 2)
            end = int(positions_BQ.max()) + 1
            keys, values = (x[:, :end].transpose(1, 2) for x in (self.k_BLKD, self.v_BLKD))
            visible = torch.arange(end, device=positions_BQ.device) <= positions_BQ[..., None]
            return F.scaled_dot_product_attention(q_BNQD, keys, values, attn_mask=visible[:, None], enable_gqa=True)

        return attend


def run_layer(layer: Layer, x_BQH: Tensor, positions_BQ: Tensor, attend: Attend) -> Tensor:
    """Return the residual stream after one layer, with attention of the caller's making."""
    mixer, glue = grouped(layer), layer.glue
    n, k, d = mixer.num_q_heads, mixer.num_kv_heads, mixer.head_size
    b, q, _ = x_BQH.shape
    heads = project(glue.norm(x_BQH, layer.mixer_norm), mixer.qkv, glue).view(b, q, -1, d)
    queries, gates, keys, values = torch.split(heads, [n, n if mixer.output_gate else 0, k, k], dim=2)
    turn = rotary(positions_BQ, d)
    queries = rotate(glue.norm(queries, mixer.q_norm), turn).transpose(1, 2)
    keys = rotate(glue.norm(keys, mixer.k_norm), turn).transpose(1, 2)
    mixed = attend(queries, keys, values.transpose(1, 2)).transpose(1, 2).reshape(b, q, n * d)
    if mixer.output_gate:
        mixed = glue.gate(mixed, gates.reshape(b, q, n * d))
    normed, total = glue.add_norm(project(mixed, mixer.out, glue), x_BQH, layer.ffn_norm)
    return total + layer.ffn.forward(normed)


def rotary(positions_BQ: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [B, Q, size] of any positions; those of `Step.rotary`."""
    steps = torch.arange(0, size, 2, dtype=torch.float32, device=positions_BQ.device)
    frequencies = ROTARY_BASE ** (-steps / size)
    angles = positions_BQ[..., None].float() * frequencies
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x_BQND: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Return x with rotary positions."""
    cos, sin = (x[:, :, None] for x in turn)
    first, second = x_BQND.chunk(2, dim=-1)
    return (x_BQND * cos + torch.cat((-second, first), dim=-1) * sin).to(x_BQND.dtype)


def grouped(layer: Layer) -> GroupedQueryAttention:
    """Return the layer's attention.

    Raises:
        ValueError: It is none that can be trained here.
    """
    if not isinstance(layer.mixer, GroupedQueryAttention):
        raise ValueError(f"layer: {type(layer.mixer).__name__} cannot be trained here; take grouped-query attention")
    return layer.mixer


def new_caches(decoder: Decoder, batch: int, num_places: int) -> list[PlacedCache]:
    """Return an empty cache for every layer."""
    return [PlacedCache.empty(layer, batch, num_places) for layer in decoder.layers]


def placed_forward(decoder: Decoder, tokens_BQ: Tensor, positions_BQ: Tensor, caches: list[PlacedCache]) -> Tensor:
    """Return hidden states [B, Q, H], normed, of new tokens at these positions."""
    x_BQH = F.embedding(tokens_BQ, decoder.embedding_VH)
    for layer, cache in zip(decoder.layers, caches, strict=True):
        x_BQH = run_layer(layer, x_BQH, positions_BQ, cache.attend(positions_BQ))
    return decoder.layers[0].glue.norm(x_BQH, decoder.final_norm)


@torch.no_grad()
def generate(decoder: Decoder, prompts_BT: Tensor, num_tokens: int, temperature: float = 1.0) -> Tensor:
    """Return prompts, all of one length, with `num_tokens` sampled tokens behind, [B, T + num_tokens]."""
    batch, length = prompts_BT.shape
    caches = new_caches(decoder, batch, length + num_tokens)
    tokens = [prompts_BT]
    positions_BQ = torch.arange(length, device=prompts_BT.device).expand(batch, -1)
    new = prompts_BT
    for place in range(length, length + num_tokens):
        hidden = placed_forward(decoder, new, positions_BQ, caches)[:, -1]
        new = draw(process(decoder.logits(hidden), temperature))[:, None]
        tokens.append(new)
        positions_BQ = torch.full((batch, 1), place, device=prompts_BT.device)
    return torch.cat(tokens, dim=1)
