"""Pace of a machine: one reference, timed again and again between the things that are measured.

A shared machine is slower for seconds or minutes. What is timed between two references, and said in multiples of them,
can be compared with what was timed minutes later. Does not know what the reference is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from profiler.statistics import median_and_spread


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
        return median_and_spread(self.seconds)[0]

    @property
    def spread(self) -> float:
        """Its interquartile range over its median."""
        return median_and_spread(self.seconds)[1]
