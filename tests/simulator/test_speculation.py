"""Laws of a verify step, of its truncation, of a shift and of the spread between requests."""

import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.positions import CE_DECAY, TV_DECAY, PositionDecay, split_accept_length
from simulator.speculation import (
    FloatArray,
    accept_length,
    dispersed_classes,
    emitted_pmf,
    expected_emitted_tokens,
    expected_steps,
    mean_emitted_tokens,
    shifted_accept_length,
)

RATES = st.lists(st.floats(0, 1), min_size=0, max_size=16)


def from_conditional(rates: list[float]) -> FloatArray:
    return np.array(list(itertools.accumulate(rates, operator.mul)), dtype=np.float64)


# One verify step


@given(RATES)
def test_emitted_pmf_is_a_law_whose_mean_is_one_plus_the_sum_of_the_rates(rates: list[float]) -> None:
    cumulative = from_conditional(rates)
    pmf = emitted_pmf(cumulative)
    assert len(pmf) == len(rates) + 1
    assert np.all(pmf >= 0)
    assert pmf.sum() == pytest.approx(1.0)
    assert mean_emitted_tokens(pmf) == pytest.approx(1.0 + cumulative.sum())
    assert mean_emitted_tokens(pmf) == pytest.approx(accept_length(cumulative))


@given(st.floats(0, 0.999), st.integers(0, 16))
def test_mean_emitted_tokens_of_a_constant_rate_is_the_geometric_sum(rate: float, num_draft_tokens: int) -> None:
    pmf = emitted_pmf(from_conditional([rate] * num_draft_tokens))
    assert mean_emitted_tokens(pmf) == pytest.approx((1 - rate ** (num_draft_tokens + 1)) / (1 - rate))


def test_no_drafts_emit_exactly_one_token() -> None:
    assert emitted_pmf(np.array([])).tolist() == [1.0]


def test_sure_acceptance_emits_all_drafts_and_the_bonus() -> None:
    assert emitted_pmf(np.ones(3)).tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("rates", [[0.5, 0.6], [1.2], [0.5, -0.1], [float("nan")]])
def test_rates_that_are_no_law_are_refused(rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"leaves 0\.\.1 or increases; give P\(first j accepted\)"):
        emitted_pmf(np.array(rates))


# Truncation by short responses


def test_plain_decoding_takes_one_step_per_token() -> None:
    assert expected_steps(np.array([1.0]), 37) == 37.0
    assert expected_emitted_tokens(np.array([1.0]), 37) == 1.0


def test_sure_acceptance_wastes_only_the_last_step() -> None:
    pmf = emitted_pmf(np.ones(3))
    assert [expected_steps(pmf, n) for n in (0, 1, 4, 5, 8, 9)] == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


@given(RATES, st.integers(1, 60))
def test_steps_lie_between_their_bounds_and_grow_with_the_response(rates: list[float], response_tokens: int) -> None:
    pmf = emitted_pmf(from_conditional(rates))
    steps = expected_steps(pmf, response_tokens)
    assert response_tokens / len(pmf) - 1e-9 <= steps <= response_tokens + 1e-9
    assert steps >= response_tokens / mean_emitted_tokens(pmf) - 1e-9  # Wald
    assert steps > expected_steps(pmf, response_tokens - 1) - 1e-9


def test_long_responses_lose_the_mean_overshoot_of_a_renewal() -> None:
    pmf = emitted_pmf(np.array([0.9, 0.76, 0.62]))
    sizes = np.arange(1, 5)
    mean, second = sizes @ pmf, sizes**2 @ pmf
    overshoot = (second - mean) / (2 * mean)
    assert expected_steps(pmf, 5000) == pytest.approx((5000 + overshoot) / mean, rel=1e-12)
    assert expected_emitted_tokens(pmf, 5000) == pytest.approx(mean, rel=5e-4)


@pytest.mark.parametrize("response_tokens", [1, 3, 10, 57])
def test_truncated_steps_match_a_monte_carlo(response_tokens: int) -> None:
    pmf = emitted_pmf(np.array([0.9, 0.76, 0.62]))
    emitted = np.random.default_rng(7).choice(np.arange(1, 5), size=(20_000, response_tokens), p=pmf)
    steps = (np.cumsum(emitted, axis=1) < response_tokens).sum(axis=1) + 1
    standard_error = steps.std() / np.sqrt(len(steps))
    assert expected_steps(pmf, response_tokens) == pytest.approx(steps.mean(), abs=5 * standard_error + 1e-12)


def test_negative_responses_are_refused() -> None:
    with pytest.raises(ValueError, match="response_tokens: -1 must not be negative"):
        expected_steps(np.array([1.0]), -1)
    with pytest.raises(ValueError, match="response_tokens: 0 must be at least 1"):
        expected_emitted_tokens(np.array([1.0]), 0)


# Shift of the accept length


@given(RATES, st.floats(-20, 20))
def test_a_shift_moves_the_accept_length_by_itself_inside_its_bounds(rates: list[float], shift: float) -> None:
    cumulative = from_conditional(rates)
    shifted = shifted_accept_length(cumulative, shift)
    wanted = min(max(accept_length(cumulative) + shift, 1.0), len(rates) + 1.0)
    assert accept_length(shifted) == pytest.approx(wanted)
    emitted_pmf(shifted)


# Dispersion between requests


@settings(deadline=None, max_examples=50)
@given(st.floats(1.01, 3.99), st.floats(0.01, 3), st.integers(2, 12), st.sampled_from([CE_DECAY, TV_DECAY]))
def test_dispersed_requests_of_equal_length_keep_tokens_over_steps(
    length: float, dispersion: float, num_classes: int, decay: PositionDecay
) -> None:
    cumulative = split_accept_length(length, 3, 3, decay)
    weights, classes = dispersed_classes(cumulative, dispersion, num_classes)
    lengths = 1 + classes.sum(axis=1)
    assert weights.sum() == pytest.approx(1.0)
    assert classes.shape == (num_classes, 3)
    assert 1 / (weights @ (1 / lengths)) == pytest.approx(length, rel=1e-9)
    assert weights @ lengths >= length - 1e-9
    assert np.all(np.diff(lengths) >= 0)
    assert np.all(np.diff(classes, axis=1) <= 0)


def test_dispersion_is_the_standard_deviation_of_log_odds_between_classes() -> None:
    _, classes = dispersed_classes(np.array([0.9, 0.76, 0.62]), 0.7)
    log_odds = np.log(classes[:, 0] / (1 - classes[:, 0]))
    assert log_odds.std() == pytest.approx(0.7)


@pytest.mark.parametrize(("rates", "dispersion"), [([0.9, 0.5], 0.0), ([1.0, 1.0], 1.0), ([0.0, 0.0], 1.0), ([], 1.0)])
def test_nothing_to_disperse_gives_one_class_with_the_same_rates(rates: list[float], dispersion: float) -> None:
    weights, classes = dispersed_classes(np.array(rates), dispersion)
    assert weights.tolist() == [1.0]
    assert classes.tolist() == [rates]


def test_positions_never_or_always_accepted_stay_so_when_dispersed() -> None:
    _, classes = dispersed_classes(np.array([1.0, 0.5, 0.0]), 1.0)
    assert np.all(classes[:, 0] == 1.0)
    assert np.all(classes[:, 2] == 0.0)
    assert 1 / np.mean(1 / (1 + classes.sum(axis=1))) == pytest.approx(2.5)


def test_negative_dispersion_is_refused() -> None:
    with pytest.raises(ValueError, match="dispersion: -1 must be >= 0"):
        dispersed_classes(np.array([0.5]), -1.0)
