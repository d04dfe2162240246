"""The scenarios named after systems: every number has a source, and each run does what its system does."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.config import FullyAsyncPolicy, Scenario
from simulator.inputs import BASELINE, make_noise, make_parts, make_workload, resolve
from simulator.parts import Parts
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP
from simulator.run import simulate
from simulator.run_log import RunLog
from simulator.scenario_file import load_scenario
from traces.report import RunReport

SYSTEMS = (
    "verl-sync",
    "verl-one-step-off",
    "verl-fully-async",
    "areal",
    "slime-fully-async",
    "nemo-rl-async",
    "skyrl-fully-async",
    "prime-rl",
)
MTP = "mtp_k3"
EVERY_SYSTEM = pytest.mark.parametrize("name", SYSTEMS)


@cache
def short(name: str, *overrides: str) -> Scenario:
    return load_scenario(name, ["run.num_steps=14", "run.replications=2", *overrides])


@cache
def report(name: str, *overrides: str) -> RunReport:
    return simulate(short(name, *overrides))


@cache
def parts_of(name: str, arm: str, *overrides: str) -> Parts:
    inputs = resolve(short(name, *overrides))
    parts, _ = make_parts(inputs, arm, make_workload(inputs, 0), make_noise(inputs, 0), 0)
    return parts


def log_of(name: str, arm: str = MTP, *overrides: str) -> tuple[RunLog, list[tuple[int, int]]]:
    """Return what a run wrote, and (policy version, groups admitted by then) of every admission."""
    run = Run(parts_of(name, arm, *overrides), mode=JUMP)
    admitted: list[tuple[int, int]] = []
    submit = run.side.submit

    def noted(num_groups: int, now_s: float) -> None:
        admitted.append((run.version, num_groups - run.num_dropped))
        submit(num_groups, now_s)

    run.side.submit = noted  # type: ignore[method-assign]
    run.env.run(until=run.env.process(TRAINER_LIFE[run.parts.policy.kind](run)))
    run.clock.stop()
    return run.log, admitted


def staleness(log: RunLog) -> set[int]:
    return {int(age) for step in log.steps for age in np.flatnonzero(step.staleness)}


# ---------------------------------------------------------------- all of them


@EVERY_SYSTEM
def test_a_systems_scenario_gives_a_source_for_every_field_and_answers(name: str) -> None:
    answered = report(name)
    assert answered.scenario == name
    assert answered.question.endswith("?")
    assert not [
        row.name for row in answered.provenance if row.source in ("the scenario gives no source", "the default")
    ]
    arm = answered.arms[MTP]
    assert 1 < arm.end_to_end_speedup.mean < arm.accept_length < 3.5
    assert arm.end_to_end_speedup.mean <= arm.amdahl_bound * 1.1


@EVERY_SYSTEM
def test_systems_differ_only_in_how_they_couple_rollout_and_trainer(name: str) -> None:
    mine, other = load_scenario(name), load_scenario("areal")
    for part in ("model", "engine", "workload", "latency", "arms", "uncertainty", "run"):
        assert getattr(mine, part) == getattr(other, part)
    assert mine.trainer.model_dump(exclude={"log_prob_pass"}) == other.trainer.model_dump(exclude={"log_prob_pass"})
    cluster, is_split = mine.cluster, mine.policy.kind != "synchronous"
    assert cluster.num_rollout_gpus + (cluster.num_train_gpus if is_split else 0) == 16


def test_a_system_that_takes_the_log_probs_of_inference_trains_a_quarter_less() -> None:
    # 6 N operations per token without the pass, 8 N with it; the constant stays.
    with_pass, without = parts_of("areal", BASELINE).trainer, parts_of("prime-rl", BASELINE).trainer
    assert without.s_per_token / with_pass.s_per_token == pytest.approx(6 / 8)
    assert without.constant_s == with_pass.constant_s


# ---------------------------------------------------------------- each as its system


@pytest.mark.parametrize(("name", "exactly"), [("verl-sync", 0), ("verl-one-step-off", 1)])
def test_verls_whole_batches_have_one_staleness(name: str, exactly: int) -> None:
    log, admitted = log_of(name)
    assert staleness(log) == ({0} if exactly == 0 else {0, 1})  # the first batch finds no older policy
    assert {int(age) for step in log.steps[1:] for age in np.flatnonzero(step.staleness)} == {exactly}
    assert [groups for _, groups in admitted] == [64 * (i + 1) for i in range(len(admitted))]
    assert log.steps[-1].totals.recomputed_tokens == 0


def test_verls_fully_async_rollouter_runs_a_tenth_of_a_sync_period_ahead() -> None:
    scenario = short("verl-fully-async")
    assert isinstance(scenario.policy, FullyAsyncPolicy)
    assert scenario.policy.groups_per_sync(64) == 64
    log, admitted = log_of("verl-fully-async")
    assert admitted == [(version, int(64 * (version + 1.1))) for version in range(len(admitted))]
    assert staleness(log) == {0, 1}
    assert log.steps[-1].totals.recomputed_tokens > 0


@pytest.mark.parametrize(("name", "eta"), [("areal", 2), ("skyrl-fully-async", 4), ("nemo-rl-async", 1)])
def test_admission_by_version_never_exceeds_its_rule(name: str, eta: int) -> None:
    _, admitted = log_of(name)
    assert admitted[0] == (0, (eta + 1) * 64)
    assert all(groups <= (eta + version + 1) * 64 for version, groups in admitted)
    assert all(after[1] - before[1] == 64 for before, after in pairwise(admitted))


def test_prime_rl_never_trains_on_groups_older_than_its_bound() -> None:
    log, _ = log_of("prime-rl")
    assert max(staleness(log)) <= 8
    log, _ = log_of("prime-rl", MTP, "policy.max_staleness=1")
    assert max(staleness(log)) == 1
    assert log.steps[-1].num_dropped > 0
    kept, _ = log_of("prime-rl", MTP, "policy.max_staleness=1", "policy.overdue=keep")
    assert max(staleness(kept)) > 1


def test_skyrl_keeps_what_is_too_old_and_says_so() -> None:
    answered = report("skyrl-fully-async", "policy.max_staleness=1")
    assert max(share.versions for share in answered.arms[MTP].staleness) > 1
    assert any("groups trained on at a staleness above 1" in warning for warning in answered.warnings)


def test_nemo_rl_waits_for_what_is_in_flight_and_is_never_older_than_its_age() -> None:
    log, _ = log_of("nemo-rl-async")
    assert max(staleness(log)) <= 1
    assert log.steps[-1].totals.recomputed_tokens == 0
    assert sum(step.drain_s for step in log.steps) > 0
    in_place, _ = log_of("nemo-rl-async", MTP, "policy.in_flight=in_place")
    assert in_place.steps[-1].end_s < log.steps[-1].end_s


@pytest.mark.parametrize("name", ["verl-fully-async", "areal", "slime-fully-async"])
def test_systems_that_abort_and_resume_read_everything_again(name: str) -> None:
    log, _ = log_of(name, BASELINE)
    assert log.steps[-1].totals.recomputed_tokens > 0
    assert report(name).baseline.wasted_tokens_fraction > 0


@pytest.mark.parametrize("name", ["skyrl-fully-async", "prime-rl"])
def test_systems_that_keep_stale_kv_compute_nothing_again(name: str) -> None:
    log, _ = log_of(name, BASELINE)
    assert log.steps[-1].totals.preemptions == 0
    assert log.steps[-1].totals.recomputed_tokens == 0


def test_slime_without_resumption_wastes_tokens_and_is_slower() -> None:
    resumed, restarted = report("slime-fully-async"), report("slime-fully-async", "policy.in_flight=restart")
    assert restarted.baseline.wasted_tokens_fraction > resumed.baseline.wasted_tokens_fraction
    assert restarted.baseline.step_s > 1.5 * resumed.baseline.step_s
    assert any("live-lock" in warning for warning in restarted.warnings)
    seldom = report("slime-fully-async", "policy.in_flight=restart", "policy.fetches_per_sync=2", "run.num_steps=28")
    assert seldom.baseline.step_s < restarted.baseline.step_s


# ---------------------------------------------------------------- against each other


@pytest.mark.parametrize("name", SYSTEMS[2:])
def test_fully_asynchronous_systems_are_not_slower_than_the_synchronous_one_on_as_many_gpus(name: str) -> None:
    mine, synchronous = report(name), report("verl-sync")
    assert mine.num_gpus == synchronous.num_gpus == 16
    assert mine.baseline.step_s < 1.02 * synchronous.baseline.step_s
    assert mine.arms[MTP].step_s < 1.02 * synchronous.arms[MTP].step_s


def test_a_longer_lead_leaves_less_waiting_for_the_longest_response() -> None:
    steps_s = [report(name).baseline.step_s for name in ("verl-one-step-off", "verl-fully-async", "areal", "prime-rl")]
    assert steps_s == sorted(steps_s, reverse=True)
