"""Positions: an accept length at one k split into c_1..c_k, and carried to any other k.

Drafts of one recursive MTP layer are accepted less the farther ahead they look, but the loss flattens: contexts whose
first drafts were accepted are the easy ones. The log-odds of the conditional rate of position j fall as

    logit a_j = logit a_1 - drop (1 - rho^(j - 1)),

so a_j sinks from a_1 to a floor and stays there. In log-odds every accept length inside 1..k+1 has exactly one a_1,
rates stay in 0..1, and every c_j grows with the accept length. Does not hold for heads with a module per position.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, least_squares

from simulator.speculation import FloatArray

MAX_LOG_ODDS = 60.0
"""Log-odds at which a rate is 0 or 1 to double precision."""


@dataclass(frozen=True, slots=True)
class PositionDecay:
    """How fast conditional acceptance falls with the position of the draft."""

    drop: float
    """Log-odds lost between the first position and a far one."""
    rho: float
    """Share of the loss still to come that is left after each further position."""
    source: str

    def cumulative(self, first_log_odds: float, num_draft_tokens: int) -> list[float]:
        """Return c_1..c_k when the first draft is accepted with these log-odds."""
        product, rates = 1.0, []
        for j in range(num_draft_tokens):
            product *= _expit(first_log_odds - self.drop * (1.0 - self.rho**j))
            rates.append(product)
        return rates


CE_DECAY = PositionDecay(
    drop=0.764,
    rho=0.357,
    source="fitted on arXiv 2606.12370, CE heads: per-position curves of Code, Math, MT-Bench and the SWE RL start",
)
TV_DECAY = PositionDecay(
    drop=0.538,
    rho=0.310,
    source="fitted on arXiv 2606.12370, TV heads: per-position curves of Code, Math, MT-Bench",
)


def split_accept_length(
    accept_length: float, counted_at: int, num_draft_tokens: int, decay: PositionDecay
) -> FloatArray:
    """Return c_1..c_num_draft_tokens of a head whose accept length with `counted_at` drafts is given.

    With num_draft_tokens == counted_at, 1 + sum c_j is the accept length again.

    Raises:
        ValueError: The accept length is outside 1..counted_at + 1.
    """
    if not 1.0 <= accept_length <= counted_at + 1.0:
        raise ValueError(f"accept_length: {accept_length:g} is outside 1..{counted_at + 1} of k = {counted_at}")
    if accept_length in (1.0, counted_at + 1.0):
        return np.full(num_draft_tokens, 0.0 if accept_length == 1.0 else 1.0)
    first_log_odds = brentq(
        lambda x: 1.0 + sum(decay.cumulative(x, counted_at)) - accept_length,
        -MAX_LOG_ODDS,
        MAX_LOG_ODDS + decay.drop,
        xtol=1e-13,
        rtol=1e-14,
    )
    return np.array(decay.cumulative(first_log_odds, num_draft_tokens))


def fit_decay(curves: Iterable[Sequence[float]], source: str) -> PositionDecay:
    """Return the decay that, given only each curve's accept length, comes closest to its c_j (least squares)."""
    counted = [np.asarray(curve, dtype=np.float64) for curve in curves]

    def residuals(parameters: FloatArray) -> FloatArray:
        decay = PositionDecay(float(parameters[0]), float(parameters[1]), source)
        return np.concatenate([split_accept_length(1.0 + float(c.sum()), len(c), len(c), decay) - c for c in counted])

    fit = least_squares(residuals, x0=(0.8, 0.35), bounds=((0.0, 0.0), (5.0, 0.99)))
    return PositionDecay(float(fit.x[0]), float(fit.x[1]), source)


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
