"""Axes: the knobs of a scenario over which What if looks, each with the values worth looking at."""

from dataclasses import dataclass

from simulator.config import Scenario
from simulator.entropy import build_entropy
from simulator.errors import ScenarioError
from simulator.scenario_file import with_fields
from simulator.what_if import Knob, drafts_by_batch

DRAFTS, BATCH = "drafts", "batch"
MAX_DRAFTS = 8
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A knob with its name in links."""

    name: str
    knob: Knob
    now: float
    """The scenario's own value."""


def axes(scenario: Scenario, arm: str) -> dict[str, Axis]:
    """Return the axes that a scenario has, by name; draft tokens and batch first."""
    found = [*_drafts(scenario, arm), *_cluster(scenario), *_staleness(scenario), *_acceptance(scenario, arm)]
    found += _workload(scenario)
    return {axis.name: axis for axis in found if len(axis.knob.values) > 1}


def prepared(scenario: Scenario, *chosen: Axis) -> Scenario:
    """Return the scenario in whose fields the axes' values can be put."""
    if any(axis.name == "entropy" for axis in chosen):
        return with_fields(scenario, [("entropy", {"kind": "constant", "entropy_nats": mean_entropy(scenario)})])
    return scenario


def mean_entropy(scenario: Scenario) -> float:
    """Return the mean policy entropy over the run's RL steps, nats.

    Raises:
        ScenarioError: The scenario states none.
    """
    entropy = build_entropy(scenario.entropy)
    steps = range(scenario.run.first_step, scenario.run.first_step + scenario.run.num_steps)
    found = [nats for nats in map(entropy.at, steps) if nats is not None]
    if not found:
        raise ScenarioError("entropy: the scenario states none; give a trajectory")
    return sum(found) / len(found)


def _drafts(scenario: Scenario, arm: str) -> list[Axis]:
    if scenario.arms[arm].k == 0:
        return []
    batch, drafts = drafts_by_batch(scenario, arm)
    acceptance = scenario.arms[arm].acceptance
    if acceptance is not None and acceptance.kind == "law":
        # A law goes beyond its own k by the decay of positions; the report's warnings say so.
        drafts = Knob(drafts.path, drafts.title, tuple(range(1, max(int(drafts.values[-1]), MAX_DRAFTS) + 1)))
    return [
        Axis(DRAFTS, drafts, scenario.arms[arm].k),
        Axis(BATCH, batch, scenario.engine.max_running_seqs),
    ]


def _cluster(scenario: Scenario) -> list[Axis]:
    cluster, found = scenario.cluster, []
    if scenario.policy.kind == "synchronous":
        return []
    for name, path, title, own, unit in (
        ("rollout_gpus", "cluster.num_rollout_gpus", "rollout GPUs", cluster.num_rollout_gpus, cluster.tp_size),
        ("train_gpus", "cluster.num_train_gpus", "training GPUs", cluster.num_train_gpus, 1),
    ):
        values = sorted({max(round(own * factor / unit), 1) * unit for factor in FACTORS})
        found.append(Axis(name, Knob(path, title, tuple(values)), own))
    return found


def _staleness(scenario: Scenario) -> list[Axis]:
    own = scenario.policy.max_staleness if scenario.policy.kind == "fully_async" else None
    if own is None:
        return []
    values = sorted({0, 1, 2, 3, 4, 6, 8, own})
    return [Axis("staleness", Knob("policy.max_staleness", "staleness allowed (versions)", tuple(values)), own)]


def _acceptance(scenario: Scenario, arm: str) -> list[Axis]:
    acceptance = scenario.arms[arm].acceptance
    if scenario.entropy is None or acceptance is None or acceptance.kind == "fixed":
        return []
    own = round(mean_entropy(scenario), 3)
    values = sorted({0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, own})
    return [Axis("entropy", Knob("entropy.entropy_nats", "policy entropy (nats), constant", tuple(values)), own)]


def _workload(scenario: Scenario) -> list[Axis]:
    workload, found = scenario.workload, []
    if workload.kind == "synthetic":
        found.append(_around("group", "workload.group_size", "responses per prompt", workload.group_size))
        lengths = workload.response_tokens
        if lengths.kind == "lognormal":
            name = "mean" if lengths.mean is not None else "median"
            own = lengths.mean if lengths.mean is not None else lengths.median
            assert own is not None
            values = sorted({round(own * factor) for factor in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)})
            inside = tuple(value for value in values if lengths.minimum <= value <= lengths.maximum)
            knob = Knob(f"workload.response_tokens.{name}", f"{name} response (tokens)", inside)
            found.append(Axis("response", knob, own))
    return found


def _around(name: str, path: str, title: str, own: int) -> Axis:
    return Axis(name, Knob(path, title, tuple(sorted({max(round(own * factor), 1) for factor in FACTORS}))), own)
