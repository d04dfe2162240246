"""Run: a scenario in, a report out. Same scenario, same seed: the same bytes."""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, Queue
from threading import Event

import numpy as np
from scipy.special import stdtrit

from simulator.config import AcceptanceConfig, FullyAsyncPolicy, MeasuredConfig, Scenario
from simulator.explain import STAGES, Counterfactual, waterfall
from simulator.inputs import (
    BASELINE,
    Inputs,
    make_noise,
    make_parts,
    make_workload,
    resolve,
    unbounded_staleness,
)
from simulator.metrics import Outcome, measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.provenance import check_origins, input_origins
from simulator.workload import Workload
from traces.report import (
    ArmReport,
    Interval,
    MeasuredComparison,
    RolloutTime,
    RunReport,
    StalenessBin,
    StepPoint,
    TrainerTime,
)

MODEL_VERSION = "1"
"""Changes whenever the same scenario gets another answer."""

MAX_THREADS = 8
"""Replications run at a time; each holds the workload of a whole run."""

COVERAGE = 0.9
"""Share of runs that an interval holds."""

MAX_TRUNCATED_FRACTION = 0.2
"""Share of responses cut at the longest length above which the run warns."""

LIVELOCK_USEFUL_FRACTION, LIVELOCK_RESTARTS = 0.5, 10
"""Useful over generated tokens below, and restarts of one sample above, which a run counts as a live-lock."""

MODEL_ERROR = "one replication gives no interval; raise run.replications"


@dataclass(frozen=True, slots=True)
class _Replication:
    """What all arms did with one draw of workload and input errors."""

    outcomes: dict[str, Outcome]
    stages: dict[str, dict[str, float]]
    """Arm -> counterfactual -> seconds per step."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Results:
    """Outcomes of all replications, by arm."""

    outcomes: dict[str, list[Outcome]]
    stages: dict[str, dict[str, list[float]]]
    warnings: tuple[str, ...]


def simulate(scenario: Scenario, *, progress: Callable[[float], None] | None = None) -> RunReport:
    """Predict what the scenario asks.

    Replications run in threads, as many as there are cores (the kernels do not hold the interpreter's lock); the
    answer does not depend on how many.

    Args:
        scenario: The question.
        progress: Called with the share of the work that is done, 0..1, always from the calling thread.

    Raises:
        ScenarioError: The scenario cannot be run as written; one line.
        TraceError: A trace it names is missing or broken.
    """
    check_origins(scenario)
    inputs = resolve(scenario)
    total = scenario.run.replications * (1 + len(scenario.arms))
    ticks: Queue[None] = Queue()
    stop = Event()
    executor = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
    try:
        futures = [executor.submit(_replicate, inputs, i, ticks, stop) for i in range(scenario.run.replications)]
        for done in range(1, total + 1):
            if not _wait_for_tick(ticks, futures):
                break
            if progress is not None:
                progress(done / total)
        replications = [future.result() for future in futures]
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
    return _report(inputs, _gather(inputs, replications))


def _wait_for_tick(ticks: Queue[None], futures: Sequence[Future[_Replication]]) -> bool:
    """Return True when one more arm is done, False when nothing more will come because a replication failed."""
    while True:
        try:
            ticks.get(timeout=0.1)
            return True
        except Empty:
            if any(future.done() and future.exception() is not None for future in futures):
                return False


def _replicate(inputs: Inputs, replication: int, ticks: Queue[None], stop: Event) -> _Replication:
    """Run every arm, and its counterfactuals, once; give up between two runs when told to stop."""
    scenario = inputs.scenario
    workload, noise = make_workload(inputs, replication), make_noise(inputs, replication)
    result = _Replication({}, {}, ())
    warnings = _workload_warnings(workload)
    parts_of: dict[str, Parts] = {}
    for name in (BASELINE, *scenario.arms):  # all of them first: what one arm lacks is said before another is run
        parts_of[name], said = make_parts(inputs, name, workload, noise, replication)
        warnings.extend(said)
    for name, parts in parts_of.items():
        result.outcomes[name] = measure(run_cluster(parts), parts, scenario.warmup_steps)
        counterfactual = Counterfactual(result.outcomes[BASELINE].max_batch, unbounded_staleness(inputs))
        result.stages[name] = {}
        for stage in STAGES:
            if stop.is_set():
                raise CancelledError
            staged = counterfactual.apply(stage, parts)
            result.stages[name][stage] = measure(run_cluster(staged), staged, scenario.warmup_steps).step_s
        ticks.put(None)
    return replace(result, warnings=tuple(warnings))


def _gather(inputs: Inputs, done: Sequence[_Replication]) -> _Results:
    names = (BASELINE, *inputs.scenario.arms)
    warnings: dict[str, str] = {}
    for warning in itertools.chain.from_iterable(replication.warnings for replication in done):
        warnings.setdefault(re.sub(r"\d+ %|\d{4,}", "#", warning), warning)  # the same fact about another draw
    return _Results(
        {name: [replication.outcomes[name] for replication in done] for name in names},
        {name: {stage: [r.stages[name][stage] for r in done] for stage in STAGES} for name in names},
        tuple(warnings.values()),
    )


def _report(inputs: Inputs, results: _Results) -> RunReport:
    scenario = inputs.scenario
    cluster = scenario.cluster
    colocated = scenario.policy.kind == "synchronous"
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
        num_gpus=cluster.num_rollout_gpus if colocated else cluster.num_rollout_gpus + cluster.num_train_gpus,
        baseline=_arm_report(inputs, results, BASELINE),
        arms=arms,
        measured=tuple(_compare(row, results) for row in scenario.measured),
        provenance=evidence.origins,
        warnings=results.warnings + evidence.warnings + tuple(_run_warnings(inputs, results)),
    )


def _arm_report(inputs: Inputs, results: _Results, name: str) -> ArmReport:
    scenario = inputs.scenario
    arm = inputs.arm(name)
    mine, base = results.outcomes[name], results.outcomes[BASELINE]
    num_gpus = scenario.cluster.num_rollout_gpus
    if scenario.policy.kind != "synchronous":
        num_gpus += scenario.cluster.num_train_gpus
    rollout = _ratio([b.rollout_s for b in base], [m.rollout_s for m in mine])
    end_to_end = [b.step_s / m.step_s for b, m in zip(base, mine, strict=True)]
    stages = {
        stage: [b / m for b, m in zip(results.stages[BASELINE][stage], results.stages[name][stage], strict=True)]
        for stage in STAGES
    }
    share = _mean(outcome.rollout_share for outcome in base)
    return ArmReport(
        num_draft_tokens=arm.k,
        recipe=_recipe(arm.acceptance),
        end_to_end_speedup=interval(end_to_end),
        rollout_speedup=rollout,
        trajectory_speedup=_ratio([b.trajectory_s for b in base], [m.trajectory_s for m in mine]),
        accept_length=_geometric(outcome.accept_length for outcome in mine),
        step_s=_mean(outcome.step_s for outcome in mine),
        rollout_s=_mean(outcome.rollout_s for outcome in mine),
        trajectory_s=_mean(outcome.trajectory_s for outcome in mine),
        train_s=_mean(outcome.train_s for outcome in mine),
        weight_sync_s=_mean(outcome.weight_sync_s for outcome in mine),
        exposed_generation_s=_mean(outcome.exposed_generation_s for outcome in mine),
        tokens_per_s_per_gpu=_mean(outcome.tokens_per_s for outcome in mine) / num_gpus,
        gpu_hours=_mean(outcome.total_s for outcome in mine) * num_gpus / 3600,
        rollout_time=RolloutTime(**_shares(RolloutTime, [outcome.rollout_shares for outcome in mine])),
        trainer_time=TrainerTime(**_shares(TrainerTime, [outcome.trainer_shares for outcome in mine])),
        staleness=_staleness([outcome.staleness for outcome in mine]),
        amdahl_bound=1.0 / (share / rollout.mean + 1.0 - share),
        num_preemptions=_mean(float(outcome.preemptions) for outcome in mine),
        wasted_tokens_fraction=_mean(outcome.wasted_fraction for outcome in mine),
        waterfall=()
        if name == BASELINE
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


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _geometric(values: Iterable[float]) -> float:
    return math.exp(_mean(math.log(value) for value in values))


def _shares(
    model: type[RolloutTime] | type[TrainerTime], shares: list[tuple[float, float, float, float]]
) -> dict[str, float]:
    names = list(model.model_fields)
    return {name: min(max(_mean([row[i] for row in shares]), 0.0), 1.0) for i, name in enumerate(names)}


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


def _compare(row: MeasuredConfig, results: _Results) -> MeasuredComparison:
    base = [getattr(outcome, row.quantity) for outcome in results.outcomes[BASELINE]]
    mine = [getattr(outcome, row.quantity) for outcome in results.outcomes[row.arm]]
    predicted = None if row.quantity == "accept_length" else _ratio(base, mine)
    measured = row.speedup
    if measured is None and row.baseline is not None and row.with_spec is not None:
        measured = row.baseline / row.with_spec
    if measured is not None and predicted is not None:
        error = predicted.mean / measured - 1
    else:
        assert row.with_spec is not None
        error = _mean(mine) / row.with_spec - 1
    return MeasuredComparison(
        arm=row.arm,
        quantity=row.quantity,
        measured_baseline=row.baseline,
        measured_arm=row.with_spec,
        measured_speedup=measured,
        predicted_baseline=_mean(base),
        predicted_arm=_mean(mine),
        predicted_speedup=predicted,
        relative_error=error,
        source=row.source,
    )


def _workload_warnings(workload: Workload) -> list[str]:
    share = workload.truncated_fraction or 0.0
    if share <= MAX_TRUNCATED_FRACTION:
        return []
    return [
        f"workload.response_tokens: {100 * share:.0f} % of responses are cut at the longest length, above "
        f"{100 * MAX_TRUNCATED_FRACTION:.0f} %, so most groups wait for the cut and not for their own tail; compare it "
        "with the share that the run itself cuts, or raise the longest length"
    ]


def _run_warnings(inputs: Inputs, results: _Results) -> list[str]:
    scenario = inputs.scenario
    warnings = []
    if scenario.run.replications == 1:
        warnings.append(f"run.replications: {MODEL_ERROR}")
    if not any(scenario.uncertainty.model_dump().values()):
        warnings.append(
            "uncertainty: none stated, so intervals show only how much runs differ, not how wrong the inputs may be"
        )
    late = {
        name: _mean(outcome.staleness[scenario.max_staleness + 1 :].sum() for outcome in outcomes)
        for name, outcomes in results.outcomes.items()
    }
    if max(late.values()) > 0.001:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in late.items())
        warnings.append(
            f"policy: groups trained on at a staleness above {scenario.max_staleness}: {shares}; admission "
            "bounds what starts, stragglers finish later"
        )
    warnings += _livelock_warnings(results)
    dropped = {name: _mean(float(outcome.num_dropped) for outcome in mine) for name, mine in results.outcomes.items()}
    if max(dropped.values()) > 0:
        counts = ", ".join(f"{name} {count:.0f}" for name, count in dropped.items())
        warnings.append(
            f"policy: finished groups dropped per run, older than {scenario.max_staleness} when fetched: {counts}; "
            "their tokens are counted as wasted"
        )
    preempted = {
        name: _mean(float(outcome.preemptions) for outcome in outcomes) for name, outcomes in results.outcomes.items()
    }
    if max(preempted.values()) > 0:
        counts = ", ".join(f"{name} {count:.0f}" for name, count in preempted.items())
        warnings.append(
            f"engine: the KV cache overflows; preemptions per run, each prefilled again: {counts}; lower "
            "engine.max_running_seqs or add GPUs"
        )
    return warnings


def _livelock_warnings(results: _Results) -> list[str]:
    """Say which arms begin the same sequences again and again, and how much of their tokens is of use."""
    stuck = {}
    for name, outcomes in results.outcomes.items():
        useful = _mean(outcome.useful_fraction for outcome in outcomes)
        most = max(outcome.max_restarts for outcome in outcomes)
        if useful < LIVELOCK_USEFUL_FRACTION or most > LIVELOCK_RESTARTS:
            stuck[name] = f"{name} {100 * useful:.0f} % of tokens useful, one sample restarted {most} times"
    if not stuck:
        return []
    return [
        f"policy: live-lock: {'; '.join(stuck.values())}; sync less often (policy.fetches_per_sync) or resume "
        '(policy.in_flight = "abort_resume")'
    ]


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
