"""Intervals of paired means: a circular block bootstrap over RL steps, which depend on each other.

One run each: what another run with another seed would give is not in them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from simulator.rng import generator

F64 = NDArray[np.float64]

COVERAGE = 0.9
NUM_RESAMPLES = 2000
MIN_STEPS = 8
"""Fewer steps give no interval."""
_MAX_DRAWS = 1_000_000
"""Blocks drawn at a time, to bound memory."""


def resampled_sums(columns: F64, block_steps: int, *, seed: int = 0) -> F64:
    """Return the column sums of bootstrap samples [NUM_RESAMPLES, columns] of rows [steps, columns] in their order.

    Blocks of `block_steps` neighbouring rows are drawn, wrapping round the end (Politis and Romano 1992); the last one
    is cut, so that every sample has as many rows as there are.
    """
    num_steps, num_columns = columns.shape
    totals = np.concatenate([np.zeros((1, num_columns)), np.cumsum(np.concatenate([columns, columns]), axis=0)])
    full, rest = divmod(num_steps, block_steps)
    num_blocks = full + (rest > 0)
    rng = generator("compare", seed)
    sums = np.empty((NUM_RESAMPLES, num_columns))
    at_once = max(1, _MAX_DRAWS // (num_blocks * num_columns))
    for first in range(0, NUM_RESAMPLES, at_once):
        count = min(at_once, NUM_RESAMPLES - first)
        starts = rng.integers(0, num_steps, size=(count, num_blocks))
        ends = starts + block_steps
        if rest:
            ends[:, -1] = starts[:, -1] + rest
        sums[first : first + count] = (totals[ends] - totals[starts]).sum(axis=1)
    return sums


def percentiles(samples: F64) -> tuple[float, float]:
    """Return the ends of the central interval that holds COVERAGE of the samples."""
    low, high = np.quantile(samples, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def block_length(series: F64) -> int:
    """Return the steps per block for a series: at least 1, at most a third of it.

    Source: Politis and White 2004 for the circular bootstrap, with the correction of Patton, Politis and White 2009.
    """
    num_steps = len(series)
    largest = max(1, min(math.ceil(3 * math.sqrt(num_steps)), num_steps // 3))
    centred = series - series.mean()
    variance = float(centred @ centred) / num_steps
    if num_steps < 4 or variance <= 1e-24 * (1.0 + float(np.mean(series)) ** 2):
        return 1
    quiet_lags = max(5, math.ceil(math.sqrt(math.log10(num_steps))))
    max_lag = min(math.ceil(math.sqrt(num_steps)) + quiet_lags, num_steps - 1)
    covariance = np.array([centred[lag:] @ centred[: num_steps - lag] for lag in range(max_lag + 1)]) / num_steps
    quiet = np.abs(covariance[1:] / variance) < 2 * math.sqrt(math.log10(num_steps) / num_steps)
    runs = [lag for lag in range(len(quiet)) if quiet[lag : lag + quiet_lags].all()]
    bandwidth = min(2 * max(runs[0] if runs else max_lag, 1), max_lag)
    lags = np.arange(1, bandwidth + 1)
    window = np.clip(2 * (1 - lags / bandwidth), 0.0, 1.0)  # flat to the half, then down
    spectrum = variance + 2 * float(window @ covariance[1 : bandwidth + 1])
    slope = 2 * float(window @ (lags * covariance[1 : bandwidth + 1]))
    if spectrum <= 0:
        return 1
    length = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * num_steps ** (1 / 3)
    return int(np.clip(math.ceil(length), 1, largest))
