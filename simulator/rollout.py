"""The rollout side of a run: replicas, their queues and the policy version they hold, driven by the kernels.

It knows its own time only through the calls it gets, and nothing of the trainer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator import kernels
from simulator.config import InFlightRule
from simulator.parts import Parts
from simulator.rollout_state import ABORT, KEEP, RECOMPUTE, RESTART, new_state
from simulator.step_law import StepLaw

_ANY = 1 << 60
_AT_SYNC: dict[InFlightRule, int] = {
    "wait": KEEP,
    "abort_resume": ABORT,
    "restart": RESTART,
    "in_place": KEEP,
    "in_place_recompute": RECOMPUTE,
}


@dataclass(frozen=True, slots=True)
class RolloutTotals:
    """Sums over replicas since the start of the run."""

    busy_s: float
    """Replica-seconds spent generating."""
    starved_s: float
    """Replica-seconds idle with nothing admitted."""
    tool_s: float
    """Replica-seconds idle because every live sequence waits for a tool."""
    sync_s: float
    live_s: float
    """Seconds in which any sequence was under way in any replica."""
    stretch_steps: float
    """Verify steps of ended decode stretches, and the tokens emitted in them."""
    stretch_tokens: float
    first_tokens: float
    """Tokens emitted by prefills."""
    prefill_tokens: float
    recomputed_tokens: float
    preemptions: int
    trajectory_s: float
    finished: int
    restarts: int
    max_restarts: int
    """Of any one sequence."""
    restarted_tokens: int
    """Emitted, and thrown away by a restart."""


class RolloutSide:
    """Replicas that generate what has been submitted."""

    def __init__(self, parts: Parts, *, mode: int, record_finish: bool = False) -> None:
        """Make idle replicas at time 0."""
        self._parts = parts
        self._law: StepLaw = parts.law_of(0)
        self.state = new_state(
            parts.workload,
            num_replicas=parts.num_replicas,
            max_running=parts.max_running,
            max_live=parts.max_live,
            kv_tokens=parts.kv_tokens,
            num_draft_tokens=parts.num_draft_tokens,
            num_classes=parts.num_classes,
            stream=parts.stream,
            chunk_tokens=parts.chunk_tokens,
            keep_prefix=parts.keep_prefix,
            mode=mode,
            record_finish=record_finish,
            slowness=parts.slowness,
        )
        self._first_sequence = np.concatenate([[0], np.cumsum(parts.workload.group_size, dtype=np.int64)])

    @property
    def num_ready(self) -> int:
        """Groups whose every response is finished."""
        return int(self.state.counters["num_ready"][0])

    @property
    def num_live(self) -> int:
        """Sequences that have begun and not finished."""
        return int(self.state.counters["num_live"][0])

    @property
    def clock_s(self) -> float:
        """Time of the latest thing that happened in any replica."""
        return float(self.state.replicas["time_s"].max())

    def submit(self, num_groups: int, now_s: float) -> None:
        """Admit groups up to number `num_groups`, counted from the start of the run."""
        last = min(num_groups, self._parts.workload.num_groups)
        kernels.submit(self.state, self._parts.table, self._law, int(self._first_sequence[last]), now_s)

    def close(self) -> None:
        """Start no fresh sequence until the next `submit`."""
        kernels.close(self.state)

    def advance(self, until_s: float, wanted_groups: int = _ANY) -> None:
        """Generate until a time, or until so many groups are ready, or nothing is left to do."""
        kernels.advance(self.state, self._parts.table, self._law, until_s, wanted_groups)

    def ready_s(self, num_groups: int) -> float:
        """Return when the number of ready groups reached `num_groups`."""
        return float(self.state.ready_s[:num_groups].max())

    def ready_groups(self, first: int, last: int) -> NDArray[np.int32]:
        """Return the first..last group to become ready."""
        return self.state.ready_group[first:last]

    def drop(self, first: int, oldest_version: int) -> NDArray[np.int32]:
        """Take groups that began before a version out of the ready ones from number `first` on; return them.

        They go before number `first` + how many they are; the others keep their order behind them.
        """
        groups, ready_s = self.state.ready_group[first : self.num_ready], self.state.ready_s[first : self.num_ready]
        is_old = self.versions_of(groups) < oldest_version
        order = np.argsort(~is_old, kind="stable")
        groups[:], ready_s[:] = groups[order], ready_s[order]
        return groups[: int(is_old.sum())].copy()

    def versions_of(self, groups: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the policy version with which each group began."""
        return self.state.group_version[groups]

    def sync_weights(self, version: int, rl_steps: int, now_s: float, until_s: float, in_flight: InFlightRule) -> None:
        """Stop for a weight sync from now to `until_s`, and go on with the policy that so many RL steps made."""
        law = self._parts.law_of(rl_steps)
        old_law, self._law = self._law, law
        self.state.counters["version"] = version
        redraw = law is not old_law
        rule = _AT_SYNC[in_flight]
        kernels.weight_sync(self.state, self._parts.table, old_law, law, now_s, until_s, rule, redraw)

    def totals(self, now_s: float) -> RolloutTotals:
        """Return the sums up to now."""
        replicas, counters = self.state.replicas, self.state.counters
        starved_s, tool_s = kernels.idle_seconds(self.state, now_s)
        return RolloutTotals(
            busy_s=kernels.busy_seconds(self.state, now_s),
            starved_s=starved_s,
            tool_s=tool_s,
            sync_s=float(replicas["sync_s"].sum()),
            live_s=float(counters["live_s"][0])
            + (now_s - float(counters["live_since_s"][0]) if self.num_live else 0.0),
            stretch_steps=float(replicas["stretch_steps"].sum()),
            stretch_tokens=float(replicas["stretch_tokens"].sum()),
            first_tokens=float(replicas["first_tokens"].sum()),
            prefill_tokens=float(replicas["prefill_tokens"].sum()),
            recomputed_tokens=float(replicas["recomputed_tokens"].sum()),
            preemptions=int(replicas["preemptions"].sum()),
            trajectory_s=float(counters["trajectory_s"][0]),
            finished=int(counters["finished"][0]),
            restarts=int(counters["restarts"][0]),
            max_restarts=int(counters["max_restarts"][0]),
            restarted_tokens=int(counters["restarted_tokens"][0]),
        )
