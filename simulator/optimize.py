"""Optimize: how to split so many GPUs, and which draft length, schedule, batch, staleness and sync interval to choose.

Several objectives at once: time of the whole run, its cost, and the mean staleness of what it trains on, whose effect
on learning nobody can predict. Optuna's sampler (TPE for several objectives: Ozaki et al., GECCO 2020) proposes; a plan
that one short run shows to be far behind another in everything is dropped, the rest get more replications. Every plan
meets the same random numbers. Same scenario, same seed: the same answer, on any number of cores.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from statistics import fmean
from typing import Any

import numpy as np

from simulator.break_even import BreakEven, break_even
from simulator.config import Scenario
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.inputs import BASELINE, Inputs, resolve
from simulator.metrics import Outcome
from simulator.plan_space import ARM, NEVER_OFF, Layout, Plan, Space, make_space
from simulator.report import interval
from simulator.trial import outcome_of
from traces.prices import Price
from traces.report import Interval

BATCH = 8
"""Plans proposed at a time; they run side by side."""
SHORT_STEPS = 12
"""RL steps after the warm-up of a first look."""
FAR_BEHIND = 1.1
"""A plan this many times worse in every objective than another needs no second look."""
TIE = 1.03
"""Plans whose run time differs by less are taken as equally fast."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A plan and what it comes to."""

    plan: Plan
    hours: Interval
    """Of the whole run, warm-up as the rest."""
    usd: float | None
    """Rent of all its GPUs for that time; None: no price for this GPU."""
    kwh: float | None
    """At the GPUs' full power."""
    staleness_versions: float
    speedup: Interval
    """Over plain decoding with everything else as in the plan."""
    accept_length: float

    @property
    def objectives(self) -> tuple[float, float, float]:
        """Hours, GPU hours, staleness."""
        return self.hours.mean, self.hours.mean * self.plan.num_gpus, self.staleness_versions


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The answer."""

    scenario: str
    arm: str
    max_gpus: int
    max_staleness: int
    counted_drafts: int
    """Largest k at which the arm's acceptance was counted; beyond it, it is extrapolated."""
    num_plans: int
    """Tried."""
    num_infeasible: int
    num_pruned: int
    """Dropped after one short run."""
    why_infeasible: dict[str, int]
    """Field that did not fit -> how often."""
    front: tuple[Scored, ...]
    """Plans that no other beats in time, cost and staleness at once; the fastest first."""
    recommended: Scored
    reason: str
    today: Scored
    """The scenario as it stands, with its arm."""
    break_even: BreakEven | None
    """Of the recommended plan; None where it does not draft."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self), default=lambda value: value.model_dump())


@dataclass(frozen=True, slots=True)
class _Look:
    """What the search knows of a plan."""

    plan: Plan
    hours: float
    staleness: float

    @property
    def objectives(self) -> tuple[float, float, float]:
        return self.hours, self.hours * self.plan.num_gpus, self.staleness


def optimize(
    scenario: Scenario,
    arm: str | None = None,
    *,
    max_gpus: int | None = None,
    max_staleness: int = 8,
    max_draft_tokens: int | None = None,
    num_plans: int = 160,
    price: Price | None = None,
    progress: Callable[[float], None] | None = None,
) -> PlanReport:
    """Search, and score the front with all replications of the scenario.

    Args:
        scenario: Model, workload, policy, costs; its cluster and engine are what is searched.
        arm: Arm whose acceptance the plans draft with; None takes the first that drafts.
        max_gpus: Budget; None: as many as the scenario has.
        max_staleness: Largest staleness that is acceptable.
        max_draft_tokens: Largest k; None: the largest at which the arm's acceptance was counted.
        num_plans: How many plans to try.
        price: Of the scenario's GPU; None leaves out money.
        progress: Called with the share of the work that is done.

    Raises:
        ScenarioError: No such arm, or no plan can run.
    """
    arm = arm or next((name for name, each in scenario.arms.items() if each.k > 0), next(iter(scenario.arms)))
    if arm not in scenario.arms:
        raise ScenarioError(f"no arm {arm!r}; the arms are {', '.join(scenario.arms)}")
    now = _plan_of(scenario, arm)
    space = make_space(
        scenario, arm, max_gpus=max_gpus or now.num_gpus, max_staleness=max_staleness, max_draft_tokens=max_draft_tokens
    )
    search = _Search(space, scenario.run.seed, progress or (lambda _: None))
    search.run(num_plans)
    if not search.looks:
        most = max(search.why, key=lambda name: search.why[name], default="")
        raise ScenarioError(f"none of {num_plans} plans can run; most often because of {most or 'the GPU budget'}")
    front = [
        _score(resolve(space.scenario_of(look.plan)), _arm_of(look.plan), look.plan, price)
        for look in _front(search.looks)
    ]
    today = _score(resolve(scenario), arm, now, price)
    if now.num_gpus <= space.max_gpus and (now.max_staleness or 0) <= max_staleness:
        front.append(today)
    front = _undominated(front)
    recommended, reason = _recommend(front)
    return PlanReport(
        scenario=scenario.name,
        arm=arm,
        max_gpus=space.max_gpus,
        max_staleness=max_staleness,
        counted_drafts=space.counted_drafts,
        num_plans=num_plans,
        num_infeasible=sum(search.why.values()),
        num_pruned=search.num_pruned,
        why_infeasible=dict(sorted(search.why.items(), key=lambda item: -item[1])),
        front=tuple(front),
        recommended=recommended,
        reason=reason,
        today=today,
        break_even=break_even(space.scenario_of(recommended.plan), ARM) if recommended.plan.k > 0 else None,
    )


class _Search:
    """The looks taken so far."""

    def __init__(self, space: Space, seed: int, progress: Callable[[float], None]) -> None:
        self._space, self._seed, self._progress = space, seed, progress
        self.looks: dict[Plan, _Look] = {}
        self.why: dict[str, int] = {}
        self.num_pruned = 0

    def run(self, num_plans: int) -> None:
        """Ask for plans in batches, look at each, tell the sampler."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=self._seed, multivariate=True, constant_liar=True)
        study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
        choices = self._space.choices()
        study.enqueue_trial(self._space.nearest(choices))
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, BATCH)) as executor:
            for first in range(0, num_plans, BATCH):
                trials = [study.ask() for _ in range(min(BATCH, num_plans - first))]
                chosen = [
                    {name: trial.suggest_categorical(name, values) for name, values in choices.items()}
                    for trial in trials
                ]
                found = list(executor.map(self._look, chosen, repeat(tuple(self.looks.values()))))
                for trial, result in zip(trials, found, strict=True):
                    self._tell(study, trial, result)
                self._progress(min(first + BATCH, num_plans) / num_plans)

    def _tell(self, study: Any, trial: Any, result: "_Look | str | None") -> None:
        from optuna.trial import TrialState

        if isinstance(result, _Look):
            self.looks[result.plan] = result
            study.tell(trial, result.objectives)
        elif result is None:
            self.num_pruned += 1
            study.tell(trial, state=TrialState.PRUNED)
        else:
            self.why[result] = self.why.get(result, 0) + 1
            study.tell(trial, state=TrialState.FAIL)

    def _look(self, chosen: dict[str, Any], known: Sequence[_Look]) -> "_Look | str | None":
        """Return what a plan comes to; None: far behind; a field's name: it cannot run."""
        try:
            plan = self._space.plan(chosen)
            if plan in self.looks:
                return self.looks[plan]
            first = _look_at(self._space, plan, replications=1)
            if any(_is_far_behind(first, other) for other in known):
                return None
            return _look_at(self._space, plan, replications=3)
        except (ScenarioError, TraceCoverageError) as error:
            return str(error).split(":")[0].removeprefix(f"{self._space.scenario.name}: ")[:80]


def _look_at(space: Space, plan: Plan, *, replications: int) -> _Look:
    """Run a plan for a few steps beyond its warm-up."""
    planned = space.scenario_of(plan)
    steps = min(planned.warmup_steps + SHORT_STEPS, planned.run.num_steps)
    inputs = resolve(space.scenario_of(plan, num_steps=steps))
    outcomes = [outcome_of(inputs, _arm_of(plan), replication=i) for i in range(replications)]
    hours = fmean(outcome.step_s for outcome in outcomes) * planned.run.num_steps / 3600
    return _Look(plan, hours, fmean(_staleness(outcome) for outcome in outcomes))


def _plan_of(scenario: Scenario, arm: str) -> Plan:
    """Return what a scenario has already chosen."""
    cluster, policy = scenario.cluster, scenario.policy
    is_colocated = policy.kind == "synchronous"
    return Plan(
        num_gpus=cluster.num_rollout_gpus + (0 if is_colocated else cluster.num_train_gpus),
        num_rollout_gpus=cluster.num_rollout_gpus,
        layout=Layout(cluster.tp_size, cluster.ep_size, None),
        k=scenario.arms[arm].k,
        off_above=NEVER_OFF,
        max_running_seqs=scenario.engine.max_running_seqs,
        max_staleness=policy.versions_ahead if policy.kind == "fully_async" else None,
        fetches_per_sync=policy.fetches_per_sync if policy.kind == "fully_async" else None,
    )


def _score(inputs: Inputs, arm: str, plan: Plan, price: Price | None) -> Scored:
    """Run an arm, and plain decoding beside it, as often as the scenario says."""
    scenario = inputs.scenario
    count = range(scenario.run.replications)
    mine = [outcome_of(inputs, arm, replication=i) for i in count]
    plain = mine if plan.k == 0 else [outcome_of(inputs, BASELINE, replication=i) for i in count]
    hours = interval([outcome.step_s * scenario.run.num_steps / 3600 for outcome in mine])
    gpu_hours = hours.mean * plan.num_gpus
    return Scored(
        plan=plan,
        hours=hours,
        usd=gpu_hours * price.usd_per_gpu_hour if price else None,
        kwh=gpu_hours * price.power_w / 1000 if price else None,
        staleness_versions=fmean(_staleness(outcome) for outcome in mine),
        speedup=interval([base.step_s / outcome.step_s for base, outcome in zip(plain, mine, strict=True)]),
        accept_length=fmean(outcome.accept_length for outcome in mine),
    )


def _arm_of(plan: Plan) -> str:
    return ARM if plan.k > 0 else BASELINE


def _staleness(outcome: Outcome) -> float:
    return float(outcome.staleness @ np.arange(len(outcome.staleness)))


def _is_far_behind(look: _Look, other: _Look) -> bool:
    pairs = zip(look.objectives, other.objectives, strict=True)
    return all(mine >= FAR_BEHIND * its for mine, its in pairs)


def _front(looks: dict[Plan, _Look]) -> list[_Look]:
    found = list(looks.values())
    return [look for look in found if not any(_dominates(other.objectives, look.objectives) for other in found)]


def _undominated(scored: Sequence[Scored]) -> list[Scored]:
    """Return the plans that no other beats, the fastest first; of several that hardly differ in anything, one."""
    front: list[Scored] = []
    for each in sorted(scored, key=lambda scored: scored.objectives):
        others = [other.objectives for other in scored]
        if any(_dominates(other, each.objectives) for other in others):
            continue
        if not any(_is_near(kept.objectives, each.objectives) for kept in front):
            front.append(each)
    return front


def _is_near(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= (TIE - 1) * max(a, b, 1.0) for a, b in zip(one, other, strict=True))


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _recommend(front: Sequence[Scored]) -> tuple[Scored, str]:
    """Return the least stale of the plans that are about as fast as the fastest."""
    fastest = min(front, key=lambda scored: scored.hours.mean)
    near = [scored for scored in front if scored.hours.mean <= TIE * fastest.hours.mean]
    best = min(near, key=lambda scored: (scored.staleness_versions, scored.objectives))
    if best is fastest:
        return best, "the fastest"
    return best, f"as fast as the fastest within {TIE - 1:.0%}, and less stale"
