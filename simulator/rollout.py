"""The rollout side of a run: replicas, their queues and the policy version they hold, driven by the kernels.

It knows its own time only through the calls it gets, and nothing of the trainer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator import kernels
from simulator.config import InFlightRule, Router
from simulator.parts import Parts
from simulator.rollout_state import (
    ABORT,
    DRAIN,
    KEEP,
    LEAST_IN_FLIGHT,
    NEVER,
    RECOMPUTE,
    RESTART,
    ROUND_ROBIN,
    STATIC_SPLIT,
    STICKY,
    new_state,
)
from simulator.step_law import StepLaw
from simulator.step_table import StepTable

_AT_SYNC: dict[InFlightRule, int] = {
    "wait": KEEP,
    "abort_resume": ABORT,
    "restart": RESTART,
    "in_place": KEEP,
    "in_place_recompute": RECOMPUTE,
}


_ROUTER: dict[Router, int] = {
    "least_in_flight": LEAST_IN_FLIGHT,
    "round_robin": ROUND_ROBIN,
    "sticky": STICKY,
    "static_split": STATIC_SPLIT,
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
    down_s: float
    """Replica-seconds of a replica that has crashed and is not back."""
    away_s: float
    """Replica-seconds in which the trainer's GPUs do not generate."""
    sync_s: float
    live_s: float
    """Seconds in which any sequence was under way in any replica."""
    stretch_steps: float
    """Verify steps of ended decode stretches, and the tokens emitted in them."""
    stretch_tokens: float
    first_tokens: float
    """Tokens emitted by prefills."""
    prefill_tokens: float
    prefix_hit_tokens: float
    """Tokens of prompts found in the cache because another response of the group had brought them there."""
    recomputed_tokens: float
    preemptions: int
    aborts: int
    """Sequences taken out of their batch by a weight sync."""
    trajectory_s: float
    finished: int
    restarts: int
    max_restarts: int
    """Of any one sequence."""
    restarted_tokens: int
    """Emitted, and thrown away by a restart."""
    filtered_groups: int
    """Finished, and taken out by the filter."""
    filtered_tokens: int
    """Their prompts and responses."""
    discarded_groups: int
    """Dropped while under way."""
    discarded_tokens: int
    """What they had emitted."""


class RolloutSide:
    """Replicas that generate what has been submitted."""

    def __init__(self, parts: Parts, *, mode: int, record_finish: bool = False) -> None:
        """Make idle replicas at time 0."""
        self._parts = parts
        self._law: StepLaw = parts.law_of(0)
        self._table = parts.table
        self.state = new_state(
            parts.workload,
            num_replicas=parts.num_replicas,
            max_running=parts.max_running,
            max_live=parts.max_live,
            kv_tokens=parts.kv_tokens,
            block_tokens=parts.kv_block_tokens,
            num_draft_tokens=parts.num_draft_tokens,
            num_classes=parts.num_classes,
            stream=parts.stream,
            chunk_tokens=parts.chunk_tokens,
            keep_prefix=parts.keep_prefix,
            share_prompts=parts.share_prompts,
            router=_ROUTER[parts.router],
            mode=mode,
            record_finish=record_finish,
            slowness=parts.slowness,
            num_helpers=parts.num_helpers,
            in_order=getattr(parts.policy, "order", None) == "in_order",
            piece_from=parts.piece_from,
        )
        self.num_submitted = 0
        """Groups submitted since the start of the run."""
        self._filtered_tokens, self._num_counted = 0, 0

    @property
    def num_ready(self) -> int:
        """Groups whose every response is finished."""
        return int(self.state.counters["num_ready"][0])

    @property
    def num_filtered(self) -> int:
        """Finished groups that the filter took out."""
        return int(self.state.counters["num_filtered"][0])

    @property
    def filtered_s(self) -> float:
        """When it did so last."""
        return float(self.state.counters["filtered_s"][0])

    @property
    def num_discarded(self) -> int:
        """Groups dropped while under way."""
        return int(self.state.counters["discarded_groups"][0])

    @property
    def num_live(self) -> int:
        """Sequences that have begun and not finished."""
        return int(self.state.counters["num_live"][0])

    @property
    def num_waiting(self) -> int:
        """Sequences that could start, or go on, if there were a place for them."""
        counters = self.state.counters[0]
        waiting = self.state.replicas["queue_len"].sum() + self.state.replicas["line_len"].sum()
        return int(counters["submitted"] - counters["next_sequence"] + waiting)

    @property
    def clock_s(self) -> float:
        """Time of the latest thing that happened in any replica."""
        return float(self.state.replicas["time_s"].max())

    def submit(self, num_groups: int, now_s: float) -> None:
        """Admit groups up to number `num_groups`, counted from the start of the run."""
        self.num_submitted = max(min(num_groups, self._parts.workload.num_groups), self.num_submitted)
        last = int(self.state.first_sequence[self.num_submitted])
        kernels.submit(self.state, self._table, self._law, last, now_s)

    def close(self) -> None:
        """Start no fresh sequence until the next `submit`."""
        kernels.close(self.state)

    def discard(self, now_s: float, oldest_version: int = NEVER) -> None:
        """Throw away the groups under way that began before a version; by default all, and those that wait to begin."""
        kernels.discard(self.state, self._table, self._law, now_s, oldest_version)

    def change_costs(self, table: StepTable, now_s: float) -> None:
        """Let every replica's steps cost what this table says, from its first step boundary on."""
        old, self._table = self._table, table
        kernels.change_costs(self.state, old, table, self._law, now_s)

    def take_down(self, first: int, end: int, now_s: float, *, restart: bool) -> None:
        """Take replicas first .. end out; others go on with their sequences, as these are or from their prompts."""
        rule = RESTART if restart else ABORT
        kernels.take_down(self.state, self._table, self._law, first, end, now_s, rule)

    def bring_up(self, first: int, end: int, now_s: float) -> None:
        """Let replicas first .. end generate again."""
        kernels.bring_up(self.state, self._table, self._law, first, end, now_s)

    def advance(self, until_s: float, wanted_groups: int = NEVER, *, stop_filtered: int = NEVER) -> None:
        """Generate until a time, or until so many groups are ready or filtered, or nothing is left to do."""
        self.state.counters["stop_filtered"] = stop_filtered
        kernels.advance(self.state, self._table, self._law, until_s, wanted_groups)

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

    def sync_weights(
        self,
        version: int,
        rl_steps: int,
        now_s: float,
        until_s: float,
        in_flight: InFlightRule,
        *,
        begin_s: float | None = None,
        pull: bool = False,
    ) -> None:
        """Stop from now to `until_s`, and go on with the policy that so many RL steps made.

        Args:
            version: Number of that policy.
            rl_steps: RL steps that it has been trained on.
            now_s: When replicas stop, at their next step boundary.
            until_s: When they go on.
            in_flight: What happens to sequences under way; under `pull`, `wait` lets each replica finish its own first.
            begin_s: When the weight sync itself begins; None: now.
            pull: Each replica takes until_s - now_s by itself.
        """
        law = self._parts.law_of(rl_steps)
        old_law, self._law = self._law, law
        self.state.counters["version"] = version
        redraw = law is not old_law
        rule = DRAIN if pull and in_flight == "wait" else _AT_SYNC[in_flight]
        begin_s = now_s if begin_s is None else begin_s
        kernels.weight_sync(self.state, self._table, old_law, law, now_s, begin_s, until_s, rule, redraw)

    def totals(self, now_s: float) -> RolloutTotals:
        """Return the sums up to now."""
        replicas, counters = self.state.replicas, self.state.counters
        num_own = self._parts.num_replicas
        starved_s, tool_s, down_s = kernels.idle_seconds(replicas, 0, num_own, now_s)
        helpers = kernels.idle_seconds(replicas, num_own, num_own + self._parts.num_helpers, now_s)
        return RolloutTotals(
            busy_s=kernels.busy_seconds(replicas, now_s),
            starved_s=starved_s + helpers[0],
            tool_s=tool_s + helpers[1],
            down_s=down_s,
            away_s=helpers[2],
            sync_s=float(replicas["sync_s"].sum()),
            live_s=float(counters["live_s"][0])
            + (now_s - float(counters["live_since_s"][0]) if self.num_live else 0.0),
            stretch_steps=float(replicas["stretch_steps"].sum()),
            stretch_tokens=float(replicas["stretch_tokens"].sum()),
            first_tokens=float(replicas["first_tokens"].sum()),
            prefill_tokens=float(replicas["prefill_tokens"].sum()),
            prefix_hit_tokens=float(replicas["prefix_hit_tokens"].sum()),
            recomputed_tokens=float(replicas["recomputed_tokens"].sum()),
            preemptions=int(replicas["preemptions"].sum()),
            aborts=int(replicas["aborts"].sum()),
            trajectory_s=float(counters["trajectory_s"][0]),
            finished=int(counters["finished"][0]),
            restarts=int(counters["restarts"][0]),
            max_restarts=int(counters["max_restarts"][0]),
            restarted_tokens=int(counters["restarted_tokens"][0]),
            filtered_groups=self.num_filtered,
            filtered_tokens=self._count_filtered_tokens(),
            discarded_groups=self.num_discarded,
            discarded_tokens=int(counters["discarded_tokens"][0]),
        )

    def _count_filtered_tokens(self) -> int:
        last = self.num_filtered
        groups = self.state.filtered_group[self._num_counted : last]
        self._filtered_tokens += int(self._parts.workload.group_tokens[groups].sum())
        self._num_counted = last
        return self._filtered_tokens
