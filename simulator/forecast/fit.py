"""Laws with a few positive parameters, fitted to few and unclean seconds. Does not know what a law is about.

A law predicts seconds as a positive function of its parameters, mostly logarithms. The fit is the largest posterior
under normal priors on them, with errors that are relative and heavy-tailed (soft L1); the curvature there gives the
parameters' errors (Laplace), and these, carried through the law, widen a band with the distance from what was seen.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import t as student_t

F64 = NDArray[np.float64]


class Law(Protocol):
    """A function from parameters [p], mostly logarithms, and features [steps, f] to seconds [steps], positive."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, without the logarithm."""

    def __call__(self, parameters: F64, features: F64) -> F64:
        """Return the seconds."""


_NOISE_WEIGHT: Final = 3.0
"""Steps that the noise stated beforehand counts for. Assumed."""
_MIN_NOISE: Final = 0.004
"""Relative noise below which no clock of a framework is trusted. Assumed."""
_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed before the log is read."""

    log_centre: F64
    log_sd: F64
    noise: float
    """Relative error of a step's seconds that is to be expected."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted law."""

    law: Law
    parameters: F64
    covariance: F64
    """[p, p], of the log parameters, prior included."""
    prior: Prior
    noise: float
    """Relative error of one step, of the logarithm."""
    freedom: float
    """Degrees of freedom of the noise."""
    num_steps: int

    def predict(self, features: F64) -> tuple[F64, F64]:
        """Return the seconds of steps, and the standard deviation of the logarithm of what will be logged."""
        return self.seconds(features), np.sqrt(self.noise**2 + self.law_sd(features) ** 2)

    def seconds(self, features: F64) -> F64:
        """Return the most likely seconds."""
        return self.law(self.parameters, features)

    def law_sd(self, features: F64) -> F64:
        """Return the error of the law itself (standard deviation of the logarithm)."""
        slopes = _jacobian(self.law, self.parameters, features)
        sd: F64 = np.sqrt(np.maximum(np.einsum("ip,pq,iq->i", slopes, self.covariance, slopes), 0.0))
        return sd

    def quantile(self, share: float) -> float:
        """Return how many standard deviations hold `share` of all steps, on both sides together."""
        return float(student_t.ppf(0.5 + share / 2, self.freedom))

    def learned(self) -> F64:
        """Return, for each parameter, the share of its prior's standard deviation that the log has taken away."""
        learned: F64 = 1.0 - np.sqrt(np.diag(self.covariance)) / self.prior.log_sd
        return learned

    def correlation(self) -> F64:
        """Return the correlation of the parameters' errors, [p, p]."""
        sd = np.sqrt(np.diag(self.covariance))
        correlation: F64 = self.covariance / np.outer(sd, sd)
        return correlation


def fit(law: Law, prior: Prior, features: F64, seconds: F64, *, noise_weight: float = _NOISE_WEIGHT) -> Fit:
    """Return the law fitted to steps with positive seconds.

    Args:
        law: The law.
        prior: Beliefs about its parameters and the noise; the first parameter's centre is only a start where its
            deviation is large.
        features: [steps, f].
        seconds: [steps], positive.
        noise_weight: Steps that the prior's noise counts for.
    """
    target: F64 = np.log(seconds)
    noise = prior.noise
    at: F64 = prior.log_centre

    def misses(parameters: F64) -> F64:
        off = (target - np.log(law(parameters, features))) / noise
        # sign(r) sqrt(2 (sqrt(1 + r^2) - 1)): its square is the soft-L1 loss, and it stays smooth at 0.
        bent = np.sign(off) * np.sqrt(2.0 * (np.sqrt(1.0 + off**2) - 1.0))
        joined: F64 = np.concatenate([bent, (parameters - prior.log_centre) / prior.log_sd])
        return joined

    for _ in range(_ROUNDS):
        at = np.asarray(least_squares(misses, at, method="trf").x, np.float64)
        residual: F64 = target - np.log(law(at, features))
        noise = _noise(residual, prior.noise, noise_weight, len(at))
    slopes = _jacobian(law, at, features)
    weights: F64 = 1.0 / np.sqrt(1.0 + (residual / noise) ** 2) / noise**2
    precision = slopes.T @ (slopes * weights[:, None]) + np.diag(prior.log_sd**-2)
    covariance = np.asarray(np.linalg.inv(precision), np.float64)
    return Fit(law, at, covariance, prior, noise, noise_weight + len(seconds), len(seconds))


def _noise(residual: F64, expected: float, weight: float, num_parameters: int) -> float:
    """Return a standard deviation: the middle of the residuals, blended with the expected one."""
    usable = max(len(residual) - num_parameters / 2, 1.0)
    # 1.4826 x median is the deviation of normal errors; the mean absolute value sees the tail that the median does not.
    spread = 0.5 * (1.4826 * float(np.median(np.abs(residual))) + 1.2533 * float(np.mean(np.abs(residual))))
    spread *= (len(residual) / usable) ** 0.5
    blended = (weight * expected**2 + len(residual) * spread**2) / (weight + len(residual))
    return max(float(blended**0.5), _MIN_NOISE)


def _jacobian(law: Law, at: F64, features: F64) -> F64:
    """Return d log(seconds) / d log(parameter), [steps, p], by central differences."""
    columns = []
    for i in range(len(at)):
        step = np.zeros(len(at))
        step[i] = 1e-4
        columns.append((np.log(law(at + step, features)) - np.log(law(at - step, features))) / 2e-4)
    return np.stack(columns, axis=1)
