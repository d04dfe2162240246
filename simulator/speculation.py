"""Tokens per verify step: the law of one step, its truncation by short responses, its spread between requests.

Works on c_1..c_k, c_j = P(the first j drafts are all accepted); does not know where they come from (`acceptance`).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

FloatArray = NDArray[np.float64]

MAX_LOG_ODDS_SHIFT = 60.0
"""Wide enough that expit(x - 60) and expit(x + 60) are 0 and 1 to double precision for every rate that is neither."""


def accept_length(cumulative: FloatArray) -> float:
    """Return the mean tokens emitted per verify step, the bonus token included: 1 + sum of c_j."""
    return 1.0 + float(np.sum(cumulative))


def emitted_pmf(cumulative: FloatArray) -> FloatArray:
    """Return P(one step emits 1, 2, .., k+1 tokens); index 0 is one token, so k = 0 gives [1.0].

    A step that accepts exactly j drafts emits j + 1 tokens, so P(j + 1) = c_j - c_{j+1} with c_0 = 1, c_{k+1} = 0.

    Raises:
        ValueError: The rates leave 0..1 or increase.
    """
    bounded = np.concatenate(([1.0], np.asarray(cumulative, dtype=np.float64), [0.0]))
    pmf = bounded[:-1] - bounded[1:]
    if not np.all(pmf >= 0):
        raise ValueError(f"cumulative: {list(cumulative)} leaves 0..1 or increases; give P(first j accepted)")
    return pmf


def mean_emitted_tokens(pmf: FloatArray) -> float:
    """Return the mean of a law of emitted tokens."""
    return float(np.dot(np.arange(1, len(pmf) + 1), pmf))


def expected_steps(pmf: FloatArray, response_tokens: int) -> float:
    """Return the mean number of verify steps that a response of this length takes.

    Renewal recursion S(n) = 1 + sum_e pmf(e) S(n - e), S(n <= 0) = 0: the last step throws away what it emits past the
    end. For long responses S(n) tends to n / m + (m2 - m) / (2 m^2) + ..., so the loss is O(k / n).

    Raises:
        ValueError: response_tokens is negative.
    """
    if response_tokens < 0:
        raise ValueError(f"response_tokens: {response_tokens} must not be negative")
    width = len(pmf)
    # `width` leading zeros stand for S(n <= 0); S(n) sits at index width - 1 + n.
    steps = np.zeros(width + response_tokens)
    latest_first = pmf[::-1]
    for n in range(1, response_tokens + 1):
        at = width - 1 + n
        steps[at] = 1.0 + float(np.dot(latest_first, steps[at - width : at]))
    return float(steps[width - 1 + response_tokens])


def expected_emitted_tokens(pmf: FloatArray, response_tokens: int) -> float:
    """Return tokens per step that a response of this length realises: its tokens over its mean steps.

    Below `mean_emitted_tokens` because of the last step (engines report this one).
    """
    if response_tokens < 1:
        raise ValueError(f"response_tokens: {response_tokens} must be at least 1")
    return response_tokens / expected_steps(pmf, response_tokens)


def conditional(cumulative: FloatArray) -> FloatArray:
    """Return a_j = P(j accepted | j - 1 accepted); 0 where position j is never reached."""
    previous = np.concatenate(([1.0], cumulative[:-1])) if len(cumulative) else np.empty(0)
    return np.divide(cumulative, previous, out=np.zeros(len(cumulative)), where=previous > 0)


def shifted_accept_length(cumulative: FloatArray, shift_tokens: float) -> FloatArray:
    """Return rates whose accept length is `shift_tokens` higher (lower if negative), kept inside 1..k+1.

    Up: c + t (1 - c); down: c (1 - t). Both are exact, keep every c in 0..1 and never make c increase.
    """
    num_drafts, accepted = len(cumulative), float(np.sum(cumulative))
    target = min(max(accepted + shift_tokens, 0.0), float(num_drafts))
    if target > accepted:
        return np.minimum(cumulative + (target - accepted) / (num_drafts - accepted) * (1.0 - cumulative), 1.0)
    return cumulative * (target / accepted) if accepted > 0 else cumulative.copy()


def shifted_log_odds(cumulative: FloatArray, shift: float) -> FloatArray:
    """Return c_1..c_k with the log-odds of every conditional rate shifted; 0 gives the same rates."""
    if shift == 0.0:
        return cumulative
    shifted: FloatArray = _classes(logit(conditional(cumulative)), np.array([shift]))[0]
    return shifted


def dispersed_classes(cumulative: FloatArray, dispersion: float, num_classes: int = 8) -> tuple[FloatArray, FloatArray]:
    """Return (weights[n], cumulatives[n, k]): requests that accept more and less than the mean, in n equal classes.

    The log-odds of every conditional rate of class i are shifted by m + dispersion x z_i. z_i is the mean of the i-th
    of n equally likely slices of a standard normal, scaled to standard deviation 1. m keeps what engines report and
    laws are fitted on: tokens over steps, all requests together. Requests of equal length take steps in proportion to
    1 / AL_i, so the mean that is kept is the harmonic one, 1 / mean(1 / AL_i) = AL; the plain mean of AL_i is above
    it. Weights are shares of requests.

    Dispersion 0, no drafts, or rates that are all 0 or 1 give exactly one class with the same rates.
    """
    if dispersion < 0 or num_classes < 1:
        raise ValueError(f"dispersion: {dispersion:g} must be >= 0 and num_classes: {num_classes} must be >= 1")
    rates = conditional(cumulative)
    reached = rates[rates > 0]
    if dispersion == 0 or num_classes == 1 or not np.any(reached < 1):
        return np.ones(1), np.array(cumulative, dtype=np.float64).reshape(1, -1)
    log_odds, offsets = logit(rates), dispersion * _normal_class_means(num_classes)
    steps_per_token = 1.0 / accept_length(cumulative)

    def excess(recentre: float) -> float:
        return float(np.mean(1.0 / (1.0 + _classes(log_odds, offsets + recentre).sum(axis=1)))) - steps_per_token

    low, high = -MAX_LOG_ODDS_SHIFT - offsets[-1], MAX_LOG_ODDS_SHIFT - offsets[0]
    recentre = brentq(excess, low, high, xtol=1e-14, rtol=1e-14)
    return np.full(num_classes, 1.0 / num_classes), _classes(log_odds, offsets + recentre)


def _classes(log_odds: FloatArray, shifts: FloatArray) -> FloatArray:
    return np.asarray(np.cumprod(expit(log_odds[None, :] + shifts[:, None]), axis=1), dtype=np.float64)


def _normal_class_means(num_classes: int) -> FloatArray:
    edges = norm.ppf(np.linspace(0.0, 1.0, num_classes + 1))
    means = num_classes * -np.diff(norm.pdf(edges))
    return np.asarray(means / np.sqrt(np.mean(means**2)), dtype=np.float64)
