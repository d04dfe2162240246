"""Reinforcement learning of a small policy on sums, with a reward that can be checked: GRPO, one update per rollout.

The entropy term makes entropy rise (bonus) or fall (penalty) on purpose, to move acceptance along it. Does not know
draft heads.
"""

# Shape letters: G groups, R responses of a group, B = G R, T tokens.

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
    learning_rate: float = 3e-4
    entropy_weight: float = 0.02
    """Bonus per nat over the first half of the run, penalty over the second."""
    seed: int = 0


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


def sums(num: int, seed: int) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Return prompts of two-digit sums, [num, PROMPT_TOKENS], and their numbers."""
    draw = random.Random(seed)
    numbers = [(draw.randint(10, 99), draw.randint(10, 99), draw.randint(10, 99)) for _ in range(num)]
    return torch.stack([encode(f"Q:{a}+{b}+{c}\n") for a, b, c in numbers]), numbers


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
        self._weights = _weights_of(decoder)
        self._optimizer = torch.optim.AdamW(self._weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, index: int) -> RlStep:
        """Roll out, reward, update once; return what was rolled out."""
        recipe = self.recipe
        prompts, numbers = sums(recipe.num_groups, seed=1000 * recipe.seed + index)
        tokens = generate(self.decoder, prompts.repeat_interleave(recipe.group, 0), RESPONSE_TOKENS)
        texts = [decode(row[PROMPT_TOKENS:]) for row in tokens]
        rewards = torch.tensor([reward(text, numbers[i // recipe.group]) for i, text in enumerate(texts)])
        groups_GR = rewards.view(-1, recipe.group)
        # A group whose responses are all alike teaches nothing.
        advantage_B = (
            (groups_GR - groups_GR.mean(1, keepdim=True)) / (groups_GR.std(1, keepdim=True) + 1e-4)
        ).flatten()
        mask = response_mask(tokens)
        sign = 1.0 if index < recipe.num_steps / 2 else -1.0
        entropy = self._update(tokens, mask, advantage_B, sign * recipe.entropy_weight)
        return RlStep(tokens, mask, float(rewards.mean()), entropy)

    def _update(self, tokens_BT: Tensor, mask_BT: Tensor, advantage_B: Tensor, entropy_weight: float) -> float:
        for weight in self._weights:
            weight.requires_grad_(True)
        hidden = self.decoder.forward(tokens_BT[:, :-1], None, Step(0, tokens_BT.shape[1] - 1))
        kept = mask_BT[:, 1:]
        log_p = log_softmax(self.decoder.logits(hidden[kept]))
        chosen = log_p.gather(1, tokens_BT[:, 1:][kept][:, None])[:, 0]
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        advantage = advantage_B[:, None].expand_as(kept)[kept]
        loss = -(advantage * chosen).mean() - entropy_weight * entropy
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        for weight in self._weights:
            weight.requires_grad_(False)
        return float(entropy.detach())


def _weights_of(decoder: Decoder) -> list[Tensor]:
    """Return what RL changes: all but the MTP head, the embedding and the lm_head.

    The last two are fixed so that a frozen head drafts with the target's own, as an engine would.
    """
    return [*tensors_of(decoder.layers), decoder.final_norm]
