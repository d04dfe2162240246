"""Surface: the latency of one operation at one q between its measured points, as the simulator will read it.

Linear along context inside each measured batch, then linear along batch; flat below the first context. The same rule
stands in `simulator/latency.py`, which this package may not import; a test holds the two together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from traces.latency import ErrorSummary


@dataclass(frozen=True, slots=True)
class Guess:
    """One point predicted from the others, and where one more point would help most."""

    error: float
    """Relative, signed: predicted over measured - 1."""
    batch: int
    context_tokens: int
    between_batches: bool
    """Whether a batch is missing (else a context inside this batch)."""


@dataclass(slots=True)
class Surface:
    """batch -> context -> seconds."""

    rows: dict[int, dict[int, float]] = field(default_factory=dict)

    def add(self, batch: int, context_tokens: int, latency_s: float) -> None:
        """Put a point in."""
        self.rows.setdefault(batch, {})[context_tokens] = latency_s

    def covers(self, batch: int, context_tokens: int) -> bool:
        """Return whether the point lies inside the measured hull."""
        around = self._around(batch)
        return around is not None and all(
            min(self.rows[row]) <= context_tokens <= max(self.rows[row]) for row in around
        )

    def predict(self, batch: int, context_tokens: int) -> float:
        """Return seconds at a point inside the hull.

        Raises:
            ValueError: The batch lies outside.
        """
        around = self._around(batch)
        if around is None:
            raise ValueError(f"batch {batch} is outside {min(self.rows)}..{max(self.rows)}")
        low, high = around
        first, second = (_along(self.rows[row], context_tokens) for row in around)
        return first if low == high else first + (batch - low) / (high - low) * (second - first)

    def leave_one_out(self) -> Iterator[Guess]:
        """Yield every inner point predicted without itself: along context, then along batch."""
        for batch, row in sorted(self.rows.items()):
            for context in sorted(row)[1:-1]:
                rest = {known: seconds for known, seconds in row.items() if known != context}
                yield Guess(_along(rest, context) / row[context] - 1, batch, context, False)
        for batch in sorted(self.rows)[1:-1]:
            rest_of = Surface({known: row for known, row in self.rows.items() if known != batch})
            for context, seconds in sorted(self.rows[batch].items()):
                if rest_of.covers(batch, context):
                    yield Guess(rest_of.predict(batch, context) / seconds - 1, batch, context, True)

    def _around(self, batch: int) -> tuple[int, int] | None:
        """Return the measured batches on both sides, twice the same where it is one itself."""
        if batch in self.rows:
            return batch, batch
        for low, high in pairwise(sorted(self.rows)):
            if low < batch < high:
                return low, high
        return None


def summary(errors: list[float]) -> ErrorSummary | None:
    """Return the size of relative errors; None without any."""
    if not errors:
        return None
    sizes = np.abs(np.array(errors))
    median, p90 = (round(float(np.quantile(sizes, share)), 6) for share in (0.5, 0.9))
    return ErrorSummary(num_points=len(errors), median=median, p90=p90, worst=round(float(sizes.max()), 6))


def _along(row: dict[int, float], context_tokens: int) -> float:
    known = sorted(row)
    return float(np.interp(context_tokens, known, [row[context] for context in known]))
