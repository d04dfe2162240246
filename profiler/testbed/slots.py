"""Slots: KV caches of sequences that come and go, and lean passes of a small model over neighbouring slots.

What does not differ between the layers of a pass (places, masks, rotations) is made once for it. Projections run over
all tokens of a pass as one matrix, however many each sequence has. The same numbers as `profiler.mtp.ragged`, to
rounding. Only grouped-query attention without gate and dense feed-forwards. Does not know sampling.
"""

# Shape letters: S slots, B neighbouring slots of a pass, Q most new tokens of one, T new tokens of all, L places of a
# slot, N query heads, K key/value heads, D head size, H hidden.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.decoder import Layer
from profiler.models.experts import DenseFeedForward
from profiler.models.glue import NORM_EPSILON
from profiler.models.projection import Projection
from profiler.models.step import ROTARY_BASE
from profiler.mtp.ragged import grouped


@dataclass(frozen=True, slots=True)
class Places:
    """Where the new tokens of one pass stand."""

    first_slot: int
    num_slots: int
    end: int
    """Places that attention reads: one more than the last new one."""
    flat_T: Tensor
    """slot x L + place."""
    hidden_B1QL: Tensor
    """Added to scores: 0 where a token sees a place, -inf elsewhere."""
    cos_T1D: Tensor
    sin_T1D: Tensor
    """Its first half is negative, for halves that are swapped."""
    rows_T: Tensor | None
    """Where tokens lie among B x Q; None: every sequence has Q."""


class PassMaker:
    """Makes the `Places` of passes over slots of one size."""

    def __init__(self, num_places: int, head_size: int, device: torch.device) -> None:
        self._num_places, self._device = num_places, device
        frequencies = ROTARY_BASE ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
        angles = torch.arange(num_places, dtype=torch.float32)[:, None] * frequencies
        self._cos_LD = torch.cat((angles.cos(), angles.cos()), dim=-1).to(device)
        self._sin_LD = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(device)
        later = torch.ones(num_places, num_places, dtype=torch.bool).triu(1)
        self._hidden_LL = torch.zeros(num_places, num_places).masked_fill(later, -torch.inf).to(device)

    def even(self, place_BQ: Tensor, end: int) -> Places:
        """Return places of as many new tokens in each of the first slots; `end` is one more than the last."""
        batch, num_new = place_BQ.shape
        slots_B1 = torch.arange(0, batch * self._num_places, self._num_places, device=self._device)[:, None]
        place_T = place_BQ.reshape(-1)
        hidden = self._hidden_LL[:, :end].index_select(0, place_T).view(batch, 1, num_new, end)
        flat_T = (place_BQ + slots_B1).reshape(-1)
        return Places(0, batch, end, flat_T, hidden, *self._turn(place_T), None)

    def from_start(self, first_slot: int, lengths: Sequence[int]) -> Places:
        """Return places of whole texts of these lengths, one in each slot from `first_slot` on."""
        longest = max(lengths)
        each = [torch.arange(length, device=self._device) for length in lengths]
        place_T = torch.cat(each)
        flat_T = torch.cat([one + (first_slot + i) * self._num_places for i, one in enumerate(each)])
        rows_T = None
        if min(lengths) < longest:
            rows_T = torch.cat([one + i * longest for i, one in enumerate(each)])
        hidden = self._hidden_LL[:longest, :longest].expand(len(lengths), 1, -1, -1)
        return Places(first_slot, len(lengths), longest, flat_T, hidden, *self._turn(place_T), rows_T)

    def _turn(self, place_T: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._cos_LD.index_select(0, place_T), self._sin_LD.index_select(0, place_T)
        return cos[:, None], sin[:, None]


class SlotLayer:
    """One layer, and the keys and values of all slots in it."""

    def __init__(self, layer: Layer, num_slots: int, num_places: int) -> None:
        """Share the layer's weights, and make its cache.

        Raises:
            ValueError: No layer of the kind that runs here.
        """
        mixer = grouped(layer)
        if mixer.output_gate or not isinstance(layer.ffn, DenseFeedForward):
            raise ValueError("layer: an output gate or experts cannot run in slots; take a dense model without gate")
        self._layer, self._mixer = layer, mixer
        self._gate_up, self._down = _plain(layer.ffn.gate_up), _plain(layer.ffn.down)
        self._qkv, self._out = _plain(mixer.qkv), _plain(mixer.out)
        shape = (num_slots, num_places, mixer.num_kv_heads, mixer.head_size)
        self._k_SLKD, self._v_SLKD = layer.mixer_norm.new_zeros(shape), layer.mixer_norm.new_zeros(shape)
        self.refresh()

    def refresh(self) -> None:
        """Take over changed weights: the norms of queries and keys are applied as one."""
        mixer = self._mixer
        norms = mixer.q_norm.expand(mixer.num_q_heads, -1), mixer.k_norm.expand(mixer.num_kv_heads, -1)
        self._qk_norm_ND = torch.cat(norms)

    def move(self, source: int, target: int, num_places: int) -> None:
        """Copy the first places of a slot to another one."""
        self._k_SLKD[target, :num_places] = self._k_SLKD[source, :num_places]
        self._v_SLKD[target, :num_places] = self._v_SLKD[source, :num_places]

    def forward(self, x_TH: Tensor, places: Places) -> Tensor:
        """Return the residual stream after this layer; new keys and values are written at their places."""
        layer, hidden = self._layer, x_TH.shape[-1:]
        mixed = self._attend(F.linear(F.rms_norm(x_TH, hidden, layer.mixer_norm, NORM_EPSILON), self._qkv), places)
        x_TH = x_TH + F.linear(mixed, self._out)
        gate, up = F.linear(F.rms_norm(x_TH, hidden, layer.ffn_norm, NORM_EPSILON), self._gate_up).chunk(2, dim=-1)
        return x_TH + F.linear(F.silu(gate) * up, self._down)

    def _attend(self, heads: Tensor, places: Places) -> Tensor:
        mixer = self._mixer
        n, k, d = mixer.num_q_heads, mixer.num_kv_heads, mixer.head_size
        heads_TND = heads.view(-1, n + 2 * k, d)
        qk = F.rms_norm(heads_TND[:, : n + k], (d,), None, NORM_EPSILON) * self._qk_norm_ND
        swapped = torch.cat((qk[..., d // 2 :], qk[..., : d // 2]), dim=-1)
        qk = torch.addcmul(qk * places.cos_T1D, swapped, places.sin_T1D)
        for cache, new in ((self._k_SLKD, qk[:, n:]), (self._v_SLKD, heads_TND[:, n + k :])):
            cache.view(-1, k, d).index_copy_(0, places.flat_T, new)
        slots = slice(places.first_slot, places.first_slot + places.num_slots)
        keys, values = (x[slots, : places.end].transpose(1, 2) for x in (self._k_SLKD, self._v_SLKD))
        queries = _spread(qk[:, :n], places).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=places.hidden_B1QL, enable_gqa=n != k)
        mixed_TF = mixed.transpose(1, 2).reshape(-1, n * d)
        return mixed_TF if places.rows_T is None else mixed_TF.index_select(0, places.rows_T)


def _spread(q_TND: Tensor, places: Places) -> Tensor:
    """Return queries [B, Q, N, D]; rows of sequences with fewer new tokens than others hold zeros at their end."""
    num_new = places.hidden_B1QL.shape[2]
    if places.rows_T is not None:
        room = q_TND.new_zeros(places.num_slots * num_new, *q_TND.shape[1:])
        q_TND = room.index_copy_(0, places.rows_T, q_TND)
    return q_TND.view(places.num_slots, num_new, *q_TND.shape[1:])


def _plain(weight: Projection) -> Tensor:
    if not isinstance(weight, Tensor):
        raise ValueError("layer: fp8 weights cannot run in slots; take fp32 or bf16")
    return weight
