"""Actors of the testbed: rollout, trainer and buffer, each a process, and the messages between them.

A finished group is one message, an RL step a handful: take, sync, its answer, synced, new orders. Any message may come
twice: whoever dies is started again by Ray and asks for what it has missed. The rollout actor hears messages on threads
of their own and obeys between two steps of its engine. Does not know who starts them.
"""

import asyncio
import contextlib
import gc
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from profiler.errors import RunError
from profiler.local_ray import import_ray
from profiler.testbed.buffer import Buffer, Group, Order, Staleness, Taken, staleness
from profiler.testbed.checkpoint import Checkpoint
from profiler.testbed.engine import Counters, Finished, Request
from profiler.testbed.log import StepRecord
from profiler.testbed.parts import Learner, Parts, Sums
from profiler.testbed.trainer import Example, advantages
from profiler.testbed.weights import Weights
from traces.testbed import TestbedConfig, TestbedPolicy

SyncRule = Literal["wait", "finish_all", "abort_resume", "in_place"]
"""What a sync does with running sequences: `InFlight`, or it waits until the whole batch is finished."""
ROLLOUT, TRAINER, BUFFER = "rollout", "trainer", "buffer"
"""Names of the actors, inside a Ray of their own."""
CORES_VARIABLE = "BEBOP_TESTBED_CORES"
"""Environment variable with the cores that a process had before it was bound to one of them."""
MESSAGES = "messages"
"""Threads of an actor that hear messages while another one computes."""
PATIENCE_S = 120.0
"""How long an actor waits for another one to be started again."""


def sync_rule(policy: TestbedPolicy) -> SyncRule:
    """Return the rule of a policy; in a synchronous run nothing is running at a sync."""
    if policy.kind == "one_step_off":
        return "finish_all"
    return policy.in_flight or "in_place"


@dataclass(frozen=True, slots=True)
class Synced:
    """The rollout actor's answer to new weights."""

    version: int
    begin_s: float
    """When it was heard: between two steps of the engine, `time.perf_counter()`."""
    drain_s: float
    message_s: float
    """Its loop's own time since the weights before: neither steps of the engine nor waiting for something to do."""
    counters: Counters
    """Since the weights before."""


class BufferActor:
    """The buffer, and who waits for it."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._has_more = asyncio.Event()

    async def add(self, group: Group) -> None:
        """Take in a finished group."""
        if self._buffer.add(group):
            self._has_more.set()

    async def take(self, step: int) -> Taken:
        """Return the batch of an RL step once it is there."""
        while not self._buffer.can_take(step):
            self._has_more.clear()
            await self._has_more.wait()
        taken = self._buffer.take(step)
        self._admit()
        return taken

    async def synced(self, step: int) -> None:
        """The rollout actor has the policy of an RL step."""
        self._buffer.synced(step)
        self._admit()

    async def rejoin(self) -> list[Order]:
        """Return all that a rollout actor which begins has to generate."""
        return self._buffer.lose() + self._buffer.admit()

    async def account(self) -> dict[str, int]:
        """Return the counts of the run."""
        buffer = self._buffer
        return {
            "given_samples": buffer.num_given_samples,
            "lost_samples": buffer.num_lost_samples,
            "late_groups": buffer.num_late_groups,
            "batches_given_again": buffer.num_again,
            "ready_groups": buffer.num_ready,
            "groups_under_way": buffer.num_under_way,
        }

    def _admit(self) -> None:
        orders = self._buffer.admit()
        if orders:
            _peer(ROLLOUT).submit.options(concurrency_group=MESSAGES).remote(orders)


class RolloutActor:
    """An engine and its loop."""

    def __init__(self, parts: Parts, config: TestbedConfig) -> None:
        pin(0)
        self._config, self._task = config, Sums(config)
        self._engine = parts.engine(config)
        self._synced = Synced(0, 0.0, 0.0, 0.0, Counters())
        self._orders: dict[int, Order] = {}
        self._pending: deque[Request] = deque()
        """Requests that the engine has no room for yet."""
        self._finished: dict[int, list[Finished]] = {}
        """Of groups that are not whole."""
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        """What messages ask for, done between two steps of the engine."""
        self._syncing: tuple[Weights, SyncRule, Future[Synced], float] | None = None
        """A sync that waits for running sequences to end, and since when."""
        self._is_closed = False
        """Whether nothing may begin, as running sequences end before a sync."""
        self._since_s = self._idle_s = 0.0
        """When the loop took over the weights that it has; what it has waited since."""

    def ready(self) -> int:
        """Return the number of this process, once its engine is there."""
        keep_what_is_there()
        return os.getpid()

    def run(self) -> None:
        """Generate for as long as the process lives."""
        one_thread()
        ray = import_ray()
        weights = ray.get(_peer(TRAINER).published.options(concurrency_group=MESSAGES).remote())
        if weights.version > self._engine.version:
            self._engine.set_weights(weights.tensors(), weights.version)
        self._take_on(ray.get(_peer(BUFFER).rejoin.remote()))
        self._since_s = time.perf_counter()
        while True:
            self._read()
            self._feed()
            for finished in self._engine.step():
                self._finish(finished)
            if self._syncing is not None and self._is_still():
                self._swap()

    def submit(self, orders: Sequence[Order]) -> None:
        """Generate these groups, behind those that are there."""
        self._inbox.put(lambda: self._take_on(orders))

    def sync(self, weights: Weights, rule: SyncRule) -> Synced:
        """Take over new weights, as the rule says; the same ones again change nothing."""
        answer: Future[Synced] = Future()
        self._inbox.put(lambda: self._begin_sync(weights, rule, answer))
        return answer.result()

    def _read(self) -> None:
        """Do what has been asked for; wait for it where there is nothing else to do."""
        while not self._inbox.empty() or (self._is_idle() and self._syncing is None and not self._pending):
            began_s = time.perf_counter()
            message = self._inbox.get()
            self._idle_s += time.perf_counter() - began_s
            message()

    def _take_on(self, orders: Sequence[Order]) -> None:
        for order in orders:
            if order.group_id not in self._orders:
                self._orders[order.group_id] = order
                self._pending.extend(self._task.requests(order.group_id, order.first_sample_id))

    def _begin_sync(self, weights: Weights, rule: SyncRule, answer: "Future[Synced]") -> None:
        if weights.version == self._synced.version:
            answer.set_result(self._synced)
            return
        self._syncing = (weights, rule, answer, time.perf_counter())
        self._is_closed = rule == "wait"
        if rule not in ("wait", "finish_all") or self._is_still():
            self._swap()

    def _swap(self) -> None:
        """Put the new weights in place, and answer who sent them."""
        assert self._syncing is not None
        weights, rule, answer, begin_s = self._syncing
        now_s, counters = time.perf_counter(), self._engine.take_counters()
        message_s = max(now_s - self._since_s - counters.busy_s - self._idle_s, 0.0)
        aborted = self._engine.abort() if rule == "abort_resume" else []
        self._engine.set_weights(weights.tensors(), weights.version)
        self._pending.extendleft(reversed(aborted))  # they were first, and go on first
        self._syncing, self._is_closed = None, False
        self._synced = Synced(weights.version, begin_s, now_s - begin_s, message_s, counters)
        self._since_s, self._idle_s = time.perf_counter(), 0.0
        answer.set_result(self._synced)

    def _is_idle(self) -> bool:
        return self._engine.num_running + self._engine.num_waiting == 0

    def _is_still(self) -> bool:
        """Return whether nothing runs, nor is about to."""
        return self._is_idle() and (self._is_closed or not self._pending)

    def _feed(self) -> None:
        """Give the engine what it has room for; the rest waits here, where a closed door holds it back."""
        engine = self._engine
        room = self._config.max_running_seqs - engine.num_running - engine.num_waiting
        if self._pending and room > 0 and not self._is_closed:
            engine.submit([self._pending.popleft() for _ in range(min(room, len(self._pending)))])

    def _finish(self, finished: Finished) -> None:
        group_id = finished.request.group_id
        group = self._finished.setdefault(group_id, [])
        group.append(finished)
        if len(group) == self._config.group_size:
            del self._finished[group_id]
            _peer(BUFFER).add.remote(Group(self._orders.pop(group_id), tuple(group)))


class TrainerActor:
    """A learner, its checkpoint, and the weights that it has published."""

    def __init__(self, parts: Parts, config: TestbedConfig, folder: Path) -> None:
        pin(1)
        self._config, self._task, self._checkpoint = config, Sums(config), Checkpoint(folder)
        self._learner: Learner = parts.learner(config)
        self._version = 0
        self._half: dict[str, Any] = {}
        """What is known of the step that was trained and not synced yet."""
        if saved := self._checkpoint.load():
            self._version, content = saved
            self._learner.load(content["learner"])
            self._half = content["half"]
        self._published = Weights.of(self._learner.weights(), self._version)

    def ready(self) -> int:
        """Return the number of this process, once its policy is there."""
        keep_what_is_there()
        return os.getpid()

    def published(self) -> Weights:
        """Return the weights of the newest version; asked for while the trainer trains or waits."""
        return self._published

    def step(self, step: int, is_resumed: bool = False) -> StepRecord:
        """Live one RL step: wait for samples, train, write a checkpoint, sync.

        Raises:
            RunError: Not the step after the last one.
        """
        one_thread()
        if self._version not in (step - 1, step):
            raise RunError(f"RL step {step} is asked of a policy of version {self._version}; report this")
        if self._version < step:  # else it died after its checkpoint, and only the sync is missing
            self._train(step)
        return self._sync(step, is_resumed)

    def _train(self, step: int) -> None:
        begin_s = time.perf_counter()
        taken: Taken = _ask(lambda: _peer(BUFFER).take.remote(step))
        wait_s = time.perf_counter() - begin_s
        examples, rewards = _examples(taken.groups, self._task)
        train_s = time.perf_counter()
        learned = self._learner.train(examples)
        train_s = time.perf_counter() - train_s
        lengths = tuple(len(example.response) for example in examples)
        self._half = {
            "begin_s": begin_s,
            "wait_s": wait_s,
            "train_s": train_s,
            "checkpoint_s": 0.0,
            "num_groups": len(taken.groups),
            "response_tokens": lengths,
            "prompt_tokens": self._task.prompt_tokens,
            "num_at_limit": sum(length >= self._config.max_response_tokens for length in lengths),
            "rewards": tuple(rewards),
            "staleness": asdict(staleness(taken.groups, step - 1)),
            "loss": learned.loss,
            "ratio_mean": learned.ratio_mean,
            "num_ready_groups": taken.num_ready,
            "num_lost_samples": taken.num_lost_samples,
        }
        self._version = step
        saved_s = time.perf_counter()
        self._checkpoint.save(step, {"half": self._half, "learner": self._learner.state()})
        self._half["checkpoint_s"] = time.perf_counter() - saved_s

    def _sync(self, step: int, is_resumed: bool) -> StepRecord:
        ray, policy = import_ray(), self._config.policy
        begin_s = time.perf_counter()
        self._published = Weights.of(self._learner.weights(), step)
        sent, rule = ray.put(self._published), sync_rule(policy)
        synced: Synced = _ask(lambda: _peer(ROLLOUT).sync.options(concurrency_group=MESSAGES).remote(sent, rule))
        end_s = time.perf_counter()
        _peer(BUFFER).synced.remote(step)
        half = {**self._half, "staleness": Staleness(**self._half["staleness"])}
        record = StepRecord(
            step=step,
            end_s=end_s,
            drain_s=synced.drain_s,
            sync_s=max(end_s - begin_s - synced.drain_s, 0.0),
            stop_s=max(synced.begin_s - begin_s, 0.0),
            message_s=synced.message_s,
            counters=synced.counters,
            is_resumed=is_resumed,
            **half,
        )
        if rule == "finish_all":  # the next batch is waited for, not the engine
            return replace(record, wait_s=record.wait_s + record.drain_s, drain_s=0.0)
        return record


def _examples(groups: Sequence[Group], task: Sums) -> tuple[list[Example], list[float]]:
    """Return what is trained on, and what each response earned."""
    examples, earned = [], []
    for group in groups:
        rewards = [task.reward(group.order.group_id, sample.tokens) for sample in group.samples]
        earned += rewards
        examples += [
            Example(sample.request.prompt, sample.tokens, sample.log_probs, advantage)
            for sample, advantage in zip(group.samples, advantages(rewards), strict=True)
        ]
    return examples, earned


def pin(place: int) -> None:
    """Bind every thread of this process to one core: the first for rollout, the second, where there is one, to train.

    Nothing happens on systems that bind no threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = all_cores()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            os.sched_setaffinity(int(thread.name), {cores[place % len(cores)]})


def all_cores() -> list[int]:
    """Return the cores of this process, those included from which it, or whoever started it, was bound to one."""
    known = os.environ.setdefault(CORES_VARIABLE, ",".join(map(str, sorted(os.sched_getaffinity(0)))))
    return [int(core) for core in known.split(",")]


def keep_what_is_there() -> None:
    """Never look again for garbage among the modules and parts that a process has begun with.

    A look at all of them took 0.17 s in the middle of a run.
    """
    gc.collect()
    gc.freeze()


def one_thread() -> None:
    """Let torch compute on one thread; asked for in the thread that computes."""
    import torch

    torch.set_num_threads(1)


def _ask(call: Callable[[], Any]) -> Any:
    """Return an actor's answer; ask again where it died on the way and Ray starts it again.

    Raises:
        RunError: It does not come back.
    """
    ray = import_ray()
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ray.get(call())
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() > deadline_s:
                raise RunError(f"an actor did not come back within {PATIENCE_S:.0f} s; repeat the run") from None
            time.sleep(0.05)


@cache
def _peer(name: str) -> Any:
    return import_ray().get_actor(name)
