"""Report: the results of all replications as a RunReport. Does not run anything."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from simulator.config import AcceptanceConfig, FullyAsyncPolicy, MeasuredConfig, Scenario
from simulator.explain import geometric_mean, waterfall
from simulator.inputs import BASELINE, Inputs
from simulator.metrics import Outcome
from simulator.provenance import input_origins
from simulator.results import Results, mean
from simulator.run_warnings import run_warnings
from simulator.setups import in_words
from traces.report import (
    ArmReport,
    Interval,
    LostWork,
    MeasuredComparison,
    RolloutTime,
    RunReport,
    StalenessBin,
    StepPoint,
    TrainerTime,
)

MODEL_VERSION = "2"
"""Changes whenever the same scenario gets another answer."""

COVERAGE = 0.9
"""Share of runs that an interval holds."""


def build_report(inputs: Inputs, results: Results) -> RunReport:
    """Return the answer."""
    scenario = inputs.scenario
    cluster = scenario.cluster
    evidence = input_origins(inputs)
    arms = {name: _arm_report(inputs, results, name) for name in scenario.arms}
    return RunReport(
        scenario=scenario.name,
        question=scenario.question,
        scenario_hash=inputs.content_hash(),
        model_version=MODEL_VERSION,
        seed=scenario.run.seed,
        replications=scenario.run.replications,
        num_steps=scenario.run.num_steps,
        warmup_steps=scenario.warmup_steps,
        policy=_policy_in_words(scenario),
        num_rollout_gpus=cluster.num_rollout_gpus,
        num_train_gpus=cluster.num_train_gpus,
        num_gpus=_num_gpus(scenario),
        baseline=_arm_report(inputs, results, BASELINE),
        arms=arms,
        measured=tuple(_compare(row, results) for row in scenario.measured),
        provenance=evidence.origins,
        warnings=results.warnings + evidence.warnings + tuple(run_warnings(scenario, results)),
    )


def _arm_report(inputs: Inputs, results: Results, name: str) -> ArmReport:
    scenario = inputs.scenario
    arm = inputs.arm(name)
    mine, base = results.outcomes[name], results.outcomes[BASELINE]
    num_gpus = _num_gpus(scenario)
    rollout = _ratio([b.rollout_s for b in base], [m.rollout_s for m in mine])
    end_to_end = [b.step_s / m.step_s for b, m in zip(base, mine, strict=True)]
    stages = {
        stage: [b / m for b, m in zip(results.stages[BASELINE][stage], results.stages[name][stage], strict=True)]
        for stage in results.stages[name]
    }
    share = mean(outcome.rollout_share for outcome in base)
    return ArmReport(
        num_draft_tokens=arm.k,
        recipe=_recipe(arm.acceptance),
        end_to_end_speedup=interval(end_to_end),
        rollout_speedup=rollout,
        trajectory_speedup=_ratio([b.trajectory_s for b in base], [m.trajectory_s for m in mine]),
        accept_length=geometric_mean(outcome.accept_length for outcome in mine),
        step_s=mean(outcome.step_s for outcome in mine),
        rollout_s=mean(outcome.rollout_s for outcome in mine),
        trajectory_s=mean(outcome.trajectory_s for outcome in mine),
        train_s=mean(outcome.train_s for outcome in mine),
        weight_sync_s=mean(outcome.weight_sync_s for outcome in mine),
        exposed_generation_s=mean(outcome.exposed_generation_s for outcome in mine),
        tokens_per_s_per_gpu=mean(outcome.tokens_per_s for outcome in mine) / num_gpus,
        gpu_hours=mean(outcome.total_s for outcome in mine) * num_gpus / 3600,
        rollout_time=RolloutTime(**_shares(RolloutTime, [outcome.rollout_shares for outcome in mine])),
        trainer_time=TrainerTime(
            **_shares(TrainerTime, [outcome.trainer_shares + outcome.failure_shares for outcome in mine])
        ),
        staleness=_staleness([outcome.staleness for outcome in mine]),
        amdahl_bound=1.0 / (share / rollout.mean + 1.0 - share),
        num_preemptions=mean(float(outcome.preemptions) for outcome in mine),
        wasted_tokens_fraction=mean(outcome.wasted_fraction for outcome in mine),
        lost=_lost_work([outcome.lost for outcome in mine]),
        waterfall=()
        if name == BASELINE or not stages
        else tuple(waterfall([outcome.accept_length for outcome in mine], stages, end_to_end)),
        by_step=_by_step(inputs, mine, base),
    )


def interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean and the range that holds 90 % of runs, from paired replications.

    A prediction interval of one more run, Student's t on the logarithms: inputs differ between replications as the
    scenario's `uncertainty` says, so more replications do not make it narrower than the inputs are uncertain.
    """
    logs = np.log(ratios)
    n = len(logs)
    mean = math.fsum(logs) / n
    if n == 1:
        return Interval(mean=math.exp(mean), low=math.exp(mean), high=math.exp(mean))
    deviation = math.sqrt(math.fsum((logs - mean) ** 2) / (n - 1) * (1 + 1 / n))
    reach = float(stdtrit(n - 1, 0.5 + COVERAGE / 2)) * deviation
    return Interval(mean=math.exp(mean), low=math.exp(mean - reach), high=math.exp(mean + reach))


def _ratio(base: Sequence[float], mine: Sequence[float]) -> Interval:
    return interval([b / m for b, m in zip(base, mine, strict=True)])


def _shares(model: type[RolloutTime] | type[TrainerTime], shares: Sequence[tuple[float, ...]]) -> dict[str, float]:
    names = list(model.model_fields)
    return {name: min(max(mean([row[i] for row in shares]), 0.0), 1.0) for i, name in enumerate(names)}


def _lost_work(lost: Sequence[LostWork]) -> LostWork:
    """Return the means over replications; of counts the largest."""
    rows = [row.model_dump() for row in lost]
    return LostWork(
        **{
            name: max(row[name] for row in rows) if name == "max_restarts" else mean(row[name] for row in rows)
            for name in LostWork.model_fields
        }
    )


def _staleness(histograms: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> tuple[StalenessBin, ...]:
    widest = max(map(len, histograms))
    shares = np.mean([np.pad(histogram, (0, widest - len(histogram))) for histogram in histograms], axis=0)
    return tuple(StalenessBin(versions=i, fraction=float(share)) for i, share in enumerate(shares) if share > 0)


def _by_step(inputs: Inputs, mine: list[Outcome], base: list[Outcome]) -> tuple[StepPoint, ...]:
    seconds = np.mean([outcome.step_series_s for outcome in mine], axis=0)
    plain = np.mean([outcome.step_series_s for outcome in base], axis=0)
    lengths = np.mean([outcome.accept_series for outcome in mine], axis=0)
    return tuple(
        StepPoint(
            rl_step=step,
            entropy_nats=inputs.entropy.at(step),
            accept_length=float(lengths[i]) if np.isfinite(lengths[i]) else None,
            step_s=float(seconds[i]),
            speedup=float(plain[i] / seconds[i]),
            is_warmup=i < inputs.scenario.warmup_steps,
        )
        for i, step in enumerate(inputs.rl_steps)
    )


def _compare(row: MeasuredConfig, results: Results) -> MeasuredComparison:
    base, mine = ([getattr(outcome, row.quantity) for outcome in side] for side in _sides(row, results))
    is_ratio = row.quantity != "accept_length" and (row.setup is None or row.speedup or row.baseline)
    predicted = _ratio(base, mine) if is_ratio else None
    measured = row.speedup
    if measured is None and row.baseline is not None and row.value is not None:
        measured = row.baseline / row.value
    if measured is not None and predicted is not None:
        error = predicted.mean / measured - 1
    else:
        assert row.value is not None
        error = mean(mine) / row.value - 1
    return MeasuredComparison(
        arm=row.arm or in_words(row.setup or ()),
        quantity=row.quantity,
        baseline_setup=in_words(row.baseline_setup) if row.setup is not None and is_ratio else None,
        measured_baseline=row.baseline,
        measured_arm=row.value,
        measured_speedup=measured,
        predicted_baseline=mean(base) if row.setup is None or is_ratio else None,
        predicted_arm=mean(mine),
        predicted_speedup=predicted,
        relative_error=error,
        source=row.source,
    )


def _sides(row: MeasuredConfig, results: Results) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes that a row compares: plain decoding's, and the arm's or the set-up's."""
    plain = results.outcomes[BASELINE]
    if row.arm is not None:
        return plain, results.outcomes[row.arm]
    base, mine = (results.setups[side] if side else plain for side in (row.baseline_setup, row.setup or ()))
    return base, mine


def _num_gpus(scenario: Scenario) -> int:
    """Return the GPUs of both sides; a colocated run has them once."""
    cluster = scenario.cluster
    colocated = scenario.policy.kind == "synchronous"
    return cluster.num_rollout_gpus + (0 if colocated else cluster.num_train_gpus)


def _recipe(acceptance: AcceptanceConfig | None) -> str:
    if acceptance is None:
        return "plain decoding"
    if acceptance.kind == "law":
        return f"law {acceptance.recipe}, fitted on {acceptance.fit}"
    return "fixed rates" if acceptance.kind == "fixed" else f"trace {acceptance.trace}"


def _policy_in_words(scenario: Scenario) -> str:
    policy = scenario.policy
    if policy.kind == "fully_async":
        words = f"fully asynchronous, {_staleness_in_words(policy)}, {policy.in_flight} at weight sync"
        if policy.overdue is not None:
            words += f", {policy.overdue} what is older"
        if policy.order is not None:
            words += f", fetched {policy.order.replace('_', ' ')}"
        if policy.fetch_groups is not None:
            words += f", {policy.fetch_groups} groups per fetch"
        if policy.fetches_per_sync is not None:
            words += f", {policy.fetches_per_sync} fetches per weight sync"
        return words
    return {"synchronous": "synchronous, colocated", "one_step_off": "one step off, split"}[policy.kind]


def _staleness_in_words(policy: FullyAsyncPolicy) -> str:
    """Return the limit, and what it is in the other unit where that is not the same number."""
    if policy.staleness_fraction is None:
        return f"staleness at most {policy.max_staleness}"
    versions = policy.versions_ahead
    return f"staleness at most {policy.staleness_fraction:g} of a sync period (policy versions: {versions})"
