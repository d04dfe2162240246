"""Training: of a small target on text, of a head on a frozen target, and of a head beside a target that moves.

The loss of a head reaches the head only: hidden states, lm_head and embedding are constants to it. Does not know what
is measured afterwards.
"""

# Shape letters: S sequences, B sequences of a batch, T tokens, H hidden, k draft steps.

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.models.step import Step
from profiler.models.weights import tensors_of
from profiler.mtp.corpora import windows
from profiler.mtp.fused import fused_divergences
from profiler.mtp.heads import Head, shifted_ahead, step_mask, unroll
from profiler.mtp.losses import LOSSES, READS, divergences

UNROLLED_STEPS = 5
"""Draft steps a head is trained on (Bebop, sec. 5)."""
WARM_UP_SHARE = 0.03
"""Share of the batches over which the learning rate rises (Bebop, sec. 5)."""
WHOLE_LOGITS = 20_000_000
"""Logits of a batch, all draft steps, up to which they are made whole: beyond, some positions at a time."""


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How a head is trained."""

    loss: str
    """A key of LOSSES."""
    num_batches: int
    batch: int = 8
    learning_rate: float = 2e-3
    """Assumed: what suits heads of 0.1 to 1 million values; the paper's 3.5e-5 is for a head of a 35B model."""
    kl_share: float = 0.0
    """Share of the batches that KL begins with; TV's gradient vanishes where q is far from p."""
    num_steps: int = UNROLLED_STEPS
    max_gradient_norm: float = 1.0
    """Of the head by itself: it is not clipped together with the target's."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Text and the target's hidden states on it."""

    tokens_ST: Tensor
    counts_ST: Tensor
    """Which tokens the policy wrote: the others are read, but no draft of them is trained."""
    hidden_STH: Tensor
    temperature: float = 1.0
    """At which they were sampled, and at which a head that learns from them is compared with the target."""


@torch.no_grad()
def read(decoder: Decoder, tokens_ST: Tensor, counts_ST: Tensor, batch: int = 64, temperature: float = 1.0) -> Rollouts:
    """Return the text with the target's hidden states."""
    step = Step(0, tokens_ST.shape[1])
    hidden = [decoder.forward(part, None, step) for part in tokens_ST.split(batch)]
    return Rollouts(tokens_ST, counts_ST, torch.cat(hidden), temperature)


def train_target(
    decoder: Decoder,
    text: Tensor,
    num_batches: int,
    *,
    batch: int = 16,
    length: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> list[float]:
    """Train all of a decoder but its MTP head on next tokens of a stream; return the loss of every batch, nats."""
    own = {id(weight) for weight in tensors_of(decoder.mtp)} - {id(decoder.embedding_VH), id(decoder.head_VH)}
    weights = [weight for weight in tensors_of(decoder) if id(weight) not in own]
    losses = []
    with _trained(weights):
        optimizer = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        for index in range(num_batches):
            _set_rate(optimizer, learning_rate * _cosine(index, num_batches))
            tokens = windows(text, batch, length + 1, seed=100_000 * seed + index).to(decoder.embedding_VH.device)
            logits = decoder.logits(decoder.forward(tokens[:, :-1], None, Step(0, length)))
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            _descend(optimizer, loss, weights, 1.0)
            losses.append(loss.item())
    return losses


def train_head(head: Head, rollouts: Rollouts | Sequence[Rollouts], recipe: HeadRecipe) -> list[float]:
    """Train a head on a frozen target, in place; return the loss of every batch.

    Every batch unrolls the head on its own hidden states over tokens of the rollouts, and compares each step with what
    the target says of the same token. Of several rollouts, say of different temperatures, batches come in turn.
    """
    pools = [rollouts] if isinstance(rollouts, Rollouts) else list(rollouts)
    weights = head.parameters()
    order = torch.Generator().manual_seed(recipe.seed)
    losses = []
    with _trained(weights):
        optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        for index in range(recipe.num_batches):
            _set_rate(optimizer, recipe.learning_rate * warm_up(index, recipe.num_batches))
            pool = pools[index % len(pools)]
            rows = torch.randint(len(pool.tokens_ST), (recipe.batch,), generator=order, device=order.device)
            name = "kl" if index < recipe.kl_share * recipe.num_batches else recipe.loss
            loss = head_loss(head, _rows(pool, rows), name, recipe)
            _descend(optimizer, loss, weights, recipe.max_gradient_norm)
            losses.append(loss.item())
    return losses


def head_loss(head: Head, rollouts: Rollouts, name: str, recipe: HeadRecipe) -> Tensor:
    """Return one loss of a head over whole rollouts; no gradient leaves the head."""
    hidden, tokens, k = rollouts.hidden_STH.detach(), rollouts.tokens_ST, recipe.num_steps
    # Only chains of which a step counts are compared; all are run, as later ones attend to them.
    mask = step_mask(rollouts.counts_ST, k)
    kept = mask.to(torch.int8).cumprod(-1).bool().any(-1)
    draft, target = unroll(head, hidden, tokens, k)[kept], shifted_ahead(hidden, k, 1)[kept]
    labels, lm_head_VH = shifted_ahead(tokens, k, 2)[kept], head.lm_head_VH
    if labels.numel() * lm_head_VH.shape[0] <= WHOLE_LOGITS:
        with torch.no_grad():
            target_logits = head.logits(target)
        found = divergences(target_logits, head.logits(draft), labels, rollouts.temperature)
    else:
        found = fused_divergences(target, draft, lm_head_VH, labels, READS[name], rollouts.temperature)
    return LOSSES[name](found, mask[kept])


class OnlineHead:
    """A head trained beside a target that moves: own optimizer, own learning rate, own gradient norm."""

    def __init__(self, head: Head, recipe: HeadRecipe) -> None:
        self.head, self.recipe = head, recipe
        self._weights = head.parameters()
        self.optimizer = torch.optim.AdamW(self._weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, rollouts: Rollouts) -> float:
        """Train on the rollouts of one RL step, after the policy's own update; return the loss."""
        with _trained(self._weights):
            loss = head_loss(self.head, rollouts, self.recipe.loss, self.recipe)
            _descend(self.optimizer, loss, self._weights, self.recipe.max_gradient_norm)
        return loss.item()


def warm_up(index: int, num_batches: int) -> float:
    """Return the share of the learning rate at a batch: linear to 1 over the first 3 %, then constant."""
    return min(1.0, (index + 1) / max(1.0, WARM_UP_SHARE * num_batches))


def _cosine(index: int, num_batches: int) -> float:
    rise = min(1.0, (index + 1) / max(1.0, 0.05 * num_batches))
    return rise * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * index / num_batches)))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, weights: list[Tensor], most: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, most)
    optimizer.step()


def _rows(rollouts: Rollouts, rows: Tensor) -> Rollouts:
    chosen = (rollouts.tokens_ST[rows], rollouts.counts_ST[rows], rollouts.hidden_STH[rows])
    return Rollouts(*chosen, rollouts.temperature)


class _trained:  # noqa: N801 - used as a statement
    """Let gradients reach these weights inside the block, and nowhere else."""

    def __init__(self, weights: list[Tensor]) -> None:
        self._weights = weights

    def __enter__(self) -> None:
        for weight in self._weights:
            weight.requires_grad_(True)

    def __exit__(self, *_: object) -> None:
        for weight in self._weights:
            weight.requires_grad_(False)
            weight.grad = None
