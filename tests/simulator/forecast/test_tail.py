import numpy as np
import pytest

from simulator.forecast.tail import USUAL_SIGMA, tail


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.2])
@pytest.mark.parametrize("cap", [2_000.0, 1e9])
def test_mean_longest_and_clipped_share_give_back_the_second_moment(sigma: float, cap: float) -> None:
    source = np.random.default_rng(1)
    errors, sigmas = [], []
    for _ in range(200):
        lengths = np.minimum(np.exp(np.log(800) + sigma * source.standard_normal(1024)), cap)
        found = tail(lengths.mean(), lengths.max(), float((lengths >= cap).mean()), 1024)
        errors.append(found.moment(2) / float((lengths**2).mean()) - 1)
        sigmas.append(found.sigma)
        assert found.moment(1) == pytest.approx(lengths.mean(), rel=1e-6)
    assert abs(float(np.median(errors))) < 0.03
    assert float(np.mean(sigmas)) == pytest.approx(sigma, rel=0.08)


def test_lengths_that_are_all_alike_have_no_spread() -> None:
    found = tail(700.0, 700.0, 0.0, 64)
    assert found.moment(1) == pytest.approx(700.0)
    assert found.moment(2) == pytest.approx(700.0**2)


def test_a_mean_alone_gets_the_usual_spread() -> None:
    found = tail(700.0, None, None, 512)
    assert found.sigma == USUAL_SIGMA
    assert found.maximum > 4 * 700.0


@pytest.mark.parametrize(("mean", "maximum", "clipped"), [(1.0, 1.0, 0.0), (8000.0, 8096.0, 0.99), (3.0, 1e6, 0.0)])
def test_odd_logs_give_finite_moments(mean: float, maximum: float, clipped: float) -> None:
    assert np.isfinite(tail(mean, maximum, clipped, 2).moment(2))
