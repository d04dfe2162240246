"""Plan: one way to lay a scenario out on so many GPUs, and the space of those that are worth a look.

Does not know which is good (`optimize`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.config import MAX_DRAFT_TOKENS, Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import parse_fields
from traces.acceptance import AcceptanceTrace
from traces.latency import LatencyTrace, Operation
from traces.store import list_traces, load_named

ARM = "plan"
"""Name of the one arm that a plan's scenario has."""
BATCHES = (8, 16, 32, 64, 128, 256, 512, 1024)
STALENESS = (0, 1, 2, 4, 8, 16)
PERIODS = (1, 2, 4)
NEVER_OFF = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Parallel layout of a rollout replica, and the latency trace that has it."""

    tp_size: int
    ep_size: int
    trace: str | None
    """None: the scenario's own latency source."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices."""

    num_gpus: int
    """Of both sides together; a colocated run has them once."""
    num_rollout_gpus: int
    layout: Layout
    k: int
    off_above: int
    """Live batch above which nothing is drafted (a schedule of k by batch); 0: always k."""
    max_running_seqs: int
    max_staleness: int | None
    """None: the policy has none."""
    fetches_per_sync: int | None
    """Fetches of the trainer between weight syncs; None: the policy syncs at every step."""

    @property
    def num_train_gpus(self) -> int:
        """GPUs that train; of a colocated run the same ones."""
        return self.num_gpus - self.num_rollout_gpus if self.num_rollout_gpus < self.num_gpus else self.num_gpus

    def words(self) -> str:
        """Return the plan in a line."""
        split = (
            f"{self.num_rollout_gpus} + {self.num_train_gpus} GPUs"
            if self.num_rollout_gpus < self.num_gpus
            else f"{self.num_gpus} GPUs"
        )
        parts = [split, f"tp {self.layout.tp_size}", f"batch {self.max_running_seqs}", f"k = {self.k}"]
        if self.layout.ep_size > 1:
            parts.insert(2, f"ep {self.layout.ep_size}")
        if self.off_above:
            parts[-1] += f" up to batch {self.off_above}"
        if self.max_staleness is not None:
            parts.append(f"staleness {self.max_staleness}")
        if self.fetches_per_sync is not None and self.fetches_per_sync > 1:
            parts.append(f"sync every {self.fetches_per_sync} fetches")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Space:
    """What may be chosen for a scenario, within limits."""

    scenario: Scenario
    arm: str
    """Arm whose acceptance the plans draft with."""
    max_gpus: int
    max_staleness: int
    layouts: tuple[Layout, ...]
    counted_drafts: int
    """Largest k at which the arm's acceptance was counted."""
    most_drafts: int

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Return name -> values, in the order in which a search asks for them."""
        policy = self.scenario.policy
        totals = sorted({max(self.max_gpus * part // 4, 1) for part in (1, 2, 3, 4)})
        found: dict[str, tuple[Any, ...]] = {
            "num_gpus": tuple(totals),
            "layout": tuple(range(len(self.layouts))),
            "k": tuple(range(self.most_drafts + 1)),
            "off_above": (NEVER_OFF, *(batch for batch in BATCHES if batch <= 256)),
            "max_running_seqs": BATCHES,
        }
        if policy.kind != "synchronous":
            found["rollout_eighths"] = tuple(range(1, 8))
        if policy.kind == "fully_async":
            found["max_staleness"] = tuple(each for each in STALENESS if each <= self.max_staleness)
            if policy.fetch_groups is not None or policy.fetches_per_sync is not None:
                found["fetches_per_sync"] = tuple(sorted({*PERIODS, policy.fetches_per_sync or 1}))
        return found

    def nearest(self, choices: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Return the choice that is nearest to the scenario as it stands, to begin the search with."""
        cluster, policy = self.scenario.cluster, self.scenario.policy
        total = cluster.num_rollout_gpus + (0 if policy.kind == "synchronous" else cluster.num_train_gpus)
        own = {
            "num_gpus": total,
            "layout": 0,
            "k": self.scenario.arms[self.arm].k,
            "off_above": NEVER_OFF,
            "max_running_seqs": self.scenario.engine.max_running_seqs,
            "rollout_eighths": 8 * cluster.num_rollout_gpus / total,
            "max_staleness": self.scenario.max_staleness,
            "fetches_per_sync": getattr(policy, "fetches_per_sync", None) or 1,
        }
        return {name: min(values, key=lambda value: abs(value - own[name])) for name, values in choices.items()}

    def plan(self, chosen: Mapping[str, Any]) -> Plan:
        """Return the plan that these values stand for; a split is rounded to whole replicas.

        Raises:
            ScenarioError: Too few GPUs for one replica and one trainer.
        """
        layout = self.layouts[chosen["layout"]]
        total, tp = chosen["num_gpus"], layout.tp_size
        if self.scenario.policy.kind == "synchronous":
            total -= total % tp
            rollout = total
        else:
            rollout = max(round(total * chosen["rollout_eighths"] / 8 / tp), 1) * tp
            while rollout >= total:
                rollout -= tp
        if rollout < tp:
            raise ScenarioError(f"{total} GPUs are too few for a replica of {tp} and a trainer")
        k, batch = chosen["k"], chosen["max_running_seqs"]
        off_above = chosen["off_above"] if k > 0 and chosen["off_above"] < batch else NEVER_OFF
        return Plan(
            num_gpus=total,
            num_rollout_gpus=rollout,
            layout=layout,
            k=k,
            off_above=off_above,
            max_running_seqs=batch,
            max_staleness=chosen.get("max_staleness"),
            fetches_per_sync=chosen.get("fetches_per_sync"),
        )

    def scenario_of(self, plan: Plan, **run: int) -> Scenario:
        """Return the scenario under a plan, with one arm; `run` replaces fields of its `run`.

        Raises:
            ScenarioError: The parts do not fit.
        """
        content = self.scenario.model_dump(mode="json")
        content["cluster"] |= {
            "num_rollout_gpus": plan.num_rollout_gpus,
            "num_train_gpus": plan.num_train_gpus,
            "tp_size": plan.layout.tp_size,
            "ep_size": plan.layout.ep_size,
        }
        content["engine"]["max_running_seqs"] = plan.max_running_seqs
        live = content["engine"].get("max_live_trajectories")
        if live is not None:
            content["engine"]["max_live_trajectories"] = max(live, plan.max_running_seqs)
        if plan.max_staleness is not None:
            content["policy"] |= {"max_staleness": plan.max_staleness, "staleness_fraction": None}
        if plan.fetches_per_sync is not None:
            content["policy"]["fetches_per_sync"] = plan.fetches_per_sync
        if plan.layout.trace is not None:
            content["latency"]["trace"] = plan.layout.trace
        content["arms"] = {ARM: self._arm(plan)}
        content["measured"], content["setups"], content["origins"] = [], {}, {}
        content["run"] |= {"warmup_steps": None, **run}
        return parse_fields(content, self.scenario.name)

    def _arm(self, plan: Plan) -> dict[str, Any]:
        arm: dict[str, Any] = self.scenario.arms[self.arm].model_dump(mode="json")
        if plan.k == 0:
            return {"k": 0}
        arm |= {"k": plan.k, "draft_length": None}
        if plan.off_above:
            rows = [
                [1, plan.off_above, plan.k],
                [plan.off_above + 1, max(plan.max_running_seqs, plan.off_above + 1), 0],
            ]
            arm["draft_length"] = {"kind": "by_batch", "table": rows}
        return arm


def make_space(
    scenario: Scenario, arm: str, *, max_gpus: int, max_staleness: int, max_draft_tokens: int | None = None
) -> Space:
    """Return what may be chosen.

    Draft lengths are those at which acceptance was counted and verify was timed, unless `max_draft_tokens` asks for
    more; layouts are those that shipped latency traces of this model and GPU have.

    Raises:
        ScenarioError: The arm does not draft.
    """
    acceptance = scenario.arms[arm].acceptance
    if acceptance is None:
        raise ScenarioError(f"arms.{arm}: plain decoding has no acceptance to draft with; choose another arm")
    if acceptance.kind == "fixed":
        counted = len(acceptance.cumulative)
    else:
        trace = load_named(acceptance.trace, AcceptanceTrace)
        counted = min([len(row.cumulative) for row in trace.rows] + [law.num_draft_tokens for law in trace.laws])
    most = counted if acceptance.kind == "fixed" else max_draft_tokens or counted
    if scenario.latency.kind == "trace":
        rows = load_named(scenario.latency.trace, LatencyTrace).rows
        most = min(most, max((row.tokens_per_seq for row in rows if row.operation is Operation.VERIFY), default=1) - 1)
    return Space(scenario, arm, max_gpus, max_staleness, _layouts(scenario), counted, min(most, MAX_DRAFT_TOKENS))


def _layouts(scenario: Scenario) -> tuple[Layout, ...]:
    cluster = scenario.cluster
    own = Layout(cluster.tp_size, cluster.ep_size, None)
    if scenario.latency.kind == "roofline":
        sizes = {own.tp_size, *(size for size in (1, 2, 4, 8) if cluster.ep_size == 1)}
        return (own, *(Layout(size, own.ep_size, None) for size in sorted(sizes) if size != own.tp_size))
    mine = load_named(scenario.latency.trace, LatencyTrace)
    found = {(own.tp_size, own.ep_size): own}
    for entry in list_traces("latency"):
        if mine.model.lower() not in entry.name:  # a name says its model; others need not be read
            continue
        other = load_named(entry.name, LatencyTrace)
        if (other.model, other.gpu, other.precision, other.engine) == (
            mine.model,
            mine.gpu,
            mine.precision,
            mine.engine,
        ):
            for layout in sorted({(row.tp_size, row.ep_size) for row in other.rows}):
                found.setdefault(layout, Layout(*layout, entry.name))
    return tuple(found.values())
