"""The cluster: one run of one arm, as SimPy processes around the compiled rollout side.

Only the trainer's life, and what it sets going, is made of events; `RolloutClock` lets the rollout side advance between
two of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.config import InFlightRule
from simulator.parts import Parts
from simulator.rollout import RolloutSide
from simulator.rollout_clock import Process, RolloutClock
from simulator.rollout_state import JUMP
from simulator.run_log import RunLog, StepRecord


@dataclass(frozen=True, slots=True)
class Batch:
    """What the trainer takes at once: a whole RL step, or a piece of one."""

    train_s: float
    num_samples: int
    output_tokens: int
    staleness: NDArray[np.int64]
    """Groups by policy versions behind the trainer."""

    def __add__(self, other: "Batch") -> "Batch":
        """Return both pieces of an RL step together."""
        staleness = np.zeros(max(len(self.staleness), len(other.staleness)), np.int64)
        for piece in (self, other):
            staleness[: len(piece.staleness)] += piece.staleness
        return Batch(
            self.train_s + other.train_s,
            self.num_samples + other.num_samples,
            self.output_tokens + other.output_tokens,
            staleness,
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
        self._dropped_tokens = 0
        self._num_surplus = 0
        self._transfer: simpy.Event | None = None
        self._is_paused = False
        self._drain_s = self._sync_s = 0.0

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

    def batch_ready(self) -> simpy.Event:
        """Return an event that happens when the next groups that the trainer takes at once are complete."""
        return self.clock.ready(self.next_ready + self.parts.fetch_groups)

    def drop_overdue(self, max_staleness: int) -> bool:
        """Drop what is finished and older than `max_staleness` versions; return whether there was any."""
        groups = self.side.drop(self.next_ready, self.version - max_staleness)
        self._drop(groups)
        return len(groups) > 0

    def drop_leftovers(self) -> None:
        """Throw away what the next batch does not need: what is under way or waits, and finished groups beyond it."""
        self._num_surplus = self.side.num_ready - self.next_ready - self.parts.fetch_groups
        if self.side.num_submitted > self.num_taken + self.num_gone + self.parts.fetch_groups + self._num_surplus:
            self.side.discard(self.now_s)

    def take_batch(self) -> Batch:
        """Take the next groups out of the buffer, in the order in which they became ready."""
        first = self.next_ready
        groups = self.side.ready_groups(first, first + self.parts.fetch_groups)
        self.num_taken += len(groups)
        if self._num_surplus:
            self._drop(self.side.ready_groups(self.next_ready, self.next_ready + self._num_surplus))
            self._num_surplus = 0
        workload = self.parts.workload
        num_steps, pieces_left = divmod(self.num_taken, self.parts.groups_per_step)
        trainer, tokens = self.parts.trainer, float(workload.group_tokens[groups].sum())
        stall_s = trainer.stall_s(num_steps) if pieces_left == 0 else 0.0
        return Batch(
            train_s=trainer.piece_s(tokens, is_last=pieces_left == 0) + stall_s,
            num_samples=int(workload.group_size[groups].sum()),
            output_tokens=int(workload.group_output_tokens[groups].sum()),
            staleness=np.bincount(self.version - self.side.versions_of(groups).astype(np.int64)),
        )

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
        parts, num_taken = self.parts, self.num_taken
        if parts.sync_mode == "pull":
            self._publish(parts.sync_s, in_flight)
        else:
            yield self.env.timeout(parts.sync_s)
            if in_flight == "wait":
                yield from self._drain()
            self._publish(parts.swap_s, in_flight, num_taken=num_taken)
            yield self.env.timeout(parts.swap_s)
        if then is not None:
            then()

    def _publish(
        self,
        seconds: float,
        in_flight: InFlightRule,
        *,
        begin_s: float | None = None,
        num_taken: int | None = None,
    ) -> None:
        """Give the replicas the policy made of the first `num_taken` groups; they stand still for so many seconds."""
        self.num_published += 1
        rl_steps = (self.num_taken if num_taken is None else num_taken) // self.parts.groups_per_step
        self.side.sync_weights(
            self.num_published,
            rl_steps,
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
                train_s=batch.train_s,
                drain_s=self._drain_s,
                sync_s=self._sync_s,
                generation_s=generation_s,
                num_samples=batch.num_samples,
                output_tokens=batch.output_tokens,
                staleness=batch.staleness,
                totals=self.side.totals(self.now_s),
                num_dropped=self.num_dropped,
                dropped_tokens=self._dropped_tokens,
            )
        )
        self._drain_s = self._sync_s = 0.0
