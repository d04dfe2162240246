"""Regimes: where a run collapses, and where its seconds per token jump. Does not know why."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_COLLAPSED_SHARE: Final = 0.05
"""Mean length, as a share of the longest usual one before, below which a run counts as collapsed. Assumed."""
_WINDOW: Final = 5
_SMALLEST_JUMP: Final = 0.12
"""Change of seconds per token (of the logarithm) that counts as another regime. Assumed: twice the noise of a phase."""
_DEVIATIONS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Jump:
    """A lasting change of a positive series."""

    index: int
    """First step of the new regime."""
    factor: float
    """New level over the old one."""


def collapsed(mean_lengths: F64) -> Bools:
    """Return which steps have responses of almost no length, measured against the run's own past; NaN is healthy."""
    smooth = _smooth(np.nan_to_num(mean_lengths, nan=0.0))
    usual = np.maximum.accumulate(smooth)
    with np.errstate(invalid="ignore"):
        fell: Bools = mean_lengths < _COLLAPSED_SHARE * usual
    return fell


def jumps(values: F64) -> list[Jump]:
    """Return the lasting changes of a positive series, in order.

    The medians of the five steps before and after are compared, so that neither an outlier nor a drift counts; a change
    has to be larger than 12 % and to stand out of the scatter between neighbours.
    """
    known = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(known) < 2 * _WINDOW:
        return []
    series = np.log(values[known])
    scatter = 1.4826 * float(np.median(np.abs(np.diff(series)))) / 2**0.5
    least = max(_SMALLEST_JUMP, _DEVIATIONS * scatter / _WINDOW**0.5)
    level = np.median(np.lib.stride_tricks.sliding_window_view(series, _WINDOW), axis=1)
    edges = level[_WINDOW:] - level[:-_WINDOW]
    found: list[Jump] = []
    while len(edges) and abs(edges[at := int(np.argmax(np.abs(edges)))]) > least:
        place = at + _sharpest(series[at : at + 2 * _WINDOW], level[at], level[at + _WINDOW])
        found.append(Jump(int(known[place]), float(np.exp(edges[at]))))
        edges[max(at - 2 * _WINDOW + 1, 0) : at + 2 * _WINDOW] = 0.0  # the same change, seen from its neighbours
    return sorted(found, key=lambda jump: jump.index)


def _sharpest(series: F64, low: float, high: float) -> int:
    """Return where a window steps from one level to the other: medians alone leave two steps on both sides open."""
    nearer_high = np.abs(series - low) - np.abs(series - high)
    return int(np.argmin([nearer_high[:i].sum() - nearer_high[i:].sum() for i in range(1, len(series))])) + 1


def _smooth(series: F64) -> F64:
    smooth: F64 = median_filter(series, size=min(_WINDOW, len(series)), mode="nearest")
    return smooth
