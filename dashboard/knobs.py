"""Knobs: the fields of a scenario that the sidebar offers as numbers, and the overrides that they come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.config import Scenario


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of a scenario."""

    path: str
    label: str
    low: float
    high: float
    help: str = ""
    also: str | None = None
    """Another field that must be equal."""

    def overrides(self, value: float) -> list[str]:
        """Return what sets it."""
        return [f"{path}={value:g}" if isinstance(value, float) else f"{path}={value}" for path in self.paths]

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that it sets."""
        return (self.path,) if self.also is None else (self.path, self.also)


_CLUSTER = (
    Knob("cluster.num_rollout_gpus", "Rollout GPUs", 1, 65_536),
    Knob("cluster.num_train_gpus", "Training GPUs", 1, 65_536),
    Knob(
        "cluster.tp_size", "GPUs of a rollout replica (TP)", 1, 1024, "Tensor-parallel size; divides the rollout GPUs."
    ),
    Knob("engine.max_running_seqs", "Engine batch limit (sequences)", 1, 8192, "Sequences a replica decodes together."),
    Knob("policy.max_staleness", "Staleness allowed (versions)", 0, 1000, "Policy versions a sample may be behind."),
)
_COLOCATED = Knob("cluster.num_rollout_gpus", "GPUs, shared by both phases", 1, 65_536, also="cluster.num_train_gpus")
_WORKLOAD = (
    Knob("workload.prompts_per_step", "Prompts per RL step", 1, 1_000_000),
    Knob("workload.group_size", "Responses per prompt", 1, 4096),
    Knob("workload.response_tokens.mean", "Mean response (tokens)", 1.0, 1_000_000.0, "Before the cut at the maximum."),
    Knob("workload.response_tokens.median", "Median response (tokens)", 1.0, 1_000_000.0),
    Knob("workload.response_tokens.value", "Response (tokens)", 1.0, 1_000_000.0),
    Knob("workload.temperature", "Sampling temperature", 0.0, 2.0),
    Knob("run.num_steps", "RL steps", 1, 10_000),
    Knob("run.replications", "Replications", 1, 1000, "More make the interval surer, and take longer."),
)


def knobs_of(scenario: Scenario) -> dict[str, list[Knob]]:
    """Return the knobs that a scenario has, by section."""
    content = scenario.model_dump(mode="json")
    is_colocated = scenario.policy.kind == "synchronous"
    cluster = (_COLOCATED, *_CLUSTER[2:]) if is_colocated else _CLUSTER
    return {
        title: [knob for knob in knobs if value_at(content, knob.path) is not None]
        for title, knobs in (("Model and GPUs", cluster), ("Workload and run", _WORKLOAD))
    }


def value_at(content: Mapping[str, Any], path: str) -> Any:
    """Return what a scenario, as JSON has it, holds at a dotted path; None for nothing."""
    found: Any = content
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def is_whole(knob: Knob) -> bool:
    """Return whether the field counts something."""
    return isinstance(knob.low, int)
