"""Executors: what a driver asks of whoever runs the points, and what it is told. Does not know where they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Task = tuple[int, str]
"""A point's number, and its text for the task function."""


@dataclass(frozen=True, slots=True)
class Done:
    """A point has a result."""

    index: int
    result: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A point cannot be run as written; trying again would not help."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A point took its worker down, raised something unexpected, or hung."""

    index: int
    reason: str
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Returned:
    """A point was not tried, or nobody knows: its worker went down over a batch."""

    index: int
    alone: bool
    """Whether to send it without others, so that the next failure has a name."""


Event = Done | Refused | Broken | Returned


class Executor(Protocol):
    """Runs batches of points, at most one at a time on each worker."""

    @property
    def num_workers(self) -> int:
        """Workers, for the size of batches."""

    @property
    def num_free(self) -> int:
        """Batches that can be submitted now."""

    def submit(self, batch: Sequence[Task]) -> None:
        """Begin a batch; only while `num_free` is above 0."""

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what happened, as soon as something did, or nothing after the timeout."""

    def close(self) -> None:
        """End all workers, whatever they do."""


def attempt(function: object, index: int, text: str) -> Event:
    """Run one point in a worker and return what became of it."""
    assert callable(function)
    try:
        return Done(index, function(text))
    except MemoryError as error:
        return Broken(index, f"out of memory: {_line(error)}")
    except Exception as error:
        if getattr(error, "exit_code", None) == 2:  # a mistake in the scenario or a trace, as `traces.console` has it
            return Refused(index, _line(error))
        return Broken(index, f"{type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:2000]
