"""MTP heads: one layer as in DeepSeek-V3 and Qwen3.5, used again on its own hidden state for every further draft.

At draft step i a chain that began at token t reads the hidden state of step i - 1 (the target's own at first) and the
embedding of token t + i, and predicts token t + i + 1. What it attends to is what an engine's cache holds then: the
entries of first steps up to t, made with the target's hidden states, and its own entries since. `unroll` trains all
chains at once under exactly that rule (as EAGLE-3's training-time test, arXiv:2503.01840); `DraftCache` drafts.
Embedding and lm_head are the target's. Does not know losses.
"""

# Shape letters: B sequences, T tokens, Q new tokens, k draft steps, N query heads, K key/value heads, G = N / K,
# D head size, H hidden, V vocabulary.

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.attention import GroupedQueryAttention
from profiler.models.decoder import Decoder, Layer, MtpHead
from profiler.models.experts import DenseFeedForward
from profiler.models.glue import Glue
from profiler.models.weights import WeightMaker, tensors_of
from profiler.mtp.ragged import Attend, PlacedCache, run_layer
from traces.architecture import Architecture


@dataclass(slots=True)
class Head:
    """A draft head and what it borrows from its target."""

    mtp: MtpHead
    embedding_VH: Tensor
    lm_head_VH: Tensor

    def parameters(self) -> list[Tensor]:
        """Return what training may change: the head's own tensors, not the target's."""
        return list(tensors_of(self.mtp))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits of the head's hidden states."""
        return F.linear(hidden, self.lm_head_VH)

    def enter(self, hidden_BQH: Tensor, tokens_BQ: Tensor) -> Tensor:
        """Return what the head's layer reads: both norms, one projection."""
        glue, embedded = self.mtp.layer.glue, F.embedding(tokens_BQ, self.embedding_VH)
        both = glue.norm(hidden_BQH, self.mtp.hidden_norm), glue.norm(embedded, self.mtp.embedding_norm)
        return F.linear(torch.cat(both, -1), self.mtp.project)

    def forward(self, hidden_BQH: Tensor, tokens_BQ: Tensor, positions_BQ: Tensor, attend: Attend) -> Tensor:
        """Return hidden states to draft from, normed: input of the lm_head and of the next draft step."""
        x_BQH = run_layer(self.mtp.layer, self.enter(hidden_BQH, tokens_BQ), positions_BQ, attend)
        return self.mtp.layer.glue.norm(x_BQH, self.mtp.final_norm)


def head_of(decoder: Decoder) -> Head:
    """Return the head that a decoder was built with, sharing its tensors."""
    return Head(decoder.mtp, decoder.embedding_VH.detach(), decoder.head_VH.detach())


def new_head(shape: Architecture, embedding_VH: Tensor, lm_head_VH: Tensor, seed: int = 0) -> Head:
    """Return an untrained head for a target of this hidden size.

    Args:
        shape: Hidden size, heads and feed-forward of the head's layer: a dense architecture.
        embedding_VH: The target's, not copied.
        lm_head_VH: The target's, not copied.
        seed: Of the weights.

    Raises:
        ValueError: The target has another hidden size.
    """
    if embedding_VH.shape[1] != shape.hidden_size or lm_head_VH.shape[1] != shape.hidden_size:
        raise ValueError(f"embedding: width {embedding_VH.shape[1]}, the head has {shape.hidden_size}; make them equal")
    generator = torch.Generator(embedding_VH.device).manual_seed(seed)
    maker, glue, hidden = WeightMaker(embedding_VH.device, torch.float32, generator), Glue.eager(), shape.hidden_size
    layer = Layer(
        maker.ones(hidden),
        GroupedQueryAttention.build(shape, maker, glue),
        maker.ones(hidden),
        DenseFeedForward.build(hidden, shape.fact("ffn_size"), maker, glue),
        glue,
    )
    project = maker.matrix(hidden, 2 * hidden)
    mtp = MtpHead(maker.ones(hidden), maker.ones(hidden), project, layer, maker.ones(hidden))
    return Head(mtp, embedding_VH.detach(), lm_head_VH.detach())


def head_for_transformer(model: Any, shape: Architecture, seed: int = 0) -> Head:
    """Return an untrained head for a Hugging Face causal LM; `transformer_hidden` gives the states that it reads."""
    embedding, lm_head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return new_head(shape, embedding.float(), lm_head.float(), seed)


@torch.no_grad()
def transformer_hidden(model: Any, tokens_BT: Tensor) -> Tensor:
    """Return a Hugging Face causal LM's last hidden states, normed, [B, T, H].

    Raises:
        ValueError: The model makes its logits from them in another way than by its lm_head alone.
    """
    made = model(tokens_BT, output_hidden_states=True)
    hidden: Tensor = made.hidden_states[-1].float()
    logits, known = F.linear(hidden[:, -1], model.get_output_embeddings().weight.float()), made.logits[:, -1].float()
    # In bf16 a logit has an error of about 1 % of the largest one.
    if (logits - known).abs().max() > 0.05 * known.abs().max():
        raise ValueError(
            f"{type(model).__name__}: its logits are not lm_head x last hidden states (a bias, a scale or a cap comes "
            "after); a draft head would learn another model"
        )
    return hidden


def unroll(head: Head, hidden_BTH: Tensor, tokens_BT: Tensor, num_steps: int) -> Tensor:
    """Return the head's hidden states of every chain, [B, T, k, H]; entry [t, i - 1] predicts token t + i + 1.

    Steps that reach beyond the last token are meaningless; `step_mask` excludes them.

    Args:
        head: The head.
        hidden_BTH: The target's hidden states, normed.
        tokens_BT: The tokens that they belong to; chains follow them (teacher forcing).
        num_steps: k.
    """
    batch, length = tokens_BT.shape
    chains = _Chains.begin(length, tokens_BT.device)
    positions_BT = torch.arange(length, device=tokens_BT.device).expand(batch, -1)
    hidden, found = hidden_BTH, []
    for step in range(1, num_steps + 1):
        tokens = F.pad(tokens_BT[:, step:], (0, min(step, length)))
        hidden = head.forward(hidden, tokens, positions_BT + (step - 1), chains.attend)
        found.append(hidden)
    return torch.stack(found, dim=2)


@dataclass(slots=True)
class _Chains:
    """Attention of draft chains: to first steps of their own and of earlier chains, and to their own later steps."""

    hidden_TT: Tensor
    """Which first steps a chain may not see."""
    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def begin(cls, length: int, device: torch.device) -> "_Chains":
        return cls(torch.ones(length, length, dtype=torch.bool, device=device).triu(1), [], [])

    def attend(self, q_BNTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        """Return attention of one more step of all chains."""
        groups = q_BNTD.shape[1] // k_BKTD.shape[1]
        self.keys.append(k_BKTD.repeat_interleave(groups, dim=1))
        self.values.append(v_BKTD.repeat_interleave(groups, dim=1))
        q_BNTD = q_BNTD / math.sqrt(q_BNTD.shape[-1])
        scores = [(q_BNTD @ self.keys[0].transpose(-1, -2)).masked_fill(self.hidden_TT, -torch.inf)]
        scores += [(q_BNTD * keys).sum(-1, keepdim=True) for keys in self.keys[1:]]
        share = torch.cat(scores, dim=-1).softmax(-1)
        length = q_BNTD.shape[2]
        mixed = share[..., :length] @ self.values[0]
        for index, values in enumerate(self.values[1:]):
            mixed = mixed + share[..., length + index, None] * values
        return mixed


def step_mask(counts_BT: Tensor, num_steps: int) -> Tensor:
    """Return which draft steps count, [B, T, k]: those whose predicted token exists and counts.

    Args:
        counts_BT: Tokens that the policy generated, as opposed to prompts, tool output and padding.
        num_steps: k.
    """
    shifted = [
        F.pad(counts_BT[:, step + 1 :], (0, min(step + 1, counts_BT.shape[1]))) for step in range(1, num_steps + 1)
    ]
    return torch.stack(shifted, dim=2)


def shifted_ahead(values_BT: Tensor, num_steps: int, ahead: int) -> Tensor:
    """Return [B, T, k, ...]: entry [t, i - 1] is the value at t + i - 1 + ahead, the last one where that is outside."""
    length, device = values_BT.shape[1], values_BT.device
    places = torch.arange(length, device=device)[:, None] + torch.arange(num_steps, device=device) + ahead
    return values_BT[:, places.clamp(max=length - 1)]


@dataclass(slots=True)
class DraftCache:
    """What a head remembers of its sequences while drafting."""

    head: Head
    cache: PlacedCache

    @classmethod
    def empty(cls, head: Head, batch: int, num_places: int) -> "DraftCache":
        """Return a cache for sequences of fewer than `num_places` tokens."""
        return cls(head, PlacedCache.empty(head.mtp.layer, batch, num_places))

    def pass_of(self, hidden_BQH: Tensor, tokens_BQ: Tensor, positions_BQ: Tensor) -> Tensor:
        """Return hidden states for (hidden state at a position, token after it), [B, Q, H]."""
        return self.head.forward(hidden_BQH, tokens_BQ, positions_BQ, self.cache.attend(positions_BQ))
