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
    below = [value for value in values if value < low - 1e-9]
    above = [value for value in values if value > high + 1e-9]
    if not below and not above:
        return None
    ends = ([min(below)] if below else []) + ([max(above)] if above else [])
    return Excess(len(below) + len(above), len(values), " and ".join(f"{end:.4g}" for end in ends))
