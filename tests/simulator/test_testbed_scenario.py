"""A config and a profile of a testbed become a scenario, and its answer is laid beside runs."""

import json
from pathlib import Path

import pytest

from simulator.compare.comparison import compare
from simulator.compare.sides import measured_side, predicted_side
from simulator.errors import ComparisonError, ScenarioError
from simulator.latency import Need, TraceLatency
from simulator.run import simulate
from simulator.testbed_rows import Round, as_json, row_of
from simulator.testbed_scenario import ARM, scenario_of
from tests import made_up_testbed as made_up
from traces.latency import LatencyTrace
from traces.report import RunReport
from traces.store import load_trace

DECODED = 39
"""Tokens of a response but the first, which its prefill emits."""


def predicted(folder: Path, **changes: object) -> RunReport:
    profile = made_up.write_profile(folder)
    return simulate(scenario_of(made_up.config(**changes), profile, folder), with_waterfall=False)


def phase_s(folder: Path, *, file: str = "latency-alone.json") -> float:
    """Seconds of a plain generation phase: one prefill of all, then a step for each token."""
    latency = TraceLatency(load_trace(folder / file, LatencyTrace))
    table, _ = latency.step_table(Need("plain", 0, 8, 64, 1e9))
    return float(table.prefill_s[0] + DECODED * table.step_s[8, 0])


def exact(folder: Path, **changes: object) -> RunReport:
    """Predict with inputs as stated."""
    profile = made_up.write_profile(folder)
    scenario = scenario_of(made_up.config(**changes), profile, folder)
    return simulate(scenario.model_copy(update={"uncertainty": type(scenario.uncertainty)()}), with_waterfall=False)


def test_a_synchronous_step_is_a_phase_and_training_and_sync(tmp_path: Path) -> None:
    report = exact(tmp_path)
    trainer_s = made_up.TRAIN_S + made_up.HAND_OVER_S + made_up.SYNC_S
    assert report.baseline.step_s == pytest.approx(phase_s(tmp_path) + trainer_s, rel=1e-6)
    assert report.baseline.rollout_s == pytest.approx(phase_s(tmp_path), rel=1e-6)


def test_one_step_off_takes_the_longer_of_both_at_the_pace_that_the_other_leaves(tmp_path: Path) -> None:
    """Training is the longer: slow while the phase lasts, which is slow too, at its own pace for what is left."""
    report = exact(tmp_path, policy={"kind": "one_step_off"})
    slow_phase_s = phase_s(tmp_path, file="latency-beside.json")
    alone_s = made_up.TRAIN_S + made_up.HAND_OVER_S
    beside_s = made_up.SLOWER * made_up.TRAIN_S + made_up.HAND_OVER_S
    assert slow_phase_s < beside_s
    expected = slow_phase_s + (1 - slow_phase_s / beside_s) * alone_s + made_up.SYNC_S
    assert report.baseline.step_s == pytest.approx(expected, rel=1e-6)


def test_drafts_are_accepted_as_counted(tmp_path: Path) -> None:
    """Less what the last step of a response emits beyond its end."""
    for k in (1, 2, 3):
        found = predicted(tmp_path, k=k).arms[ARM].accept_length
        assert 0.95 * (1 + sum(made_up.RATES[:k])) < found < 1 + sum(made_up.RATES[:k])


def test_a_profile_serves_other_policies_and_draft_lengths_but_no_other_testbed(tmp_path: Path) -> None:
    profile = made_up.write_profile(tmp_path)
    for policy in ({"kind": "one_step_off"}, made_up.fully_async(4, "in_place")):
        scenario_of(made_up.config(policy=policy, k=3, num_steps=9), profile, tmp_path)
    scenario_of(made_up.config(k=0, head_batches=7), profile, tmp_path)
    with pytest.raises(ScenarioError, match="head_batches is 7, but profile made-up was measured with 50"):
        scenario_of(made_up.config(head_batches=7), profile, tmp_path)
    with pytest.raises(ScenarioError, match=r"max_running_seqs is 4, but .*bebop testbed profile"):
        scenario_of(made_up.config(max_running_seqs=4), profile, tmp_path)
    blocks = made_up.config(verify_rule="block")
    with pytest.raises(ScenarioError, match="no rows of block with 2 positions"):
        scenario_of(blocks, profile.model_copy(update={"config": blocks}), tmp_path)


def test_generation_beside_training_needs_a_profile_of_both(tmp_path: Path) -> None:
    profile = made_up.write_profile(tmp_path).model_copy(update={"latency_beside": None, "train_beside": None})
    scenario_of(made_up.config(), profile, tmp_path)
    with pytest.raises(ScenarioError, match="fully_async generates while it trains, but profile made-up"):
        scenario_of(made_up.config(policy=made_up.fully_async()), profile, tmp_path)


def test_forced_acceptance_is_taken_as_forced(tmp_path: Path) -> None:
    forced = made_up.config(engine="llamacpp", head_batches=0, k=2, forced_acceptance=(0.9, 0.7))
    profile = made_up.write_profile(tmp_path, engine="llamacpp", head_batches=0, k=2, forced_acceptance=(0.9, 0.7))
    acceptance = scenario_of(forced, profile, tmp_path).arms[ARM].acceptance
    assert acceptance is not None
    assert acceptance.kind == "fixed"
    assert acceptance.cumulative == (0.9, 0.7)


def test_the_profile_says_how_wrong_it_may_be(tmp_path: Path) -> None:
    profile = made_up.write_profile(tmp_path)
    stated = scenario_of(made_up.config(), profile, tmp_path).uncertainty
    # Of the number A of accepted drafts, E[A] = c_1 + c_2 and E[A^2] = c_1 + 3 c_2.
    variance = (0.8 + 3 * 0.5) - (0.8 + 0.5) ** 2
    assert stated.accept_length == pytest.approx((variance / 10_000) ** 0.5)
    assert stated.trainer == pytest.approx(0.01)
    report = predicted(tmp_path)
    said = report.arms[ARM].end_to_end_speedup
    assert said.low < said.mean < said.high
    assert not [warning for warning in report.warnings if warning.startswith("uncertainty")]


@pytest.mark.parametrize("policy", [{"kind": "synchronous"}, made_up.fully_async()], ids=["synchronous", "async"])
def test_a_run_that_takes_what_is_predicted_has_no_error(policy: dict[str, object], tmp_path: Path) -> None:
    config = made_up.config(policy=policy)
    report = predicted(tmp_path, policy=policy)
    plain_s, arm_s = report.baseline.step_s, report.arms[ARM].step_s
    plain = made_up.measured(config.model_copy(update={"k": 0}), plain_s)
    runs = [made_up.measured(config, arm_s * factor, accept_length=2.0) for factor in (0.9, 1.0, 1.2)]
    row = row_of(config, [Round(report, plain, run) for run in runs])
    assert row.speedup.measured == pytest.approx(plain_s / arm_s)
    assert row.speedup.error == pytest.approx(report.arms[ARM].end_to_end_speedup.mean / (plain_s / arm_s) - 1)
    assert row.noise == pytest.approx((1 / 0.9 - 1 / 1.2) / 2)
    assert row.arm["step_s"].error == pytest.approx(0.0, abs=0.01)
    assert row.plain["accept_length"].measured == 1.0
    answer = json.loads(json.dumps(as_json([row])))
    assert {"name", "measured", "predicted", "error"} <= set(answer["rows"][0])
    assert {"rows", "median_error", "worst_error", "sign_accuracy"} <= set(answer)


def test_a_run_and_its_prediction_are_compared_step_by_step(tmp_path: Path) -> None:
    config = made_up.config()
    report = predicted(tmp_path)
    result = compare(measured_side(made_up.measured(config, 1.0)), predicted_side(report, ARM))
    assert result.num_steps == config.num_steps - config.num_warmup_steps
    assert {term.name for term in result.terms} >= {"exposed_s", "train_s", "sync_s"}


def test_a_row_needs_a_sitting() -> None:
    with pytest.raises(ComparisonError, match="made-up-k2: no profile with runs, with and without drafts"):
        row_of(made_up.config(), [])
