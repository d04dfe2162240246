"""Laws of acceptance in entropy: fitted lines, what theory bounds them by, and the parts of a drift.

Points of one run resemble their neighbours, and all points of one seed share its heads: errors are those of clusters
(seeds), or of autocorrelation where there are too few seeds to tell. Does not know where the numbers come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.regression.linear_model import OLS

LEAST_CLUSTERS = 3
"""Seeds from which on errors come from the spread between them."""


@dataclass(frozen=True, slots=True)
class Line:
    """Accept length (bonus included) as a line in entropy, by least squares; every seed has a level of its own."""

    intercept: float
    """Mean over seeds, of the first step where steps are held."""
    slope_per_nat: float
    slope_sd_per_nat: float
    """Standard error of the slope."""
    slope_low: float
    """95 % interval of the slope (Student's t)."""
    slope_high: float
    entropy_low_nats: float
    entropy_high_nats: float
    num_points: int
    errors: str
    """How the standard error was found."""
    per_step: float = 0.0
    """Change per RL step at the same entropy; 0 where steps are not held."""
    per_step_low: float = 0.0
    per_step_high: float = 0.0

    def __call__(self, entropy_nats: float) -> float:
        """Return the accept length at this entropy."""
        return self.intercept + self.slope_per_nat * entropy_nats


def fit_line(
    entropies_nats: Sequence[float],
    accept_lengths: Sequence[float],
    seeds: Sequence[int] | None = None,
    steps: Sequence[float] | None = None,
) -> Line:
    """Return the line through points, in the order they were measured.

    Args:
        entropies_nats: Of each point.
        accept_lengths: Of each point.
        seeds: Of each point, those of one seed together. None takes points as independent.
        steps: Of each point; given, the slope in entropy is that at one and the same step.

    Raises:
        ValueError: Too few points, or all at one entropy.
    """
    columns = [np.asarray(entropies_nats, float)] + ([] if steps is None else [np.asarray(steps, float)])
    of_seed = np.zeros(len(columns[0]), np.int64) if seeds is None else np.unique(seeds, return_inverse=True)[1]
    spare = len(of_seed) - len(columns) - len(set(of_seed.tolist()))
    if spare < 1 or any(np.ptp(column) == 0 for column in columns):
        raise ValueError(
            f"entropies: {len(of_seed)} points do not fix a line; give more than it has numbers, at different entropies"
        )
    levels = np.eye(int(of_seed.max()) + 1)[of_seed]
    fit, errors = _fit(
        np.column_stack([*columns, levels]), np.asarray(accept_lengths, float), of_seed, seeds is not None
    )
    interval = fit.conf_int(0.05)
    drift = (0.0, 0.0, 0.0) if steps is None else (fit.params[1], *interval[1])
    return Line(
        intercept=float(fit.params[len(columns) :].mean()),
        slope_per_nat=float(fit.params[0]),
        slope_sd_per_nat=float(fit.bse[0]),
        slope_low=float(interval[0][0]),
        slope_high=float(interval[0][1]),
        entropy_low_nats=float(columns[0].min()),
        entropy_high_nats=float(columns[0].max()),
        num_points=len(of_seed),
        errors=errors,
        per_step=float(drift[0]),
        per_step_low=float(drift[1]),
        per_step_high=float(drift[2]),
    )


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], of_seed: NDArray[np.int64], has_seeds: bool
) -> tuple[Any, str]:
    plain = OLS(y, x).fit()
    if not has_seeds:
        return plain, "points taken as independent"
    num_seeds = int(of_seed.max()) + 1
    if num_seeds >= LEAST_CLUSTERS:
        return plain.get_robustcov_results("cluster", use_t=True, groups=of_seed), f"clusters of {num_seeds} seeds"
    lags = max(1, math.floor(4 * (len(y) / num_seeds / 100) ** (2 / 9)))
    found = plain.get_robustcov_results("hac-panel", use_t=True, groups=of_seed, maxlags=lags)
    # By its own rule statsmodels would take seeds - 1 degrees of freedom: none, with one seed.
    found.df_resid_inference = plain.df_resid
    return found, f"autocorrelation to lag {lags} (Newey-West)"


def drift_parts(
    slope_per_nat: float, accept_lengths: tuple[float, float], entropies_nats: tuple[float, float]
) -> tuple[float, float]:
    """Return how much of a change of accept length is the entropy's, and how much is left: mismatch (eq. 16).

    Args:
        slope_per_nat: Of the law of that recipe.
        accept_lengths: At the first step and now.
        entropies_nats: At the first step and now.
    """
    from_entropy = slope_per_nat * (entropies_nats[1] - entropies_nats[0])
    return from_entropy, accept_lengths[1] - accept_lengths[0] - from_entropy
