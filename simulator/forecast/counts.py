"""How many responses a step trained on, where the log does not say so. Does not know what they cost.

Frameworks that filter responses before the update log token totals of all of them, but mean lengths of those that
were kept. A mean over n responses is a whole number divided by n, and several means of the same responses have n as a
common denominator: what is left open is a factor, which the other steps of the run decide.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from traces.measured import MeasuredStep

F64 = NDArray[np.float64]

_MAX_SEQUENCES = 20_000
_FLOAT32_ROUNDING = 6.5e-8
"""Half a unit in the last place of a float32, as a share: PyTorch's means are float32."""
_MAX_FACTOR = 12
_SURPRISE = 2.0
_CHANGE = 0.2
"""Standard deviation of the change of log count from step to step; assumed."""


def trained_sequences(steps: Sequence[MeasuredStep]) -> F64:
    """Return the number of responses that each step trained on; NaN where the log leaves it open.

    Logged numbers come first, if all steps have them; then totals that are a whole multiple of the mean, then common
    denominators.
    """
    logged = [step.num_sequences for step in steps]
    if all(logged):
        return np.array(logged, float)
    # Known at some steps only, it was divided out of totals and came out whole by chance: there is a filter.
    choices = [_choices(step) for step in steps]
    counts = np.full(len(steps), np.nan)
    known = [i for i, (multiples, _) in enumerate(choices) if len(multiples)]
    if known:
        counts[known] = _smoothest([choices[i] for i in known])
    return counts


def _choices(step: MeasuredStep) -> tuple[F64, F64]:
    """Return counts that a step may have trained on, and how unlikely each is (minus its log-likelihood)."""
    certain = _whole_ratio(step)
    if not np.isnan(certain):
        return np.array([certain]), np.zeros(1)
    base = _smallest_denominator(step)
    if not base:
        return np.zeros(0), np.zeros(0)
    factors = np.arange(1, min(_most(step) // base, _MAX_FACTOR) + 1)
    # All sums share a factor m of the count by chance: about once in m to the number of sums.
    return base * factors.astype(float), _SURPRISE * np.log(factors)


def _smoothest(choices: Sequence[tuple[F64, F64]]) -> F64:
    """Return one count per step, the likeliest sequence of all (Viterbi): counts change little from step to step."""
    cost = choices[0][1]
    came_from = []
    for (before, _), (here, unlikely) in pairwise(choices):
        moved = (np.log(here[:, None] / before) / _CHANGE) ** 2 / 2 + cost
        came_from.append(np.argmin(moved, axis=1))
        cost = np.min(moved, axis=1) + unlikely
    best = int(np.argmin(cost))
    path = [best]
    for pointers in reversed(came_from):
        path.append(int(pointers[path[-1]]))
    return np.array([here[i] for (here, _), i in zip(choices, reversed(path), strict=True)])


def _whole_ratio(step: MeasuredStep) -> float:
    """Return total tokens over the mean of prompt and response if that is a whole number: nothing was filtered."""
    per_response = (step.response_tokens_mean or 0.0) + (step.prompt_tokens_mean or 0.0)
    if not step.total_tokens or per_response <= 0 or step.prompt_tokens_mean is None:
        return float("nan")
    ratio = step.total_tokens / per_response
    is_whole = round(ratio) > 0 and abs(ratio - round(ratio)) < 2e-7 * ratio + 1e-6
    return float(round(ratio)) if is_whole else float("nan")


def _most(step: MeasuredStep) -> int:
    """Return the most responses that the total leaves room for; those that were dropped may have been longer."""
    per_response = (step.response_tokens_mean or 0.0) + (step.prompt_tokens_mean or 0.0)
    if not step.total_tokens or per_response <= 0:
        return 0
    return min(int(step.total_tokens / per_response + 1e-6), _MAX_SEQUENCES)


def _smallest_denominator(step: MeasuredStep) -> int:
    """Return the least n for which every logged mean times n is whole, 0 where none is or too little is logged."""
    means = [step.response_tokens_mean, step.prompt_tokens_mean, step.turns_mean, step.clipped_fraction]
    known = np.array([mean for mean in means if mean is not None])
    most = _most(step)
    if len(known) < 2 or step.response_tokens_mean is None or most < 2:
        return 0
    products = np.arange(1, most + 1)[:, None] * known
    fits = (np.abs(products - np.rint(products)) <= products * _FLOAT32_ROUNDING + 1e-6).all(axis=1)
    return int(np.argmax(fits)) + 1 if fits.any() else 0
