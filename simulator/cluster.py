"""The cluster: one run of one arm, as SimPy processes around the compiled rollout side.

Only the trainer's life, and what it sets going, is made of events; `RolloutClock` lets the rollout side advance between
two of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.config import InFlightRule
from simulator.errors import ScenarioError
from simulator.failures import ReplicaFailures, TrainerFailureError
from simulator.parts import Parts
from simulator.rollout import RolloutSide
from simulator.rollout_clock import Process, RolloutClock
from simulator.rollout_state import JUMP
from simulator.run_log import RunLog, StepRecord


@dataclass(frozen=True, slots=True)
class Batch:
    """What the trainer takes at once: a whole RL step, or a piece of one."""

    train_s: float
    tokens: int
    """Prompts and responses."""
    num_samples: int
    output_tokens: int
    staleness: NDArray[np.int64]
    """Groups by policy versions behind the trainer."""
    beside_s: float
    """Training while engines generate on the same machine."""

    def __add__(self, other: "Batch") -> "Batch":
        """Return both pieces of an RL step together."""
        staleness = np.zeros(max(len(self.staleness), len(other.staleness)), np.int64)
        for piece in (self, other):
            staleness[: len(piece.staleness)] += piece.staleness
        return Batch(
            self.train_s + other.train_s,
            self.tokens + other.tokens,
            self.num_samples + other.num_samples,
            self.output_tokens + other.output_tokens,
            staleness,
            self.beside_s + other.beside_s,
        )


class Run:
    """One run: the environment, the rollout side, and what the trainer's process needs to write its log."""

    def __init__(self, parts: Parts, *, mode: int = JUMP, record_finish: bool = False) -> None:
        """Set everything up at time 0."""
        self.parts = parts
        self.env = simpy.Environment()
        self.side = RolloutSide(parts, mode=mode, record_finish=record_finish)
        self.clock = RolloutClock(self.env, self.side)
        self.log = RunLog()
        self.version = 0
        """Policy versions made so far: one per weight sync."""
        self.num_published = 0
        """Of them, those that the replicas have been given."""
        self.num_taken = 0
        """Groups that the trainer has taken."""
        self.num_dropped = 0
        """Finished groups that were not taken: too old, or more than an RL step needs."""
        self.is_closed = False
        """Whether nothing may begin, because replicas finish what they have before a weight sync."""
        self._dropped_tokens, self._taken_tokens, self._lost_tokens = 0, 0, 0
        self._lost_s, self._down_s = 0.0, 0.0  # since the last RL step that is recorded
        self._to_failure_s = parts.failures.gap_s(0) if parts.failures else math.inf
        if parts.crashes is not None:
            self.env.process(self._crash_replicas(parts.crashes))
        self._num_surplus = 0
        self._transfer: simpy.Event | None = None
        self._is_paused = False
        self._drain_s = self._sync_s = 0.0
        self._stretched_s = 0.0
        """Training, since the last RL step that is recorded, beyond what it takes alone."""

    @property
    def now_s(self) -> float:
        """Simulated seconds since the start."""
        return float(self.env.now)

    @property
    def num_gone(self) -> int:
        """Groups that were begun, or were to begin, and never trained on."""
        return self.num_dropped + self.side.num_filtered + self.side.num_discarded

    @property
    def next_ready(self) -> int:
        """Number of the finished group that the trainer takes next, in the order in which they became ready."""
        return self.num_taken + self.num_dropped

    def live(self, step: Callable[[], Process], come_back: Callable[[], None] = lambda: None) -> Process:
        """Live RL steps until all are trained, from the last checkpoint on after every failure.

        Args:
            step: One RL step, recorded at its end.
            come_back: Called when the trainer works again, before the next step.
        """
        while len(self.log.steps) < self.parts.num_steps:
            try:
                yield from step()
            except TrainerFailureError:
                yield from self._restart_trainer()
                come_back()

    def work(self, seconds: float, beside_s: float | None = None) -> Process:
        """Keep the trainer busy; TrainerFailureError if it fails before the end.

        Args:
            seconds: Of its work while no engine generates on the same machine.
            beside_s: While one does; None: the same.
        """
        if beside_s is not None and self.parts.share_a_machine:
            yield from self._share_machine(seconds, beside_s)
            return
        if self._to_failure_s < seconds:
            yield self.env.timeout(self._to_failure_s)
            raise TrainerFailureError
        yield self.env.timeout(seconds)
        self._to_failure_s -= seconds

    def _share_machine(self, seconds: float, beside_s: float) -> Process:
        """Keep the trainer busy at the pace that generation leaves it, and the engines at the one that it leaves them.

        Generation that ends meanwhile does not begin again: what could begin it, the trainer does.
        """
        parts = self.parts
        begin_s, left = self.now_s, 1.0
        if parts.table_while_training is not None:
            self.side.change_costs(parts.table_while_training, self.now_s)
        yield self.env.timeout(0.0)  # what is submitted at this moment begins first
        if self.side.num_live > 0 and beside_s > 0:
            drained = self.clock.drained()
            yield drained | self.env.timeout(beside_s)
            self.clock.forget(drained)
            left = max(1.0 - (self.now_s - begin_s) / beside_s, 0.0)
        yield self.env.timeout(left * seconds)
        if parts.table_while_training is not None:
            self.side.change_costs(parts.table, self.now_s)
        self._stretched_s += self.now_s - begin_s - seconds

    def wait_for(self, event: simpy.Event) -> Process:
        """Let the trainer wait for an event; TrainerFailureError if it fails before that."""
        if self.parts.failures is None:
            yield event
            return
        asked_s = self.now_s
        yield event | self.env.timeout(self._to_failure_s)
        if not event.triggered:
            self.clock.forget(event)
            raise TrainerFailureError
        self._to_failure_s = max(self._to_failure_s - (self.now_s - asked_s), 0.0)

    def _restart_trainer(self) -> Process:
        """Go back to the last checkpoint: steps recorded since are no more, and their time is lost."""
        failures, steps = self.parts.failures, self.log.steps
        assert failures is not None
        kept = len(steps) // failures.checkpoint_every_steps * failures.checkpoint_every_steps
        undone = steps[kept:]
        del steps[kept:]
        down_s = self._down_s + sum(step.down_s for step in undone)
        self._lost_s = self.now_s - (steps[-1].end_s if steps else 0.0) - down_s
        self._down_s = down_s + failures.restart_s
        self.log.num_lost_groups = self.num_taken - kept * self.parts.groups_per_step
        self._lost_tokens = self._taken_tokens - sum(step.trained_tokens for step in steps)
        self.log.num_failures += 1
        self.log.num_lost_steps += len(undone)
        self._drain_s = self._sync_s = 0.0
        if self._is_paused:
            self.version, self._is_paused = self.version + 1, False
        yield self.env.timeout(failures.restart_s)
        self._to_failure_s = failures.gap_s(self.log.num_failures)

    def _crash_replicas(self, crashes: ReplicaFailures) -> Process:
        """Let one replica after the other crash, as long as the run lasts."""
        count, number = self.parts.num_replicas, 0
        down: set[int] = set()

        def come_back(replica: int) -> Process:
            yield self.env.timeout(crashes.restart_s)
            self.side.bring_up(replica, replica + 1, self.now_s)
            down.remove(replica)

        while True:
            yield self.env.timeout(crashes.gap_s(number, count))
            replica = crashes.replica(number, count)
            number += 1
            if replica not in down:
                self.log.num_crashes += 1
                down.add(replica)
                self.side.take_down(replica, replica + 1, self.now_s, restart=crashes.loses_tokens)
                self.env.process(come_back(replica))

    def batch_ready(self) -> simpy.Event:
        """Return an event that happens when the next groups that the trainer takes at once are complete.

        Raises:
            ScenarioError: So much has been trained again that no groups are left.
        """
        failures, fetch = self.parts.failures, self.parts.fetch_groups
        if failures is not None and self.num_taken + self.num_gone + fetch > self.parts.workload.num_groups:
            raise ScenarioError(
                f"failures.trainer_mtbf_s: {failures.mtbf_s:g} s; after {self.log.num_failures} failures and "
                f"{self.now_s:.0f} s the trainer has {len(self.log.steps)} of {self.parts.num_steps} RL steps and the "
                f"{self.parts.workload.num_groups} groups of the run are used up; raise it, or lower "
                "failures.checkpoint_every_steps"
            )
        return self.clock.ready(self.next_ready + fetch)

    def drop_overdue(self, max_staleness: int) -> bool:
        """Drop what is finished and older than `max_staleness` versions; return whether there was any."""
        groups = self.side.drop(self.next_ready, self.version - max_staleness)
        self._drop(groups)
        return len(groups) > 0

    def drop_leftovers(self) -> None:
        """Throw away what the next batch does not need: what is under way or waits, and finished groups beyond it."""
        if self.side.num_submitted > self.num_taken + self.num_gone + (self.side.num_ready - self.next_ready):
            self.side.discard(self.now_s)  # and some may still finish in the step that they are in
        self._num_surplus = self.side.num_ready - self.next_ready - self.parts.fetch_groups

    def take_batch(self) -> Batch:
        """Take the next groups out of the buffer, in the order in which they became ready."""
        first = self.next_ready
        groups = self.side.ready_groups(first, first + self.parts.fetch_groups)
        self.num_taken += len(groups)
        if self._num_surplus:
            self._drop(self.side.ready_groups(self.next_ready, self.next_ready + self._num_surplus))
            self._num_surplus = 0
        workload = self.parts.workload
        num_steps, pieces_left = divmod(self.num_taken - self.log.num_lost_groups, self.parts.groups_per_step)
        trainer, tokens = self.parts.trainer, float(workload.group_tokens[groups].sum())
        self._taken_tokens += int(tokens)
        is_last = pieces_left == 0
        stall_s = trainer.stall_s(num_steps) if is_last else 0.0
        return Batch(
            train_s=trainer.piece_s(tokens, is_last=is_last) + stall_s,
            beside_s=(trainer.while_generating or trainer).piece_s(tokens, is_last=is_last) + stall_s,
            tokens=int(tokens),
            num_samples=int(workload.group_size[groups].sum()),
            output_tokens=int(workload.group_output_tokens[groups].sum()),
            staleness=np.bincount(self.version - self.side.versions_of(groups).astype(np.int64)),
        )

    @property
    def _rl_steps(self) -> int:
        """RL steps that the policy has been trained on, those that a failure undid not counted."""
        return (self.num_taken - self.log.num_lost_groups) // self.parts.groups_per_step

    def _drop(self, groups: NDArray[np.int32]) -> None:
        self.num_dropped += len(groups)
        self._dropped_tokens += int(self.parts.workload.group_tokens[groups].sum())

    def pause(self, seconds: float) -> None:
        """Abort what is under way; it goes on after so many seconds and the weight sync that follows them."""
        self._publish(seconds + self.parts.sync_s, "abort_resume", begin_s=self.now_s + seconds)
        self._is_paused = True

    def sync_weights(self, in_flight: InFlightRule = "in_place", *, then: Callable[[], None] | None = None) -> Process:
        """Publish the next policy version, as the weight sync's mode says, and call `then` when replicas have it.

        Blocking: every replica stops, gets the weights and goes on, and the trainer waits for it. Overlapped: the
        trainer goes on at once, replicas stop for `swap_s` when the transfer is done. Pull: each replica gets the
        weights by itself. A transfer that is not done when the next version is ready is waited for.

        Args:
            in_flight: What happens to sequences under way.
            then: Called when replicas have the weights.
        """
        parts = self.parts
        if parts.sync_mode == "blocking":
            if in_flight == "wait":
                begin_s = self.now_s
                yield from self._drain()
                self._drain_s += self.now_s - begin_s
            if not self._is_paused:
                self._publish(parts.sync_s, in_flight)
            self._is_paused = False
            yield self.env.timeout(parts.sync_s)
            self._sync_s += parts.sync_s
            self.version += 1
            if then is not None:
                then()
            return
        if self._transfer is not None:
            begin_s = self.now_s
            yield self._transfer
            self._sync_s += self.now_s - begin_s
        self.version += 1
        self._transfer = self.env.process(self._transfer_weights(in_flight, then))

    def _transfer_weights(self, in_flight: InFlightRule, then: Callable[[], None] | None) -> Process:
        """Bring the version just made to the replicas while the trainer goes on."""
        parts, rl_steps = self.parts, self._rl_steps
        if parts.sync_mode == "pull":
            self._publish(parts.sync_s, in_flight)
        else:
            yield self.env.timeout(parts.sync_s)
            if in_flight == "wait":
                yield from self._drain()
            self._publish(parts.swap_s, in_flight, rl_steps=rl_steps)
            yield self.env.timeout(parts.swap_s)
        if then is not None:
            then()

    def _publish(
        self,
        seconds: float,
        in_flight: InFlightRule,
        *,
        begin_s: float | None = None,
        rl_steps: int | None = None,
    ) -> None:
        """Give the replicas the policy that so many RL steps made; they stand still for so many seconds."""
        self.num_published += 1
        self.side.sync_weights(
            self.num_published,
            self._rl_steps if rl_steps is None else rl_steps,
            self.now_s,
            self.now_s + seconds,
            in_flight,
            begin_s=begin_s,
            pull=self.parts.sync_mode == "pull",
        )

    def _drain(self) -> Process:
        self.is_closed = True
        self.side.close()
        yield self.clock.drained()

    def record(self, batch: Batch, *, wait_s: float, generation_s: float) -> None:
        """Close an RL step."""
        self.log.steps.append(
            StepRecord(
                end_s=self.now_s,
                wait_s=wait_s,
                train_s=batch.train_s + self._stretched_s,
                drain_s=self._drain_s,
                sync_s=self._sync_s,
                generation_s=generation_s,
                num_samples=batch.num_samples,
                output_tokens=batch.output_tokens,
                staleness=batch.staleness,
                totals=self.side.totals(self.now_s),
                num_dropped=self.num_dropped,
                dropped_tokens=self._dropped_tokens + self._lost_tokens,
                trained_tokens=batch.tokens,
                lost_s=self._lost_s,
                down_s=self._down_s,
            )
        )
        self._drain_s = self._sync_s = self._lost_s = self._down_s = self._stretched_s = 0.0
