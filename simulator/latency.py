"""Step latency: from the operations of a LatencyTrace to the seconds of one engine iteration.

A plain step is decode + sampling + host gap. A speculative step with k drafts is, as vLLM runs it (engines order:
verify, sample, then draft for the next step):

    verify(B, C, k + 1) + draft(B, C, k + 1) + (k - 1) draft(B, C, 1) + k lm_head(B)
    + sample(B, k + 1) + k sample(B, 1) + (k + 1) host gaps

A prefill takes longer for arms that draft where the trace has rows of draft_prefill. Exact at the trace's points.
Between batches: the time of the next captured CUDA-graph size when the trace names them, linear otherwise; between
contexts linear. Below the smallest context: its value. Anything else outside the trace is an error unless extrapolation
is allowed, and then it is said. An engine's habits, where given, add host time to every step and keep a draft pass from
being shorter than its launch. Does not know replicas, nor who asks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engine_habits import EngineHabits
from simulator.errors import TraceCoverageError
from simulator.evidence import Evidence
from simulator.step_table import StepTable, build_step_table
from traces.base import Origin
from traces.latency import MIN_LATENCY_S, LatencyTrace, Operation
from traces.report import InputOrigin

F64 = NDArray[np.float64]
Grid = dict[int, dict[int, float]]
"""batch -> context -> seconds."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a run asks of the latency source."""

    arm: str
    num_draft_tokens: int
    max_batch: int
    """Largest number of sequences decoded together."""
    max_context_tokens: int
    """Longest context of any sequence."""
    kv_tokens: float
    """KV capacity of a replica: batch x context beyond it cannot happen."""
    keeps_draft_cache: bool = False
    """At k = 0, whether one draft pass runs all the same, for an engine that may draft again later."""


class TraceLatency:
    """Step tables from one trace, for one parallel layout."""

    def __init__(
        self,
        trace: LatencyTrace,
        *,
        tp_size: int = 1,
        ep_size: int = 1,
        allow_extrapolation: bool = False,
        target_overhead_s: float = 0.0,
        draft_overhead_s: float = 0.0,
        habits: EngineHabits | None = None,
        num_piecewise_layers: int = 0,
    ) -> None:
        """Sort the trace's rows by operation; overheads are added to every target and every draft pass.

        `habits` adds what an engine's host costs, None nothing; `num_piecewise_layers` are those of a model with
        recurrent layers.

        Raises:
            TraceCoverageError: No row has this layout.
        """
        self.trace = trace
        self._allow = allow_extrapolation
        self._overhead_s = (target_overhead_s, draft_overhead_s)
        self._habits = habits
        self._num_piecewise_layers = num_piecewise_layers
        self._rows = [row for row in trace.rows if (row.tp_size, row.ep_size) == (tp_size, ep_size)]
        if not self._rows:
            layouts = sorted({(row.tp_size, row.ep_size) for row in trace.rows})
            raise TraceCoverageError(
                f"cluster.tp_size, cluster.ep_size: ({tp_size}, {ep_size}) is not in latency trace {trace.name}, which "
                f"has {layouts}; choose one of them or another trace"
            )
        self._grids: dict[tuple[Operation, int], Grid] = {}
        for row in self._rows:
            grid = self._grids.setdefault((row.operation, row.tokens_per_seq), {})
            grid.setdefault(row.batch, {})[row.context_tokens] = row.latency_s

    def step_table(self, need: Need) -> tuple[StepTable, tuple[str, ...]]:
        """Return the costs of one replica at k draft tokens, and warnings about their use outside the trace.

        Raises:
            TraceCoverageError: An operation, batch or context is missing, and extrapolation is not allowed.
        """
        return self.step_tables([need])

    def step_tables(self, needs: Sequence[Need]) -> tuple[StepTable, tuple[str, ...]]:
        """Return one table with a level for each need, for an engine that chooses k by its live batch."""
        grids = [grid for need in needs for grid, _ in self._passes(need)]
        knots = np.array(sorted({context for grid in grids for row in grid.values() for context in row}), float)
        warnings: list[str] = []
        for need in needs:
            warnings.extend(self._check_hull(need, self._passes(need), knots))
        if len(knots) == 1:
            knots = np.array([knots[0], max(knots[0] * 2, knots[0] + 1.0)])
        step_s = np.concatenate([self._step_seconds(need, knots, warnings) for need in needs])
        is_drafting = any(need.num_draft_tokens > 0 or need.keeps_draft_cache for need in needs)
        table = build_step_table(knots, step_s, *self._prefill(is_drafting), num_levels=len(needs))
        return table, tuple(dict.fromkeys(warnings))

    def _step_seconds(self, need: Need, knots: F64, warnings: list[str]) -> F64:
        """Return seconds[batch 0..max_batch, context] of one step at one number of draft tokens."""
        k = need.num_draft_tokens
        passes = self._passes(need)
        batches = self._padded_batches(need.max_batch, k, sorted({b for grid, _ in passes for b in grid}))
        step_s = np.zeros((need.max_batch + 1, len(knots)))
        for grid, times in passes:
            step_s[1:] += times * _interpolate(grid, batches, knots)
        for operation, tokens_per_seq, times in _per_step_extras(k):
            grid_or_none = self._grids.get((operation, tokens_per_seq))
            if grid_or_none is not None:
                high = max(grid_or_none)
                if operation is not Operation.HOST_GAP and high < min(
                    need.max_batch, *(max(grid) for grid, _ in passes)
                ):
                    warnings.append(self._above(need, high, f"of {operation.value} in"))
                step_s[1:] += times * _interpolate(grid_or_none, np.arange(1.0, need.max_batch + 1), np.zeros(1))
            else:
                warnings.append(
                    f"latency trace {self.trace.name}: no {operation.value} rows at {tokens_per_seq} tokens per "
                    "sequence; taken as contained in its passes"
                )
        num_drafts = max(k, 1) if need.keeps_draft_cache else k
        step_s[1:] += self._overhead_s[0] + num_drafts * self._overhead_s[1]
        if self._habits is not None:
            step_s[1:] += self._host_seconds(self._habits, need, passes[1:], batches, knots)
        return step_s

    def _host_seconds(
        self, habits: EngineHabits, need: Need, drafts: list[tuple[Grid, int]], batches: F64, knots: F64
    ) -> F64:
        """Return seconds[batch 1..max_batch, context] that the host adds to a step, and short draft passes wait."""
        running = np.arange(1.0, need.max_batch + 1)[:, None]
        added_s = habits.step_s + habits.step_s_per_seq * running
        if need.num_draft_tokens == 0:
            return np.broadcast_to(added_s, (need.max_batch, len(knots)))
        added_s = added_s + habits.speculative_step_s + habits.speculative_step_s_per_seq * running
        added_s = added_s + habits.piecewise_layer_s * self._num_piecewise_layers
        projection = self._grids.get((Operation.LM_HEAD, 1))
        tail_s = np.zeros((need.max_batch, 1))
        if projection is not None:
            tail_s = _interpolate(projection, running[:, 0], np.zeros(1))
        for grid, times in drafts:
            pass_s = _interpolate(grid, batches, knots) + tail_s
            if pass_s.max() > 3 * MIN_LATENCY_S:  # a pass that is none launches nothing
                added_s = added_s + times * np.maximum(habits.draft_launch_s - pass_s, 0.0)
        return np.broadcast_to(added_s, (need.max_batch, len(knots)))

    def evidence(self) -> Evidence:
        """Return where the trace's numbers come from."""
        passes = [row for row in self._rows if row.operation in (Operation.DECODE, Operation.VERIFY, Operation.DRAFT)]
        counts = {origin: sum(row.origin is origin for row in passes) for origin in Origin}
        most = max(counts, key=lambda origin: counts[origin])
        value = f"{len(self._rows)} rows on {self.trace.gpu}, {self.trace.precision}, {self.trace.engine}"
        shares = [row.measured_fraction for row in passes if row.measured_fraction is not None]
        source = f"latency trace {self.trace.name}: {self.trace.provenance.source}"
        if shares:
            source += f"; {100 * sum(shares) / len(shares):.0f} % of its time rests on measured kernels"
        between = Origin.INTERPOLATED if most is Origin.MEASURED else most
        return Evidence((InputOrigin(name="latency", value=value, origin=between, source=source),))

    def _passes(self, need: Need) -> list[tuple[Grid, int]]:
        """Return the forward passes of one step, with how often each runs."""
        k = need.num_draft_tokens
        if k == 0:
            plain = [(self._grid(Operation.DECODE, 1, need), 1)]
            return [*plain, (self._grid(Operation.DRAFT, 1, need), 1)] if need.keeps_draft_cache else plain
        passes = [
            (self._grid(Operation.VERIFY, k + 1, need), 1),
            (self._grid(Operation.DRAFT, k + 1, need), 1),
        ]
        if k > 1:
            passes.append((self._grid(Operation.DRAFT, 1, need), k - 1))
        return passes

    def _grid(self, operation: Operation, tokens_per_seq: int, need: Need) -> Grid:
        grid = self._grids.get((operation, tokens_per_seq))
        if grid is None:
            covered = sorted(tokens for known, tokens in self._grids if known is operation)
            most = max(covered, default=1) - 1
            if operation is not Operation.DECODE and covered and tokens_per_seq > most + 1:
                raise TraceCoverageError(
                    f"arms.{need.arm}.k: {need.num_draft_tokens} needs {operation.value} at {tokens_per_seq} tokens "
                    f"per sequence, but latency trace {self.trace.name} covers k up to {most}; lower k or profile more"
                )
            raise TraceCoverageError(
                f"latency.trace: {self.trace.name} has no {operation.value} rows at {tokens_per_seq} tokens per "
                f"sequence, which arm {need.arm} (k = {need.num_draft_tokens}) needs; profile them or use another trace"
            )
        return grid

    def _check_hull(self, need: Need, passes: list[tuple[Grid, int]], knots: F64) -> Iterable[str]:
        """Yield warnings for what lies outside; raise if that is not allowed."""
        name = self.trace.name
        for grid, _ in passes:
            low, high = min(grid), max(grid)
            if need.max_batch > high:
                yield self._above(need, high, "of")
            if low > 1:
                yield self._outside(
                    f"latency trace {name} begins at batch {low}, and tails shrink to 1", "profile batch 1"
                )
            for batch, row in grid.items():
                furthest = max(row)
                reachable = min(float(need.max_context_tokens), need.kv_tokens / batch)
                if reachable > furthest and batch <= need.max_batch:
                    yield self._outside(
                        f"workload: contexts reach {reachable:.0f} tokens at batch {batch}, but latency trace {name} "
                        f"ends at {furthest} there",
                        "shorten responses, lower engine.max_running_seqs or profile longer contexts",
                    )
                    break
        if knots[0] > 2048:
            yield f"latency trace {name}: contexts below {knots[0]:.0f} tokens cost as much as at {knots[0]:.0f}"

    def _above(self, need: Need, largest: int, whose: str) -> str:
        return self._outside(
            f"engine.max_running_seqs: {need.max_batch} is above {largest}, the largest batch {whose} latency trace "
            f"{self.trace.name}",
            "lower it or profile larger batches",
        )

    def _outside(self, fact: str, remedy: str) -> str:
        if not self._allow:
            raise TraceCoverageError(f"{fact}; {remedy}, or set latency.allow_extrapolation = true")
        return f"{fact}; extrapolated"

    def _padded_batches(self, max_batch: int, k: int, measured: list[int]) -> F64:
        """Return, for batch 1..max_batch, the batch whose latency the engine really pays."""
        batches = np.arange(1, max_batch + 1, dtype=np.float64)
        sizes = self.trace.graph_batch_sizes
        if sizes is None:
            return batches
        width = k + 1
        captured = np.unique(-(-np.array(sizes) // width))  # sequences per graph: sizes are rounded up to k + 1
        # A measured batch has its padding in it: it ends the step that it lies in.
        ends = np.union1d(captured, [batch for batch in measured if batch <= captured[-1]])
        place = np.searchsorted(ends, batches)
        return np.where(place < len(ends), ends[np.minimum(place, len(ends) - 1)], batches)

    def _prefill(self, is_drafting: bool) -> tuple[F64, F64, float]:
        """Split prefill rows into a part that grows with new tokens, and attention to a context.

        Where the trace says what an MTP layer that reads the prompt adds, it is added for arms that draft.
        """
        points = {
            (row.tokens_per_seq, row.context_tokens): row.latency_s
            for row in self._rows
            if row.operation is Operation.PREFILL and row.batch == 1
        }
        alone = sorted(tokens for tokens, context in points if context == 0)
        if not alone:
            raise TraceCoverageError(
                f"latency.trace: {self.trace.name} has no prefill rows at batch 1 and context 0; profile prefill"
            )
        pairs = np.array([tokens * context for tokens, context in points if context > 0 and tokens in alone], float)
        extra = np.array(
            [
                seconds - points[tokens, 0]
                for (tokens, context), seconds in points.items()
                if context > 0 and tokens in alone
            ]
        )
        attention = max(float(pairs @ extra / (pairs @ pairs)), 0.0) if len(pairs) else 0.0
        tokens = np.array(alone, float)
        seconds = np.array([points[n, 0] for n in alone]) - attention * tokens**2 / 2
        added = {row.tokens_per_seq: row.latency_s for row in self._rows if row.operation is Operation.DRAFT_PREFILL}
        if is_drafting and added:
            seconds = seconds + np.interp(tokens, sorted(added), [added[n] for n in sorted(added)])
        seconds = np.maximum.accumulate(np.maximum(seconds, 0.0))
        seconds = seconds + self._overhead_s[0]
        return np.concatenate([[0.0], tokens]), np.concatenate([seconds[:1], seconds]), attention


def _per_step_extras(k: int) -> list[tuple[Operation, int, int]]:
    """Return (operation, tokens per sequence, how often) of what does not depend on the context."""
    if k == 0:
        return [(Operation.SAMPLE, 1, 1), (Operation.HOST_GAP, 1, 1)]
    return [
        (Operation.LM_HEAD, 1, k),
        (Operation.SAMPLE, k + 1, 1),
        (Operation.SAMPLE, 1, k),
        (Operation.HOST_GAP, 1, k + 1),
    ]


def _interpolate(grid: Grid, batches: F64, contexts: F64) -> F64:
    """Return seconds[batch, context]: linear along context in each measured batch, then linear along batch.

    Below the smallest batch its row, above the largest the line through the last two, never falling.
    """
    measured = sorted(grid)
    rows = np.stack([_along_context(grid[batch], contexts) for batch in measured])
    if len(measured) == 1:
        return np.repeat(rows, len(batches), axis=0)
    nodes = np.array(measured, float)
    place = np.clip(np.searchsorted(nodes, batches, side="right") - 1, 0, len(nodes) - 2)
    share = np.maximum((batches - nodes[place]) / (nodes[place + 1] - nodes[place]), 0.0)
    rise = rows[place + 1] - rows[place]
    inside, beyond = np.minimum(share, 1.0)[:, None], np.maximum(share - 1.0, 0.0)[:, None]
    mixed: F64 = rows[place] + inside * rise + beyond * np.maximum(rise, 0.0)
    return mixed


def _along_context(row: dict[int, float], contexts: F64) -> F64:
    """Return seconds at the contexts: flat below the first point, on the last line above the last."""
    known = np.array(sorted(row), float)
    seconds = np.array([row[int(context)] for context in known])
    values: F64 = np.interp(contexts, known, seconds)
    if len(known) > 1:
        beyond = contexts > known[-1]
        slope = max((seconds[-1] - seconds[-2]) / (known[-1] - known[-2]), 0.0)
        values = np.where(beyond, seconds[-1] + slope * (contexts - known[-1]), values)
    return values
