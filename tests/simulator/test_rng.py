"""Random numbers by name: uniform, independent between streams, and the same on every machine."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.compiled import compiled
from simulator.rng import generator, mix, sequence_key, stream_key, uniform

ALPHA = 1e-4
KEYS = st.integers(0, 2**64 - 1)


@compiled
def fill(key: np.uint64, first: int, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        out[i] = uniform(key, first + i)


@compiled
def first_draws(stream: np.uint64, out: np.ndarray) -> None:
    for i in range(out.shape[0]):
        out[i] = uniform(sequence_key(stream, i), 0)


def draws(key: np.uint64, count: int, first: int = 0) -> np.ndarray:
    out = np.zeros(count)
    fill(key, first, out)
    return out


def test_mix_is_the_finalizer_of_splitmix64() -> None:
    # First outputs of the reference implementation from state 0.
    golden = 0x9E3779B97F4A7C15
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(mix(np.uint64(golden * i % 2**64))) for i in (1, 2, 3)] == expected


@given(KEYS, st.integers(0, 2**40))
def test_a_draw_lies_in_the_unit_interval_and_depends_on_nothing_but_its_name(key: int, counter: int) -> None:
    u = uniform(np.uint64(key), counter)
    assert 0.0 <= u < 1.0
    assert uniform(np.uint64(key), counter) == u


def test_draws_of_one_stream_are_uniform_and_uncorrelated() -> None:
    u = draws(stream_key("test", 1), 200_000)
    assert stats.kstest(u, "uniform").pvalue > ALPHA
    for lag in (1, 2, 7):
        z = np.corrcoef(u[:-lag], u[lag:])[0, 1] * np.sqrt(len(u))
        assert abs(z) < stats.norm.isf(ALPHA / 2)


def test_first_draws_of_neighbouring_sequences_are_uniform_and_uncorrelated() -> None:
    u = np.zeros(200_000)
    first_draws(stream_key("test", 2), u)
    assert stats.kstest(u, "uniform").pvalue > ALPHA
    z = np.corrcoef(u[:-1], u[1:])[0, 1] * np.sqrt(len(u))
    assert abs(z) < stats.norm.isf(ALPHA / 2)


def test_streams_of_neighbouring_seeds_are_not_shifted_copies() -> None:
    seen = np.concatenate([draws(stream_key("test", seed), 20_000) for seed in range(5)])
    assert len(np.unique(seen)) == len(seen)


def test_names_are_told_apart_part_by_part() -> None:
    assert stream_key("a", 1) == stream_key("a", 1)
    assert stream_key("a", "b1") != stream_key("ab", 1)
    assert stream_key("rollout", 1) != stream_key("rollout", 2)


def test_a_generator_is_reproducible_and_its_prefix_does_not_depend_on_how_much_is_drawn() -> None:
    few, many = generator("x", 3).standard_normal(10), generator("x", 3).standard_normal(10_000)
    assert np.array_equal(few, many[:10])
    assert not np.array_equal(few, generator("x", 4).standard_normal(10))
