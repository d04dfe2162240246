"""Sensitivity: the indices of runs whose answer is known, and every range that is refused."""

import math

import pytest

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.factors import Z90, factors_of, with_values
from simulator.inputs import Noise
from simulator.scenario_file import load_scenario
from simulator.sensitivity import analyse
from simulator.trial import run_trial

QUICK = ["run.num_steps=4", "run.warmup_steps=1", "workload.prompts_per_step=8"]
STATED = 'origins={"workload" = {origin = "stated", source = "x"}, "engine" = {origin = "stated", source = "x"}, '
STATED += '"trainer" = {origin = "stated", source = "x"}}'


def scenario(*overrides: str) -> Scenario:
    return load_scenario("areal", [*QUICK, *overrides])


def only(name: str, spread: float) -> Scenario:
    return scenario(f"uncertainty={{ {name} = {spread} }}", STATED)


def test_what_alone_is_unknown_explains_everything() -> None:
    found = analyse(only("draft_and_verify", 0.1), num_samples=16)
    assert [factor.name for factor in found.factors] == ["uncertainty.draft_and_verify"]
    assert found.factors[0].total == pytest.approx(1.0, abs=0.1)
    assert found.factors[0].first_order == pytest.approx(1.0, abs=0.2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.speedup < found.high


def test_an_input_that_cancels_explains_nothing() -> None:
    """A faster engine makes both arms faster: where nothing but decoding takes time, the speedup stays."""
    found = analyse(
        scenario(
            "uncertainty={ latency = 0.2, draft_and_verify = 0.1 }",
            STATED,
            'trainer={ kind = "linear", s_per_token = 0.0 }',
            'weight_sync={ kind = "seconds", seconds = 0.0 }',
        ),
        num_samples=16,
    )
    total = {factor.name: factor.total for factor in found.factors}
    assert total["uncertainty.latency"] == pytest.approx(0.0, abs=1e-6)


def test_a_tornados_end_is_the_trial_with_that_input() -> None:
    asked = only("draft_and_verify", 0.1)
    found = analyse(asked, num_samples=0)
    arm = next(iter(asked.arms))
    dearer = Noise(draft_and_verify=math.exp(0.1 * Z90), accept_length=0.0)
    assert found.factors[0].speedup_at_high == run_trial(asked, arm, noise=dearer).speedup
    assert found.factors[0].high == pytest.approx(math.exp(0.1 * Z90))
    assert found.factors[0].total is None


def test_a_longer_accept_length_and_dearer_drafts_move_the_speedup_the_right_way() -> None:
    found = {factor.name: factor for factor in analyse(scenario(), num_samples=0).factors}
    accept, cost = found["uncertainty.accept_length"], found["uncertainty.draft_and_verify"]
    assert accept.speedup_at_low < accept.speedup_at_high
    assert cost.speedup_at_low > cost.speedup_at_high


def test_stated_fields_do_not_vary_and_assumed_ones_do() -> None:
    names = {factor.name for factor in factors_of(scenario("uncertainty={}"))}
    assert names >= {"workload.prompt_tokens.mean", "engine.max_running_seqs"}
    assert not factors_of(scenario("uncertainty={}", STATED))


def test_a_named_range_replaces_the_assumed_one_and_reaches_the_scenario() -> None:
    asked = scenario()
    factors = factors_of(asked, ["engine.max_running_seqs=8..16"])
    chosen = next(factor for factor in factors if factor.name == "engine.max_running_seqs")
    assert (chosen.low, chosen.high, chosen.is_whole) == (8, 16, True)
    values = {factor.name: factor.centre for factor in factors} | {chosen.name: 11.6}
    assert with_values(asked, factors, values)[0].engine.max_running_seqs == 12


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("engine.max_running_seqs", "--vary engine.max_running_seqs: not of the form"),
        ("engine.max_running_seqs=16..8", "--vary engine.max_running_seqs=16..8: not of the form"),
        ("engine.max_running_seqs=1..inf", "--vary engine.max_running_seqs=1..inf: not of the form"),
        ("engine.batch=1..2", "--vary engine.batch=1..2: engine.batch is not a number of this scenario"),
        ("cluster.gpu=1..2", "--vary cluster.gpu=1..2: cluster.gpu is not a number of this scenario"),
    ],
)
def test_a_range_that_is_none_is_refused(text: str, line: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        analyse(scenario(), ranges=[text])
    assert str(caught.value).startswith(line)


def test_a_combination_that_cannot_run_names_its_values() -> None:
    with pytest.raises(ScenarioError, match=r"at .*engine\.max_running_seqs = .*narrow a range"):
        analyse(scenario(), ranges=["engine.max_running_seqs=16..9000"], num_samples=0)


def test_samples_are_a_power_of_two() -> None:
    with pytest.raises(ScenarioError, match=r"^--samples 12 is not a power of two; e\.g\. 16"):
        analyse(only("latency", 0.1), num_samples=12)


def test_nothing_unknown_is_said() -> None:
    with pytest.raises(ScenarioError, match="nothing is uncertain and nothing is assumed"):
        analyse(scenario("uncertainty={}", STATED))
