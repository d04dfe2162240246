"""Failures of the trainer: what they cost in closed form, and what they leave alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.config import ConstantLength, FailuresConfig, OneStepOffPolicy, PolicyConfig, SynchronousPolicy
from simulator.errors import InvariantError, ScenarioError
from simulator.failures import TrainerFailures, trainer_failures
from simulator.inputs import make_noise, make_parts, make_workload, resolve
from simulator.invariants import check_run
from simulator.metrics import measure
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rng import stream_key
from simulator.rollout_state import JUMP, PER_STEP
from simulator.run import simulate
from simulator.run_log import RunLog
from tests.simulator import made_up
from tests.simulator.small_parts import SPREAD, Small, fully_async
from traces.report import RunReport

POLICIES: dict[str, PolicyConfig] = {
    "synchronous": SynchronousPolicy(),
    "one_step_off": OneStepOffPolicy(),
    "fully_async": fully_async(1),
    "no staleness": fully_async(0),
    "drop": fully_async(1, "in_place", overdue="drop"),
    "wait": fully_async(2, "wait"),
    "restart": fully_async(1, "restart"),
    "pieces": fully_async(1, fetch_groups=2, fetches_per_sync=1),
    "seldom": fully_async(1, fetches_per_sync=3),
}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])


def failing(mtbf_s: float, restart_s: float = 3.0, every: int = 1, seed: int = 0) -> TrainerFailures:
    return TrainerFailures(mtbf_s, restart_s, every, stream_key("test", seed))


def log_of(small: Small, failures: TrainerFailures | None, mode: int = JUMP) -> RunLog:
    return run_cluster(replace(small.parts(), failures=failures), mode=mode)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("name", ["synchronous", "one_step_off", "fully_async"])
@pytest.mark.parametrize(("every", "mtbf_s"), [(1, 10.0), (5, 25.0)])
def test_a_step_takes_as_long_as_theory_says(name: str, every: int, mtbf_s: float) -> None:
    """Work of length w that begins again at each failure takes E = (exp(w / M) - 1) (M + R).

    M = mean time between failures, R = restart. E solves E = w p + (1 - p) (A + R + E) with p = exp(-w / M), the chance
    of no failure, and A the mean time of a failure that comes before w: (1 - p) A = M (1 - p) - w p.
    """
    train_s, restart_s, num_steps = 2.0, 3.0, 6000
    nothing = ConstantLength(value=1)
    small = Small(POLICIES[name], nothing, 1, 1, 1, 1, num_steps, 1e-9, 1e-9, train_s=train_s, sync_s=0.0)
    log = log_of(small, failing(mtbf_s, restart_s, every))
    work_s = every * train_s
    expected = (math.exp(work_s / mtbf_s) - 1) * (mtbf_s + restart_s) / every
    assert log.steps[-1].end_s / num_steps == pytest.approx(expected, rel=0.04)
    down_s = sum(step.down_s for step in log.steps)
    assert down_s == pytest.approx(log.num_failures * restart_s)
    assert log.num_failures == pytest.approx((log.steps[-1].end_s - down_s) / mtbf_s, rel=0.06)
    lost_s = sum(step.lost_s for step in log.steps)
    assert lost_s + down_s + num_steps * train_s == pytest.approx(log.steps[-1].end_s, rel=1e-6)
    assert (log.num_lost_steps == 0) == (every == 1)


def test_one_failure_by_hand() -> None:
    """Steps of 2 s, a checkpoint every second one, a failure after 7 s of work: 1.0 s of step 3 and no more is lost."""
    small = Small(fully_async(4), ConstantLength(value=1), 1, 1, 1, 1, 4, 1e-9, 1e-9, train_s=2.0, sync_s=0.0)
    once = Once(7.0, 5.0, 2, np.uint64(0))
    log = log_of(small, once)
    assert [step.end_s for step in log.steps] == pytest.approx([2.0, 4.0, 14.0, 16.0], abs=1e-6)
    assert [step.lost_s for step in log.steps] == pytest.approx([0.0, 0.0, 3.0, 0.0], abs=1e-6)
    assert [step.down_s for step in log.steps] == [0.0, 0.0, 5.0, 0.0]
    assert (log.num_failures, log.num_lost_steps, log.num_lost_groups) == (1, 1, 2)


class Once(TrainerFailures):
    """Fails once, after `mtbf_s` seconds."""

    def gap_s(self, number: int) -> float:
        return self.mtbf_s if number == 0 else math.inf


# ---------------------------------------------------------------- laws


@each_policy
@each_mode
@pytest.mark.parametrize("every", [1, 3])
def test_every_run_adds_up_however_often_the_trainer_fails(policy: PolicyConfig, every: int, mode: int) -> None:
    small = Small(policy, SPREAD, num_steps=9, train_s=0.4, sync_s=0.1)
    failed = 0
    for seed in range(6):
        log = log_of(small, failing(4.0 * every, 0.7, every, seed), mode)  # the invariants are checked inside
        assert len(log.steps) == 9
        failed += log.num_failures
        assert log.num_lost_groups >= log.num_lost_steps * small.prompts_per_step
    assert failed > 3


@each_policy
@each_mode
def test_a_trainer_that_never_fails_in_time_changes_nothing(policy: PolicyConfig, mode: int) -> None:
    small = Small(policy, SPREAD, num_steps=8, train_s=0.4, sync_s=0.1)
    never, seldom = log_of(small, None, mode), log_of(small, failing(1e12), mode)
    assert (seldom.num_failures, seldom.num_lost_steps) == (0, 0)
    for plain, checked in zip(never.steps, seldom.steps, strict=True):
        assert np.array_equal(plain.staleness, checked.staleness)
        assert replace(plain, staleness=checked.staleness) == checked


def test_engines_go_on_while_the_trainer_is_down() -> None:
    small = Small(SynchronousPolicy(), train_s=2.0, sync_s=0.0)
    plain, failed = log_of(small, None), log_of(small, Once(0.4, 0.3, 1, np.uint64(0)))
    # 0.85 s of generation go on through a failure at 0.4 s that is over at 0.7 s.
    assert failed.steps[0].end_s == pytest.approx(plain.steps[0].end_s)
    assert failed.steps[0].lost_s == pytest.approx(0.4)
    assert failed.num_lost_groups == 0


def test_lost_work_is_in_the_report_and_its_shares_add_up(tmp_path: Path) -> None:
    plain = made_up.scenario(tmp_path, "run.num_steps=12")
    failures = "failures={trainer_mtbf_s=25.0, trainer_restart_s=1.5, checkpoint_every_steps=2}"
    answered, without = simulate(made_up.scenario(tmp_path, "run.num_steps=12", failures)), simulate(plain)
    for arm, intact in ((answered.baseline, without.baseline), (answered.arms["spec"], without.arms["spec"])):
        shares = arm.trainer_time.model_dump()
        assert math.fsum(shares.values()) == pytest.approx(1.0)
        assert shares["lost"] > 0
        assert shares["down"] > 0
        assert arm.lost.trainer_failures > 0
        assert arm.step_s > intact.step_s
        assert arm.wasted_tokens_fraction > intact.wasted_tokens_fraction
    assert isinstance(answered, RunReport)


def test_all_arms_meet_the_same_failures_and_each_replication_its_own(tmp_path: Path) -> None:
    failures = "failures={trainer_mtbf_s=50.0, trainer_restart_s=1.5, checkpoint_every_steps=2}"
    inputs = resolve(made_up.scenario(tmp_path, failures))
    met = [
        make_parts(inputs, arm, make_workload(inputs, i), make_noise(inputs, i), i)[0].failures
        for arm, i in (("baseline", 0), ("spec", 0), ("spec", 1))
    ]
    assert met[0] == met[1] != met[2]
    assert met[0] is not None
    gaps = [met[0].gap_s(i) for i in range(20_000)]
    assert np.mean(gaps) == pytest.approx(50.0, rel=0.03)
    assert np.std(gaps) == pytest.approx(50.0, rel=0.03)
    assert trainer_failures(FailuresConfig(), 0) is None


def test_a_trainer_that_gets_nowhere_is_refused_in_one_line(tmp_path: Path) -> None:
    failures = "failures={trainer_mtbf_s=0.5, trainer_restart_s=1, checkpoint_every_steps=1}"
    with pytest.raises(
        ScenarioError, match=r"^failures.trainer_mtbf_s: 0.5 s; after \d+ failures .* used up; raise it"
    ):
        simulate(made_up.scenario(tmp_path, failures, "trainer.constant_s=9"))


@pytest.mark.parametrize("missing", ["trainer_restart_s", "checkpoint_every_steps"])
def test_a_failing_trainer_states_what_a_failure_costs(missing: str, tmp_path: Path) -> None:
    stated = {"trainer_mtbf_s": 5.0, "trainer_restart_s": 1.0, "checkpoint_every_steps": 1}
    del stated[missing]
    table = ", ".join(f"{name}={value}" for name, value in stated.items())
    with pytest.raises(ScenarioError, match=f"failures.*{missing}: missing, though the trainer fails every 5 s"):
        made_up.scenario(tmp_path, f"failures={{{table}}}")


def test_a_group_lost_without_a_failure_is_found() -> None:
    run = Run(replace(Small(SynchronousPolicy()).parts(), failures=failing(6.0)))
    run.env.run(until=run.env.process(TRAINER_LIFE["synchronous"](run)))
    run.log.num_lost_groups += 1
    with pytest.raises(
        InvariantError, match=r"^samples: \d+ groups taken, but 24 trained on in 6 RL steps and \d+ lost"
    ):
        check_run(run.parts, run.side, run.log, num_published=run.num_published, num_taken=run.num_taken, num_dropped=0)


def test_time_lost_to_failures_is_part_of_the_step() -> None:
    small = Small(SynchronousPolicy(), num_steps=30)
    parts = replace(small.parts(), failures=failing(12.0))
    outcome = measure(run_cluster(parts), parts, 0)
    assert math.fsum(outcome.trainer_shares + outcome.failure_shares) == pytest.approx(1.0)
    assert outcome.train_s == pytest.approx(small.train_s)
    assert outcome.step_s > small.outcome().step_s
