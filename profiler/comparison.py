"""Comparison: the ratio of two latency traces by region, over what both cover, and what only one of them does.

Between its points a trace is read as the simulator reads it (`profiler.surface`). Says how far two traces are apart,
not which of them is right.
"""

import statistics
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from profiler.errors import UsageError
from profiler.surface import Surface
from traces.latency import LatencyRow, LatencyTrace, Operation

BATCH_EDGES = (1, 8, 64, 512)
"""First batch of each range; the last one is open."""
CONTEXT_EDGES_TOKENS = (0, 1024, 8192, 65_536)
"""First context of each range."""

Surfaces = dict[tuple[Operation, int], Surface]


@dataclass(frozen=True, slots=True)
class Region:
    """B over A in one range of batches and one of contexts, all q together."""

    operation: Operation
    batches: tuple[int, int]
    """Smallest and largest batch that was compared."""
    contexts_tokens: tuple[int, int]
    queries: tuple[int, int]
    """Smallest and largest number of new tokens per sequence."""
    num_points: int
    """Points of either trace that lie inside the hulls of both, and of the grid that they span together."""
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Outside:
    """Points of one trace that the other does not cover."""

    operation: Operation
    of: str
    """`A` or `B`: whose points they are."""
    num_points: int
    num_total: int
    """Points of that trace and operation."""
    batches: tuple[int, int]
    contexts_tokens: tuple[int, int]
    queries: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two traces side by side."""

    regions: tuple[Region, ...]
    outside: tuple[Outside, ...]


def compare(first: LatencyTrace, second: LatencyTrace) -> Comparison:
    """Return the ratio second over first by operation, range of batches and range of contexts.

    Raises:
        UsageError: The two have no point in common, or one of them holds several parallel layouts.
    """
    a, b = _surfaces(first), _surfaces(second)
    ratios: dict[tuple[Operation, int, int], list[tuple[int, int, int, float]]] = {}
    for key in sorted(a.keys() & b.keys()):
        operation, q = key
        for batch, context in _common_grid(a[key], b[key]):
            ratio = b[key].predict(batch, context) / a[key].predict(batch, context)
            region = (operation, bisect_right(BATCH_EDGES, batch), bisect_right(CONTEXT_EDGES_TOKENS, context))
            ratios.setdefault(region, []).append((q, batch, context, ratio))
    if not ratios:
        raise UsageError(f"{first.name} and {second.name} have no point in common; compare traces that overlap")
    order = list(Operation)
    regions = [
        _region(region[0], found)
        for region, found in sorted(ratios.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:]))
    ]
    outside = [
        gap
        for operation in order
        for name, inner, outer in (("A", a, b), ("B", b, a))
        if (gap := _outside(operation, name, inner, outer)) is not None
    ]
    return Comparison(tuple(regions), tuple(outside))


def _surfaces(trace: LatencyTrace) -> Surfaces:
    layouts = sorted({(row.tp_size, row.ep_size) for row in trace.rows})
    if len(layouts) > 1:
        raise UsageError(f"{trace.name}: rows of {len(layouts)} parallel layouts; split it, one layout per trace")
    found: Surfaces = {}
    for row in trace.rows:
        _surface_of(found, row).add(row.batch, row.context_tokens, row.latency_s)
    return found


def _surface_of(found: Surfaces, row: LatencyRow) -> Surface:
    return found.setdefault((row.operation, row.tokens_per_seq), Surface())


def _places(surface: Surface) -> Iterator[tuple[int, int]]:
    return ((batch, context) for batch, row in surface.rows.items() for context in row)


def _common_grid(a: Surface, b: Surface) -> Iterator[tuple[int, int]]:
    """Yield every batch of either with every context of either that both cover."""
    contexts = sorted({context for surface in (a, b) for _, context in _places(surface)})
    for batch in sorted(a.rows.keys() | b.rows.keys()):
        yield from ((batch, context) for context in contexts if a.covers(batch, context) and b.covers(batch, context))


def _region(operation: Operation, found: list[tuple[int, int, int, float]]) -> Region:
    queries, batches, contexts, ratios = (list(column) for column in zip(*found, strict=True))
    return Region(
        operation=operation,
        batches=_range(batches),
        contexts_tokens=_range(contexts),
        queries=_range(queries),
        num_points=len(ratios),
        median=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
    )


def _outside(operation: Operation, name: str, inner: Surfaces, outer: Surfaces) -> Outside | None:
    """Return the points of `inner` that `outer` does not cover; None where it covers all."""
    own = [(q, *place) for (of, q), surface in inner.items() if of is operation for place in _places(surface)]
    lost = [(q, batch, context) for q, batch, context in own if not _covers(outer, operation, q, batch, context)]
    if not lost:
        return None
    queries, batches, contexts = (list(column) for column in zip(*lost, strict=True))
    return Outside(operation, name, len(lost), len(own), _range(batches), _range(contexts), _range(queries))


def _covers(surfaces: Surfaces, operation: Operation, q: int, batch: int, context: int) -> bool:
    surface = surfaces.get((operation, q))
    return surface is not None and surface.covers(batch, context)


def _range(values: Iterable[int]) -> tuple[int, int]:
    known = sorted(values)
    return known[0], known[-1]
