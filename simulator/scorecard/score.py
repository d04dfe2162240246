"""Scores: a prediction beside its measurement, and what many of them say together. Does not predict."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from simulator.scorecard.names import Assumption

SERVING = "serving_k0"
SERVING_DRAFTS = "serving_with_drafts"
SPEEDUP = "inference_speedup"
RL_SPEEDUP = "rl_speedup"
SCENARIO_SECONDS = "scenario_seconds"
CLASSES = (SERVING, SPEEDUP, RL_SPEEDUP, SERVING_DRAFTS, SCENARIO_SECONDS)
NO_DIFFERENCE = 0.02
"""A speedup this close to 1 is neither faster nor slower: both signs are right."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One number that was measured, and predicted."""

    id: str
    kind: str
    """One of CLASSES."""
    configuration: str
    quantity: str
    measured: float
    predicted: float
    low: float
    high: float
    """The interval that should hold nine of ten measurements."""
    source: str
    assumptions: tuple[Assumption, ...] = ()
    fitted: str | None = None
    """Name of the fit that this row decided; such rows are in no class's figures."""

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def is_speedup(self) -> bool:
        """Whether a sign can be right or wrong."""
        return self.kind in (SPEEDUP, RL_SPEEDUP)

    @property
    def has_right_sign(self) -> bool:
        """Whether faster was predicted as faster, slower as slower."""
        if abs(self.measured - 1) <= NO_DIFFERENCE:
            return abs(self.predicted - 1) <= 0.1
        return (self.measured > 1) == (self.predicted > 1)

    def as_json(self) -> dict[str, Any]:
        """Return the row for machines."""
        content: dict[str, Any] = {
            "id": self.id,
            "class": self.kind,
            "configuration": self.configuration,
            "quantity": self.quantity,
            "assumed": [
                {"name": entry.name, "value": entry.value, "source": entry.source} for entry in self.assumptions
            ],
            "measured": _rounded(self.measured),
            "predicted": _rounded(self.predicted),
            "interval": [_rounded(self.low), _rounded(self.high)],
            "error": round(self.error, 4),
        }
        if self.is_speedup:
            content["right_sign"] = self.has_right_sign
        return {**content, "fitted_on": self.fitted, "source": self.source}


@dataclass(frozen=True, slots=True)
class Unpredictable:
    """A row without a prediction."""

    id: str
    configuration: str
    missing: str
    """The fact that is missing."""
    source: str

    def as_json(self) -> dict[str, Any]:
        """Return the row for machines."""
        return {
            "id": self.id,
            "configuration": self.configuration,
            "predicted": None,
            "missing": self.missing,
            "source": self.source,
        }


Entry = Scored | Unpredictable


def interval(value: float, *relative_sds: float) -> tuple[float, float]:
    """Return the range of nine in ten around `value`, errors log-normal and independent."""
    spread = 1.645 * math.sqrt(sum(sd**2 for sd in relative_sds))
    return value * math.exp(-spread), value * math.exp(spread)


def scored(entries: Iterable[Entry]) -> list[Scored]:
    """Return the rows that were predicted without a fit to them."""
    return [entry for entry in entries if isinstance(entry, Scored) and entry.fitted is None]


def summary(rows: Sequence[Scored]) -> dict[str, Any]:
    """Return count, median and 90th percentile of the absolute error, sign accuracy (None without a sign), coverage."""
    errors = [abs(row.error) for row in rows]
    signs = [row.has_right_sign for row in rows if row.is_speedup]
    return {
        "n": len(rows),
        "median_error": round(median(errors), 4) if errors else None,
        "p90_error": round(float(np.quantile(errors, 0.9)), 4) if errors else None,
        "sign_accuracy": round(sum(signs) / len(signs), 4) if signs else None,
        "inside_interval": round(sum(row.low <= row.measured <= row.high for row in rows) / len(rows), 4)
        if rows
        else None,
    }


def summaries(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Return the summary of every class that has a row."""
    by_class = {kind: [row for row in scored(entries) if row.kind == kind] for kind in CLASSES}
    return {kind: summary(rows) for kind, rows in by_class.items() if rows}


def as_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return everything for machines."""
    return {"classes": summaries(entries), "rows": [entry.as_json() for entry in entries]}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
