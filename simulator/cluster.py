"""The cluster: one run of one arm, as SimPy processes around the compiled rollout side.

Only the trainer's life is made of events. Between two of them the rollout side advances in one call, however many
sequences finish meanwhile; `RolloutClock` is the process that lets it.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.config import InFlightRule
from simulator.errors import InvariantError
from simulator.parts import Parts
from simulator.rollout import RolloutSide
from simulator.rollout_state import JUMP
from simulator.run_log import RunLog, StepRecord

Process = Generator[simpy.Event, Any, None]


class RolloutClock:
    """Advances the rollout side to the trainer side's next event, and wakes whoever waits for samples."""

    def __init__(self, env: simpy.Environment, side: RolloutSide) -> None:
        """Start the process."""
        self._env, self._side = env, side
        self._waiter: simpy.Event | None = None
        self._is_met: Callable[[], bool] = lambda: False
        self._wanted = 0
        self._life = self._run()
        env.process(self._life)

    def stop(self) -> None:
        """Let go of the rollout side: its workload is freed now and not when cycles are next collected."""
        self._life.close()
        self._is_met = lambda: False

    def ready(self, num_groups: int) -> simpy.Event:
        """Return an event that happens when so many groups, counted from the start, are finished."""
        self._wanted = num_groups
        return self._wait(lambda: self._side.num_ready >= num_groups)

    def drained(self) -> simpy.Event:
        """Return an event that happens when no sequence is under way."""
        self._wanted = 1 << 60
        return self._wait(lambda: self._side.num_live == 0)

    def _wait(self, is_met: Callable[[], bool]) -> simpy.Event:
        event = self._env.event()
        if is_met():
            return event.succeed()
        self._waiter, self._is_met = event, is_met
        return event

    def _run(self) -> Process:
        env, side = self._env, self._side
        while True:
            horizon_s = env.peek()
            side.advance(horizon_s, self._wanted if self._waiter else 1 << 60)
            if self._waiter is not None and self._is_met():
                happens_s = side.ready_s(self._wanted) if self._wanted < 1 << 60 else side.clock_s
                yield env.timeout(max(happens_s - env.now, 0.0))
                waiter, self._waiter = self._waiter, None
                waiter.succeed()
                yield env.timeout(0.0)  # whoever waited acts first
            elif horizon_s == float("inf"):
                raise InvariantError(
                    f"deadlock at {env.now:g} s: the trainer waits for {self._wanted} groups, {side.num_ready} are "
                    f"ready, {side.num_live} sequences are under way and nothing will happen; please report this"
                )
            else:
                yield env.timeout(max(horizon_s - env.now, 0.0))


@dataclass(frozen=True, slots=True)
class Batch:
    """What the trainer takes at once: a whole RL step, or a piece of one."""

    train_s: float
    output_tokens: int
    staleness: NDArray[np.int64]
    """Groups by policy versions behind the trainer."""

    def __add__(self, other: "Batch") -> "Batch":
        """Return both pieces of an RL step together."""
        staleness = np.zeros(max(len(self.staleness), len(other.staleness)), np.int64)
        for piece in (self, other):
            staleness[: len(piece.staleness)] += piece.staleness
        return Batch(self.train_s + other.train_s, self.output_tokens + other.output_tokens, staleness)


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
        """Policy versions published so far: one per weight sync."""
        self.num_taken = 0
        """Groups that the trainer has taken."""
        self.num_dropped = 0
        """Groups that were too old when the trainer fetched."""
        self._dropped_tokens = 0

    @property
    def now_s(self) -> float:
        """Simulated seconds since the start."""
        return float(self.env.now)

    def batch_ready(self) -> simpy.Event:
        """Return an event that happens when the next groups that the trainer takes at once are complete."""
        return self.clock.ready(self.num_taken + self.num_dropped + self.parts.fetch_groups)

    def drop_overdue(self, max_staleness: int) -> bool:
        """Drop what is finished and older than `max_staleness` versions; return whether there was any."""
        groups = self.side.drop(self.num_taken + self.num_dropped, self.version - max_staleness)
        self.num_dropped += len(groups)
        self._dropped_tokens += int(self.parts.workload.group_tokens[groups].sum())
        return len(groups) > 0

    def take_batch(self) -> Batch:
        """Take the next groups out of the buffer, in the order in which they became ready."""
        first = self.num_taken + self.num_dropped
        groups = self.side.ready_groups(first, first + self.parts.fetch_groups)
        self.num_taken += len(groups)
        workload = self.parts.workload
        num_steps, pieces_left = divmod(self.num_taken, self.parts.groups_per_step)
        trainer, tokens = self.parts.trainer, float(workload.group_tokens[groups].sum())
        stall_s = trainer.stall_s(num_steps) if pieces_left == 0 else 0.0
        return Batch(
            train_s=trainer.piece_s(tokens, is_last=pieces_left == 0) + stall_s,
            output_tokens=int(workload.group_output_tokens[groups].sum()),
            staleness=np.bincount(self.version - self.side.versions_of(groups).astype(np.int64)),
        )

    def sync_weights(self, in_flight: InFlightRule = "in_place") -> Process:
        """Publish the next policy version: every replica stops, gets the weights and goes on."""
        rl_steps = self.num_taken // self.parts.groups_per_step
        until_s = self.now_s + self.parts.sync_s
        self.side.sync_weights(self.version + 1, rl_steps, self.now_s, until_s, in_flight)
        yield self.env.timeout(self.parts.sync_s)
        self.version += 1

    def record(
        self, batch: Batch, *, wait_s: float, generation_s: float, drain_s: float = 0.0, num_syncs: int = 1
    ) -> None:
        """Close an RL step."""
        self.log.steps.append(
            StepRecord(
                end_s=self.now_s,
                wait_s=wait_s,
                train_s=batch.train_s,
                drain_s=drain_s,
                sync_s=num_syncs * self.parts.sync_s,
                generation_s=generation_s,
                output_tokens=batch.output_tokens,
                staleness=batch.staleness,
                totals=self.side.totals(self.now_s),
                num_dropped=self.num_dropped,
                dropped_tokens=self._dropped_tokens,
            )
        )
