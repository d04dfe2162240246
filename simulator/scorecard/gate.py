"""Gate: the predictions of the shipped rows are stored, and a change that moves one says so.

A prediction is compared by row and quantity. Does not predict.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.scorecard.rows import PUBLISHED
from simulator.scorecard.score import Entry, Scored
from traces.errors import TraceFormatError
from traces.store import write_atomically

STORED_FILE = PUBLISHED / "scorecard_predictions.json"
TOLERANCE = 0.02
"""Relative change of a prediction that is reported."""
UPDATE_COMMAND = "bebop scorecard --write docs/scorecard.md"

Predictions = dict[str, float]
"""`row id, quantity` -> predicted value."""


@dataclass(frozen=True, slots=True)
class Move:
    """One prediction that is no longer what is stored."""

    key: str
    stored: float | None
    """None: the row is new."""
    now: float | None
    """None: the row is no longer predicted."""

    def __str__(self) -> str:
        """Say what moved, in one line."""
        if self.stored is None:
            return f"{self.key}: new, predicted {self.now:.4g}"
        if self.now is None:
            return f"{self.key}: no longer predicted, was {self.stored:.4g}"
        return f"{self.key}: {self.stored:.4g} -> {self.now:.4g} ({self.now / self.stored - 1:+.1%})"


def predictions(entries: Sequence[Entry]) -> Predictions:
    """Return what is stored of the entries."""
    return {
        f"{entry.id}, {entry.quantity}": float(f"{entry.predicted:.6g}")
        for entry in entries
        if isinstance(entry, Scored)
    }


def load_stored(path: Path = STORED_FILE) -> Predictions:
    """Return the stored predictions.

    Raises:
        TraceFormatError: The file is not what `write_stored` writes.
    """
    try:
        stored: Predictions = json.loads(path.read_text(encoding="utf-8"))["predictions"]
    except (ValueError, KeyError) as error:
        raise TraceFormatError(f"{path}: {error}; run `{UPDATE_COMMAND}`") from None
    return stored


def write_stored(entries: Sequence[Entry], path: Path = STORED_FILE) -> None:
    """Store the predictions of the entries."""
    content = {"schema_version": 1, "command": UPDATE_COMMAND, "predictions": predictions(entries)}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def moves(stored: Predictions, now: Predictions, *, only: Sequence[str] | None = None) -> list[Move]:
    """Return what differs by more than the tolerance; of the keys `only`, or all."""
    keys = list(dict.fromkeys([*stored, *now])) if only is None else list(only)
    found = []
    for key in keys:
        before, after = stored.get(key), now.get(key)
        if before is None or after is None or abs(after / before - 1) > TOLERANCE:
            found.append(Move(key, before, after))
    return found
