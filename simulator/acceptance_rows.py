"""Counted rows: acceptance of an AcceptanceTrace, linear between the entropies of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.config import TraceAcceptance
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.evidence import Evidence, excess
from simulator.speculation import FloatArray, shifted_accept_length
from traces.acceptance import AcceptanceRow, AcceptanceTrace
from traces.base import Origin
from traces.report import InputOrigin


def find_rows(
    trace: AcceptanceTrace, config: TraceAcceptance, arm: str, temperature: float
) -> tuple[AcceptanceRow, ...]:
    """Return the rows under these conditions; ScenarioError if there are none, or if they cannot be pooled."""
    wanted = {"loss": config.loss, "verify_rule": config.verify_rule.value, "temperature": f"{temperature:g}"}
    if config.task is not None:
        wanted["task"] = config.task

    def facts(row: AcceptanceRow) -> dict[str, str]:
        return {
            "loss": row.loss,
            "verify_rule": row.verify_rule.value,
            "temperature": f"{row.temperature:g}",
            "task": row.task or "unnamed",
        }

    rows = tuple(row for row in trace.rows if wanted.items() <= facts(row).items())
    path = f"arms.{arm}.acceptance"
    if not rows:
        asked = ", ".join(f"{key} {value}" for key, value in wanted.items())
        known = ", ".join(
            f"{key} {'|'.join(sorted({facts(row)[key] for row in trace.rows})) or 'none'}" for key in wanted
        )
        raise ScenarioError(f"{path}: trace {trace.name} has no rows with {asked}; it holds {known}")
    heads = sorted({row.head for row in rows})
    if len(heads) > 1:
        raise ScenarioError(f"{path}: trace {trace.name} mixes heads {', '.join(heads)}; split it into one per head")
    if len({row.entropy_nats is None for row in rows}) > 1:
        raise ScenarioError(
            f"{path}: trace {trace.name} mixes rows with and without entropy_nats; name a task or split the trace"
        )
    return rows


@dataclass(frozen=True, slots=True)
class CountedRows:
    """Rows of a trace, linear between their entropies, flat beyond; rows of one entropy are pooled by their steps."""

    arm: str
    trace: str
    rows: tuple[AcceptanceRow, ...]
    """Rows of one head, all of them with an entropy or none."""
    accept_length_shift: float = 0.0

    def cumulative(self, num_draft_tokens: int, entropy_nats: float | None) -> FloatArray:
        """Return the interpolated first k rates."""
        rows = self._rows_of(num_draft_tokens)
        knots = self._knots(rows)
        if entropy_nats is None and knots:
            raise ScenarioError(
                f"entropy: missing, but the rows of arms.{self.arm}.acceptance depend on it; give a trajectory"
            )
        groups = [[row for row in rows if row.entropy_nats == knot] for knot in knots] or [rows]
        pooled = np.array([_pooled(group, num_draft_tokens) for group in groups])
        if not knots:
            return shifted_accept_length(pooled[0], self.accept_length_shift)
        rates = np.array([np.interp(float(entropy_nats or 0.0), knots, column) for column in pooled.T])
        return shifted_accept_length(rates, self.accept_length_shift)

    def evidence(self, num_draft_tokens: int, entropies: Sequence[float | None]) -> Evidence:
        """Return the rows used, with warnings for entropies outside them and for rows too short to use."""
        rows, path = self._rows_of(num_draft_tokens), f"arms.{self.arm}.acceptance"
        knots, run = self._knots(rows), [h for h in entropies if h is not None]
        outside = excess(run, knots[0], knots[-1]) if knots else None
        origin = max((row.origin for row in rows), key=list(Origin).index)
        if outside:
            origin = Origin.EXTRAPOLATED
        elif origin is Origin.MEASURED and knots and any(h not in knots for h in run):
            origin = Origin.INTERPOLATED
        warnings = []
        if outside:
            warnings.append(
                f"{path}: the rows of trace {self.trace} cover entropy {knots[0]:g}..{knots[-1]:g}, the run reaches "
                f"{outside.reaches}; held at the end of the rows at {outside.num_outside} of {outside.num_steps} steps"
            )
        if len(rows) < len(self.rows):
            warnings.append(
                f"{path}: {len(self.rows) - len(rows)} of {len(self.rows)} rows of trace {self.trace} have fewer than "
                f"{num_draft_tokens} positions and are left out"
            )
        first = rows[0]
        value = f"{len(rows)} rows of {first.head}, loss {first.loss}, {first.verify_rule.value}"
        source = f"acceptance trace {self.trace}"
        return Evidence((InputOrigin(name=path, value=value, origin=origin, source=source),), tuple(warnings))

    def _rows_of(self, num_draft_tokens: int) -> list[AcceptanceRow]:
        rows = [row for row in self.rows if len(row.cumulative) >= num_draft_tokens]
        if not rows:
            longest = max(len(row.cumulative) for row in self.rows)
            raise TraceCoverageError(
                f"arms.{self.arm}.k: {num_draft_tokens} is above the {longest} positions that trace {self.trace} "
                "covers; lower k or count more positions"
            )
        return rows

    @staticmethod
    def _knots(rows: Sequence[AcceptanceRow]) -> list[float]:
        return sorted({row.entropy_nats for row in rows if row.entropy_nats is not None})


def _pooled(rows: Sequence[AcceptanceRow], num_draft_tokens: int) -> FloatArray:
    # A row that does not say how many steps it counted cannot be weighed against one that does.
    counted = all(row.num_steps for row in rows)
    weights = np.array([row.num_steps if counted else 1 for row in rows], dtype=np.float64)
    rates = np.array([row.cumulative[:num_draft_tokens] for row in rows], dtype=np.float64)
    return np.asarray(weights @ rates / weights.sum(), dtype=np.float64)
