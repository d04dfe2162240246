"""Records of a log joined into steps: by the number of the step, never by position.

One record is what one line (or event) says of one step. Records of one step that hold different keys are joined. A
step that is told again with the same numbers is a duplicate; with other numbers right after itself, a second report,
of which the first is kept; with other numbers after later steps, the run was started again, and a new segment begins.
Does not know any framework.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from traces.errors import TraceFormatError
from traces.importers.tally import Tally, printable
from traces.measured import MAX_KEYS, MAX_STEPS

MAX_KEY_CHARS = 300
MAX_NUMBERS = 8_000_000
"""Numbers of one run that are held in memory (about 1 GB)."""


@dataclass(slots=True)
class Record:
    """What one line says of one step; `numbers` are finite."""

    step: int
    numbers: dict[str, float]
    where: str
    part: str = ""
    """What is told: lines of several parts, or processes, may tell of one step."""
    time_s: float | None = None
    is_cut: bool = False
    """The line ends where a collector of output cuts lines."""


def put(numbers: dict[str, float], key: str, value: float, tally: Tally) -> None:
    """Put a number under its key, unless it is not finite or the step is full; what is left out is counted."""
    key = printable(key[:MAX_KEY_CHARS])
    if not key:
        tally.ignore("values without a key", "nothing to keep them under")
    elif not math.isfinite(value):
        tally.ignore(key, "NaN or infinite")
    elif len(numbers) >= MAX_KEYS:
        tally.ignore("keys of a step", f"more than {MAX_KEYS} on one line")
    else:
        numbers[key] = value


@dataclass(slots=True)
class RawStep:
    """One step under the log's own keys."""

    step: int
    segment: int
    numbers: dict[str, float] = field(default_factory=dict)
    told: dict[str, dict[str, float]] = field(default_factory=dict)
    """Part -> its numbers."""
    is_cut: bool = False
    time_s: float | None = None
    where: str = ""


class Steps:
    """Steps of one run while its log is read."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.segment = 0
        self._segments: list[dict[int, RawStep]] = [{}]
        self._last_step: dict[str, int] = {}
        self._num_steps = 0
        self._num_numbers = 0

    def __len__(self) -> int:
        return self._num_steps

    def __iter__(self) -> Iterator[RawStep]:
        """Yield the steps, ascending in (segment, step)."""
        for steps in self._segments:
            for step in sorted(steps):
                yield steps[step]

    def add(self, record: Record) -> None:
        """Take a record in.

        Raises:
            TraceFormatError: More steps or numbers than one run may hold.
        """
        self.tally.num_step_lines += 1
        if not record.numbers:
            self.tally.drop(record.where, f"step {record.step} has no number")
            return
        known = self._segments[-1].get(record.step)
        told = known.told.get(record.part) if known else None
        common = told.keys() & record.numbers.keys() if told else ()
        if told and common:
            if any(told[key] != record.numbers[key] for key in common):
                if self._last_step.get(record.part) == record.step:
                    self.tally.drop(record.where, f"step {record.step} is told again with other numbers")
                    return
                self._begin_segment()
                known = None
            elif len(common) == len(record.numbers):
                self.tally.drop(record.where, f"step {record.step} is told twice")
                return
        elif not known and self._last_step.get(record.part, -1) > record.step:
            self.tally.ignore("steps out of order", "sorted by their number")
        self._take(known or self._new_step(record), record)

    def _begin_segment(self) -> None:
        self.segment += 1
        self._segments.append({})
        self._last_step.clear()

    def _new_step(self, record: Record) -> RawStep:
        self._num_steps += 1
        if self._num_steps > MAX_STEPS:
            raise TraceFormatError(f"{record.where}: more than {MAX_STEPS} steps; cut the log")
        new = RawStep(record.step, self.segment, where=record.where)
        self._segments[-1][record.step] = new
        return new

    def _take(self, step: RawStep, record: Record) -> None:
        before = len(step.numbers)
        told = step.told.setdefault(record.part, {})
        for key, value in record.numbers.items():
            if key in step.numbers and key not in told and step.numbers[key] != value:
                self.tally.ignore(key, "two parts of the log tell different values, the first is kept")
                continue
            if len(step.numbers) >= MAX_KEYS and key not in step.numbers:
                self.tally.ignore("keys of a step", f"more than {MAX_KEYS} in one step")
                continue
            step.numbers[key] = told[key] = value
        self._num_numbers += len(step.numbers) - before
        if self._num_numbers > MAX_NUMBERS:
            raise TraceFormatError(f"{record.where}: more than {MAX_NUMBERS} numbers in one run; cut the log")
        step.is_cut |= record.is_cut
        if step.time_s is None:
            step.time_s = record.time_s
        self._last_step[record.part] = record.step
