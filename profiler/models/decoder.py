"""Decoder: a whole model of one architecture with random weights, its caches, and its MTP head.

Layers are those of the published shape: norm, attention or gated DeltaNet, norm, feed-forward. The weights are plain
tensors; nothing is trained or loaded. Does not know how it is timed.
"""

# Shape letters: B sequences, Q new tokens of each, H hidden, V vocabulary.

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.attention import GroupedQueryAttention
from profiler.models.delta_net import GatedDeltaNet
from profiler.models.experts import AnyRouting, DenseFeedForward, ExpertFeedForward, Routing
from profiler.models.glue import Glue
from profiler.models.latent_attention import LatentAttention
from profiler.models.rank import Rank
from profiler.models.step import Step
from profiler.models.weights import WeightMaker


class Cache(Protocol):
    """What a layer remembers of its sequences."""

    def accept(self, num_new: int) -> None:
        """Keep the first `num_new` new tokens of the last pass, forget the others."""


class Mixer(Protocol):
    """The part of a layer that looks at other tokens."""

    def new_cache(self, batch: int, max_tokens: int, num_states: int, maker: WeightMaker) -> Cache:
        """Return room for `batch` sequences of `max_tokens`, filled with random values."""

    def forward(self, x_BQH: Tensor, cache: Any, step: Step, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the output without the residual; `cache` None: the tokens see only each other."""


@dataclass(slots=True)
class Layer:
    """One decoder layer."""

    mixer_norm: Tensor
    mixer: Mixer
    ffn_norm: Tensor
    ffn: DenseFeedForward | ExpertFeedForward
    glue: Glue

    def forward(self, x_BQH: Tensor, cache: Cache | None, step: Step, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the residual stream after this layer."""
        mixed = self.mixer.forward(self.glue.norm(x_BQH, self.mixer_norm), cache, step, rotary)
        normed, total = self.glue.add_norm(mixed, x_BQH, self.ffn_norm)
        return total + self.ffn.forward(normed)


@dataclass(slots=True)
class MtpHead:
    """One MTP layer: projects [hidden, next token's embedding] to the hidden size, then one full-attention layer.

    Source: DeepSeek-V3 (arXiv:2412.19437) sec. 2.2; Qwen3-Next and MiMo have the same. Embedding and lm_head are the
    target's own.
    """

    hidden_norm: Tensor
    embedding_norm: Tensor
    project: Tensor
    layer: Layer
    final_norm: Tensor

    def forward(
        self, hidden_BQH: Tensor, embedded_BQH: Tensor, cache: Cache | None, step: Step, rotary: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the hidden states to draft from, normed: input of the lm_head and of the next draft pass."""
        glue = self.layer.glue
        both = torch.cat((glue.norm(hidden_BQH, self.hidden_norm), glue.norm(embedded_BQH, self.embedding_norm)), -1)
        return glue.norm(self.layer.forward(F.linear(both, self.project), cache, step, rotary), self.final_norm)


@dataclass(slots=True)
class Decoder:
    """A model, or the share of it that one GPU holds."""

    rank: Rank
    maker: WeightMaker
    embedding_VH: Tensor
    layers: list[Layer]
    final_norm: Tensor
    head_VH: Tensor
    """The same tensor as the embedding where the architecture ties them."""
    mtp: MtpHead
    max_tokens: int
    """Most tokens of one pass, all sequences together (routing is drawn for as many)."""

    def new_caches(self, batch: int, max_tokens: int, num_states: int = 0) -> list[Cache]:
        """Return one cache per layer; `num_states`: most new tokens of a pass that keeps states."""
        return [layer.mixer.new_cache(batch, max_tokens, num_states, self.maker) for layer in self.layers]

    def new_mtp_cache(self, batch: int, max_tokens: int) -> Cache:
        """Return the MTP layer's cache."""
        return self.mtp.layer.mixer.new_cache(batch, max_tokens, 0, self.maker)

    def forward(self, tokens_BQ: Tensor, caches: list[Cache] | None, step: Step) -> Tensor:
        """Return hidden states [B, Q, H], normed: input of the lm_head and of the MTP head."""
        x_BQH = F.embedding(tokens_BQ, self.embedding_VH)
        rotary = step.rotary(self._rotary_size, self.maker.device)
        for index, layer in enumerate(self.layers):
            x_BQH = layer.forward(x_BQH, caches[index] if caches is not None else None, step, rotary)
        return self.layers[0].glue.norm(x_BQH, self.final_norm)

    def draft(self, hidden_BQH: Tensor, tokens_BQ: Tensor, cache: Cache | None, step: Step) -> Tensor:
        """Return the MTP head's hidden states [B, Q, H] for tokens that follow those of `hidden_BQH`."""
        embedded = F.embedding(tokens_BQ, self.embedding_VH)
        rotary = step.rotary(self._rotary_size, self.maker.device)
        return self.mtp.forward(hidden_BQH, embedded, cache, step, rotary)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits over this GPU's rows of the vocabulary."""
        return F.linear(hidden, self.head_VH)

    @property
    def _rotary_size(self) -> int:
        a = self.rank.local
        return a.mla.rope_size if a.mla is not None else a.fact("head_size")


def build_decoder(
    rank: Rank,
    maker: WeightMaker,
    *,
    glue: Glue | None = None,
    routing: AnyRouting | None = None,
    max_tokens: int = 1024,
) -> Decoder:
    """Make a model with random weights.

    Args:
        rank: Shape, and this GPU's share of it.
        maker: Device, precision and seed.
        glue: Pointwise functions; None takes the eager ones.
        routing: Which experts tokens visit; None takes the default skew.
        max_tokens: Most tokens of one pass, all sequences together.
    """
    a, glue, routing = rank.local, glue or Glue.eager(), routing or Routing()
    embedding = maker.matrix(a.vocab_size, a.hidden_size)

    def layer(index: int, is_full: bool, is_dense: bool) -> Layer:
        mixer: Mixer
        if not is_full:
            mixer = GatedDeltaNet.build(a, maker, glue)
        else:
            mixer = (LatentAttention if a.mla is not None else GroupedQueryAttention).build(a, maker, glue)
        ffn: DenseFeedForward | ExpertFeedForward
        if is_dense:
            ffn = DenseFeedForward.build(a.hidden_size, a.fact("ffn_size"), maker, glue)
        else:
            ffn = ExpertFeedForward.build(rank, maker, glue, routing, index, max_tokens)
        return Layer(maker.ones(a.hidden_size), mixer, maker.ones(a.hidden_size), ffn, glue)

    num_dense = a.num_layers - a.num_moe_layers
    layers = [layer(i, is_full, i < num_dense) for i, is_full in enumerate(full_attention_pattern(rank))]
    mtp = MtpHead(
        hidden_norm=maker.ones(a.hidden_size),
        embedding_norm=maker.ones(a.hidden_size),
        project=maker.matrix(a.hidden_size, 2 * a.hidden_size),
        layer=layer(a.num_layers, True, not a.is_moe),
        final_norm=maker.ones(a.hidden_size),
    )
    head = embedding if a.tied_embeddings else maker.matrix(a.vocab_size, a.hidden_size)
    return Decoder(rank, maker, embedding, layers, maker.ones(a.hidden_size), head, mtp, max_tokens)


def full_attention_pattern(rank: Rank) -> list[bool]:
    """Return for each layer whether it has full attention: the last of every period, as in Qwen3-Next."""
    a = rank.whole
    if a.num_linear_attention_layers == 0:
        return [True] * a.num_layers
    if a.num_full_attention_layers == 0:
        return [False] * a.num_layers
    period = a.num_layers // a.num_full_attention_layers
    pattern = [index % period == period - 1 for index in range(a.num_layers)]
    # A number of layers that the period does not divide: the first ones give up what is too much.
    surplus = sum(pattern) - a.num_full_attention_layers
    for index in range(a.num_layers):
        if surplus > 0 and pattern[index]:
            pattern[index], surplus = False, surplus - 1
    return pattern
