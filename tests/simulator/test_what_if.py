import pytest

from simulator.errors import ScenarioError
from simulator.inputs import Noise
from simulator.scenario_file import load_scenario, with_fields
from simulator.trial import run_trial
from simulator.what_if import Knob, drafts_by_batch, speedup_map

QUICK = ["run.num_steps=5", "run.warmup_steps=1", "workload.prompts_per_step=8"]


def test_a_cell_is_the_trial_with_its_values() -> None:
    scenario = load_scenario("areal", QUICK)
    arm = next(iter(scenario.arms))
    across = Knob("engine.max_running_seqs", "batch", (16, 32))
    found = speedup_map(scenario, arm, across, Knob(f"arms.{arm}.k", "k", (1, 3)))
    changed = with_fields(scenario, [("engine.max_running_seqs", 32), (f"arms.{arm}.k", 1)])
    assert found.speedups[0][1] == run_trial(changed, arm, noise=Noise(accept_length=0.0)).speedup
    assert [len(row) for row in found.speedups] == [2, 2]


def test_a_cell_that_cannot_run_is_empty_and_counted() -> None:
    scenario = load_scenario("areal", QUICK)
    arm = next(iter(scenario.arms))
    found = speedup_map(
        scenario, arm, Knob("engine.max_running_seqs", "batch", (16, 9000)), Knob("run.seed", "s", (0,))
    )
    assert found.speedups[0][1] is None
    assert found.why_not == {"engine.max_running_seqs": 1}


def test_the_usual_knobs_hold_the_scenario_as_it_stands() -> None:
    scenario = load_scenario("bebop-reasoning")
    across, up = drafts_by_batch(scenario, "to")
    assert scenario.engine.max_running_seqs in across.values
    assert scenario.arms["to"].k in up.values


def test_too_many_cells_are_refused() -> None:
    many = Knob("run.seed", "s", tuple(range(21)))
    with pytest.raises(ScenarioError, match="441 cells are above the limit of 400"):
        speedup_map(load_scenario("areal", QUICK), "mtp_k3", many, many)
