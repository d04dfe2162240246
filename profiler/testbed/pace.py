"""Pace of a machine: one reference, timed again and again between the things that are measured.

A shared machine is slower for seconds or minutes. What is timed between two references, and said in multiples of them,
can be compared with what was timed minutes later. Does not know what the reference is.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Pace:
    """What the reference took, over time."""

    reference: Callable[[], float]
    """Times it now, seconds."""
    seconds: list[float] = field(default_factory=list)

    def mark(self) -> None:
        """Time the reference: something is measured next."""
        self.seconds.append(self.reference())

    def around(self) -> float:
        """Time the reference again; return its mean time before and after what was measured since, seconds."""
        self.mark()
        return (self.seconds[-2] + self.seconds[-1]) / 2

    @property
    def unit_s(self) -> float:
        """Its median."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Its interquartile range over its median; 0 where it was timed less than twice."""
        if len(self.seconds) < 2:
            return 0.0
        low, middle, high = np.quantile(self.seconds, (0.25, 0.5, 0.75))
        return float((high - low) / middle)
