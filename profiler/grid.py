"""Grid: which points to measure. Coarse at first, then finer where the points predict each other worst.

Does not know how a point is measured.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from profiler.point import Point
from profiler.surface import Surface, summary
from traces.latency import ErrorSummary, Operation

TARGET_MEDIAN = 0.03
TARGET_P90 = 0.08
"""Errors between points at which refinement stops."""
LOO_EXCESS = 2.0
"""Leaving a point out doubles the gap that is interpolated over: twice the error at a bend, four times on a curve."""
MAX_NEW_POINTS = 24
"""Points added before the errors are looked at again."""
SURFACES = (Operation.DECODE, Operation.VERIFY, Operation.DRAFT)
"""Operations that depend on batch and context."""


@dataclass(frozen=True, slots=True)
class GridRequest:
    """What the trace shall cover."""

    batches: tuple[int, ...]
    contexts_tokens: tuple[int, ...]
    max_draft_tokens: int
    prefill_tokens: tuple[int, ...]
    prefill_cached_tokens: tuple[int, ...]
    extra: tuple[Point, ...] = ()
    """Points of operations that have no grid: train step, weight sync."""


def coarse_grid(request: GridRequest) -> list[Point]:
    """Return the points measured first."""
    points = list(request.extra)
    queries = range(1, request.max_draft_tokens + 2)
    for q in queries:
        target = Operation.DECODE if q == 1 else Operation.VERIFY
        for operation in (target, Operation.DRAFT) if request.max_draft_tokens else (target,):
            points += [Point(operation, q, b, c) for b in request.batches for c in request.contexts_tokens]
        points += [Point(Operation.SAMPLE, q, b) for b in request.batches]
    points += [Point(Operation.LM_HEAD, 1, b) for b in request.batches]
    points += [
        Point(Operation.PREFILL, new, 1, cached)
        for new in request.prefill_tokens
        for cached in request.prefill_cached_tokens
    ]
    return sorted(set(points))


def surfaces(latencies: Iterable[tuple[Point, float]]) -> dict[tuple[Operation, int], Surface]:
    """Return a surface for each operation and q that has points, prefill left out: it is not interpolated this way."""
    found: dict[tuple[Operation, int], Surface] = {}
    for point, latency_s in sorted(latencies):
        if point.operation in (*SURFACES, Operation.LM_HEAD, Operation.SAMPLE):
            surface = found.setdefault((point.operation, point.tokens_per_seq), Surface())
            surface.add(point.batch, point.context_tokens, latency_s)
    return found


def leave_one_out(found: dict[tuple[Operation, int], Surface]) -> ErrorSummary | None:
    """Return the errors of all inner points of all surfaces, each predicted without itself."""
    return summary([guess.error for surface in found.values() for guess in surface.leave_one_out()])


def between(found: dict[tuple[Operation, int], Surface], apart: dict[Point, float]) -> ErrorSummary | None:
    """Return the errors of points that are not in the surfaces but inside their hulls, each predicted from them."""
    return summary(
        [
            found[point.operation, point.tokens_per_seq].predict(point.batch, point.context_tokens) / latency_s - 1
            for point, latency_s in apart.items()
            if found[point.operation, point.tokens_per_seq].covers(point.batch, point.context_tokens)
        ]
    )


def is_fine(errors: ErrorSummary | None) -> bool:
    """Return whether leave-one-out errors promise the target between neighbours."""
    return errors is None or (errors.median <= TARGET_MEDIAN * LOO_EXCESS and errors.p90 <= TARGET_P90 * LOO_EXCESS)


def refinement(found: dict[tuple[Operation, int], Surface], known: frozenset[Point]) -> list[Point]:
    """Return points to add where leave-one-out errors are largest; none where nothing lies between."""
    candidates: list[tuple[float, Point]] = []
    for (operation, q), surface in sorted(found.items()):
        for guess in surface.leave_one_out():
            if abs(guess.error) > TARGET_MEDIAN:
                places = _between(surface, guess.batch, guess.context_tokens, guess.between_batches)
                candidates += [(-abs(guess.error), Point(operation, q, b, c)) for b, c in places]
    chosen: list[Point] = []
    for _, point in sorted(candidates):
        if point not in known and point not in chosen:
            chosen.append(point)
        if len(chosen) >= MAX_NEW_POINTS:
            break
    return chosen


def held_out(
    found: dict[tuple[Operation, int], Surface], known: frozenset[Point], count: int, seed: int
) -> list[Point]:
    """Return `count` points inside the hulls, none of them measured before, spread evenly in logarithms."""
    random = np.random.default_rng(seed)
    keys = sorted(key for key in found if key[0] in SURFACES)
    chosen: list[Point] = []
    for attempt in range(50 * count):
        if not keys or len(chosen) == count:
            break
        operation, q = keys[attempt % len(keys)]
        surface = found[operation, q]
        batch = _log_uniform(random, list(surface.rows))
        context = _log_uniform(random, [c for row in surface.rows.values() for c in row])
        point = Point(operation, q, batch, context)
        if point not in known and point not in chosen and surface.covers(batch, context):
            chosen.append(point)
    return chosen


def _between(surface: Surface, batch: int, context: int, between_batches: bool) -> Iterator[tuple[int, int]]:
    """Yield places in the middle of the gaps on both sides of a point."""
    if between_batches:
        for middle, lower in _middles(sorted(surface.rows), batch):
            # A whole new row: as many contexts as the smaller neighbour has, so that the row reaches as far.
            yield from ((middle, known) for known in sorted(surface.rows[lower]))
    else:
        for middle, _ in _middles(sorted(surface.rows[batch]), context):
            yield batch, middle


def _middles(known: Sequence[int], at: int) -> Iterator[tuple[int, int]]:
    """Yield the geometric middles of the gaps beside `at` that hold one, with the lower end of each."""
    place = known.index(at)
    for low, high in ((known[place - 1], at), (at, known[place + 1])):
        middle = max(isqrt(low * high), (low + high) // 4)
        if low < middle < high:
            yield middle, low


def _log_uniform(random: np.random.Generator, known: list[int]) -> int:
    low, high = min(known), max(known)
    return round(float(np.exp(random.uniform(np.log(max(low, 1)), np.log(max(high, 1))))))
