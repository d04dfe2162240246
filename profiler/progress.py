"""Progress on stderr: a bar with a time estimate on a terminal, a line every third elsewhere."""

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

WIDTH = 30


@dataclass(slots=True)
class Progress:
    """Counts samples of one phase after another."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _phase: str = ""
    _total: int = 0
    _done: int = 0
    _started_s: float = 0.0
    _last_third: int = -1

    def begin(self, phase: str, total: int) -> None:
        """Start a phase of `total` samples."""
        self._phase, self._total, self._done = phase, total, 0
        self._started_s, self._last_third = time.monotonic(), -1

    def advance(self) -> None:
        """Count one sample."""
        self._done += 1
        third = 3 * self._done // max(self._total, 1)
        if self.stream.isatty():
            end = "\n" if self._done == self._total else ""
            filled = "#" * (WIDTH * self._done // max(self._total, 1))
            self.stream.write(f"\r{self._phase:12} [{filled:{WIDTH}}] {self._words()}\x1b[K{end}")
        elif third != self._last_third:
            self.stream.write(f"{self._phase}: {self._words()}\n")
        self.stream.flush()
        self._last_third = third

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.stream.write(f"{self._phase}: {text}\n")
        self.stream.flush()

    def _words(self) -> str:
        spent_s = time.monotonic() - self._started_s
        left_s = spent_s / self._done * (self._total - self._done)
        return f"{self._done} of {self._total} samples, about {left_s:.0f} s left"
