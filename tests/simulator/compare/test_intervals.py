"""Block bootstrap: exact for constants, wide enough for steps that depend on each other."""

import numpy as np
import pytest

from simulator.compare.intervals import NUM_RESAMPLES, block_length, percentiles, resampled_sums


def autoregressive(rng: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    noise = rng.standard_normal(count) * np.sqrt(1 - correlation**2)
    series = np.empty(count)
    last = rng.standard_normal()
    for index, shock in enumerate(noise):
        last = correlation * last + shock
        series[index] = last
    return series


@pytest.mark.parametrize("block", [1, 3, 7, 20])
def test_every_sample_has_as_many_steps_as_there_are(block: int) -> None:
    columns = np.stack([np.ones(20), np.arange(20.0)], axis=1)
    sums = resampled_sums(columns, block)
    assert sums.shape == (NUM_RESAMPLES, 2)
    assert (sums[:, 0] == 20).all()
    assert sums[:, 1].mean() == pytest.approx(190, rel=0.02)
    if block == 20:  # a circle cut anywhere is whole
        assert sums[:, 1] == pytest.approx(190)


def test_neighbours_stay_together() -> None:
    columns = np.zeros((20, 1))
    columns[::2] = 1.0
    assert set(resampled_sums(columns, 2)[:, 0]) == {10.0}


def test_the_same_steps_give_the_same_interval() -> None:
    columns = np.random.default_rng(1).random((30, 2))
    assert (resampled_sums(columns, 4) == resampled_sums(columns, 4)).all()


def test_blocks_grow_with_the_correlation_of_the_steps() -> None:
    lengths = [
        np.mean([block_length(autoregressive(np.random.default_rng(seed), 200, rho)) for seed in range(20)])
        for rho in (0.0, 0.5, 0.9)
    ]
    assert lengths[0] < 4 < lengths[1] < lengths[2] < 67


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_short_and_constant_series_have_blocks_too(count: int) -> None:
    assert block_length(np.full(count, 3.7)) == 1
    assert 1 <= block_length(np.arange(float(count))) <= max(1, count // 3)


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.84), (0.6, 0.78)])
def test_intervals_hold_the_mean_about_as_often_as_they_say(correlation: float, least: float) -> None:
    # 90 % is asymptotic; over 120 correlated steps a percentile interval holds somewhat less.
    held = 0
    for seed in range(300):
        series = autoregressive(np.random.default_rng(seed), 120, correlation)
        low, high = percentiles(resampled_sums(series[:, None], block_length(series))[:, 0])
        held += low <= 0 <= high
    assert least <= held / 300 <= 0.95
