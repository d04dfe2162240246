"""Parts of a run that the system puts together: task, engine, learner. Does not know actors.

Actors make their parts themselves, in their own processes, so what is passed to them is small and can be pickled.
"""

import bisect
import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from profiler.mtp.train import HeadRecipe
from profiler.testbed.engine import Request, RolloutEngine
from profiler.testbed.prepared import HEAD_LOSS, prepare
from profiler.testbed.task import END, PROMPT_TOKENS, Problem, problems, reward
from profiler.testbed.torch_engine import Sampling, TorchEngine
from profiler.testbed.trainer import Example, Grpo, Learned
from traces.testbed import TestbedConfig

HEAD_LEARNING_RATE = 5e-4
"""Of an online head; assumed, a quarter of that before RL."""


class Learner(Protocol):
    """Trains the policy; `profiler.testbed.trainer.Grpo`."""

    def weights(self) -> list[Tensor]:
        """Return what an engine needs."""

    def train(self, examples: Sequence[Example]) -> Learned:
        """Make one update."""

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""


class Parts(Protocol):
    """Makes the parts of a config."""

    def engine(self, config: TestbedConfig) -> RolloutEngine:
        """Return the rollout engine, with the policy before RL as version 0."""

    def learner(self, config: TestbedConfig) -> Learner:
        """Return the learner, with the policy before RL."""


class PreparedParts:
    """The testbed's own engine and learner, from the policy and the head that a config prepares."""

    def engine(self, config: TestbedConfig) -> RolloutEngine:
        """Return an engine on torch, or llama.cpp with weights of its own.

        Raises:
            DeviceError: llama.cpp does not load them.
            ModuleNotFoundError: It is not installed.
        """
        if config.engine == "llamacpp":
            from profiler.testbed.llamacpp_engine import engine_of

            return engine_of(config)
        prepared = prepare(config)
        torch.manual_seed(config.seed)
        sampling = Sampling(config.k, config.verify_rule, config.temperature, END, config.max_response_tokens)
        return TorchEngine(prepared.decoder, prepared.head, sampling, config.max_running_seqs, PROMPT_TOKENS)

    def learner(self, config: TestbedConfig) -> Learner:
        """Return GRPO on the policy, and on the head where that is online."""
        prepared = prepare(config)
        head = None
        if config.head_update == "online":
            head = HeadRecipe(
                HEAD_LOSS,
                config.num_steps,
                learning_rate=HEAD_LEARNING_RATE,
                num_steps=max(config.k, 1),
                seed=config.seed,
            )
        return Grpo(prepared.decoder, prepared.head, config.learning_rate, config.temperature, head)


class Sums:
    """The prompts of a run by the number of their group, and what its responses earn."""

    prompt_tokens = PROMPT_TOKENS

    def __init__(self, config: TestbedConfig) -> None:
        self._config = config

    def prompt(self, group_id: int) -> tuple[int, ...]:
        """Return the prompt of a group."""
        return self._problem(group_id).prompt

    def requests(self, group_id: int, first_sample_id: int) -> list[Request]:
        """Return what an engine is asked for a group, with consecutive sample ids."""
        prompt, size = self.prompt(group_id), self._config.group_size
        return [
            Request(first_sample_id + number, group_id, prompt, num_tokens=self.num_tokens(group_id, number))
            for number in range(size)
        ]

    def reward(self, group_id: int, response: Sequence[int]) -> float:
        """Return what a response to it earns, 0..1."""
        return reward(response, self._problem(group_id).terms)

    def num_tokens(self, group_id: int, number: int) -> int | None:
        """Return the imposed length of a response, by its number in the group; None where the policy ends it."""
        quantiles = self._config.response_tokens
        if quantiles is None:
            return None
        share = random.Random(f"length {self._config.seed} {group_id} {number}").random()
        return min(length_at(quantiles, share), self._config.max_response_tokens)

    def _problem(self, group_id: int) -> Problem:
        (problem,) = problems(1, self._config.seed * 1_000_003 + group_id)
        return problem


def length_at(quantiles: Sequence[tuple[float, int]], share: float) -> int:
    """Return the length at a share 0..1 of the distribution: straight lines in its logarithm between quantiles."""
    shares = [each for each, _ in quantiles]
    if share <= shares[0]:
        return quantiles[0][1]
    if share >= shares[-1]:
        return quantiles[-1][1]
    above = bisect.bisect_right(shares, share)
    (low, few), (high, many) = quantiles[above - 1], quantiles[above]
    return max(1, round(math.exp(math.log(few) + (share - low) / (high - low) * math.log(many / few))))
