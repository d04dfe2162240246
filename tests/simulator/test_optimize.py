"""The planner: its answer keeps to its limits, is beaten by nothing it tried, and can be checked by simulating it."""

import pytest

from simulator.break_even import break_even
from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.inputs import Noise
from simulator.optimize import PlanReport, optimize
from simulator.plan_space import ARM, make_space
from simulator.run import simulate
from simulator.scenario_file import load_scenario
from simulator.trial import run_trial
from traces.prices import load_prices

QUICK = ["run.num_steps=8", "workload.prompts_per_step=16", "run.replications=2"]


def scenario(name: str = "areal", *overrides: str) -> Scenario:
    return load_scenario(name, [*QUICK, *overrides])


@pytest.fixture(scope="module")
def report() -> PlanReport:
    return optimize(scenario(), num_plans=32, max_staleness=2, price=load_prices()["H100"])


def test_no_plan_of_the_front_beats_another_in_everything(report: PlanReport) -> None:
    for one in report.front:
        for other in report.front:
            beats = all(a <= b for a, b in zip(one.objectives, other.objectives, strict=True))
            assert one is other or not beats


def test_it_recommends_a_plan_of_the_front_that_is_no_slower_than_today(report: PlanReport) -> None:
    assert report.recommended in report.front
    assert report.recommended.hours.mean <= 1.03 * report.today.hours.mean


def test_plans_keep_to_the_budget_and_the_staleness(report: PlanReport) -> None:
    for scored in report.front:
        plan = scored.plan
        assert plan.num_rollout_gpus + plan.num_train_gpus == plan.num_gpus <= report.max_gpus
        assert plan.num_rollout_gpus % plan.layout.tp_size == 0
        assert plan.max_staleness is not None
        assert plan.max_staleness <= 2
        assert plan.k <= report.counted_drafts


def test_the_recommended_plan_can_be_simulated_to_the_same_speedup(report: PlanReport) -> None:
    asked = scenario()
    space = make_space(asked, report.arm, max_gpus=16, max_staleness=2)
    best = next(scored for scored in report.front if scored.plan.k > 0)
    answer = simulate(space.scenario_of(best.plan)).arms[ARM]
    if best is not report.today:
        assert answer.end_to_end_speedup.mean == pytest.approx(best.speedup.mean)
        assert answer.step_s * 8 / 3600 == pytest.approx(best.hours.mean, rel=0.05)


def test_the_same_seed_gives_the_same_answer(report: PlanReport) -> None:
    again = optimize(scenario(), num_plans=32, max_staleness=2, price=load_prices()["H100"])
    assert again.to_json() == report.to_json()


def test_cost_is_gpu_hours_at_the_price(report: PlanReport) -> None:
    price = load_prices()["H100"]
    for scored in report.front:
        assert scored.usd == pytest.approx(scored.hours.mean * scored.plan.num_gpus * price.usd_per_gpu_hour)
        assert scored.kwh == pytest.approx(scored.hours.mean * scored.plan.num_gpus * price.power_w / 1000)


def test_a_colocated_run_uses_all_its_gpus_for_both_sides() -> None:
    found = optimize(scenario("verl-sync"), num_plans=12)
    assert all(scored.plan.num_rollout_gpus == scored.plan.num_gpus for scored in found.front)
    assert all(scored.plan.max_staleness is None for scored in found.front)


def test_a_small_budget_is_kept_and_one_too_small_is_refused() -> None:
    assert all(s.plan.num_gpus <= 4 for s in optimize(scenario(), max_gpus=4, num_plans=12).front)
    with pytest.raises(ScenarioError, match="none of 8 plans can run; most often because of 1 GPUs are too few"):
        optimize(scenario(), max_gpus=1, num_plans=8)


def test_at_the_break_even_acceptance_drafting_neither_wins_nor_loses() -> None:
    asked = scenario()
    arm = next(iter(asked.arms))
    found = break_even(asked, arm)
    assert found.acceptance is not None
    rates = [found.acceptance**position for position in range(1, asked.arms[arm].k + 1)]
    fixed = 'arms.{}.acceptance={{ kind = "fixed", cumulative = {} }}'
    exact = Noise(accept_length=0.0)
    assert run_trial(scenario("areal", fixed.format(arm, rates)), arm, noise=exact).speedup == pytest.approx(
        1, abs=0.02
    )
    worse = [rate * 0.7 for rate in rates]
    assert run_trial(scenario("areal", fixed.format(arm, worse)), arm, noise=exact).speedup < 1


def test_where_nothing_waits_for_generation_drafting_never_loses() -> None:
    slow = 'trainer={ kind = "linear", constant_s = 10000.0, s_per_token = 0.0 }'
    asked = scenario("areal", slow, "arms.mtp_k3.train_overhead=0.0")
    found = break_even(asked, next(iter(asked.arms)))
    assert found.pays_at_any
    assert found.acceptance is None


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no arm 'mtp'; the arms are "):
        optimize(scenario(), "mtp")


def test_training_the_head_online_is_paid_at_any_acceptance() -> None:
    slow = 'trainer={ kind = "linear", constant_s = 10000.0, s_per_token = 0.0 }'
    found = break_even(scenario("areal", slow, "arms.mtp_k3.train_overhead=0.07"), "mtp_k3")
    assert not found.pays_at_any
    assert found.acceptance is None
