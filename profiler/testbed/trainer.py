"""GRPO step of the testbed: rewards to advantages, then one AdamW update on samples that older policies may have drawn.

The importance ratio against the log-probabilities that the engine reported is clipped (DAPO's bounds, arXiv 2503.14476,
sec. 3.1), and the loss is a mean over tokens. As `profiler.mtp.reinforce`, it leaves embedding and lm_head as they are,
so that a frozen head drafts with the target's own. Passes have no more padding than rows of like length need. Does not
know Ray, nor where samples come from.
"""

# Shape letters: B rows of a pass, T tokens, H hidden, V vocabulary, N tokens of responses.

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.models.step import Step
from profiler.mtp.heads import Head
from profiler.mtp.losses import log_softmax
from profiler.mtp.train import HeadRecipe, OnlineHead, Rollouts
from profiler.testbed.prepared import policy_weights, weights_of

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""DAPO's bounds of the importance ratio below and above 1."""
MAX_GRADIENT_NORM = 1.0
TOKENS_PER_PASS = 2048
"""Padded tokens of a forward and backward pass; assumed: more gain nothing on one core."""


@dataclass(frozen=True, slots=True)
class Example:
    """A response to train on."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    log_probs: tuple[float, ...]
    """Of each token of the response, under the policy that sampled it, at the temperature of sampling; empty where the
    engine reports none: the policy that is trained is then taken for the one that sampled."""
    advantage: float

    @property
    def num_tokens(self) -> int:
        """Prompt and response."""
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step found out on its way."""

    loss: float
    ratio_mean: float
    """Importance ratio over tokens: 1 where the sampler was the policy."""
    clipped_fraction: float
    """Tokens whose ratio was beyond the bounds."""
    gradient_norm: float
    head_loss: float | None


def advantages(rewards: Sequence[float]) -> list[float]:
    """Return how far each response of a group is above its mean, in standard deviations (GRPO, arXiv 2402.03300)."""
    found = torch.tensor(rewards, dtype=torch.float64)
    # A group whose responses are all alike teaches nothing.
    spread = found.std() if len(rewards) > 1 else torch.zeros(())
    return [float(each) for each in (found - found.mean()) / (spread + 1e-4)]


class Grpo:
    """Trains a decoder, and its head where that is online."""

    def __init__(
        self,
        decoder: Decoder,
        head: Head,
        learning_rate: float,
        temperature: float = 1.0,
        head_recipe: HeadRecipe | None = None,
    ) -> None:
        self.decoder, self.head = decoder, head
        self._temperature = temperature
        self._trained = policy_weights(decoder)
        self._optimizer = torch.optim.AdamW(self._trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._online = OnlineHead(head, head_recipe) if head_recipe is not None else None

    def weights(self) -> list[Tensor]:
        """Return what an engine needs: policy and head."""
        return weights_of(self.decoder, self.head)

    def train(self, examples: Sequence[Example]) -> Learned:
        """Make one update."""
        num_tokens = sum(len(example.response) for example in examples)
        sums = torch.zeros(3)
        read: list[Rollouts] = []
        for weight in self._trained:
            weight.requires_grad_(True)
        self._optimizer.zero_grad()
        for part in _passes(examples):
            batch = _Padded.of(part)
            hidden = self.decoder.forward(batch.tokens_BT[:, :-1], None, Step(0, batch.tokens_BT.shape[1] - 1))
            loss, counted = self._loss(hidden, batch)
            (loss / num_tokens).backward()
            sums += counted
            if self._online is not None:
                read.append(Rollouts(batch.tokens_BT[:, :-1], batch.counts_BT[:, :-1], hidden.detach()))
        norm = torch.nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
        self._optimizer.step()
        for weight in self._trained:
            weight.requires_grad_(False)
            weight.grad = None
        loss_sum, ratio_sum, num_clipped = (sums / num_tokens).tolist()
        head_loss = self._online.step(_joined(read, self._temperature)) if self._online is not None else None
        return Learned(loss_sum, ratio_sum, num_clipped, float(norm), head_loss)

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""
        online = self._online.optimizer.state_dict() if self._online is not None else None
        return {"weights": self.weights(), "optimizer": self._optimizer.state_dict(), "head_optimizer": online}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        for weight, saved in zip(self.weights(), state["weights"], strict=True):
            weight.copy_(saved)  # neither requires a gradient between steps
        self._optimizer.load_state_dict(state["optimizer"])
        if self._online is not None:
            self._online.optimizer.load_state_dict(state["head_optimizer"])

    def _loss(self, hidden_BTH: Tensor, batch: "_Padded") -> tuple[Tensor, Tensor]:
        """Return the summed loss of a pass, and sums over tokens of loss, ratio and clipped ones."""
        kept = batch.counts_BT[:, 1:]
        log_p = log_softmax(self.decoder.logits(hidden_BTH[kept]), self._temperature)
        chosen_N = log_p.gather(1, batch.tokens_BT[:, 1:][kept][:, None])[:, 0]
        sampled_N = torch.where(batch.log_probs_N.isnan(), chosen_N.detach(), batch.log_probs_N)
        ratio_N = (chosen_N - sampled_N).exp()
        clipped_N = ratio_N.clamp(1.0 - CLIP_LOW, 1.0 + CLIP_HIGH)
        loss_N = -torch.minimum(ratio_N * batch.advantage_N, clipped_N * batch.advantage_N)
        with torch.no_grad():
            counted = torch.stack((loss_N.sum(), ratio_N.sum(), (ratio_N != clipped_N).sum().float()))
        return loss_N.sum(), counted


@dataclass(frozen=True, slots=True)
class _Padded:
    """Rows of a pass."""

    tokens_BT: Tensor
    counts_BT: Tensor
    """Tokens of responses."""
    log_probs_N: Tensor
    """NaN where they are not known."""
    advantage_N: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "_Padded":
        longest = max(example.num_tokens for example in examples)
        tokens = torch.zeros(len(examples), longest, dtype=torch.long)
        counts = torch.zeros(len(examples), longest, dtype=torch.bool)
        for row, example in enumerate(examples):
            tokens[row, : example.num_tokens] = torch.tensor(example.prompt + example.response)
            counts[row, len(example.prompt) : example.num_tokens] = True
        return cls(
            tokens,
            counts,
            torch.tensor([each for example in examples for each in _log_probs(example)]),
            torch.tensor([example.advantage for example in examples for _ in example.response]),
        )


def _log_probs(example: Example) -> Sequence[float]:
    return example.log_probs or [math.nan] * len(example.response)


def _passes(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Yield rows of like length together, as many as a pass may hold."""
    part: list[Example] = []
    for example in sorted(examples, key=lambda each: each.num_tokens):
        if part and (len(part) + 1) * example.num_tokens > TOKENS_PER_PASS:
            yield part
            part = []
        part.append(example)
    yield part


def _joined(parts: Sequence[Rollouts], temperature: float) -> Rollouts:
    """Return rollouts of several lengths as one, padded with tokens that do not count."""
    longest = max(part.tokens_ST.shape[1] for part in parts)
    tokens, counts, hidden = [], [], []
    for part in parts:
        room = longest - part.tokens_ST.shape[1]
        tokens.append(F.pad(part.tokens_ST, (0, room)))
        counts.append(F.pad(part.counts_ST, (0, room)))
        hidden.append(F.pad(part.hidden_STH, (0, 0, 0, room)))
    return Rollouts(torch.cat(tokens), torch.cat(counts), torch.cat(hidden), temperature)
