import json
from functools import cache
from pathlib import Path

import pytest

from simulator.calibration import Calibration, calibrate
from simulator.calibration.drafts import arm_of
from simulator.calibration.logged_scenario import scenario_of
from simulator.calibration.whatif import what_if
from simulator.calibration.whatif_cli import main
from simulator.errors import ScenarioError
from simulator.run import simulate
from tests.simulator.calibration.runs import believed, log_of, truth
from tests.simulator.forecast.logs import EXCERPT, made_up_run, run_of
from traces.measured import MeasuredRun, Setup, Speculation
from traces.store import load_trace, save_trace

RATES = "0.886,0.770,0.663"
ASYNC = ("policy={kind='fully_async', max_staleness=1, in_flight='abort_resume'}",)


@cache
def calibrated() -> Calibration:
    return calibrate(log_of(truth("engine.efficiency=0.6"), seed=1), believed(), "believed.toml", "made-up.log")


def test_a_synchronous_run_gains_what_the_simulator_says_of_the_true_scenario() -> None:
    done = what_if(calibrated(), arm_of("k=3,train_overhead=0.07", RATES))
    true = simulate(truth("engine.efficiency=0.6", "uncertainty={}")).arms["mtp_k3"].end_to_end_speedup.mean
    assert done.end_to_end.mean == pytest.approx(true, rel=0.04)
    assert done.end_to_end.low < true < done.end_to_end.high


def test_an_asynchronous_run_is_simulated_whole() -> None:
    overrides = ("engine.efficiency=0.5", *ASYNC, "uncertainty={}")
    calibration = calibrate(log_of(truth(*overrides), noise=0.01), believed(*ASYNC), "believed.toml", "made-up.log")
    done = what_if(calibration, arm_of("k=3,train_overhead=0.07", RATES))
    true = simulate(truth(*overrides)).arms["mtp_k3"].end_to_end_speedup.mean
    assert done.end_to_end.mean == pytest.approx(true, rel=0.06)
    assert any("overlaps" in note for note in done.notes)
    assert len(done.steps) > 10


def test_no_drafts_change_nothing() -> None:
    done = what_if(calibrated(), arm_of("k=0", RATES))
    assert done.end_to_end.mean == 1.0
    assert all(step.drafted_s == step.plain_s == pytest.approx(step.logged_s) for step in done.steps)


def test_no_run_gains_more_than_amdahl_allows() -> None:
    done = what_if(calibrated(), arm_of("k=3", RATES))
    assert 1 < done.end_to_end.mean <= done.amdahl_bound * (1 + 1e-9)
    assert done.end_to_end.mean == pytest.approx(done.amdahl_bound)  # nothing overlaps, and training costs no more


def test_the_log_s_entropy_drives_acceptance() -> None:
    done = what_if(calibrated(), arm_of("k=3", "to/reasoning"))
    entropies = [step.entropy_nats for step in done.steps]
    assert entropies[-1] > entropies[0]  # type: ignore[operator]
    lengths = [step.accept_length or 0.0 for step in done.steps]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] + 0.2


def test_a_log_with_drafts_of_its_own_is_compared_with_plain_decoding_and_with_itself() -> None:
    run = log_of(truth("engine.efficiency=0.6"), arm="mtp_k3", noise=0.01)
    counts = Speculation(per_position=(0.886, 0.770, 0.663))
    run = run_of([step.model_copy(update={"speculation": counts}) for step in run.steps], run.setup)
    done = what_if(calibrate(run, believed(), "believed.toml", "made-up.log"), arm_of("k=3", RATES))
    assert done.over_logged == pytest.approx(1.0, abs=1e-9)
    assert all(step.plain_s > (step.logged_s or 0.0) for step in done.steps)


def test_what_the_log_says_of_its_run_is_enough_where_it_says_it() -> None:
    run = load_trace(EXCERPT, MeasuredRun)
    run = run.model_copy(update={"setup": run.setup.model_copy(update={"gpu": "A100"})})
    calibration = calibrate(run, scenario_of(run), "from-log", "excerpt")
    assert calibration.scenario.cluster.tp_size == 4
    assert calibration.match is not None
    assert calibration.match.predicted_s == pytest.approx(calibration.match.logged_s, rel=0.08)
    assert 1.0 < what_if(calibration, arm_of("k=3", "rs_e2e_tv/reasoning")).end_to_end.mean < 1.6


def test_a_log_that_does_not_say_its_model_asks_for_a_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"does not say its model, gpu, number of GPUs; state them in a --scenario"):
        scenario_of(made_up_run(10))
    with pytest.raises(ScenarioError, match="or state the run in a --scenario"):
        scenario_of(made_up_run(10, setup=Setup(model="Nobody-7B", gpu="H100", num_gpus=8)))


@pytest.mark.parametrize(
    ("spec", "acceptance", "said"),
    [
        ("3", RATES, "not NAME=VALUE"),
        ("k=three", RATES, "is no number"),
        ("k=3", "what", "of no known form"),
        ("k=99", RATES, "k: 99"),
        ("k=3", "0.1,0.9", "increases"),
    ],
)
def test_drafts_of_no_known_form_are_one_line(spec: str, acceptance: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said) as refusal:
        arm_of(spec, acceptance)
    assert "\n" not in str(refusal.value)


def test_the_command_prints_the_bound_beside_the_speedup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_trace(EXCERPT, MeasuredRun)
    save_trace(
        run.model_copy(update={"setup": run.setup.model_copy(update={"gpu": "A100"})}), tmp_path / "excerpt.json"
    )
    command = [str(tmp_path / "excerpt.json"), "--spec", "k=3", "--acceptance", "rs_e2e_tv/reasoning"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "1/(R/s+1-R)" in text
    assert all(len(line) <= 118 for line in text.splitlines())
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["end_to_end_speedup"]["mean"] <= answer["amdahl_bound"] + 1e-9
    assert len(answer["steps"]) == 16
