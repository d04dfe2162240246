"""The process that lets the rollout side advance: to the trainer side's next event, or to what somebody waits for.

Between two events the rollout side advances in one call, however many sequences finish meanwhile.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from simulator.errors import InvariantError
from simulator.rollout import RolloutSide
from simulator.rollout_state import NEVER

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """Somebody who waits for groups to be ready; for `NEVER` groups: for the rollout side to be drained."""

    event: simpy.Event
    num_groups: int
    and_begun: bool = False
    """Whether a drained rollout side must have nothing left to begin either."""

    def is_met(self, side: RolloutSide) -> bool:
        if self.num_groups < NEVER:
            return side.num_ready >= self.num_groups
        return side.num_live == 0 and not (self.and_begun and side.num_waiting > 0)

    def happens_s(self, side: RolloutSide) -> float:
        return side.clock_s if self.num_groups == NEVER else side.ready_s(self.num_groups)


class RolloutClock:
    """Advances the rollout side, and wakes whoever waits for it."""

    def __init__(self, env: simpy.Environment, side: RolloutSide) -> None:
        """Start the process."""
        self._env, self._side = env, side
        self._waiters: list[_Waiter] = []
        self._refill: Callable[[], None] | None = None
        self._num_filtered, self._was_dry = 0, True
        self._life = self._run()
        env.process(self._life)

    def stop(self) -> None:
        """Let go of the rollout side: its workload is freed now and not when cycles are next collected."""
        self._life.close()
        self._waiters.clear()
        self._refill = None

    def ready(self, num_groups: int) -> simpy.Event:
        """Return an event that happens when so many groups, counted from the start, are ready."""
        return self._wait(num_groups)

    def drained(self) -> simpy.Event:
        """Return an event that happens when no sequence is under way."""
        return self._wait(NEVER)

    def refill_with(self, submit_more: Callable[[], None]) -> None:
        """Call this whenever a filter has taken a group out, and when the last sequence under way has ended."""
        self._refill = submit_more

    def finished(self) -> simpy.Event:
        """Return an event that happens when everything that has been submitted has ended."""
        return self._wait(NEVER, and_begun=True)

    def forget(self, event: simpy.Event) -> None:
        """Do not wake whoever waited for this: it has failed."""
        self._waiters = [waiter for waiter in self._waiters if waiter.event is not event]

    def _wait(self, num_groups: int, *, and_begun: bool = False) -> simpy.Event:
        waiter = _Waiter(self._env.event(), num_groups, and_begun)
        if waiter.is_met(self._side):
            return waiter.event.succeed()
        self._waiters.append(waiter)
        return waiter.event

    def _run(self) -> Process:
        env, side = self._env, self._side
        while True:
            horizon_s = env.peek()
            wanted = min((waiter.num_groups for waiter in self._waiters), default=NEVER)
            side.advance(horizon_s, wanted, stop_filtered=self._num_filtered + 1 if self._refill else NEVER)
            met = [waiter for waiter in self._waiters if waiter.is_met(side)]
            if met:
                first = min(met, key=lambda waiter: waiter.happens_s(side))
                yield env.timeout(max(first.happens_s(side) - env.now, 0.0))
                if first not in self._waiters:
                    continue  # forgotten meanwhile
                self._waiters.remove(first)
                first.event.succeed()
                yield env.timeout(0.0)  # whoever waited acts first
            elif self._refill is not None and self._is_short():
                is_dry = side.num_live == 0
                happens_s = side.clock_s if is_dry else side.filtered_s
                yield env.timeout(max(happens_s - env.now, 0.0))
                self._num_filtered, self._was_dry = side.num_filtered, is_dry
                self._refill()
            elif horizon_s == float("inf"):
                raise InvariantError(
                    f"deadlock at {env.now:g} s: the trainer waits for {wanted} groups, {side.num_ready} are "
                    f"ready, {side.num_live} sequences are under way and nothing will happen; please report this"
                )
            else:
                yield env.timeout(max(horizon_s - env.now, 0.0))

    def _is_short(self) -> bool:
        """Return whether a group was filtered, or the last sequence ended, since the last refill."""
        is_dry = self._side.num_live == 0
        self._was_dry = self._was_dry and is_dry
        return self._side.num_filtered > self._num_filtered or (is_dry and not self._was_dry)
