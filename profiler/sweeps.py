"""Sweeps: samples of many points, each sweep in its own shuffled order, noisy points again, until time is used up.

Every sample is in the ledger before the next is taken, and what the ledger holds is not taken again. Does not know how
a sample is taken.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from profiler.ledger import GRID, Ledger, Sample
from profiler.point import Point
from profiler.progress import Progress
from profiler.statistics import NOISY_SPREAD, collect

EXTRA_SWEEPS = 2
"""Samples more for a point that is noisy after the planned ones."""
GRID_SHARE = 0.8
"""Share of the time budget after which no more samples of the grid are taken; held-out points need the rest."""

Item: TypeAlias = tuple[str, Point]
"""Purpose and point."""


@dataclass(frozen=True, slots=True)
class Task:
    """One sample to be taken."""

    purpose: str
    point: Point
    sweep: int


class Crew(Protocol):
    """Whoever takes samples: one device, an engine, or a fleet."""

    def measure(self, tasks: Iterator[Task]) -> Iterator[Sample]:
        """Yield one sample of every task, in any order; a task is asked for when there is time for it."""


@dataclass(frozen=True, slots=True)
class OneByOne:
    """A crew of one function."""

    take: Callable[[str, Point, int], Sample]
    """Purpose, point and sweep -> one sample."""

    def measure(self, tasks: Iterator[Task]) -> Iterator[Sample]:
        """Yield the samples of tasks, one after another."""
        return (self.take(task.purpose, task.point, task.sweep) for task in tasks)


@dataclass(slots=True)
class Sweeps:
    """Takes samples for one ledger."""

    ledger: Ledger
    crew: Crew
    num_sweeps: int
    budget_s: float
    seed: int
    progress: Progress = field(default_factory=Progress)
    grid_purposes: tuple[str, ...] = (GRID,)
    """Purposes whose first sweep is taken whatever the budget says."""
    _started_s: float = field(default_factory=time.monotonic)

    def measure(self, items: Sequence[Item], phase: str) -> None:
        """Take the samples that are missing, each sweep in its own order; noisy points again."""
        self._sweep(items, range(self.num_sweeps), phase)
        noisy: list[Item] = []
        for purpose in dict.fromkeys(purpose for purpose, _ in items):
            spreads = collect(self.ledger.of(purpose)).spreads
            noisy += [item for item in items if item[0] == purpose and spreads.get(item[1], 0.0) > NOISY_SPREAD]
        self._sweep(noisy, range(self.num_sweeps, self.num_sweeps + EXTRA_SWEEPS), f"{phase}, noisy")

    def is_late(self, purpose: str) -> bool:
        """Return whether the time for samples of this purpose is over."""
        share = GRID_SHARE if purpose in self.grid_purposes else 1.0
        return time.monotonic() - self._started_s >= share * self.budget_s

    def _sweep(self, items: Sequence[Item], sweeps: Iterable[int], phase: str) -> None:
        purposes = list(dict.fromkeys(purpose for purpose, _ in items))
        infeasible: set[Item] = set()
        todo: list[tuple[Item, int]] = []
        for sweep in sweeps:
            mixed: list[tuple[Item, int]] = []
            for purpose in purposes:
                points = [point for known, point in items if known == purpose]
                missing, lost = self.ledger.missing(purpose, points, [sweep], self.seed)
                mixed += [((purpose, point), sweep) for point, sweep in missing]
                infeasible |= {(purpose, point) for point in lost}
            if len(purposes) > 1:
                random.Random(f"{self.seed} {sweep}").shuffle(mixed)
            todo += mixed
        self.progress.begin(phase, len(todo))
        for sample in self.crew.measure(self._due(todo, infeasible)):
            self.ledger.add(sample)
            if sample.latency_s is None:
                infeasible.add((sample.purpose, sample.point))
            self.progress.advance()

    def _due(self, todo: Sequence[tuple[Item, int]], infeasible: set[Item]) -> Iterator[Task]:
        """Yield what is still worth measuring at the moment it is asked for."""
        num_left_out = 0
        for (purpose, point), sweep in todo:
            is_first = purpose in self.grid_purposes and sweep == 0
            if not is_first and self.is_late(purpose):
                num_left_out += 1
            elif (purpose, point) in infeasible:
                self.progress.advance()
            else:
                yield Task(purpose, point, sweep)
        if num_left_out:
            self.progress.say(f"the time budget of {self.budget_s:g} s leaves {num_left_out} samples out")
