"""Length tail of a logged run as a scenario's workload: median, spread, longest, and the drift over RL steps."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from simulator.calibration.values import Value
from simulator.config import LognormalLength
from simulator.forecast.steps import LoggedSteps
from simulator.forecast.tail import USUAL_SIGMA

F64 = NDArray[np.float64]

_MAX_KNOTS: Final = 40


@dataclass(frozen=True, slots=True)
class LengthFit:
    """Response lengths of the whole run."""

    response_tokens: dict[str, Any]
    length_drift: list[list[float]] | None
    """[[rl_step, factor], ..]; None where lengths do not drift."""
    values: tuple[Value, ...]
    notes: tuple[str, ...]


def fit_lengths(logged: LoggedSteps) -> LengthFit:
    """Return the log-normal that has the logged means, with one spread for all steps."""
    setup = logged.run.setup
    has_longest = any(step.response_tokens_max is not None for step in logged.steps)
    sigmas = np.array([tail.sigma for tail in logged.tails])
    maximum = float(setup.max_response_tokens or max(tail.maximum for tail in logged.tails))
    sigma = float(np.clip(np.median(sigmas), 0.01, 5.0)) if has_longest else USUAL_SIGMA
    means = np.minimum(logged.mean_tokens, 0.98 * maximum)
    medians = np.array([_median_for(mean, sigma, maximum) for mean in means])
    centre = float(np.exp(np.mean(np.log(medians))))
    low, high = np.quantile(sigmas, [0.05, 0.95])
    notes = []
    if setup.response_includes_observations:
        notes.append(
            "lengths: the log counts what tools put in as response; a scenario with workload.turns would add its own "
            "observations on top"
        )
    why = f"median of {len(sigmas)} steps; their 5th to 95th percentile"
    value = Value(
        "workload.response_tokens.sigma",
        sigma,
        float(low) if has_longest else 0.5,
        float(high) if has_longest else 1.5,
        "told" if has_longest else "not told",
        why if has_longest else "the log has no longest response",
    )
    lengths = {
        "kind": "lognormal",
        "median": _round(centre),
        "sigma": _round(sigma),
        "minimum": 1.0,
        "maximum": maximum,
    }
    return LengthFit(lengths, _drift(logged, medians / centre), (value,), tuple(notes))


def _median_for(mean: float, sigma: float, maximum: float) -> float:
    """Return the median of a log-normal cut at `maximum` that has this mean."""

    def excess(log_median: float) -> float:
        median = float(np.exp(log_median))
        return (
            LognormalLength(median=median, sigma=sigma, minimum=1.0, maximum=max(maximum, median)).mean_after_cut - mean
        )

    low, high = 0.0, float(np.log(maximum))
    if excess(low) >= 0:
        return 1.0
    return float(np.exp(brentq(excess, low, high))) if excess(high) > 0 else maximum


def _drift(logged: LoggedSteps, factors: F64) -> list[list[float]] | None:
    """Return the factor on the median along the run: the geometric mean of each of at most 40 pieces."""
    numbers = np.array([step.step for step in logged.steps])
    if len(factors) < 2 or np.any(np.diff(numbers) <= 0):
        return None
    pieces = np.array_split(np.arange(len(factors)), min(_MAX_KNOTS, len(factors)))
    return [[int(np.mean(numbers[p])), _round(float(np.exp(np.mean(np.log(factors[p])))))] for p in pieces]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
