"""Laws of acceptance in entropy: fitted lines, what theory bounds them by, and the parts of a drift.

Does not know where the numbers come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import optimize, stats


@dataclass(frozen=True, slots=True)
class Line:
    """Accept length (bonus included) as a line in entropy, by least squares."""

    intercept: float
    slope_per_nat: float
    slope_sd_per_nat: float
    """Standard error of the slope."""
    slope_low: float
    """95 % interval of the slope (Student's t), points being independent."""
    slope_high: float
    entropy_low_nats: float
    entropy_high_nats: float
    num_points: int

    def __call__(self, entropy_nats: float) -> float:
        """Return the accept length at this entropy."""
        return self.intercept + self.slope_per_nat * entropy_nats


def fit_line(entropies_nats: Sequence[float], accept_lengths: Sequence[float]) -> Line:
    """Return the line through points.

    Raises:
        ValueError: Fewer than three points, or all at one entropy.
    """
    if len(entropies_nats) < 3 or max(entropies_nats) == min(entropies_nats):
        raise ValueError(
            f"entropies: {len(entropies_nats)} points do not fix a line; give three at different entropies"
        )
    fit = stats.linregress(entropies_nats, accept_lengths)
    half = stats.t.ppf(0.975, len(entropies_nats) - 2) * fit.stderr
    return Line(
        intercept=float(fit.intercept),
        slope_per_nat=float(fit.slope),
        slope_sd_per_nat=float(fit.stderr),
        slope_low=float(fit.slope - half),
        slope_high=float(fit.slope + half),
        entropy_low_nats=min(entropies_nats),
        entropy_high_nats=max(entropies_nats),
        num_points=len(entropies_nats),
    )


def least_top_probability(entropy_nats: float) -> float:
    """Return exp(-H): the likeliest of any tokens with entropy H has at least this probability."""
    return math.exp(-entropy_nats)


def largest_top_probability(entropy_nats: float, vocab_size: int) -> float:
    """Return the probability that the likeliest of V tokens with entropy H has at most (Fano).

    Solves H = h2(p) + (1 - p) ln(V - 1) for p >= 1 / V: all else spread evenly.
    """
    if not 0 <= entropy_nats <= math.log(vocab_size):
        raise ValueError(f"entropy: {entropy_nats:g} nats is outside 0..ln V = {math.log(vocab_size):g}; correct it")

    def excess(p: float) -> float:
        spread = -p * math.log(p) - (1 - p) * math.log(max(1 - p, 1e-300)) if p < 1 else 0.0
        return spread + (1 - p) * math.log(vocab_size - 1) - entropy_nats

    if excess(1.0) >= 0:
        return 1.0
    return float(optimize.brentq(excess, 1 / vocab_size, 1.0)) if excess(1 / vocab_size) > 0 else 1 / vocab_size


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
