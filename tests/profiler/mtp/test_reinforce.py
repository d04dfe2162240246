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


@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_follows_its_weight(sign: int) -> None:
    torch.manual_seed(0)
    decoder = copy.deepcopy(trained()[0])
    head_before = decoder.mtp.project.clone()
    # Twice as many steps as are made: the weight changes its sign in the middle.
    policy = Policy(decoder, RlRecipe(16, num_groups=8, group=4, learning_rate=2e-3, entropy_weight=sign * 1.0))
    entropies = [policy.step(index).entropy_nats for index in range(8)]
    assert sign * (entropies[-1] - entropies[0]) > 0.1
    assert torch.equal(decoder.mtp.project, head_before)
    assert not any(weight.requires_grad for weight in (decoder.final_norm, decoder.head_VH))
