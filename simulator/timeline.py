"""Timeline of a run: the same run once more, watched.

The trainer's spans are exact. Replicas are looked at on a fixed grid of times, because a compiled kernel tells nobody
what it does between two events; looking does not change what happens, which `watch` checks.
"""

from dataclasses import dataclass, field

import numpy as np
import simpy
from numpy.typing import NDArray

from simulator.cluster import Batch, Run
from simulator.config import InFlightRule, Scenario
from simulator.errors import InvariantError, ScenarioError
from simulator.inputs import BASELINE, make_noise, make_parts, make_workload, resolve
from simulator.parts import Parts
from simulator.policies.run import TRAINER_LIFE
from simulator.provenance import check_origins
from simulator.rollout_clock import Process
from traces.timeline import Counter, Span, Timeline

NUM_SAMPLES = 2000
MAX_SHOWN = 64
"""Replicas with a track of their own."""
TRAINER, SYNC, WHOLE_RUN = "trainer", "weight sync", "run"
"""Tracks beside those of the replicas."""

_IDLE, _GENERATING, _TOOLS, _SYNC, _DOWN = range(5)
_STATES = ("idle", "generating", "waiting for tools", "weight sync", "down")


def watch(
    scenario: Scenario,
    arm: str | None = None,
    *,
    num_steps: int | None = None,
    num_samples: int = NUM_SAMPLES,
    max_shown: int = MAX_SHOWN,
) -> Timeline:
    """Return what the first replication of an arm did.

    Args:
        scenario: What to run.
        arm: Name of the arm; None takes the first, `baseline` is plain decoding.
        num_steps: RL steps to show, from the first; None shows all.
        num_samples: How often replicas are looked at.
        max_shown: Replicas with a track of their own.

    Raises:
        ScenarioError: No such arm, or the scenario cannot be run as written.
        TraceError: A trace it names is missing or broken.
    """
    check_origins(scenario)
    arm = arm or next(iter(scenario.arms), BASELINE)
    if arm not in (BASELINE, *scenario.arms):
        raise ScenarioError(f"no arm {arm!r}; the arms are {', '.join((BASELINE, *scenario.arms))}")
    if num_steps is not None and not 1 <= num_steps <= scenario.run.num_steps:
        raise ScenarioError(f"{num_steps} RL steps are outside 1..{scenario.run.num_steps}, those of the run")
    inputs = resolve(scenario)
    workload, noise = make_workload(inputs, 0), make_noise(inputs, 0)
    parts, _ = make_parts(inputs, arm, workload, noise, 0)
    plain = _live(Run(parts), num_steps)
    end_s = plain.now_s
    watched = _Watched(parts, end_s, num_samples, min(max_shown, parts.num_replicas))
    _live(watched, num_steps)
    _check_same(plain, watched)
    return Timeline(
        scenario=scenario.name,
        arm=arm,
        end_s=end_s,
        sample_s=watched.sample_s,
        num_replicas=parts.num_replicas,
        num_shown=watched.num_shown,
        spans=tuple(watched.spans + watched.replica_spans()),
        counters=tuple(watched.counters()),
    )


def _live(run: Run, num_steps: int | None) -> Run:
    """Let a run live to its end, or until so many RL steps are done."""
    life = run.env.process(TRAINER_LIFE[run.parts.policy.kind](run))
    if num_steps is None:
        run.env.run(until=life)
    else:
        while not life.triggered and len(run.log.steps) < num_steps:
            run.env.step()
    run.clock.stop()
    return run


def _check_same(plain: Run, watched: Run) -> None:
    ends = [[step.end_s for step in run.log.steps] for run in (plain, watched)]
    if ends[0] != ends[1]:
        raise InvariantError("a run that was watched went otherwise than the same run unwatched; please report this")


@dataclass(slots=True)
class _Series:
    """A number that is written down when it changes."""

    times_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, time_s: float, value: float) -> None:
        if not self.values or self.values[-1] != value:
            self.times_s.append(time_s)
            self.values.append(value)


class _Watched(Run):
    """A run that writes down what happens in it."""

    def __init__(self, parts: Parts, end_s: float, num_samples: int, num_shown: int) -> None:
        """Look at the replicas so often until `end_s`, when the run is known to end."""
        super().__init__(parts)
        self.num_shown = num_shown
        self.sample_s = end_s / num_samples
        self.spans: list[Span] = []
        self._states: list[NDArray[np.int8]] = []
        self._stopped_s = np.zeros(num_shown)  # so far, by replica
        self._stopped_until_s = np.zeros(num_shown)
        self._sync_begin_s = 0.0
        self._published_s = 0.0  # when the last weight sync ends, or ended
        self._batch = [_Series() for _ in range(num_shown)]
        self._live_sequences, self._buffer, self._version, self._staleness = (_Series() for _ in range(4))
        self.env.process(self._look(num_samples))

    def _span(self, track: str, name: str, begin_s: float) -> None:
        if self.now_s > begin_s:
            self.spans.append(
                Span(track=track, name=name, begin_s=begin_s, end_s=self.now_s, rl_step=len(self.log.steps))
            )

    def work(self, seconds: float, beside_s: float | None = None) -> Process:
        begin_s = self.now_s
        try:
            yield from super().work(seconds, beside_s)
        finally:
            self._span(TRAINER, "training", begin_s)

    def wait_for(self, event: simpy.Event) -> Process:
        begin_s = self.now_s
        try:
            yield from super().wait_for(event)
        finally:
            is_colocated = self.parts.policy.kind == "synchronous"
            self._span(TRAINER, "generating on its GPUs" if is_colocated else "waiting for samples", begin_s)

    def sync_weights(self, in_flight: InFlightRule = "in_place", **others: "object") -> Process:
        self._sync_begin_s = self.now_s
        yield from super().sync_weights(in_flight, **others)  # type: ignore[arg-type]
        self._span(TRAINER, "weight sync", self._sync_begin_s)

    def _drain(self) -> Process:
        begin_s = self.now_s
        yield from super()._drain()
        if self.parts.sync_mode == "blocking":
            self._span(TRAINER, "waiting for replicas to stop", begin_s)
            self._sync_begin_s = self.now_s

    def _restart_trainer(self) -> Process:
        begin_s = self.now_s
        yield from super()._restart_trainer()
        self._span(TRAINER, "down", begin_s)

    def _publish(self, seconds: float, in_flight: InFlightRule, **others: "object") -> None:
        begin_s = self.now_s
        self.spans.append(
            Span(track=SYNC, name=f"version {self.num_published + 1}", begin_s=begin_s, end_s=begin_s + seconds)
        )
        self._published_s = begin_s + seconds
        super()._publish(seconds, in_flight, **others)  # type: ignore[arg-type]

    def record(self, batch: Batch, *, wait_s: float, generation_s: float) -> None:
        super().record(batch, wait_s=wait_s, generation_s=generation_s)
        groups = int(batch.staleness.sum())
        self._staleness.add(self.now_s, float(batch.staleness @ np.arange(len(batch.staleness))) / max(groups, 1))
        self._version.add(self.now_s, self.version)

    def _look(self, num_samples: int) -> Process:
        for _ in range(num_samples):
            self._note()
            yield self.env.timeout(self.sample_s)

    def _note(self) -> None:
        replicas, now_s = self.side.state.replicas[: self.num_shown], self.now_s
        more_s = replicas["sync_s"] - self._stopped_s
        self._stopped_s += more_s
        is_own = self.parts.sync_mode == "pull"  # each replica takes its weights when it likes
        until_s = np.minimum(now_s + more_s, replicas["time_s"]) if is_own else self._published_s
        self._stopped_until_s = np.where(more_s > 0, until_s, self._stopped_until_s)
        is_state = [
            replicas["is_down"] == 1,
            now_s < self._stopped_until_s,
            replicas["idle"] == 0,
            replicas["num_live"] > 0,
        ]
        self._states.append(np.select(is_state, [_DOWN, _SYNC, _GENERATING, _TOOLS], _IDLE).astype(np.int8))
        for series, running in zip(self._batch, replicas["num_running"], strict=True):
            series.add(now_s, int(running))
        self._live_sequences.add(now_s, self.side.num_live)
        self._buffer.add(now_s, self.side.num_ready - self.next_ready)

    def replica_spans(self) -> list[Span]:
        """Return what the replicas shown did, by the grid."""
        spans = []
        states = np.array(self._states)
        for replica in range(self.num_shown):
            column = states[:, replica]
            edges = np.flatnonzero(np.diff(column)) + 1
            begins, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(column)]])
            spans += [
                Span(
                    track=f"replica {replica}",
                    name=_STATES[column[begin]],
                    begin_s=begin * self.sample_s,
                    end_s=end * self.sample_s,
                )
                for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
                if column[begin] != _IDLE
            ]
        return spans

    def counters(self) -> list[Counter]:
        """Return batch by replica, and what the whole run has."""
        rows = [
            *((f"replica {i}", "batch", "sequences", series) for i, series in enumerate(self._batch)),
            (WHOLE_RUN, "sequences under way", "sequences", self._live_sequences),
            (WHOLE_RUN, "buffer", "groups", self._buffer),
            (WHOLE_RUN, "policy version", "versions", self._version),
            (WHOLE_RUN, "staleness", "versions", self._staleness),
        ]
        return [
            Counter(track=track, name=name, unit=unit, times_s=tuple(series.times_s), values=tuple(series.values))
            for track, name, unit, series in rows
            if series.values
        ]
