"""What a calibration says of each open field: its value, its interval, and whether the log tells it."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from simulator.forecast.fit import Fit

INTERVAL: Final = 0.9
"""Share of an interval, as everywhere in the answers of Bebop."""
TOLD: Final = 0.6
WEAKLY: Final = 0.2
"""Shares of a prior's width that the log has to take away."""

Verdict = Literal["told", "weakly told", "not told"]


@dataclass(frozen=True, slots=True)
class Value:
    """One fitted field of a scenario."""

    path: str
    """Dotted path of the field."""
    value: float
    low: float
    high: float
    verdict: Verdict
    why: str
    """What in the log tells it, or why nothing does."""

    @property
    def is_told(self) -> bool:
        """Whether the scenario takes the value; otherwise it keeps its own."""
        return self.verdict != "not told"


def from_fit(
    fit: Fit,
    parameter: str,
    path: str,
    why: str,
    *,
    scale: float = 1.0,
    is_inverse: bool = False,
    model_sd: float = 0.0,
) -> Value:
    """Return a positive parameter of a fit as a field's value: `scale` times it, or over it.

    `model_sd` is an error of the law itself (of the logarithm) that no number of steps takes away.
    """
    place = fit.law.names.index(parameter)
    reach = fit.quantile(INTERVAL) * float(np.sqrt(fit.covariance[place, place] + model_sd**2))
    at = float(fit.parameters[place])
    ends = sorted(scale * float(np.exp(-end if is_inverse else end)) for end in (at - reach, at + reach))
    learned = float(fit.learned()[place])
    return Value(
        path,
        scale * float(np.exp(-at if is_inverse else at)),
        ends[0],
        ends[1],
        verdict(learned),
        f"{why}{_said(learned)}",
    )


def verdict(learned: float) -> Verdict:
    """Return what a share of the prior's width that is gone means."""
    return "told" if learned >= TOLD else "weakly told" if learned >= WEAKLY else "not told"


def _said(learned: float) -> str:
    return f"; takes away {100 * max(learned, 0.0):.0f} % of the prior's width" if learned < TOLD else ""
