"""Two measured runs: known changes come back as they were made, and the waterfall is exact whatever changes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.compare import Comparison, compare, measured_side
from simulator.compare.table import render
from simulator.errors import ComparisonError
from tests.simulator.compare.runs import changed, drafting, run, step
from traces.measured import MeasuredRun, Quality, Setup


def compared(a: MeasuredRun, b: MeasuredRun) -> Comparison:
    return compare(measured_side(a, "plain"), measured_side(b, "mtp"))


def effect_of(result: Comparison, name: str) -> tuple[float, float]:
    (effect,) = [effect for effect in result.waterfall if effect.name == name]
    assert effect.factor is not None
    return effect.seconds, effect.factor


# ---------------------------------------------------------------- known changes


def test_a_run_compared_with_itself_does_not_differ() -> None:
    result = compared(run(), run())
    assert (result.step_speedup.low, result.step_speedup.mean, result.step_speedup.high) == (1, 1, 1)
    assert {effect.factor for effect in result.waterfall} == {1.0}
    assert result.verdict == "mtp against plain: no difference beyond noise: 1.00x end to end (1.00 to 1.00)"


def test_drafts_are_split_into_accept_length_and_the_cost_of_a_step() -> None:
    # L = 2.5 alone would make 100 s into 40; a verify step that costs 1.25 plain ones makes it 50.
    result = compared(run(), changed(lambda _: drafting(2.5, 50.0)))
    assert effect_of(result, "response_length") == (0, 1)
    assert effect_of(result, "tail") == (0, 1)
    assert effect_of(result, "accept_length") == pytest.approx((-60, 170 / 110))
    assert effect_of(result, "verify_step") == pytest.approx((10, 110 / 120))
    assert result.rollout_speedup == 2
    assert result.step_speedup.mean == pytest.approx(170 / 120)
    assert result.speedup_bound == pytest.approx(170 / 120)
    assert result.verdict == (
        "mtp against plain: rollout 2.00x faster, but 41 % of the step was not generation: 1.42x end to end (1.42 to "
        "1.42), of at most 1.42x with this rollout; seconds per engine step (costs 10.0 s a step)"
    )
    assert result.warnings == ("plain: nothing about drafts is logged, taken as plain decoding (accept length 1)",)


def test_the_accept_length_of_a_run_is_its_verify_steps_not_the_mean_over_rl_steps() -> None:
    # Tokens 1 : 3 at L = 2 and 4: verify steps 1/2 + 3/4, so tokens per verify step 4 / 1.25.
    lengths = {
        0: {"response_tokens_mean": 500.0, "response_tokens_max": 2500.0, **drafting(2.0, 25.0)},
        1: {"response_tokens_mean": 1500.0, "response_tokens_max": 7500.0, **drafting(4.0, 37.5)},
    }
    result = compared(run(), changed(lambda number: lengths[number % 2]))
    before, after = 170.0, 70 + 100 / (4 / 1.25)
    assert effect_of(result, "accept_length")[1] == pytest.approx(before / after)
    assert effect_of(result, "verify_step")[0] == pytest.approx(0, abs=1e-9)


def test_longer_responses_are_told_from_a_longer_tail() -> None:
    longer = {"response_tokens_mean": 1500.0, "response_tokens_max": 9000.0, "generation_s": 180.0}
    result = compared(run(), changed(lambda _: longer))
    assert effect_of(result, "response_length")[0] == pytest.approx(50)
    assert effect_of(result, "tail")[0] == pytest.approx(30)
    assert effect_of(result, "verify_step")[0] == pytest.approx(0, abs=1e-9)


def test_runs_of_different_lengths_are_judged_at_equal_tokens() -> None:
    # Twice the tokens in half the seconds per token; training per token as before.
    double = {"response_tokens_mean": 2000.0, "response_tokens_max": 10000.0, "train_s": 120.0}
    result = compared(run(), changed(lambda _: double))
    assert result.token_ratio == 2
    assert result.speedup_at_equal_tokens == pytest.approx(170 / (50 + 60 + 6 + 4))
    assert result.verdict == (
        "mtp against plain: not comparable as they stand: 2.00x more response tokens, 1.35x slower a step (1.35 to "
        "1.35); at equal tokens about 1.42x faster"
    )


@pytest.mark.parametrize("name", ["train_s", "log_prob_s", "reference_s", "critic_s", "reward_s", "sync_s"])
def test_a_change_of_one_term_is_its_effect_and_nobody_elses(name: str) -> None:
    a, b = (changed(lambda _, s=s: {name: s, "step_s": 200.0 + s}) for s in (10.0, 40.0))
    result = compared(a, b)
    for effect in result.waterfall:
        assert effect.seconds == pytest.approx(30.0 if effect.name == name else 0.0, abs=1e-9)
    assert result.verdict.startswith("mtp against plain: 1.14x slower end to end (1.14 to 1.14), most of it ")
    assert result.verdict.endswith("(costs 30.0 s a step)")


def test_what_nobody_logs_is_the_rest() -> None:
    result = compared(run(), changed(lambda _: {"step_s": 200.0}))
    assert effect_of(result, "rest") == pytest.approx((30, 170 / 200))
    assert result.waterfall[-1].meaning.startswith("not identified by these logs")


def test_a_term_that_one_side_alone_logs_is_named() -> None:
    result = compared(run(), changed(lambda _: {"reference_s": 30.0, "step_s": 200.0}))
    (term,) = [term for term in result.terms if term.name == "reference_s"]
    assert (term.a_s, term.b_s, term.only_in) == (0, 30, "b")
    assert "log-probabilities under a reference or teacher (logged by B only)" in render(result)


def test_generation_that_one_side_does_not_log_is_unknown_and_not_zero() -> None:
    result = compared(run(), changed(lambda _: {"generation_s": None, "step_s": 120.0}))
    assert [term.name for term in result.terms] == ["train_s", "sync_s", "rest"]
    assert effect_of(result, "rest")[0] == pytest.approx(-50)
    assert "generation that the step waits for: not logged by both, so it stands under the rest" in result.warnings
    assert result.rollout_speedup is None


# ---------------------------------------------------------------- asynchronous runs


def waiting(wait_s: float, busy_s: float, **more: Any) -> dict[str, Any]:
    return {"generation_wait_s": wait_s, "generation_s": busy_s, **more}


def test_an_asynchronous_run_is_bound_by_its_trainer() -> None:
    slow = changed(lambda _: waiting(30.0, 95.0), setup=Setup(is_asynchronous=True))
    fast = changed(lambda _: waiting(0.0, 55.0), setup=Setup(is_asynchronous=True))
    result = compared(slow, fast)
    assert result.generation_share_a == pytest.approx(0.3)
    assert result.speedup_bound == pytest.approx(1 / 0.7)
    assert result.verdict == (
        "mtp against plain: rollout 1.73x faster, but the trainer was already the bottleneck 70 % of the time: 1.43x "
        "end to end (1.43 to 1.43), of at most 1.43x without waiting"
    )
    assert effect_of(result, "exposed_s")[0] == -30
    assert [effect.name for effect in result.rollout_waterfall] == ["response_tokens", "verify_step"]
    assert result.rollout_waterfall[-1].step_s_after == 55


def test_overlap_that_a_log_does_not_admit_is_found() -> None:
    a, b = (changed(lambda _, s=s: {"generation_s": s, "step_s": 110.0}) for s in (100.0, 80.0))
    result = compared(a, b)
    assert "exposed_s" not in {term.name for term in result.terms}
    assert any("sum to 1.45x the step, so they overlap" in warning for warning in result.warnings)


# ---------------------------------------------------------------- pairing


def test_steps_are_paired_by_number_and_the_others_counted() -> None:
    a = run([step(number) for number in range(1, 31)])
    b = run([step(number, train_s=float(number)) for number in range(11, 36)])
    result = compared(a, b)
    assert [pair.rl_step for pair in result.steps] == list(range(11, 31))
    assert (result.a.num_unpaired, result.b.num_unpaired) == (10, 5)
    (training,) = [term for term in result.terms if term.name == "train_s"]
    assert training.b_s == sum(range(11, 31)) / 20


def test_steps_unfit_for_comparison_are_left_out_and_counted() -> None:
    unfit = [Quality.VALIDATION, Quality.CHECKPOINT, Quality.COLLAPSED, Quality.PARTIAL, Quality.RESTARTED]
    steps = [step(number, train_s=1000.0, quality=(quality,)) for number, quality in enumerate(unfit, start=1)]
    steps += [step(6, step_s=0.0), *(step(number) for number in range(7, 21))]
    result = compared(run(steps), run())
    assert result.a.excluded == {**{quality.value: 1 for quality in unfit}, "no step time": 1}
    assert (result.num_steps, result.b.num_unpaired) == (14, 0)
    assert result.step_speedup.mean == 1
    assert "left out: 1 validation, 1 checkpoint" in render(result).replace("\n", " ")


def test_of_a_step_done_again_after_a_restart_the_last_counts() -> None:
    again = run([step(1), step(2, train_s=500.0), step(2, segment=1), step(3, segment=1)])
    result = compared(again, run())
    assert result.step_speedup.mean == 1
    assert result.a.excluded == {"done again after a restart": 1}


def test_a_line_that_stands_for_several_steps_counts_per_step() -> None:
    four = {"num_aggregated": 4, "generation_s": 400.0, "train_s": 240.0, "sync_s": 24.0, "step_s": 680.0}
    result = compared(run(), changed(lambda _: {**four, "num_sequences": 256, "quality": (Quality.AGGREGATED,)}))
    assert result.step_speedup.mean == 1
    assert all(term.difference.mean == 0 for term in result.terms)


def test_few_steps_give_no_interval() -> None:
    few = [step(number) for number in range(1, 8)]
    result = compared(run(few), run([step(number, train_s=90.0) for number in range(1, 8)]))
    assert result.interval is None
    assert "Intervals: none" in render(result)
    assert "(" not in result.verdict.partition("most of it")[0]


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
    [
        ([step(1)], [step(2)], r"no RL step in common: plain has 1 steps \(1 to 1\); mtp has 1 steps \(2 to 2\)"),
        ([step(1, quality=(Quality.COLLAPSED,))], [step(1)], "no usable steps, left out: 1 collapsed"),
        ([step(1, step_s=0.0)], [step(1)], "left out: 1 no step time"),
    ],
)
def test_runs_without_a_common_step_are_refused_in_one_line(a: Any, b: Any, complaint: str) -> None:
    with pytest.raises(ComparisonError, match=complaint) as refused:
        compared(run(a), run(b))
    assert "\n" not in str(refused.value)


def test_different_models_and_gpus_are_warned_of() -> None:
    mine = Setup(model="Qwen/Qwen3-8B", gpu="H200", num_gpus=8)
    same = compared(run(setup=mine), run(setup=Setup(model="qwen3-8b", gpu="H200", num_gpus=8)))
    assert same.warnings == ()
    other = compared(run(setup=mine), run(setup=Setup(model="Qwen/Qwen3-32B", gpu="H100", num_gpus=8)))
    assert other.warnings == (
        "different model: Qwen/Qwen3-8B against Qwen/Qwen3-32B",
        "different GPU: H200 against H100",
    )


# ---------------------------------------------------------------- laws

seconds = st.floats(0.0, 1e4)
some = st.none() | seconds
steps_of_runs = st.fixed_dictionaries(
    {
        "generation_s": some,
        "generation_wait_s": some,
        "train_s": some,
        "sync_s": some,
        "log_prob_s": some,
        "reward_s": some,
        "step_s": st.floats(1e-3, 1e5),
        "response_tokens_mean": st.none() | st.floats(0, 1e5),
        "response_tokens_max": st.none() | st.floats(0, 1e5),
        "num_sequences": st.none() | st.integers(0, 5000),
        "prompt_tokens_mean": st.none() | st.floats(0, 1e4),
        "total_tokens": st.none() | st.floats(0, 1e8),
    }
)
runs = st.lists(steps_of_runs, min_size=1, max_size=12)


@given(runs, runs)
def test_seconds_add_up_and_factors_multiply_whatever_is_logged(a: list[Any], b: list[Any]) -> None:
    first, second = (run([step(i, **said) for i, said in enumerate(steps)]) for steps in (a, b))
    try:
        result = compared(first, second)
    except ComparisonError:
        return
    a_s = math.fsum(pair.a_s for pair in result.steps) / result.num_steps
    b_s = math.fsum(pair.b_s for pair in result.steps) / result.num_steps
    size = max(a_s, b_s, *(abs(effect.step_s_after) for effect in result.waterfall))
    assert math.fsum(effect.seconds for effect in result.waterfall) == pytest.approx(b_s - a_s, abs=1e-9 * size)
    assert result.waterfall[-1].step_s_after == pytest.approx(b_s, rel=1e-12)
    for side, whole in (("a_s", a_s), ("b_s", b_s)):
        parts = [getattr(term, side) for term in result.terms]
        assert math.fsum(parts) == pytest.approx(whole, abs=1e-9 * max(map(abs, parts)))
    factors = [effect.factor for effect in result.waterfall if effect.factor is not None]
    assert len(factors) in (0, len(result.waterfall))
    if factors:
        assert math.prod(factors) == pytest.approx(a_s / b_s, rel=1e-9)
        assert result.waterfall[-1].speedup_after == pytest.approx(result.step_speedup.mean, rel=1e-9)
    assert Comparison.model_validate_json(result.to_json(), strict=True) == result
    assert "nan" not in render(result).lower()
    assert max(map(len, render(result).splitlines())) <= 118


@given(runs)
def test_there_and_back_again_is_the_same_difference(a: list[Any]) -> None:
    first, second = run([step(i, **said) for i, said in enumerate(a)]), run([step(i) for i in range(len(a))])
    try:
        there, back = compared(first, second), compared(second, first)
    except ComparisonError:
        return
    assert there.step_speedup.mean == pytest.approx(1 / back.step_speedup.mean)
    assert [term.difference.mean for term in there.terms] == pytest.approx(
        [-term.difference.mean for term in back.terms], abs=1e-6
    )
