"""Lines, bounds and parts of a drift."""

import math

import numpy as np
import pytest

from profiler.mtp.entropy_bounds import largest_top_probability, least_top_probability
from profiler.mtp.laws import drift_parts, fit_line


def test_a_line_through_a_line_is_that_line() -> None:
    line = fit_line([0.1, 0.2, 0.5], [3.5, 3.3, 2.7])
    assert (line.intercept, line.slope_per_nat) == pytest.approx((3.7, -2.0))
    assert line(0.3) == pytest.approx(3.1)
    assert (line.entropy_low_nats, line.entropy_high_nats, line.num_points) == (0.1, 0.5, 3)


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    random, entropy, hits = np.random.default_rng(0), np.linspace(0.1, 0.6, 12), 0
    for _ in range(400):
        line = fit_line(list(entropy), list(3.7 - 1.7 * entropy + 0.05 * random.normal(size=12)))
        hits += line.slope_low <= -1.7 <= line.slope_high
    assert 0.92 <= hits / 400 <= 0.98


def runs(random: np.random.Generator, num_seeds: int) -> tuple[list[float], list[float], list[int], list[float]]:
    """Return entropies, accept lengths, seeds and steps of runs whose neighbouring steps resemble each other."""
    entropies, lengths, seeds, steps = [], [], [], []
    for seed in range(num_seeds):
        level, slope, rest = 3.0 + 0.3 * random.normal(), -1.7 + 0.2 * random.normal(), 0.0
        for step in range(11):
            rest = 0.6 * rest + 0.05 * random.normal()
            entropies.append(0.1 + 0.06 * (5 - abs(step - 5)) + 0.02 * random.normal())
            lengths.append(level + slope * entropies[-1] - 0.01 * step + rest)
            seeds.append(seed)
            steps.append(float(step))
    return entropies, lengths, seeds, steps


def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say() -> None:
    random, hits, drift_hits, independent_hits = np.random.default_rng(1), 0, 0, 0
    for _ in range(300):
        entropies, lengths, seeds, steps = runs(random, 4)
        line = fit_line(entropies, lengths, seeds, steps)
        hits += line.slope_low <= -1.7 <= line.slope_high
        drift_hits += line.per_step_low <= -0.01 <= line.per_step_high
        # The levels of seeds are taken away here too, so that only the errors differ.
        independent = fit_line(
            entropies, [y - np.mean(lengths[11 * s : 11 * s + 11]) for y, s in zip(lengths, seeds, strict=True)]
        )
        independent_hits += independent.slope_low <= -1.7 <= independent.slope_high
    assert 0.9 <= hits / 300 <= 0.99
    assert 0.9 <= drift_hits / 300 <= 0.99
    assert independent_hits / 300 < 0.88


def test_a_level_of_each_seed_is_no_slope() -> None:
    line = fit_line([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [3.0, 2.9, 2.8, 3.7, 3.6, 3.5], [0, 0, 0, 1, 1, 1])
    assert line.slope_per_nat == pytest.approx(-1.0)
    assert line.intercept == pytest.approx((3.1 + 4.1) / 2)
    assert "Newey-West" in line.errors
    assert (
        fit_line([0.1, 0.2, 0.5] * 3, [3.0, 2.8, 2.3] * 3, [0] * 3 + [1] * 3 + [2] * 3).errors == "clusters of 3 seeds"
    )


@pytest.mark.parametrize("entropies", [[0.1, 0.2], [0.3, 0.3, 0.3]])
def test_points_that_fix_no_line_are_refused(entropies: list[float]) -> None:
    with pytest.raises(ValueError, match="do not fix a line"):
        fit_line(entropies, [1.0] * len(entropies))


@pytest.mark.parametrize(
    ("entropy", "low", "high"),
    [(0.1, 0.905, 0.994), (0.25, 0.779, 0.985), (0.5, 0.607, 0.970), (1.0, 0.368, 0.936), (2.0, 0.135, 0.865)],
)
def test_bounds_of_the_likeliest_token_at_the_size_of_a_real_vocabulary(
    entropy: float, low: float, high: float
) -> None:
    assert least_top_probability(entropy) == pytest.approx(low, abs=0.001)
    assert largest_top_probability(entropy, 151_936) == pytest.approx(high, abs=0.001)


@pytest.mark.parametrize("vocab", [2, 5, 100])
def test_every_distribution_lies_between_the_bounds(vocab: int) -> None:
    random = np.random.default_rng(vocab)
    for concentration in (0.05, 0.5, 5.0):
        for p in random.dirichlet(np.full(vocab, concentration), size=50):
            entropy = float(-(p[p > 0] * np.log(p[p > 0])).sum())
            assert least_top_probability(entropy) <= p.max() + 1e-9
            assert p.max() <= largest_top_probability(min(entropy, math.log(vocab)), vocab) + 1e-6


def test_the_ends_of_the_bounds() -> None:
    assert largest_top_probability(0.0, 100) == 1.0
    assert largest_top_probability(math.log(100), 100) == pytest.approx(0.01, abs=1e-4)
    with pytest.raises(ValueError, match="outside"):
        largest_top_probability(5.0, 100)


def test_a_drift_is_the_sum_of_its_parts() -> None:
    # SWE RL under greedy drafts in the paper: -0.126, of which -0.108 is entropy's.
    from_entropy, mismatch = drift_parts(-1.68, (3.404, 3.278), (0.2, 0.2643))
    assert (from_entropy, mismatch) == pytest.approx((-0.108, -0.018), abs=1e-3)
