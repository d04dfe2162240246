"""Naive baselines that every forecast here has to beat, fitted on the same steps as the forecast."""

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


def last_value(seconds: F64, fitted: Bools) -> F64:
    """Return the last of the fitted steps' seconds, for every step."""
    return np.full(len(seconds), seconds[fitted][-1])


def linear_length(seconds: F64, mean_tokens: F64, fitted: Bools) -> F64:
    """Return the least-squares line in the mean response length; the mean where lengths do not differ."""
    x, y = mean_tokens[fitted], seconds[fitted]
    if len(x) < 2 or np.ptp(x) <= 1e-9 * np.mean(x):
        return np.full(len(seconds), float(np.mean(y)))
    slope, intercept = np.polyfit(x, y, 1)
    line: F64 = slope * mean_tokens + intercept
    return line
