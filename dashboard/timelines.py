"""Timelines: runs that were watched, kept by what was asked, and their file for Perfetto. Does not know Streamlit."""

import io
import threading
from collections import OrderedDict

from simulator.config import Scenario
from simulator.inputs import BASELINE
from simulator.timeline import watch
from traces.base import canonical_hash
from traces.timeline import Counter, Timeline, write_perfetto

KEPT = 8
"""Timelines that a server keeps, over all its visitors."""
FEW_STEPS = 10
"""RL steps that are watched unless a visitor asks for more."""


class TimelineCache:
    """The latest timelines by scenario, arm and steps; safe among the threads of a server."""

    def __init__(self, max_timelines: int = KEPT) -> None:
        self._max_timelines = max_timelines
        self._timelines: OrderedDict[tuple[str, str, int], Timeline] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, scenario: Scenario, arm: str, num_steps: int) -> bool:
        """Return whether a timeline is here already."""
        with self._lock:
            return _key(scenario, arm, num_steps) in self._timelines

    def watch(self, scenario: Scenario, arm: str, num_steps: int) -> Timeline:
        """Return the first RL steps of an arm, as `bebop trace --arm ARM --steps N` does; raises ScenarioError."""
        key = _key(scenario, arm, num_steps)
        with self._lock:
            if key in self._timelines:
                self._timelines.move_to_end(key)
                return self._timelines[key]
        found = watch(scenario, arm, num_steps=num_steps)
        with self._lock:
            self._timelines[key] = found
            while len(self._timelines) > self._max_timelines:
                self._timelines.popitem(last=False)
        return found


def arms_of(scenario: Scenario) -> list[str]:
    """Return the arms that can be watched, plain decoding last."""
    return [*scenario.arms, BASELINE]


def counter_name(counter: Counter) -> str:
    """Return what a counter is called among all of a timeline, with its unit."""
    name = counter.name if counter.track == "run" else f"{counter.track}: {counter.name}"
    return f"{name} ({counter.unit})"


def perfetto_file(found: Timeline) -> str:
    """Return the file that `bebop trace` writes."""
    text = io.StringIO()
    write_perfetto(found, text)
    return text.getvalue()


def _key(scenario: Scenario, arm: str, num_steps: int) -> tuple[str, str, int]:
    return canonical_hash(scenario.model_dump(mode="json")), arm, num_steps
