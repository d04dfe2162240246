"""An accept length split into positions: valid everywhere, and near heads it was not fitted on."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.positions import CE_DECAY, TV_DECAY, PositionDecay, fit_decay, split_accept_length
from simulator.speculation import accept_length
from traces.importers.bebop_paper import POSITIONS
from traces.store import DATA_FOLDER

DECAYS = st.sampled_from([CE_DECAY, TV_DECAY])


@given(st.floats(1, 17), st.integers(1, 16), st.integers(0, 16), DECAYS)
def test_every_accept_length_splits_into_valid_rates(
    length: float, counted_at: int, k: int, decay: PositionDecay
) -> None:
    length = min(length, counted_at + 1.0)
    cumulative = split_accept_length(length, counted_at, k, decay)
    assert len(cumulative) == k
    assert np.all((cumulative >= 0) & (cumulative <= 1))
    assert np.all(np.diff(cumulative) <= 0)
    if k == counted_at:
        assert accept_length(cumulative) == pytest.approx(length, abs=1e-9)


@given(st.floats(1, 4), st.floats(1, 4), DECAYS)
def test_every_rate_grows_with_the_accept_length(one: float, other: float, decay: PositionDecay) -> None:
    low, high = sorted((one, other))
    lower, higher = (split_accept_length(length, 3, 8, decay) for length in (low, high))
    assert np.all(lower <= higher + 1e-9)


def test_the_ends_of_the_accept_length_are_exact() -> None:
    assert split_accept_length(1.0, 3, 5, CE_DECAY).tolist() == [0.0] * 5
    assert split_accept_length(4.0, 3, 5, CE_DECAY).tolist() == [1.0] * 5
    with pytest.raises(ValueError, match=r"accept_length: 4\.1 is outside 1\.\.4 of k = 3"):
        split_accept_length(4.1, 3, 3, CE_DECAY)


def test_conditional_rates_flatten_instead_of_falling_for_ever() -> None:
    cumulative = split_accept_length(3.2, 3, 16, CE_DECAY)
    conditional = cumulative[1:] / cumulative[:-1]
    assert np.all(np.diff(conditional) <= 1e-12)
    assert conditional[5] == pytest.approx(conditional[-1], abs=2e-3)


@pytest.mark.parametrize(("loss", "used"), [("ce", CE_DECAY), ("tv", TV_DECAY)])
def test_decay_in_use_is_the_fit_to_the_papers_curves(loss: str, used: PositionDecay) -> None:
    curves = [rates for (each, _), rates in POSITIONS.items() if each == loss]
    fitted = fit_decay(curves, "again")
    assert (fitted.drop, fitted.rho) == pytest.approx((used.drop, used.rho), abs=1e-3)
    for rates in curves:
        split = split_accept_length(1 + sum(rates), 3, 3, used)
        assert np.max(np.abs(split - rates)) < 0.012  # read off to +-0.004


def published_heads() -> dict[str, dict[str, str]]:
    path = DATA_FOLDER / "published" / "mtp_acceptance_by_position.csv"
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("head", "limit"), [("qwen3.6-27b", 0.03), ("gemma4-26b", 0.01)])
def test_accept_length_at_high_k_follows_from_k_3_on_heads_never_fitted_on(head: str, limit: float) -> None:
    counted = [float(part) for part in published_heads()[head]["cumulative"].split(";")]
    predicted = split_accept_length(1 + sum(counted[:3]), 3, len(counted), CE_DECAY)
    assert accept_length(predicted) == pytest.approx(1 + sum(counted), rel=limit)
    assert np.max(np.abs(predicted - counted)) < 0.065


def test_accept_length_at_k_4_follows_from_k_3_between_separate_runs() -> None:
    lengths = [float(part) for part in published_heads()["qwen3.6-35b-a3b"]["accept_length_by_k"].split(";")]
    assert accept_length(split_accept_length(lengths[2], 3, 4, CE_DECAY)) == pytest.approx(lengths[3], rel=0.005)


def test_a_module_per_position_is_another_kind_of_head() -> None:
    counted = [float(part) for part in published_heads()["eight-modules"]["cumulative"].split(";")]
    predicted = accept_length(split_accept_length(1 + sum(counted[:3]), 3, 8, CE_DECAY))
    assert predicted < 0.9 * (1 + sum(counted))
