"""Profiles: latency traces as the page needs them: read, cut into regions by origin, beside each other.

Between its points a trace is read as the simulator reads it (`profiler.surface`). Does not know Streamlit or Plotly.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from dashboard.uploads import Upload, on_disk
from profiler.comparison import Comparison, compare
from profiler.errors import UsageError
from profiler.step_times import StepTime, StepTimes, step_times
from profiler.surface import Surface
from traces.base import Origin
from traces.latency import LatencyRow, LatencyTrace, Measurement, Operation
from traces.store import list_traces, load_named, load_trace

MAX_CELLS = 48
"""Cells of a surface along each of its two axes, those at the trace's own points included."""
SURFACE_OPERATIONS = (
    Operation.DECODE,
    Operation.VERIFY,
    Operation.DRAFT,
    Operation.LM_HEAD,
    Operation.SAMPLE,
    Operation.HOST_GAP,
    Operation.PREFILL,
)
"""Operations of a rollout engine, in the order of a speculative step; the trainer's and the sync's have no context."""

KEPT = 16
"""Traces, and what was made of them, that a server keeps over all its visitors."""

Profile = str | Upload
"""The name of a shipped trace, or a visitor's file."""
Layout = tuple[int, int]
"""(tp_size, ep_size)."""


@dataclass(frozen=True, slots=True)
class SurfaceCell:
    """One place of a surface: where it is, what the trace says there, and how it knows."""

    batch: int
    context_tokens: int
    latency_s: float | None
    """None outside the hull of the points: the simulator stops there, or extrapolates where the scenario allows it."""
    origin: Origin
    measured_fraction: float | None = None
    """Of a modelled point: share of its time that comes from measured kernels."""
    relative_spread: float | None = None
    """Of a measured point: interquartile range over median."""


@dataclass(frozen=True, slots=True)
class LatencySurface:
    """One operation at one q of one layout: a grid of batches and contexts."""

    operation: Operation
    tokens_per_seq: int
    batches: tuple[int, ...]
    contexts_tokens: tuple[int, ...]
    cells: tuple[SurfaceCell, ...]
    """By context, then by batch, as many as batches times contexts."""
    num_points: int
    """Rows of the trace among the cells."""


@dataclass(frozen=True, slots=True)
class RegionOrigin:
    """What the rows of one operation rest on."""

    operation: Operation
    num_rows: int
    origins: tuple[tuple[Origin, int], ...]
    """With how many rows of each, the most first."""
    measured_fraction: tuple[float, float] | None
    """Least and most of it over the modelled rows that state it."""
    worst_spread: float | None
    """Largest interquartile range over median of the measured rows."""
    num_infeasible: int
    """Points of the grid that could not be timed."""
    batches: tuple[int, int]
    contexts_tokens: tuple[int, int]
    queries: tuple[int, int]


def shipped_profiles() -> tuple[str, ...]:
    """Return the names of the shipped latency traces."""
    return tuple(entry.name for entry in list_traces("latency"))


@lru_cache(maxsize=KEPT)
def load(profile: Profile) -> LatencyTrace:
    """Return a shipped trace, or an uploaded one, checked in full: format, values, version, hash; raises TraceError."""
    if isinstance(profile, str):
        return load_named(profile, LatencyTrace)
    with on_disk([profile]) as (path,):
        return load_trace(path, LatencyTrace)


@lru_cache(maxsize=KEPT)
def passes_of(profile: Profile, layout: Layout) -> StepTimes:
    """Return decode and verify passes of one layout, over the least time that physics allows."""
    return step_times(load(profile), *layout)


@lru_cache(maxsize=KEPT)
def comparison_of(first: Profile, second: Profile) -> Comparison:
    """Return what `bebop profile compare` says: second over first by region; raises UsageError."""
    return compare(load(first), load(second))


def layouts_of(trace: LatencyTrace) -> tuple[Layout, ...]:
    """Return (tp_size, ep_size) of every parallel layout, ascending."""
    return tuple(sorted({(row.tp_size, row.ep_size) for row in trace.rows}))


def operations_of(trace: LatencyTrace, layout: Layout) -> tuple[Operation, ...]:
    """Return the operations that have a surface, in the order of a speculative step."""
    present = {row.operation for row in _rows(trace, layout)}
    return tuple(operation for operation in SURFACE_OPERATIONS if operation in present)


def queries_of(trace: LatencyTrace, layout: Layout, operation: Operation) -> tuple[int, ...]:
    """Return the numbers of new tokens per sequence at which an operation was timed, ascending."""
    return tuple(sorted({row.tokens_per_seq for row in _rows(trace, layout) if row.operation is operation}))


def surface_of(trace: LatencyTrace, layout: Layout, operation: Operation, tokens_per_seq: int) -> LatencySurface:
    """Return an operation's latency over batch and context, between its points as the simulator reads it.

    Raises:
        UsageError: The trace has no such rows.
    """
    rows = [row for row in _rows(trace, layout) if row.operation is operation and row.tokens_per_seq == tokens_per_seq]
    if not rows:
        raise UsageError(f"{trace.name}: no rows of {operation.value} at q {tokens_per_seq}; choose another operation")
    surface = Surface()
    known = {(row.batch, row.context_tokens): row for row in rows}
    for row in rows:
        surface.add(row.batch, row.context_tokens, row.latency_s)
    batches = _places(sorted({row.batch for row in rows}))
    contexts = _places(sorted({row.context_tokens for row in rows}))
    cells = tuple(
        _cell(surface, known.get((batch, context)), batch, context) for context in contexts for batch in batches
    )
    return LatencySurface(operation, tokens_per_seq, batches, contexts, cells, len(known))


def regions_of(trace: LatencyTrace, layout: Layout) -> tuple[RegionOrigin, ...]:
    """Return what the rows of each operation rest on, in the order of `Operation`."""
    found = []
    for operation in Operation:
        rows = [row for row in _rows(trace, layout) if row.operation is operation]
        if rows:
            found.append(_region(operation, rows, trace.measurement))
    return tuple(found)


def verify_ratios(times: Sequence[StepTime], context_tokens: int) -> dict[int, list[StepTime]]:
    """Return q -> its verify passes at one context that have a decode pass beside them, by batch."""
    found: dict[int, list[StepTime]] = {}
    for time in times:
        if time.context_tokens == context_tokens and time.tokens_per_seq > 1 and time.over_decode is not None:
            found.setdefault(time.tokens_per_seq, []).append(time)
    return dict(sorted(found.items()))


def _rows(trace: LatencyTrace, layout: Layout) -> list[LatencyRow]:
    return [row for row in trace.rows if (row.tp_size, row.ep_size) == layout]


def _cell(surface: Surface, row: LatencyRow | None, batch: int, context_tokens: int) -> SurfaceCell:
    if row is not None:
        origin = Origin(row.origin)
        return SurfaceCell(batch, context_tokens, row.latency_s, origin, row.measured_fraction, row.relative_spread)
    if surface.covers(batch, context_tokens):
        return SurfaceCell(batch, context_tokens, surface.predict(batch, context_tokens), Origin.INTERPOLATED)
    return SurfaceCell(batch, context_tokens, None, Origin.EXTRAPOLATED)


def _places(points: Sequence[int]) -> tuple[int, ...]:
    """Return the points and, where there is room, places between them: in equal ratios, whole numbers."""
    if len(points) < 2:
        return tuple(points)
    between = max((MAX_CELLS - 1) // (len(points) - 1), 1)
    places = set(points)
    for low, high in pairwise(points):
        places.update(round(float(place)) for place in np.geomspace(max(low, 1), high, between + 1)[1:-1])
    return tuple(sorted(place for place in places if points[0] <= place <= points[-1]))


def _region(operation: Operation, rows: Sequence[LatencyRow], measurement: Measurement | None) -> RegionOrigin:
    shares = [row.measured_fraction for row in rows if row.measured_fraction is not None]
    spreads = [row.relative_spread for row in rows if row.relative_spread is not None]
    infeasible = () if measurement is None else measurement.infeasible
    return RegionOrigin(
        operation=operation,
        num_rows=len(rows),
        origins=tuple(Counter(Origin(row.origin) for row in rows).most_common()),
        measured_fraction=(min(shares), max(shares)) if shares else None,
        worst_spread=max(spreads, default=None),
        num_infeasible=sum(point.operation is operation for point in infeasible),
        batches=_ends([row.batch for row in rows]),
        contexts_tokens=_ends([row.context_tokens for row in rows]),
        queries=_ends([row.tokens_per_seq for row in rows]),
    )


def _ends(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)
