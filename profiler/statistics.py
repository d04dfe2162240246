"""Statistics of samples: one latency per point from its sweeps, how far they spread, and what could not be timed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from profiler.ledger import Sample
from profiler.point import Point

NOISY_SPREAD = 0.05
"""Interquartile range over median above which a point is measured again, and counted as noisy if it stays so."""


@dataclass(slots=True)
class Collected:
    """Samples by point."""

    latencies: dict[Point, float] = field(default_factory=dict)
    """Median over the sweeps, seconds."""
    spreads: dict[Point, float] = field(default_factory=dict)
    """Interquartile range over median."""
    counts: dict[Point, int] = field(default_factory=dict)
    """Samples."""
    infeasible: dict[Point, str] = field(default_factory=dict)
    """Why a point has no latency."""


def collect(samples: Iterable[Sample]) -> Collected:
    """Return medians and spreads; one failed sample makes a point infeasible."""
    by_point: dict[Point, list[float]] = {}
    collected = Collected()
    for sample in samples:
        if sample.latency_s is None:
            collected.infeasible[sample.point] = sample.reason or "unknown"
        else:
            by_point.setdefault(sample.point, []).append(sample.latency_s)
    for point, seconds in sorted(by_point.items()):
        if point not in collected.infeasible:
            collected.latencies[point], collected.spreads[point] = median_and_spread(seconds)
            collected.counts[point] = len(seconds)
    return collected


def median_and_spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median, and the interquartile range over it."""
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return float(median), float((high - low) / median)
