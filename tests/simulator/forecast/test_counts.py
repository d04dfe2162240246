import numpy as np
import pytest

from simulator.forecast.counts import trained_sequences
from traces.measured import MeasuredStep


def filtered_steps(num_steps: int, group: int, seed: int) -> tuple[list[MeasuredStep], list[int]]:
    """Return steps of 512 responses of which whole groups are trained on, and how many that were."""
    source = np.random.default_rng(seed)
    steps, kept = [], []
    for i in range(num_steps):
        lengths, prompts = source.integers(5, 4000, 512), source.integers(200, 700, 512 // group).repeat(group)
        turns, num = source.integers(1, 9, 512), int(source.integers(20, 29)) * group
        steps.append(
            MeasuredStep(
                step=i,
                response_tokens_mean=float(np.float32(lengths[:num].mean())),
                prompt_tokens_mean=float(np.float32(prompts[:num].mean())),
                turns_mean=float(turns[:num].mean()),
                clipped_fraction=float(np.float32((lengths[:num] > 3900).mean())),
                total_tokens=float((lengths + prompts).sum()),
            )
        )
        kept.append(num)
    return steps, kept


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_read_off_the_denominators_of_means(seed: int) -> None:
    steps, kept = filtered_steps(60, 16, seed)
    assert float(np.mean(trained_sequences(steps) == kept)) > 0.95


def test_a_total_that_is_a_multiple_of_the_mean_needs_no_guess() -> None:
    step = MeasuredStep(step=1, response_tokens_mean=1021.046875, prompt_tokens_mean=336.4375, total_tokens=695032)
    assert trained_sequences([step]) == [512]


def test_logged_counts_are_taken_as_they_are() -> None:
    steps = [MeasuredStep(step=i, num_sequences=100 + i, response_tokens_mean=10.3) for i in range(3)]
    assert list(trained_sequences(steps)) == [100, 101, 102]


def test_a_log_with_too_little_leaves_the_count_open() -> None:
    assert np.isnan(trained_sequences([MeasuredStep(step=1, response_tokens_mean=10.3)])).all()
