"""Timelines: runs that are watched, what is in them by name, and their file for Perfetto. Does not know Streamlit."""

import io

from dashboard.data import key_of
from dashboard.kept import Kept
from simulator.config import Scenario
from simulator.inputs import BASELINE
from simulator.timeline import watch
from traces.timeline import Counter, Timeline, write_perfetto

FEW_STEPS = 10
"""RL steps that are watched unless a visitor asks for more."""

_KEPT: Kept[Timeline] = Kept(most=8)
"""The latest ones of a server, over all its visitors."""


def watched(scenario: Scenario, arm: str, num_steps: int) -> Timeline | None:
    """Return a timeline that was watched lately, None if it was not."""
    return _KEPT.get(key_of(scenario, arm, num_steps))


def watch_arm(scenario: Scenario, arm: str, num_steps: int) -> Timeline:
    """Return the first RL steps of an arm, as `bebop trace --arm ARM --steps N` does; raises ScenarioError."""
    return _KEPT.take(key_of(scenario, arm, num_steps), lambda: watch(scenario, arm, num_steps=num_steps))


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
