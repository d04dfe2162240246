"""Factors: the inputs of a scenario that nobody knows exactly, each with a range, and a scenario with other values.

Latency, draft and verify cost, accept length, training and weight sync vary as `uncertainty` says; lengths and the
engine's batch, where they are assumed, by a range that is assumed itself. Does not know what is made of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.config import Scenario, UncertaintyConfig
from simulator.errors import ScenarioError
from simulator.inputs import Noise
from simulator.scenario_file import field_keys, with_fields
from traces.base import Origin

Z90 = 1.6449
"""Standard deviations to either end of a 90 % range."""
ASSUMED_SPREAD = 1.25
"""Factor by which a field that somebody assumed may be off either way. Assumed."""

_NOISE = {
    "accept_length": "tokens emitted per verify step",
    "draft_and_verify": "cost of a speculative step against a plain one",
    "latency": "every latency of the engine alike",
    "trainer": "training time",
    "weight_sync": "duration of a weight sync",
}
_ASSUMABLE = {
    "workload.prompt_tokens.mean": "mean prompt",
    "workload.prompt_tokens.median": "median prompt",
    "workload.response_tokens.mean": "mean response before the cut at the longest",
    "workload.response_tokens.median": "median response",
    "workload.response_tokens.sigma": "spread of response lengths",
    "workload.group_correlation": "how alike the lengths of a group are",
    "workload.turns.num_turns.mean": "turns of a trajectory",
    "workload.turns.delay_s.mean": "tool delay",
    "workload.useful_fraction": "share of groups that the filter keeps",
    "engine.max_running_seqs": "sequences that a replica decodes together",
    "trainer.constant_s": "training time that does not grow with tokens",
}
"""Fields of a workload or an engine that people assume before a run, by path. What a user decides (GPUs, staleness, k)
is not among them: `bebop plan` is for that."""


@dataclass(frozen=True, slots=True)
class Factor:
    """An input that varies."""

    name: str
    """`uncertainty.NAME`, or the dotted path of a field."""
    meaning: str
    low: float
    high: float
    """Ends of the range: 5 % and 95 % of a normal factor, the limits of a uniform one."""
    centre: float
    source: str
    is_normal: bool = False
    is_log: bool = False
    """Its values are logarithms of a factor on the input."""
    is_whole: bool = False

    def shown(self, value: float) -> float:
        """Return a value as a reader wants it: a factor instead of its logarithm."""
        return math.exp(value) if self.is_log else value


def factors_of(scenario: Scenario, ranges: Sequence[str] = ()) -> tuple[Factor, ...]:
    """Return what is uncertain or assumed in a scenario; `ranges` (`path=low..high`) add to it or replace.

    Raises:
        ScenarioError: A range is not one, or its path is not a number of the scenario.
    """
    found = {factor.name: factor for factor in (*_noise_factors(scenario.uncertainty), *_assumed_factors(scenario))}
    for text in ranges:
        factor = _stated_factor(scenario, text)
        found[factor.name] = factor
    return tuple(found.values())


def with_values(scenario: Scenario, factors: Sequence[Factor], values: Mapping[str, float]) -> tuple[Scenario, Noise]:
    """Return the scenario with these values in its fields, and what the others make of its inputs."""
    fields, noise = [], {}
    for factor in factors:
        value = values[factor.name]
        if factor.name == "uncertainty.accept_length":
            noise["accept_length"] = value
        elif factor.name.startswith("uncertainty."):
            noise[factor.name.removeprefix("uncertainty.")] = factor.shown(value)
        else:
            fields.append((factor.name, round(value) if factor.is_whole else value))
    return with_fields(scenario, fields), Noise(**{"accept_length": 0.0, **noise})


def _noise_factors(uncertainty: UncertaintyConfig) -> list[Factor]:
    factors = []
    for name in _NOISE:
        spread = getattr(uncertainty, name)
        if spread > 0:
            factors.append(
                Factor(
                    name=f"uncertainty.{name}",
                    meaning=_NOISE[name],
                    low=-Z90 * spread,
                    high=Z90 * spread,
                    centre=0.0,
                    source=f"uncertainty.{name} = {spread:g} of the scenario",
                    is_normal=True,
                    is_log=name != "accept_length",
                )
            )
    return factors


def _assumed_factors(scenario: Scenario) -> list[Factor]:
    content = scenario.model_dump(mode="json")
    factors = []
    for path, meaning in _ASSUMABLE.items():
        value = _value_at(content, path)
        if value is None or value == 0 or _origin(scenario, path) is not Origin.ASSUMED:
            continue
        low, high = value / ASSUMED_SPREAD, value * ASSUMED_SPREAD
        if isinstance(value, int):
            low, high = round(low), round(high)
        if path in ("workload.useful_fraction", "workload.group_correlation"):
            high = min(high, 1.0)
        source = f"assumed in the scenario, by a factor of {ASSUMED_SPREAD:g} either way, which is assumed too"
        factors.append(Factor(path, meaning, low, high, value, source, is_whole=isinstance(value, int)))
    return factors


def _stated_factor(scenario: Scenario, text: str) -> Factor:
    path, _, span = text.partition("=")
    low_text, dots, high_text = span.partition("..")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        dots = ""
    if not dots or not low < high or not math.isfinite(high - low):
        raise ScenarioError(f"--vary {text}: not of the form path.to.field=low..high, low below high")
    path = path.strip()
    value = _value_at(scenario.model_dump(mode="json"), path)
    if value is None:
        raise ScenarioError(
            f"--vary {text}: {path} is not a number of this scenario; `bebop schema scenario` lists fields"
        )
    return Factor(
        path,
        "as asked for",
        low,
        high,
        min(max(value, low), high),
        "stated with --vary",
        is_whole=isinstance(value, int),
    )


def _value_at(content: Any, path: str) -> float | None:
    """Return the number at a path; None where there is none."""
    for key in field_keys(path):
        if not isinstance(content, dict) or key not in content:
            return None
        content = content[key]
    return content if isinstance(content, int | float) and not isinstance(content, bool) else None


def _origin(scenario: Scenario, path: str) -> Origin:
    """Return the origin of the nearest entry at or above a path; a field without one counts as assumed."""
    while path:
        if path in scenario.origins:
            return scenario.origins[path].origin
        path = path.rpartition(".")[0]
    return Origin.ASSUMED
