"""Evidence: what an input of the prediction rests on, for the report's provenance and warnings."""

from collections.abc import Sequence
from dataclasses import dataclass

from traces.report import InputOrigin


@dataclass(frozen=True, slots=True)
class Evidence:
    """Origins of one input, and where it is used beyond them."""

    origins: tuple[InputOrigin, ...] = ()
    warnings: tuple[str, ...] = ()
    """One line each; empty when the input is used inside its data."""


@dataclass(frozen=True, slots=True)
class Excess:
    """How far, and at how many RL steps, a run leaves a range."""

    num_outside: int
    num_steps: int
    reaches: str
    """The farthest values outside, e.g. `0.3 and 0.48`."""


def excess(values: Sequence[float], low: float, high: float) -> Excess | None:
    """Return how the values leave low..high, None if they do not (differences under 1e-9 do not count)."""
    outside = [value for value in values if value < low - 1e-9 or value > high + 1e-9]
    if not outside:
        return None
    ends = [end for end in (min(outside), max(outside)) if not low <= end <= high]
    return Excess(len(outside), len(values), " and ".join(f"{end:.4g}" for end in dict.fromkeys(ends)))
