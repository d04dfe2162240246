"""Reinforcement learning of a small policy on sums, with a reward that can be checked: GRPO, one update per rollout.

An entropy term with a controlled weight leads the policy's entropy up and back to where it was; a KL term keeps the
policy near the one it began as: among all policies of one entropy, it prefers the nearest. Does not know draft heads.
"""

# Shape letters: G groups, R responses of a group, B = G R, T tokens, N tokens of responses, V vocabulary.

import copy
import random
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.models.step import Step
from profiler.models.weights import tensors_of
from profiler.mtp.corpora import decode, encode
from profiler.mtp.losses import log_softmax
from profiler.mtp.ragged import generate

RESPONSE_TOKENS = 22
"""Room for the longest answer: `=198+99`, `=297`, `A:297`, with line ends."""
RESPONSE_LINES = 3
PROMPT_TOKENS = len("Q:10+20+30\n")


@dataclass(frozen=True, slots=True)
class RlRecipe:
    """One run of reinforcement learning; all numbers assumed, for policies of some hundred thousand values."""

    num_steps: int
    num_groups: int = 32
    group: int = 8
    learning_rate: float = 2e-4
    kl_weight: float = 0.1
    """Weight of KL(policy || policy at the start), per nat."""
    entropy_rise_nats: float = 0.35
    """How far entropy is led up over the first half of the run; over the second it is led back."""
    entropy_gain: float = 10.0
    """Weight of the entropy term per nat that entropy is off its course; the term changes its sign with the error."""
    largest: int = 99
    """Of the numbers in the sums."""
    seed: int = 0

    def wanted_rise(self, index: int) -> float:
        """Return how far above its start the entropy should be once step `index` is made, nats."""
        half = self.num_steps / 2
        return self.entropy_rise_nats * max(0.0, 1.0 - abs(index + 1 - half) / half)


@dataclass(frozen=True, slots=True)
class RlStep:
    """What a step rolled out, before its update."""

    tokens_BT: Tensor
    counts_BT: Tensor
    """Tokens of the responses."""
    reward: float
    """Mean of the responses."""
    entropy_nats: float
    """Mean over tokens of the responses, at temperature 1."""
    kl_nats: float
    """KL(policy || policy at the start), mean over the same tokens."""


def sums(num: int, seed: int, largest: int = 99) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Return prompts of two-digit sums, [num, PROMPT_TOKENS], and their numbers."""
    draw = random.Random(seed)
    numbers = [_numbers(draw, largest) for _ in range(num)]
    return torch.stack([encode(f"Q:{a}+{b}+{c}\n") for a, b, c in numbers]), numbers


def worked_sums(num_tokens: int, seed: int, largest: int) -> Tensor:
    """Return a stream of such sums with their right answers: what the policy learns the task from, [num_tokens]."""
    draw = random.Random(f"worked {seed}")
    pieces, size = [], 0
    while size < num_tokens:
        a, b, c = _numbers(draw, largest)
        pieces.append(f"Q:{a}+{b}+{c}\n={a + b}+{c}\n={a + b + c}\nA:{a + b + c}\n")
        size += len(pieces[-1])
    return encode("".join(pieces))[:num_tokens]


def _numbers(draw: random.Random, largest: int) -> tuple[int, int, int]:
    return draw.randint(10, largest), draw.randint(10, largest), draw.randint(10, largest)


def reward(response: str, numbers: tuple[int, int, int]) -> float:
    """Return 1 for a right answer, 0.2 for a right first step, 0.1 for the form: of the response's own lines only."""
    a, b, c = numbers
    found = re.match(r"=(\d+)\+(\d+)\n=(\d+)\nA:(\d+)\n", response)
    if found is None:
        return 0.0
    first, rest, _, answer = (int(part) for part in found.groups())
    return 0.1 + 0.2 * ((first, rest) == (a + b, c)) + 0.7 * (answer == a + b + c)


def response_mask(tokens_BT: Tensor) -> Tensor:
    """Return which tokens are the response's: its first three lines, line ends included."""
    lines_BT = (tokens_BT == ord("\n")).long().cumsum(1) - (tokens_BT == ord("\n")).long()
    mask = lines_BT < 1 + RESPONSE_LINES
    mask[:, :PROMPT_TOKENS] = False
    return mask


class Policy:
    """A decoder that is trained by GRPO; its MTP head is not."""

    def __init__(self, decoder: Decoder, recipe: RlRecipe) -> None:
        self.decoder, self.recipe = decoder, recipe
        self._start = copy.deepcopy(decoder)
        self._start_entropy: float | None = None
        self._weights = _weights_of(decoder)
        self._optimizer = torch.optim.AdamW(self._weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, index: int) -> RlStep:
        """Roll out, reward, update once; return what was rolled out."""
        recipe = self.recipe
        prompts, numbers = sums(recipe.num_groups, 1000 * recipe.seed + index, recipe.largest)
        prompts = prompts.to(self.decoder.embedding_VH.device)
        tokens = generate(self.decoder, prompts.repeat_interleave(recipe.group, 0), RESPONSE_TOKENS)
        texts = [decode(row[PROMPT_TOKENS:]) for row in tokens]
        scores = [reward(text, numbers[place // recipe.group]) for place, text in enumerate(texts)]
        rewards = torch.tensor(scores, device=tokens.device)
        groups_GR = rewards.view(-1, recipe.group)
        # A group whose responses are all alike teaches nothing.
        advantage_B = (
            (groups_GR - groups_GR.mean(1, keepdim=True)) / (groups_GR.std(1, keepdim=True) + 1e-4)
        ).flatten()
        mask = response_mask(tokens)
        entropy, kl = self._update(tokens, mask, advantage_B, index)
        return RlStep(tokens, mask, float(rewards.mean()), entropy, kl)

    def _update(self, tokens_BT: Tensor, mask_BT: Tensor, advantage_B: Tensor, index: int) -> tuple[float, float]:
        kept = mask_BT[:, 1:]
        with torch.no_grad():
            log_start = _log_p(self._start, tokens_BT, kept)
        for weight in self._weights:
            weight.requires_grad_(True)
        log_p = _log_p(self.decoder, tokens_BT, kept)
        p = log_p.exp()
        chosen = log_p.gather(1, tokens_BT[:, 1:][kept][:, None])[:, 0]
        entropy, kl = -(p * log_p).sum(-1).mean(), (p * (log_p - log_start)).sum(-1).mean()
        advantage = advantage_B[:, None].expand_as(kept)[kept]
        loss = self.recipe.kl_weight * kl - (advantage * chosen).mean() - self._entropy_weight(index, entropy) * entropy
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        for weight in self._weights:
            weight.requires_grad_(False)
        return float(entropy.detach()), float(kl.detach())

    def _entropy_weight(self, index: int, entropy: Tensor) -> float:
        now = float(entropy.detach())
        if self._start_entropy is None:
            self._start_entropy = now
        wanted = self._start_entropy + self.recipe.wanted_rise(index)
        return self.recipe.entropy_gain * (wanted - now)


def _log_p(decoder: Decoder, tokens_BT: Tensor, kept: Tensor) -> Tensor:
    """Return what a decoder says of the tokens that are kept, [N, V]."""
    hidden = decoder.forward(tokens_BT[:, :-1], None, Step(0, tokens_BT.shape[1] - 1))
    return log_softmax(decoder.logits(hidden[kept]))


def _weights_of(decoder: Decoder) -> list[Tensor]:
    """Return what RL changes: all but the MTP head, the embedding and the lm_head.

    The last two are fixed so that a frozen head drafts with the target's own, as an engine would.
    """
    return [*tensors_of(decoder.layers), decoder.final_norm]
