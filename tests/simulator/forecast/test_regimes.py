import numpy as np

from simulator.forecast.regimes import collapsed, jumps


def noisy(levels: list[float], sd: float = 0.03) -> np.ndarray:
    return np.concatenate([np.full(20, level) for level in levels]) * np.exp(
        sd * np.random.default_rng(3).standard_normal(20 * len(levels))
    )


def test_a_lasting_change_is_found_at_its_step() -> None:
    (change,) = jumps(noisy([1.0, 1.5]))
    assert change.index == 20
    assert abs(change.factor - 1.5) < 0.05


def test_two_changes_are_found_in_order() -> None:
    assert [jump.index for jump in jumps(noisy([1.0, 1.5, 1.0]))] == [20, 40]


def test_noise_outliers_and_a_drift_are_no_change() -> None:
    quiet = noisy([1.0, 1.0, 1.0])
    assert not jumps(quiet)
    quiet[[5, 17, 18, 44]] *= 4
    assert not jumps(quiet)
    assert not jumps(np.exp(np.linspace(0, 1, 200)))


def test_a_fall_to_almost_nothing_is_a_collapse_and_growth_is_not() -> None:
    lengths = np.concatenate([np.linspace(1000, 1800, 12), [900, 300, 20], np.ones(30)])
    fell = collapsed(lengths)
    assert not fell[:14].any()
    assert fell[14:].all()
    assert not collapsed(np.linspace(200, 5000, 50)).any()
    assert not collapsed(np.array([np.nan, 100.0, np.nan, 120.0, 90.0])).any()
