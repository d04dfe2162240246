"""Measured numbers that compare set-ups of a scenario: what is run for them, and how they are refused."""

from pathlib import Path

import pytest

from simulator.config import MeasuredConfig, Scenario
from simulator.errors import ScenarioError
from simulator.run import simulate
from simulator.scenario_file import load_scenario
from simulator.setups import compared_setups, under_setup
from tests.simulator import made_up
from traces.report import MeasuredComparison

SETUPS = """setups={
    slow={"trainer.constant_s"=9.0},
    split={policy={kind="one_step_off"}},
    same={"run.seed"=0},
    broken={"policy.kind"="one_step_off"},
    lost={"arms.spec.k"=2}
}""".replace("\n", " ")


def asked(tmp_path: Path, *rows: str) -> Scenario:
    return made_up.scenario(tmp_path, SETUPS, f"measured=[{', '.join(rows)}]")


def compared(scenario: Scenario) -> list[MeasuredComparison]:
    return list(simulate(scenario).measured)


def test_a_setup_answers_as_the_scenario_with_its_settings_does(tmp_path: Path) -> None:
    row = '{setup=["slow", "split"], baseline_setup=["slow"], quantity="step_s", baseline=2, with_setup=1, source="x"}'
    (shown,) = compared(asked(tmp_path, row))
    slow = simulate(made_up.scenario(tmp_path, "trainer.constant_s=9.0")).baseline
    split = simulate(made_up.scenario(tmp_path, "trainer.constant_s=9.0", 'policy={kind="one_step_off"}')).baseline
    assert (shown.predicted_baseline, shown.predicted_arm) == (slow.step_s, split.step_s)
    assert shown.predicted_speedup is not None
    assert shown.predicted_speedup.mean == pytest.approx(slow.step_s / split.step_s, rel=0.01)
    assert shown.relative_error == pytest.approx(shown.predicted_speedup.mean / 2 - 1)
    assert (shown.arm, shown.baseline_setup) == ("slow + split", "slow")


def test_a_setup_that_changes_nothing_is_exactly_as_fast(tmp_path: Path) -> None:
    (shown,) = compared(asked(tmp_path, '{setup=["same"], quantity="step_s", speedup=1.25, source="x"}'))
    assert shown.predicted_speedup is not None
    assert (shown.predicted_speedup.low, shown.predicted_speedup.high) == (1.0, 1.0)
    assert (shown.baseline_setup, shown.relative_error) == ("as it stands", 1 / 1.25 - 1)


def test_a_number_without_one_to_compare_with_is_held_against_itself(tmp_path: Path) -> None:
    (shown,) = compared(asked(tmp_path, '{setup=["slow"], quantity="train_s", with_setup=4, source="x"}'))
    assert (shown.predicted_speedup, shown.predicted_baseline, shown.baseline_setup) == (None, None, None)
    assert shown.relative_error == pytest.approx(shown.predicted_arm / 4 - 1)


def test_a_setup_is_run_once_and_only_if_a_row_needs_it(tmp_path: Path) -> None:
    rows = ['{setup=["slow"], quantity="step_s", with_setup=1, source="x"}'] * 2
    scenario = asked(
        tmp_path, *rows, '{setup=["split"], baseline_setup=["slow"], quantity="step_s", speedup=2, source="x"}'
    )
    assert compared_setups(scenario) == [("slow",), ("split",)]
    shares: list[float] = []
    simulate(scenario, progress=shares.append, with_waterfall=False)
    assert shares == [done / 8 for done in range(1, 9)]  # 2 replications x (baseline, one arm, two set-ups)
    assert compared_setups(asked(tmp_path)) == []


def test_answers_do_not_depend_on_which_rows_there_are(tmp_path: Path) -> None:
    with_rows = simulate(asked(tmp_path, '{setup=["slow"], quantity="step_s", with_setup=1, source="x"}'))
    without = simulate(made_up.scenario(tmp_path))
    assert (with_rows.baseline, with_rows.arms) == (without.baseline, without.arms)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{quantity="step_s", with_setup=1, source="x"}', "arm and setup: neither stated"),
        ('{arm="spec", setup=["slow"], quantity="step_s", with_setup=1, source="x"}', "arm and setup: both stated"),
        ('{setup=["slow"], quantity="step_s", with_spec=1, source="x"}', "with_spec: 1 in a row of the other kind"),
        ('{arm="spec", quantity="step_s", with_setup=1, source="x"}', "with_setup: 1 in a row of the other kind"),
        ('{arm="spec", baseline_setup=["slow"], quantity="step_s", speedup=1, source="x"}', "remove it or state setup"),
        ('{setup=["slow"], quantity="step_s", source="x"}', "speedup and with_setup: both missing"),
        ('{setup=["fast"], quantity="step_s", with_setup=1, source="x"}', "'fast' is not one of setups"),
    ],
)
def test_a_row_that_states_no_comparison_is_refused(row: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        asked(tmp_path, row)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("broken", "^setups broken: policy.*switch_s"),
        ("lost", "^setups.lost: 'arms.spec.k' is no field that a set-up changes"),
    ],
)
def test_settings_that_make_no_scenario_are_refused_in_one_line(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        under_setup(asked(tmp_path), (name,))


@pytest.mark.parametrize("name", ["verl-one-step-off", "verl-require-batches"])
def test_published_set_ups_are_sourced_field_by_field(name: str) -> None:
    answered = simulate(load_scenario(name, ["run.replications=1", "run.num_steps=5"]))
    assert len(answered.measured) >= 5
    unsourced = ("the scenario gives no source", "the default")
    assert not [row.name for row in answered.provenance if row.source in unsourced]


def test_a_row_of_an_arm_reads_as_before() -> None:
    row = MeasuredConfig(arm="spec", quantity="step_s", with_spec=3.0, source="x")
    assert (row.value, row.setup, row.baseline_setup) == (3.0, None, ())
