"""Reinforcement learning on sums: rewards by hand, entropy follows the entropy term."""

import copy

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.corpora import decode, encode  # noqa: E402
from profiler.mtp.reinforce import (  # noqa: E402
    PROMPT_TOKENS,
    Policy,
    RlRecipe,
    response_mask,
    reward,
    sums,
    worked_sums,
)
from tests.profiler.mtp.small import trained  # noqa: E402


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("=30+30\n=60\nA:60\nQ:1", 1.0),
        ("=30+30\n=61\nA:60\n", 1.0),
        ("=30+30\n=60\nA:61\n", 0.3),
        ("=31+30\n=61\nA:61\n", 0.1),
        ("=31+30\n=60\nA:60\n", 0.8),
        ("A:60\n", 0.0),
        ("=30+30\n=60\nA:6", 0.0),
        ("=x+30\n=60\nA:60\n", 0.0),
    ],
)
def test_rewards(response: str, expected: float) -> None:
    assert reward(response, (10, 20, 30)) == pytest.approx(expected)


def test_prompts_are_sums_of_one_length() -> None:
    prompts, numbers = sums(20, seed=1)
    assert prompts.shape == (20, PROMPT_TOKENS)
    assert decode(prompts[3]) == "Q:{}+{}+{}\n".format(*numbers[3])


def test_the_response_ends_with_its_third_line() -> None:
    text = "Q:10+20+30\n=30+30\n=60\nA:60\nQ:99"
    mask = response_mask(encode(text)[None])[0]
    assert decode(encode(text)[mask]) == "=30+30\n=60\nA:60\n"


def test_worked_sums_are_prompts_with_right_answers() -> None:
    lines = decode(worked_sums(4000, seed=3, largest=39)).split("Q:")[1:-1]
    for line in lines:
        question, answer = line.split("\n", 1)
        a, b, c = map(int, question.split("+"))
        assert reward(answer, (a, b, c)) == pytest.approx(1.0)
        assert 10 <= min(a, b, c) <= max(a, b, c) <= 39


def test_entropy_is_wanted_up_and_back() -> None:
    recipe = RlRecipe(8, entropy_rise_nats=0.4)
    assert [recipe.wanted_rise(index) for index in range(9)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    )


@pytest.mark.parametrize("rise", [1.0, -1.0])
def test_entropy_follows_its_course(rise: float) -> None:
    torch.manual_seed(0)
    decoder = copy.deepcopy(trained()[0])
    head_before = decoder.mtp.project.clone()
    # Twice as many steps as are made: entropy turns in the middle.
    policy = Policy(decoder, RlRecipe(16, num_groups=8, group=4, learning_rate=2e-3, entropy_rise_nats=rise))
    made = [policy.step(index) for index in range(8)]
    assert (made[-1].entropy_nats - made[0].entropy_nats) / rise > 0.1
    assert made[0].kl_nats == pytest.approx(0.0, abs=1e-6)
    assert made[-1].kl_nats > 0.01
    assert torch.equal(decoder.mtp.project, head_before)
    assert not any(weight.requires_grad for weight in (decoder.final_norm, decoder.head_VH))


def test_a_greater_weight_of_kl_keeps_the_policy_nearer_to_its_start() -> None:
    last = []
    for weight in (0.0, 30.0):
        torch.manual_seed(0)
        recipe = RlRecipe(16, num_groups=8, group=4, learning_rate=2e-3, kl_weight=weight, entropy_rise_nats=1.0)
        policy = Policy(copy.deepcopy(trained()[0]), recipe)
        last.append([policy.step(index) for index in range(8)][-1].kl_nats)
    assert last[1] < 0.5 * last[0]
