"""What a run is made from: a workload from a file, and the bundled scenarios."""

from pathlib import Path

import pytest

from simulator.run import simulate
from simulator.scenario_file import list_scenarios, load_scenario
from simulator.table import render
from tests.simulator import made_up
from traces.base import Provenance
from traces.store import save_trace
from traces.workload import SequenceRow, Turn, WorkloadTrace


def test_a_workload_trace_is_replayed_and_named(tmp_path: Path) -> None:
    sequences = tuple(
        SequenceRow(rl_step=step, group=group, turns=(Turn(input_tokens=50, output_tokens=100 + 20 * group),))
        for step in range(2)
        for group in range(3)
        for _ in range(2)
    )
    path = tmp_path / "lengths.json"
    provenance = Provenance(source="a log", created="2026-01-01")
    save_trace(WorkloadTrace(name="lengths", provenance=provenance, sequences=sequences), path)
    answered = simulate(made_up.scenario(tmp_path, f'workload={{kind="trace", trace="{path}"}}'))
    (row,) = (row for row in answered.provenance if row.name == "workload.trace")
    assert row.source == "workload trace lengths: a log"
    tokens = answered.baseline.tokens_per_s_per_gpu * 2 * answered.baseline.step_s
    assert tokens == pytest.approx(2 * (100 + 120 + 140))


@pytest.mark.parametrize("name", [name for name, _ in list_scenarios() if load_scenario(name).measured])
def test_a_bundled_scenario_runs_and_shows_what_was_measured(name: str) -> None:
    scenario = load_scenario(name, ["run.num_steps=4", "run.replications=2"])
    answered = simulate(scenario)
    assert len(answered.measured) == len(scenario.measured) >= 2
    shown = render(answered)
    for row, stated in zip(answered.measured, scenario.measured, strict=True):
        assert (row.predicted_speedup is None) == (row.measured_speedup is None)
        assert row.predicted_speedup is not None or stated.setup is not None
        assert (f"{row.measured_arm:g}" if row.measured_speedup is None else f"{row.measured_speedup:.2f}x") in shown
    for arm in answered.arms.values():
        assert 0.8 < arm.end_to_end_speedup.mean < arm.accept_length < 4
        assert arm.end_to_end_speedup.mean <= arm.amdahl_bound * 1.1
    unsaid = {row.name for row in answered.provenance if row.source == "the scenario gives no source"}
    assert not {name for name in unsaid if name.split(".")[0] in ("uncertainty", "trainer", "policy")}
