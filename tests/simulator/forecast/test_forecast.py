import json

import numpy as np
import pytest

from simulator.forecast import ForecastError, forecast, forecast_report
from simulator.forecast.steps import logged_steps
from tests.simulator.forecast.logs import EXCERPT, Engine, made_up_run, run_of
from traces.measured import MeasuredRun, MeasuredStep, Quality, Setup
from traces.store import load_trace


def test_a_run_that_obeys_the_laws_is_forecast_within_its_noise() -> None:
    done = forecast(made_up_run(noise=0.02), 0.2)
    assert done.scores["generation"].mape < 0.035
    assert done.scores["train"].mape < 0.025
    assert done.scores["step"].mape < 0.025
    assert done.scores["generation"].mape < done.scores["generation"].linear_length / 2


def test_without_noise_the_passes_are_met_exactly() -> None:
    done = forecast(made_up_run(noise=0.0), 0.2)
    assert done.scores["train"].mape < 0.01
    assert done.scores["sync"].mape < 1e-6


def test_bands_hold_about_as_many_steps_as_they_say() -> None:
    runs = [forecast(made_up_run(40, noise=0.04, growth=1.5, seed=seed), 0.4) for seed in range(12)]
    assert 0.7 < float(np.mean([done.coverage for done in runs])) < 0.95


def test_a_band_widens_with_the_distance_from_what_was_fitted() -> None:
    done = forecast(made_up_run(growth=6.0), 0.2)
    band = done.predictions["generation"]
    width = band.high / band.low
    assert width[-1] > 1.05 * width[~done.is_first][0]


def test_no_time_of_a_later_step_is_read() -> None:
    run = made_up_run(40)
    lies = [
        step.model_copy(update={"generation_s": 1.0, "train_s": 9e5, "step_s": 1e6, "sync_s": 5e5, "log_prob_s": 0.1})
        for step in run.steps[8:]
    ]
    told, lied = forecast(run, 0.2), forecast(run_of([*run.steps[:8], *lies]), 0.2)
    for term, prediction in told.predictions.items():
        assert np.array_equal(prediction.seconds, lied.predictions[term].seconds), term
        assert np.array_equal(prediction.high, lied.predictions[term].high), term


def test_a_filter_is_seen_through_where_no_count_is_logged() -> None:
    run = made_up_run(60, kept=0.5, noise=0.01)
    assert all(step.num_sequences is None for step in run.steps)
    assert forecast(run, 0.2).scores["train"].mape < 0.06
    assert forecast(run, 0.2).scores["train"].linear_length > 0.06


def test_a_collapse_is_found_and_left_out() -> None:
    run = made_up_run(20)
    fallen = [
        step.model_copy(update={"step": step.step + 20, "response_tokens_mean": 1.0, "generation_s": 3.5})
        for step in run.steps
    ]
    report = forecast_report(forecast(run_of([*run.steps, *fallen, *_later(fallen)]), 0.2), 0.2)
    assert report.is_collapsed
    assert report.collapsed_from_step == 21
    assert report.num_first_steps + report.num_later_steps == 20
    assert report.mape == forecast_report(forecast(run, 0.2), 0.2).mape


def _later(steps: list[MeasuredStep]) -> list[MeasuredStep]:
    return [step.model_copy(update={"step": step.step + 20}) for step in steps]


def test_a_restart_on_other_hardware_is_fitted_from_there_on_and_said() -> None:
    before, after = made_up_run(40), made_up_run(40, engine=Engine(base_s=16e-3, s_per_token=90e-6))
    run = run_of([*before.steps[:12], *after.steps[12:]])
    done = forecast(run, 0.6)
    assert any("step 13" in note for note in done.notes)
    assert not done.is_fitted[:11].any()
    assert done.scores["train"].mape < 0.03


def test_a_change_after_the_first_part_is_said_and_counts_against_the_forecast() -> None:
    before, after = made_up_run(60), made_up_run(60, engine=Engine(s_per_token=80e-6))
    done = forecast(run_of([*before.steps[:30], *after.steps[30:]]), 0.2)
    assert any("from step 31 on, train" in note for note in done.notes)
    assert done.scores["train"].mape > 0.1


def test_warm_up_outliers_and_checkpoints_do_not_move_a_fit() -> None:
    steps = list(made_up_run(40).steps)
    steps[0] = steps[0].model_copy(update={"train_s": 900.0, "generation_s": 900.0})
    steps[4] = steps[4].model_copy(update={"generation_s": 3 * steps[4].generation_s})  # type: ignore[operator]
    steps[20] = steps[20].model_copy(update={"step_s": 5000.0, "quality": (Quality.CHECKPOINT,)})
    done = forecast(run_of(steps), 0.3)
    assert done.scores["train"].mape < 0.03
    assert done.scores["generation"].mape < 0.06
    assert done.scores["step"].mape < 0.05


def test_a_validation_of_known_length_is_taken_out_of_its_step() -> None:
    steps = list(made_up_run(40).steps)
    for i in range(0, 40, 5):
        longer = {"step_s": (steps[i].step_s or 0.0) + 300.0, "validation_s": 300.0, "quality": (Quality.VALIDATION,)}
        steps[i] = steps[i].model_copy(update=longer)
    assert forecast(run_of(steps), 0.3).scores["step"].num_steps == 28
    assert forecast(run_of(steps), 0.3).scores["step"].mape < 0.04


def test_in_an_asynchronous_run_the_step_has_what_is_exposed_of_generation() -> None:
    run = made_up_run(40, setup=Setup(is_asynchronous=True))
    steps = []
    for step in run.steps:
        wait = max((step.generation_s or 0.0) - 20.0, 0.0)
        total = wait + sum(getattr(step, name) or 0.0 for name in ("train_s", "log_prob_s", "sync_s"))
        steps.append(step.model_copy(update={"generation_wait_s": wait, "step_s": total}))
    done = forecast(run_of(steps, run.setup), 0.3)
    assert done.scores["step"].mape < 0.05


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (made_up_run(2), "2 usable steps, a forecast needs 4"),
        (run_of([MeasuredStep(step=i, step_s=10.0) for i in range(9)]), "mean response length"),
        (run_of([MeasuredStep(step=i, response_tokens_mean=100.0) for i in range(9)]), "has both seconds and a mean"),
    ],
)
def test_a_log_that_says_too_little_is_refused_in_one_line(run: MeasuredRun, said: str) -> None:
    with pytest.raises(ForecastError, match=said) as refusal:
        forecast(run, 0.2)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_that_leaves_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(ForecastError, match="between 0 and 1"):
        forecast(made_up_run(9), fraction)


def test_a_longer_response_than_those_trained_on_counts_as_generated() -> None:
    run = made_up_run(20)
    told = [step.model_copy(update={"response_tokens_max": 3000.0, "slowest_tokens": 8000.0}) for step in run.steps]
    assert (logged_steps(run_of(told)).generation[:, 0] == 8000.0).all()


def test_lengths_that_never_differ_are_forecast_all_the_same() -> None:
    steps = [
        MeasuredStep(step=i, step_s=50.0, generation_s=30.0, train_s=20.0, response_tokens_mean=7.0)
        for i in range(1, 10)
    ]
    done = forecast(run_of(steps), 0.3)
    assert done.scores["step"].mape < 1e-3
    assert any("are assumed" in note for note in done.notes)


def test_a_report_is_json_with_the_promised_keys() -> None:
    done = forecast(load_trace(EXCERPT, MeasuredRun), 0.2)
    answer = json.loads(forecast_report(done, 0.2).model_dump_json())
    assert {"generation", "train", "step", "log_prob", "reference"} <= set(answer["mape"])
    assert set(answer["naive"]) == {"linear_length", "last_value"}
    assert set(answer["naive"]["linear_length"]) == set(answer["mape"])
    assert 0 <= answer["coverage"] <= 1


def test_three_steps_of_a_real_run_predict_the_other_thirteen() -> None:
    done = forecast(load_trace(EXCERPT, MeasuredRun), 0.2)
    assert done.scores["generation"].mape < 0.10
    assert done.scores["generation"].mape < done.scores["generation"].linear_length / 2
    assert done.scores["train"].mape < 0.01
    assert done.scores["step"].mape < 0.05
