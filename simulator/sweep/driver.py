"""Driver of a sweep: gives points to an executor, writes down what becomes of them, survives both.

At least once becomes effectively once: a result is a function of its key, and the ledger keeps one row per key.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulator.errors import ScenarioError, SweepError
from simulator.sweep.design import Design, overrides
from simulator.sweep.executor import Broken, Done, Event, Executor, Refused, Returned, Task
from simulator.sweep.ledger import FILE, Ledger, locked
from simulator.sweep.point import Base, point_key, task_text
from simulator.sweep.results import Outcome, digest, write_results
from traces.base import canonical_hash

BATCH_S: Final = 2.0
"""Seconds of work in a batch: long beside what handing it over takes."""
MAX_BATCH: Final = 256
MAX_ATTEMPTS: Final = 2
"""A point that breaks so often is failed."""
STORE_EVERY_S: Final = 0.5
"""What a killed driver loses at most."""
RESULTS: Final = "results.parquet"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What became of a sweep."""

    points: list[dict[str, Any]]
    outcomes: list[Outcome]
    """Of each point, in the design's order."""
    num_reused: int
    """Points whose result the ledger had."""
    wall_s: float
    notes: tuple[str, ...]

    @property
    def num_failed(self) -> int:
        return sum(outcome.status == "failed" for outcome in self.outcomes)

    @property
    def digest(self) -> str:
        """The same for the same points, however they were run."""
        return digest(self.outcomes)


def run_sweep(
    base: Base,
    design: Design,
    executor: Executor,
    folder: Path,
    *,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Run every point of a design and write `results.parquet` beside the ledger in `folder`.

    Args:
        base: The scenario.
        design: The points.
        executor: Who runs them; closed at the end.
        folder: Made if it is not there.
        resume: Go on with the ledger in it: points that are done are not run again, failed ones are.
        progress: Called with (points finished, points in all) from the calling thread.

    Raises:
        ScenarioError: No point of the design can be run; the first one's complaint.
        SweepError: The folder holds a ledger and `resume` is false, or another sweep is at work in it.
        OSError: The disk is full or not writable. The ledger holds what was finished before.
    """
    begin_s = time.monotonic()
    try:
        with locked(folder):
            if (folder / FILE).exists() and not resume:
                raise SweepError(
                    f"{folder}: holds a sweep already; --resume goes on with it, another --out begins a new one"
                )
            ledger = Ledger(folder)
            try:
                run = _Run(base, design, ledger, base.arm_names(), progress or _silent)
                run.until_done(executor)
                points, outcomes = run.points, [run.outcomes[key] for key in run.keys]
                if outcomes and len(run.invalid) == len(outcomes):
                    raise ScenarioError(f"none of {len(outcomes)} points can be run: {run.invalid[0]}")
                write_results(folder / RESULTS, points, outcomes)
                return Sweep(points, outcomes, run.num_reused, time.monotonic() - begin_s, tuple(run.notes))
            finally:
                ledger.close()
    finally:
        executor.close()


def _silent(_done: int, _total: int) -> None:
    """Show nothing."""


@dataclass(slots=True)
class _Run:
    """State of a sweep under way."""

    base: Base
    design: Design
    ledger: Ledger
    arms: tuple[str, ...]
    progress: Callable[[int, int], None]
    points: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """Key -> what became of it."""
    invalid: list[str] = field(default_factory=list)
    """Complaints about points that are no scenario."""
    notes: list[str] = field(default_factory=list)
    num_reused: int = 0
    _broken: dict[int, int] = field(default_factory=dict)
    """Point -> how often it broke."""
    _again: deque[int] = field(default_factory=deque)
    _alone: set[int] = field(default_factory=set)
    _under_way: dict[int, None] = field(default_factory=dict)
    _claimed: set[str] = field(default_factory=set)
    """Keys that some point has been given out for."""
    _unsaved: list[Outcome] = field(default_factory=list)
    _point_s: float | None = None
    """Seconds of a point on one worker, smoothed."""

    def until_done(self, executor: Executor) -> None:
        """Run all points; what is finished is in the ledger when this returns or raises, if the disk permits."""
        known = self.ledger.known()
        self._note_damage()
        fresh = self._fresh_points(known)
        stored_s = last_s = time.monotonic()
        ready: list[Task] = []
        try:
            while True:
                while executor.num_free and (batch := ready or self._batch(fresh, executor.num_workers)):
                    executor.submit(batch)
                    ready = []
                self.progress(len(self.outcomes), len(self.design))
                if not self._under_way:
                    break
                if last_s - stored_s > STORE_EVERY_S:
                    self._store()
                    stored_s = last_s
                ready = ready or self._batch(fresh, executor.num_workers)  # now, while all workers have something to do
                events = executor.wait(STORE_EVERY_S)
                now_s = time.monotonic()
                self._learn_pace(events, now_s - last_s, executor)
                last_s = now_s
                for event in events:
                    self._take(event)
        finally:
            self._store()

    def _fresh_points(self, known: dict[str, Outcome]) -> Iterator[int]:
        """Yield the points that must be run, each key once; note the others on the way."""
        for index, point in enumerate(self.design.points()):
            self.points.append(point)
            try:
                key = point_key(self.base.scenario(overrides(point, self.arms)))
            except ScenarioError as error:
                key = canonical_hash(["invalid", self.base.text, self.base.fixed, self.base.arms, point])
                self.invalid.append(str(error))
                self._finish(Outcome(key, "failed", reason=str(error)))
            self.keys.append(key)
            if key in self.outcomes:
                continue
            if key in known and known[key].status == "done":
                self.outcomes[key] = known[key]
                self.num_reused += 1
            elif key not in self._claimed:
                self._claimed.add(key)
                yield index

    def _batch(self, fresh: Iterator[int], num_workers: int) -> list[Task]:
        """Return the next points to run, about BATCH_S of work; an endangered one alone."""
        if self._again and self._again[0] in self._alone:
            indices = [self._again.popleft()]
        else:
            left = max(1, (len(self.design) - len(self.points)) // (2 * num_workers))
            size = 1 if self._point_s is None else round(BATCH_S / max(self._point_s, BATCH_S / MAX_BATCH))
            indices = []
            while len(indices) < max(1, min(size, left)):
                if self._again and self._again[0] in self._alone:
                    break
                index = self._again.popleft() if self._again else next(fresh, None)
                if index is None:
                    break
                indices.append(index)
        self._under_way.update(dict.fromkeys(indices))
        return [(index, task_text(self.base, overrides(self.points[index], self.arms))) for index in indices]

    def _take(self, event: Event) -> None:
        index = event.index
        if index not in self._under_way:  # told twice
            return
        del self._under_way[index]
        key, attempts = self.keys[index], self._broken.get(index, 0) + 1
        match event:
            case Done():
                self._finish(Outcome(key, "done", event.result, attempts=attempts))
            case Refused():
                self._finish(Outcome(key, "failed", reason=event.reason, attempts=attempts))
            case Broken():
                self._broken[index] = attempts
                if event.retry and attempts < MAX_ATTEMPTS:
                    self._send_again(index, alone=True)
                else:
                    self._finish(Outcome(key, "failed", reason=event.reason, attempts=attempts))
            case Returned():
                self._send_again(index, alone=event.alone)

    def _send_again(self, index: int, *, alone: bool) -> None:
        if alone:
            self._alone.add(index)
        self._again.append(index)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.key] = outcome
        self._unsaved.append(outcome)

    def _store(self) -> None:
        if self._unsaved:
            unsaved, self._unsaved = self._unsaved, []  # not tried again on a full disk
            self.ledger.store(unsaved)

    def _learn_pace(self, events: list[Event], passed_s: float, executor: Executor) -> None:
        done = sum(isinstance(event, Done) for event in events)
        if done:
            busy = max(1, executor.num_workers)
            seconds = passed_s * busy / done
            self._point_s = seconds if self._point_s is None else 0.8 * self._point_s + 0.2 * seconds

    def _note_damage(self) -> None:
        if self.ledger.set_aside is not None:
            self.notes.append(f"the ledger was damaged; it lies at {self.ledger.set_aside}, all points are run again")
        if self.ledger.num_damaged:
            self.notes.append(f"{self.ledger.num_damaged} results in the ledger were damaged and are worked out again")
