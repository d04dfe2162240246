"""Length tail: the spread of response lengths in a step, from what a log says about them. Does not know seconds.

Lengths are taken as log-normal and cut at the longest one: two numbers, which mean, maximum and clipped share (or
median) determine. The sum of squared lengths, which attention to the context costs, follows.
"""

from dataclasses import dataclass
from math import exp, log
from typing import Final

from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

USUAL_SIGMA: Final = 0.8
"""Standard deviation of log length where a log has the mean alone. Assumed; the runs of docs/forecasting.md lie between
0.5 and 1.8, those of Bebop's scenarios at 0.8."""
_MIN_SIGMA, _MAX_SIGMA = 0.01, 4.0


@dataclass(frozen=True, slots=True)
class Tail:
    """A log-normal cut at `maximum`."""

    log_median: float
    sigma: float
    """Standard deviation of the logarithm."""
    maximum: float
    """Tokens of the longest response."""

    def moment(self, order: int) -> float:
        """Return the mean of (length to the power of `order`)."""
        if self.sigma <= _MIN_SIGMA:
            return float(min(exp(self.log_median), self.maximum) ** order)
        edge = (log(self.maximum) - self.log_median) / self.sigma
        spread = order * self.sigma
        below = exp(order * self.log_median + spread**2 / 2) * ndtr(edge - spread)
        return float(below + self.maximum**order * ndtr(-edge))


def tail(mean: float, maximum: float | None, clipped: float | None, count: float) -> Tail:
    """Return the tail of `count` responses of this mean.

    Args:
        mean: Tokens per response, positive.
        maximum: Tokens of the longest; None: the one to be expected of `count` responses with the usual spread.
        clipped: Share of responses that were cut at the limit.
        count: Responses.
    """
    # The longest of n stands at about the quantile 1 - 0.7 / (n + 1), the median of its distribution.
    share = min(max(clipped or 0.0, 0.7 / (count + 1.0)), 0.5)
    edge = -float(ndtri(share))
    if maximum is None:
        log_median = log(mean) - USUAL_SIGMA**2 / 2
        return Tail(log_median, USUAL_SIGMA, exp(log_median + USUAL_SIGMA * edge))

    def excess(sigma: float) -> float:
        return Tail(log(maximum) - edge * sigma, sigma, maximum).moment(1) - mean

    if maximum <= mean * (1 + 1e-9) or excess(2 * _MIN_SIGMA) <= 0:
        return Tail(log(mean), _MIN_SIGMA, max(maximum, mean))
    sigma = _MAX_SIGMA if excess(_MAX_SIGMA) > 0 else float(brentq(excess, 2 * _MIN_SIGMA, _MAX_SIGMA))
    return Tail(log(maximum) - edge * sigma, sigma, maximum)
