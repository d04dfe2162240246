"""The number of verify steps a response needs, against its exact law and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.compiled import compiled
from simulator.rng import mix, stream_key
from simulator.step_law import PARTIAL_DRAWS, StepLaw, build_step_law, draw_partial_tokens, draw_steps

ALPHA = 1e-4
"""Pre-registered for every statistical test; seeds are fixed."""
NUM_DRAWS = 20_000
MAX_TOKENS = 40_000
PMFS = {
    "k1": [0.4, 0.6],
    "k3": [0.095, 0.126, 0.127, 0.652],
    "k3 rarely accepted": [0.97, 0.01, 0.01, 0.01],
    "k3 with a gap": [0.5, 0.0, 0.0, 0.5],
    "k8": [0.3, 0.05, 0.05, 0.1, 0.05, 0.05, 0.05, 0.05, 0.3],
}
LAWS = {name: build_step_law(np.array([pmf]), MAX_TOKENS) for name, pmf in PMFS.items()}
LENGTHS = [1, 2, 4, 63, 64, 65, 137, 4096, 40_000]


@compiled
def many_steps(law: StepLaw, cls: int, stream: np.uint64, tokens: int, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        out[i], _ = draw_steps(law, cls, mix(stream + np.uint64(i)), 0, tokens)


@compiled
def many_partial(law: StepLaw, stream: np.uint64, tokens: int, steps: int, done: int, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        out[i] = draw_partial_tokens(law, 0, mix(stream + np.uint64(i)), 0, tokens, steps, done)


def steps_drawn(name: str, tokens: int, seed: int = 0, count: int = NUM_DRAWS) -> np.ndarray:
    out = np.zeros(count, np.int64)
    many_steps(LAWS[name], 0, stream_key(name, tokens, seed), tokens, out)
    return out


def probability_of_at_most(pmf: list[float], steps: int, tokens: int) -> float:
    """P(S <= n) = P(A_1 + ... + A_n >= tokens), by the n-th power of the characteristic function."""
    size = 1 << int(steps * (len(pmf) - 1) + 1).bit_length()
    density = np.fft.irfft(np.fft.rfft(np.array(pmf), size) ** steps, size)  # of the sum of A_i - 1
    return 1.0 - float(density[: max(tokens - steps, 0)].sum())


# The number of steps


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("name", PMFS)
def test_steps_follow_their_exact_law(name: str, tokens: int) -> None:
    drawn, pmf = steps_drawn(name, tokens), PMFS[name]
    low, high = -(-tokens // len(pmf)), tokens
    assert low <= drawn.min()
    assert drawn.max() <= high
    mean, variance = LAWS[name].mean[0], LAWS[name].variance[0]
    middle, width = tokens / mean, np.sqrt(variance * tokens / mean**3) + 1.0
    grid = np.rint(middle + width * np.array([-2.0, -1.5, -1, -0.6, -0.3, 0, 0.3, 0.6, 1, 1.5, 2.0])).astype(int)
    cuts = np.unique(np.clip(grid, low - 1, high))
    cdf = np.array([0.0, *(probability_of_at_most(pmf, int(n), tokens) if n > 0 else 0.0 for n in cuts), 1.0])
    expected = np.diff(cdf) * NUM_DRAWS
    counted = np.histogram(drawn, bins=[-1, *(cuts + 0.5), tokens + 1])[0]
    likely = expected >= 5
    assert counted[expected < 1e-6].sum() == 0
    if likely.sum() > 1:
        chi2 = float(((counted - expected)[likely] ** 2 / expected[likely]).sum())
        assert stats.chi2.sf(chi2, likely.sum()) > ALPHA


@pytest.mark.parametrize(("name", "tokens"), [("k1", 70), ("k3", 137), ("k3 rarely accepted", 300), ("k8", 700)])
def test_steps_agree_with_token_by_token_brute_force(name: str, tokens: int) -> None:
    pmf = PMFS[name]
    accepted = np.random.default_rng(7).choice(np.arange(1, len(pmf) + 1), p=pmf, size=(NUM_DRAWS, tokens))
    brute = (np.cumsum(accepted, axis=1) < tokens).sum(axis=1) + 1
    drawn = steps_drawn(name, tokens, seed=1)
    assert stats.ks_2samp(brute, drawn).pvalue > ALPHA
    z = (brute.mean() - drawn.mean()) / np.sqrt((brute.var() + drawn.var()) / NUM_DRAWS)
    assert abs(z) < stats.norm.isf(ALPHA / 2)


@given(st.integers(1, 300_000), st.integers(0, 2**63))
def test_never_fewer_steps_than_full_acceptance_nor_more_than_tokens(tokens: int, key: int) -> None:
    for name, law in LAWS.items():
        steps, counter = draw_steps(law, 0, np.uint64(key), 0, tokens)
        assert -(-tokens // len(PMFS[name])) <= steps <= tokens
        assert counter >= 1


@pytest.mark.parametrize("k", [1, 3, 8])
def test_sure_acceptance_takes_the_fewest_steps_and_no_acceptance_the_most(k: int) -> None:
    never, always = np.zeros((1, k + 1)), np.zeros((1, k + 1))
    never[0, 0], always[0, k] = 1.0, 1.0
    for tokens in [*LENGTHS, k + 1, k + 2]:
        assert draw_steps(build_step_law(never, MAX_TOKENS), 0, np.uint64(1), 0, tokens)[0] == tokens
        assert draw_steps(build_step_law(always, MAX_TOKENS), 0, np.uint64(1), 0, tokens)[0] == -(-tokens // (k + 1))


@given(st.integers(1, 10**6), st.integers(0, 2**63), st.integers(0, 1000))
def test_plain_decoding_makes_one_step_per_token_and_draws_nothing(tokens: int, key: int, counter: int) -> None:
    law = build_step_law(np.array([[1.0]]), 100)
    assert draw_steps(law, 0, np.uint64(key), counter, tokens) == (tokens, counter)
    assert draw_partial_tokens(law, 0, np.uint64(key), counter, tokens, tokens, tokens // 2) == tokens // 2


def test_draws_grow_with_the_logarithm_of_the_length() -> None:
    law = build_step_law(np.array([PMFS["k3"]]), MAX_TOKENS)
    counts = {n: np.mean([draw_steps(law, 0, np.uint64(i), 0, n)[1] for i in range(200)]) for n in (64, 4096, 32_768)}
    assert counts[64] == 1
    assert counts[32_768] < counts[4096] + 12 < 24


def test_a_table_built_for_short_responses_still_serves_long_ones() -> None:
    short = build_step_law(np.array([PMFS["k3"]]), 100)
    out = np.zeros(4000, np.int64)
    many_steps(short, 0, stream_key("short"), 4096, out)
    assert stats.ks_2samp(out, steps_drawn("k3", 4096)).pvalue > ALPHA


def test_every_class_has_its_own_law() -> None:
    pmf = np.array([PMFS["k3"], PMFS["k3 rarely accepted"], [0.0, 0.0, 0.0, 1.0]])
    law = build_step_law(pmf, MAX_TOKENS)
    assert law.mean == pytest.approx(pmf @ [1, 2, 3, 4])
    for cls, name in enumerate(("k3", "k3 rarely accepted")):
        out = np.zeros(NUM_DRAWS, np.int64)
        many_steps(law, cls, stream_key("class", cls), 500, out)
        assert stats.ks_2samp(out, steps_drawn(name, 500)).pvalue > ALPHA
    assert draw_steps(law, 2, np.uint64(5), 0, 401)[0] == 101


# What an interrupted response has emitted


@given(st.sampled_from(sorted(PMFS)), st.integers(1, 5000), st.integers(0, 2**62), st.floats(0, 1))
def test_an_interrupted_response_has_emitted_what_is_possible(name: str, tokens: int, key: int, share: float) -> None:
    law, width = LAWS[name], len(PMFS[name])
    steps, counter = draw_steps(law, 0, np.uint64(key), 0, tokens)
    steps_done = min(int(share * steps), steps)
    done = draw_partial_tokens(law, 0, np.uint64(key), counter, tokens, steps, steps_done)
    left = steps - steps_done
    assert steps_done <= done <= steps_done * width
    assert left <= tokens - done <= left * width


@given(st.data())
def test_bounds_hold_for_unlikely_step_counts_too(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PMFS)))
    width = len(PMFS[name])
    steps = data.draw(st.integers(1, 500))
    tokens = data.draw(st.integers(steps, steps * width))
    steps_done = data.draw(st.integers(0, steps))
    done = draw_partial_tokens(LAWS[name], 0, np.uint64(data.draw(st.integers(0, 2**62))), 0, tokens, steps, steps_done)
    left = steps - steps_done
    assert steps_done <= done <= steps_done * width
    assert left <= tokens - done <= left * width


def exact_partial_moments(pmf: list[float], tokens: int, steps: int, steps_done: int) -> tuple[float, float]:
    """Mean and variance of A_1 + ... + A_d given that S = steps, by convolution."""

    def sums(count: int) -> np.ndarray:
        density = np.array([1.0])
        for _ in range(count):
            density = np.convolve(density, pmf)
        return density  # entry i: count + i tokens

    at_least = np.cumsum(pmf[::-1])[::-1]  # P(A >= 1), P(A >= 2), ...
    rest = sums(steps - steps_done - 1)
    values, weights = [], []
    for i, p in enumerate(sums(steps_done)):
        last = tokens - (steps_done + i) - (steps - steps_done - 1) - np.arange(len(rest))
        fits = (last >= 1) & (last <= len(pmf))
        values.append(steps_done + i)
        weights.append(p * float(rest[fits] @ at_least[last[fits] - 1]))
    value, weight = np.array(values), np.array(weights) / sum(weights)
    mean = float(value @ weight)
    return mean, float((value - mean) ** 2 @ weight)


@pytest.mark.parametrize("name", ["k1", "k3", "k3 rarely accepted", "k8"])
@pytest.mark.parametrize("tokens", [40, 137, 600])
def test_an_interrupted_response_has_the_conditional_mean_and_variance(name: str, tokens: int) -> None:
    law = LAWS[name]
    typical = round(tokens / law.mean[0])
    for steps in (typical, typical + 2):
        for steps_done in sorted({1, steps // 4, steps // 2, 3 * steps // 4, steps - 1}):
            out = np.zeros(NUM_DRAWS)
            many_partial(law, stream_key(name, tokens, steps, steps_done), tokens, steps, steps_done, out)
            mean, variance = exact_partial_moments(PMFS[name], tokens, steps, steps_done)
            noise = 4.0 * np.sqrt(variance / NUM_DRAWS)
            assert abs(out.mean() - mean) < 0.12 * law.mean[0] + noise  # an eighth of one step, whatever the length
            central = tokens > 100 and steps // 4 <= steps_done <= 3 * steps // 4
            if central and name != "k3 rarely accepted":  # elsewhere bounds cut the bridge: its variance is too small
                assert out.var() == pytest.approx(variance, rel=0.25)


def test_settling_a_stretch_and_drawing_the_rest_anew_keeps_the_law() -> None:
    name, tokens, cut = "k3", 400, 50
    law = LAWS[name]
    first = steps_drawn(name, tokens, seed=3)
    total = np.zeros(NUM_DRAWS, np.int64)
    for i, steps in enumerate(first):
        key = np.uint64(mix(np.uint64(i)))
        done = draw_partial_tokens(law, 0, key, 0, tokens, int(steps), cut)
        total[i] = cut + draw_steps(law, 0, key, PARTIAL_DRAWS, tokens - done)[0]
    z = (total.mean() - first.mean()) / np.sqrt((total.var() + first.var()) / NUM_DRAWS)
    assert abs(z) < stats.norm.isf(ALPHA / 2)
    assert stats.ks_2samp(total, first).pvalue > ALPHA


# Tables


@pytest.mark.parametrize("name", PMFS)
def test_tables_are_distributions_with_the_right_mean(name: str) -> None:
    law = LAWS[name]
    offset, low = law.block_offset[0], law.block_low[0]
    ends = [*offset[1:], len(law.block_cdf)]
    for level, (begin, end) in enumerate(zip(offset, ends, strict=True)):
        cdf = law.block_cdf[begin:end]
        assert np.all(np.diff(cdf) >= -1e-14)
        assert cdf[-1] == 1.0
        beyond = low[level] + np.diff(cdf, prepend=0.0) @ np.arange(len(cdf))
        assert beyond == pytest.approx((law.mean[0] - 1.0) * 2**level, rel=1e-9)
