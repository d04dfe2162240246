from functools import cache

import pytest

from simulator.calibration import Calibration, calibrate
from simulator.forecast import ForecastError
from simulator.provenance import check_origins
from simulator.run import simulate
from simulator.scenario_file import parse_fields, parse_scenario
from tests.simulator.calibration.runs import TRUE, believed, log_of, truth
from tests.simulator.forecast.logs import run_of
from traces.base import Origin
from traces.measured import Speculation


@cache
def calibrated(seed: int = 3) -> Calibration:
    run = log_of(truth("engine.efficiency=0.6", "engine.layer_overhead_s=1e-4"), seed=seed)
    return calibrate(run, believed(), "believed.toml", "made-up.log")


@pytest.mark.parametrize("path", TRUE)
def test_a_log_of_the_simulator_gives_back_what_it_was_written_with(path: str) -> None:
    found = [next(value for value in calibrated(seed).values if value.path == path) for seed in range(5)]
    assert all(value.is_told for value in found)
    assert sum(value.low <= TRUE[path] <= value.high for value in found) >= 4
    assert all(value.high / value.low < (2.5 if path == "engine.efficiency" else 1.2) for value in found)


def test_the_host_gap_comes_back_within_its_interval() -> None:
    value = next(value for value in calibrated().values if value.path == "engine.layer_overhead_s")
    assert value.is_told
    assert value.low <= 1e-4 <= value.high


def test_what_the_log_tells_only_together_is_said() -> None:
    value = next(value for value in calibrated().values if value.path == "engine.efficiency")
    assert "correlation" in value.why


def test_the_length_tail_comes_back() -> None:
    lengths = calibrated().scenario.workload.response_tokens  # type: ignore[union-attr]
    assert lengths.kind == "lognormal"
    assert lengths.sigma == pytest.approx(0.9, abs=0.1)
    assert calibrated().scenario.workload.length_drift is not None  # type: ignore[union-attr]


def test_the_calibrated_step_is_the_logged_one() -> None:
    match = calibrated().match
    assert match is not None
    assert match.low_s <= match.logged_s <= match.high_s
    assert match.high_s / match.low_s < 1.5
    assert match.predicted_s == pytest.approx(match.logged_s, rel=0.06)


def test_only_what_is_open_changes() -> None:
    before, after = parse_fields(believed(), "believed.toml"), calibrated().scenario
    changed = {
        "trainer": None,
        "weight_sync": None,
        "workload": after.workload.model_copy(
            update={
                "response_tokens": before.workload.response_tokens,  # type: ignore[union-attr]
                "length_drift": before.workload.length_drift,  # type: ignore[union-attr]
            }
        ),
        "engine": after.engine.model_copy(update={"efficiency": None, "layer_overhead_s": 0.0}),
    }
    assert changed["workload"] == before.workload
    assert changed["engine"] == before.engine
    for name in type(before).model_fields:
        if name not in (*changed, "origins"):
            assert getattr(after, name) == getattr(before, name), name


def test_every_fitted_field_says_where_it_comes_from_and_the_file_simulates() -> None:
    scenario = parse_scenario(calibrated().toml("made-up.log"), "new.toml")
    check_origins(scenario)
    for path in (*TRUE, "workload.response_tokens"):
        assert scenario.origins[path].origin is Origin.MODELLED
        assert scenario.origins[path].source.startswith("fitted to made-up.log")
    report = simulate(scenario.model_copy(update={"run": scenario.run.model_copy(update={"replications": 1})}))
    match = calibrated().match
    assert match is not None
    assert match.low_s / 1.1 < report.baseline.step_s < match.high_s * 1.1


def test_a_run_that_decoded_with_drafts_is_replayed_with_drafts() -> None:
    run = log_of(truth("engine.efficiency=0.6"), arm="mtp_k3", noise=0.01)
    counts = Speculation(per_position=(0.886, 0.770, 0.663))
    run = run_of([step.model_copy(update={"speculation": counts}) for step in run.steps], run.setup)
    value = next(v for v in calibrate(run, believed(), "b", "l").values if v.path == "engine.efficiency")
    assert value.low <= 0.6 <= value.high


ASYNC = ("policy={kind='fully_async', max_staleness=1, in_flight='abort_resume'}",)


def test_an_asynchronous_run_that_waits_for_samples_tells_its_engine_as_a_whole() -> None:
    run = log_of(truth("engine.efficiency=0.5", *ASYNC), noise=0.01)
    done = calibrate(run, believed(*ASYNC), "believed.toml", "made-up.log")
    value = next(value for value in done.values if value.path == "engine.efficiency")
    assert value.low <= 0.5 <= value.high
    assert done.match is not None
    assert done.match.low_s <= done.match.logged_s <= done.match.high_s


def test_an_asynchronous_run_bound_by_its_trainer_does_not_tell_the_engine() -> None:
    slow = "trainer={kind='linear', constant_s=3.0, s_per_token=600e-6, log_prob_s_per_token=12e-6}"
    done = calibrate(log_of(truth(slow, *ASYNC), noise=0.01), believed(*ASYNC), "believed.toml", "made-up.log")
    value = next(value for value in done.values if value.path == "engine.efficiency")
    assert value.verdict == "not told"
    assert "wait" in value.why
    assert done.scenario.engine.efficiency is None


def test_a_log_without_weight_syncs_leaves_the_stated_ones_and_says_so() -> None:
    run = log_of(truth())
    steps = [step.model_copy(update={"sync_s": None, "train_s": None}) for step in run.steps]
    done = calibrate(run_of(steps, run.setup), believed(), "believed.toml", "made-up.log")
    assert done.scenario.weight_sync.seconds == 30.0  # type: ignore[union-attr]
    assert next(value for value in done.values if value.path == "weight_sync.seconds").verdict == "not told"
    assert any("no training seconds" in note for note in done.notes)
    assert done.scenario.trainer.kind == "mfu"


def test_another_batch_than_the_logged_one_is_refused() -> None:
    with pytest.raises(ForecastError, match="state the batch of the logged run"):
        calibrate(log_of(truth()), believed("workload.prompts_per_step=64"), "believed.toml", "made-up.log")


def test_another_policy_than_the_logged_one_is_refused() -> None:
    with pytest.raises(ForecastError, match="alternate in made-up; state the policy"):
        calibrate(log_of(truth()), believed(*ASYNC), "believed.toml", "made-up.log")


def test_two_steps_are_too_few() -> None:
    run = log_of(truth())
    with pytest.raises(ForecastError, match="2 usable steps"):
        calibrate(run_of(list(run.steps[:2]), run.setup), believed(), "believed.toml", "made-up.log")
