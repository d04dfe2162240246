"""Points: one scenario of a sweep to the numbers kept of it, and the key under which they are kept.

A point has what `simulate` has of an arm, without the counterfactual runs of the waterfall. What an arm does is kept
for the next point, because no other arm changes it: a sweep over one arm runs the others once.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.explain import geometric_mean
from simulator.inputs import BASELINE, Inputs, make_noise, make_parts, make_workload, resolve
from simulator.laws import KnownLaws
from simulator.metrics import Outcome, measure
from simulator.policies import run_cluster
from simulator.report import MODEL_VERSION, interval
from simulator.results import mean
from simulator.scenario_file import parse_scenario
from traces.acceptance import AcceptanceTrace
from traces.base import Trace, canonical_hash, canonical_json
from traces.latency import LatencyTrace
from traces.store import load_named
from traces.workload import WorkloadTrace

RESULT_VERSION: Final = 1
"""Changes whenever a result holds other numbers."""

_MAX_KEPT: Final = 256
"""Runs of an arm that a process remembers."""

MEANS: Final = ("step_s", "rollout_s", "trajectory_s", "train_s", "weight_sync_s", "exposed_generation_s")
"""Of the outcomes: means over replications, in seconds per RL step (or per response)."""


@dataclass(frozen=True, slots=True)
class Base:
    """The scenario that a sweep starts from, as text: what a process on another machine needs to make any point."""

    text: str
    """TOML."""
    name: str
    """Of the file, for complaints."""
    fixed: tuple[str, ...] = ()
    """Overrides of every point."""
    arms: tuple[str, ...] = ()
    """Arms to keep; none keeps all."""

    def arm_names(self) -> tuple[str, ...]:
        """Return the arms that points have.

        Raises:
            ScenarioError: An arm to keep is not there, or the scenario cannot be run.
        """
        known = tuple(parse_scenario(self.text, self.name, self.fixed).arms)
        for arm in self.arms:
            if arm not in known:
                raise ScenarioError(f"--arm {arm}: {self.name} has no such arm; it has {', '.join(known)}")
        return tuple(self.arms) or known

    def scenario(self, changes: Sequence[str]) -> Scenario:
        """Return a point's scenario; what no result depends on is left out of it.

        Raises:
            ScenarioError: It cannot be run as written; one line.
        """
        whole = parse_scenario(self.text, self.name, (*self.fixed, *changes))
        arms = {name: arm for name, arm in whole.arms.items() if not self.arms or name in self.arms}
        return whole.model_copy(update={"arms": arms, "measured": (), "origins": {}, "setups": {}})


def task_text(base: Base, changes: Sequence[str]) -> str:
    """Return a point as `evaluate` takes it."""
    return json.dumps({**asdict(base), "changes": list(changes)})


def point_key(scenario: Scenario) -> str:
    """Return the sha256 of the scenario, of the traces that it names, and of the versions of model and result.

    Raises:
        TraceError: A trace is missing or broken.
    """
    named: list[tuple[str, type[Trace]]] = []
    if scenario.latency.kind == "trace":
        named.append((scenario.latency.trace, LatencyTrace))
    if scenario.workload.kind == "trace":
        named.append((scenario.workload.trace, WorkloadTrace))
    if scenario.entropy is not None and scenario.entropy.kind == "trace":
        named.append((scenario.entropy.trace, WorkloadTrace))
    for _, arm in sorted(scenario.arms.items()):
        if arm.acceptance is not None and arm.acceptance.kind != "fixed":
            named.append((arm.acceptance.trace, AcceptanceTrace))
    hashes = [_trace_hash(name, kind) for name, kind in named]
    return canonical_hash([RESULT_VERSION, MODEL_VERSION, scenario.model_dump(mode="json"), hashes])


def evaluate(text: str) -> str:
    """Return the result of a point (`task_text`): arm -> numbers, as canonical JSON.

    Raises:
        ScenarioError: The scenario cannot be run as written; one line.
        TraceError: A trace it names is missing or broken.
    """
    content = json.loads(text)
    base = Base(content["text"], content["name"], tuple(content["fixed"]), tuple(content["arms"]))
    scenario = base.scenario(content["changes"])
    inputs = resolve(scenario)
    names = (BASELINE, *scenario.arms)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for replication in range(scenario.run.replications):
        runs = _Runs(inputs, replication)
        for name in names:
            outcomes[name].append(runs.outcome(name))
    return canonical_json({name: _numbers(inputs, outcomes, name) for name in names})


_KEPT: OrderedDict[str, Outcome] = OrderedDict()
_KNOWN_LAWS = KnownLaws()


class _Runs:
    """One replication: each arm run once, or remembered."""

    def __init__(self, inputs: Inputs, replication: int) -> None:
        self._inputs, self._replication = inputs, replication
        scenario = inputs.scenario
        # An arm meets the others in a roofline trace alone, which reaches to the largest k.
        most = max(arm.k for arm in scenario.arms.values()) if scenario.latency.kind == "roofline" else None
        rest = scenario.model_dump_json(exclude={"arms", "name", "question"})
        self._common = canonical_hash([rest, most, replication])
        self._workload: Any = None

    def outcome(self, name: str) -> Outcome:
        inputs = self._inputs
        key = f"{self._common} {inputs.arm(name).model_dump_json()}"
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
        if self._workload is None:
            self._workload = make_workload(inputs, self._replication)
        noise = make_noise(inputs, self._replication)
        parts, _ = make_parts(inputs, name, self._workload, noise, self._replication, _KNOWN_LAWS)
        found = measure(run_cluster(parts), parts, inputs.scenario.warmup_steps)
        _KEPT[key] = found
        if len(_KEPT) > _MAX_KEPT:
            _KEPT.popitem(last=False)
        return found


def _numbers(inputs: Inputs, outcomes: dict[str, list[Outcome]], name: str) -> dict[str, Any]:
    """Return the numbers of one arm; intervals only where there are several replications."""
    mine, base = outcomes[name], outcomes[BASELINE]
    end_to_end = interval([b.step_s / m.step_s for b, m in zip(base, mine, strict=True)])
    rollout = interval([b.rollout_s / m.rollout_s for b, m in zip(base, mine, strict=True)])
    has_interval = len(mine) > 1
    cluster = inputs.scenario.cluster
    colocated = inputs.scenario.policy.kind == "synchronous"
    num_gpus = cluster.num_rollout_gpus + (0 if colocated else cluster.num_train_gpus)
    staleness = [float(sum(age * share for age, share in enumerate(m.staleness))) for m in mine]
    return {
        "k": inputs.arm(name).k,
        "end_to_end_speedup": end_to_end.mean,
        "end_to_end_low": end_to_end.low if has_interval else None,
        "end_to_end_high": end_to_end.high if has_interval else None,
        "rollout_speedup": rollout.mean,
        "accept_length": geometric_mean(m.accept_length for m in mine),
        **{quantity: mean(getattr(m, quantity) for m in mine) for quantity in MEANS},
        "tokens_per_s_per_gpu": mean(m.tokens_per_s for m in mine) / num_gpus,
        "gpu_hours": mean(m.total_s for m in mine) * num_gpus / 3600,
        "staleness_mean_versions": mean(staleness),
        "generating_share": mean(m.rollout_shares[0] for m in mine),
        "training_share": mean(m.trainer_shares[0] for m in mine),
    }


@lru_cache(maxsize=1024)
def _trace_hash(name: str, kind: type[Trace]) -> str:
    """A sweep takes its traces as they are when it first meets them."""
    return load_named(name, kind).content_hash()
