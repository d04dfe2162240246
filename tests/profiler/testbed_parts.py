"""Small deterministic parts for tests of the testbed's system: an engine of known speed, a learner that counts."""

import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profiler.errors import UsageError
from profiler.testbed.engine import Counters, Finished, Request
from profiler.testbed.trainer import Example, Learned
from traces.testbed import TestbedConfig, TestbedModel, TestbedPolicy

WEIGHT_VALUES = 1000


class SteadyEngine:
    """A step takes a known time and emits one token per running sequence; k drafts are all accepted but the last."""

    def __init__(self, num_slots: int, k: int, step_s: float) -> None:
        self.version = 0
        self.weights = torch.zeros(WEIGHT_VALUES)
        self._num_slots, self._k, self._step_s = num_slots, k, step_s
        self._running: list[Request] = []
        self._started: dict[int, float] = {}
        self._waiting: deque[Request] = deque()
        self._counters = self._new()

    def _new(self) -> Counters:
        return Counters(accepted_at=[0] * self._k)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    def step(self) -> list[Finished]:
        begin_s = time.perf_counter()
        while self._waiting and len(self._running) < self._num_slots:
            request = self._waiting.popleft()
            self._started[request.sample_id] = time.perf_counter()
            self._running.append(request)
            self._counters.num_prefills += 1
        if not self._running:
            return []
        time.sleep(self._step_s)
        count, finished, going = self._counters, [], []
        count.num_steps += 1
        for request in self._running:
            # The version of the weights, not the number that came along: a test sees whether they arrived.
            token, sampler = 65 + len(request.generated) % 26, int(self.weights[0])
            assert sampler == self.version
            new = replace(
                request,
                generated=(*request.generated, token),
                versions=(*request.versions, sampler),
                log_probs=(*request.log_probs, -1.0),
            )
            count.num_tokens += 1
            count.num_seq_steps += 1
            count.num_draft_tokens += self._k
            count.entropy_sum_nats += 0.5
            for place in range(self._k - 1):
                count.accepted_at[place] += 1
            if len(new.generated) == (request.num_tokens or 5 + request.sample_id % 7):
                ends = self._started.pop(request.sample_id), time.perf_counter()
                finished.append(Finished(request, new.generated, new.versions, new.log_probs, *ends))
            else:
                going.append(new)
        self._running = going
        count.busy_s += time.perf_counter() - begin_s
        return finished

    def abort(self) -> list[Request]:
        aborted = [*self._running, *self._waiting]
        self._running, self._waiting = [], deque()
        return aborted

    def set_weights(self, weights: Sequence[Tensor], version: int) -> None:
        self.weights.copy_(weights[0])
        self.version = version

    def take_counters(self) -> Counters:
        taken, self._counters = self._counters, self._new()
        return taken


class CountingLearner:
    """Its weights are the number of updates made; an update takes a known time."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._weights = torch.zeros(WEIGHT_VALUES)

    def weights(self) -> list[Tensor]:
        return [self._weights]

    def train(self, examples: Sequence[Example]) -> Learned:
        time.sleep(self._step_s)
        self._weights += 1
        return Learned(0.0, 1.0, 0.0, 0.0, None)

    def state(self) -> dict[str, Any]:
        return {"weights": self._weights}

    def load(self, state: dict[str, Any]) -> None:
        self._weights.copy_(state["weights"])


@dataclass(frozen=True)
class SteadyParts:
    """Both."""

    step_s: float = 0.002
    train_s: float = 0.05

    def engine(self, config: TestbedConfig) -> SteadyEngine:
        return SteadyEngine(config.max_running_seqs, config.k, self.step_s)

    def learner(self, config: TestbedConfig) -> CountingLearner:
        return CountingLearner(self.train_s)


class DyingLearner(CountingLearner):
    """It dies twice: in its third update, and with the fifth one made and saved, before anybody has the weights."""

    def __init__(self, step_s: float, folder: Path) -> None:
        super().__init__(step_s)
        self._folder = folder

    def weights(self) -> list[Tensor]:
        self._die_once("publish", at=5)
        return super().weights()

    def train(self, examples: Sequence[Example]) -> Learned:
        self._die_once("train", at=2)
        return super().train(examples)

    def _die_once(self, where: str, at: int) -> None:
        if int(self._weights[0]) == at and not (self._folder / where).exists():
            (self._folder / where).touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DyingParts(SteadyParts):
    """A trainer that dies."""

    folder: Path = Path()

    def learner(self, config: TestbedConfig) -> DyingLearner:
        return DyingLearner(self.train_s, self.folder)


class BrokenParts(SteadyParts):
    """Parts whose engine cannot be made."""

    def engine(self, config: TestbedConfig) -> SteadyEngine:
        raise UsageError("no such engine; take another")


def config_of(kind: str, *, steps: int = 6, **policy: Any) -> TestbedConfig:
    """Return a small config of a policy."""
    return TestbedConfig(
        name=f"steady-{kind}",
        model=TestbedModel(hidden_size=32, num_layers=1, target_batches=1),
        policy=TestbedPolicy(kind=kind, **policy),
        k=2,
        prompts_per_step=4,
        group_size=2,
        max_running_seqs=6,
        max_response_tokens=30,
        learning_rate=1e-3,
        num_steps=steps,
    )
