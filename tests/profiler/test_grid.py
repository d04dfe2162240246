"""The grid: interpolation as the simulator does it, refinement where it errs, points that only check."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.grid import (
    TARGET_MEDIAN,
    TARGET_P90,
    GridRequest,
    coarse_grid,
    held_out,
    is_fine,
    leave_one_out,
    refinement,
    surfaces,
)
from profiler.point import Point
from profiler.surface import Surface, summary
from simulator.latency import _interpolate
from traces.latency import Operation

Law = Callable[[int, int], float]
BATCHES, CONTEXTS = (1, 4, 16, 64, 256), (512, 4096, 32768)


def surface_of(law: Law, batches: tuple[int, ...] = BATCHES, contexts: tuple[int, ...] = CONTEXTS) -> Surface:
    surface = Surface()
    for batch in batches:
        for context in contexts:
            surface.add(batch, context, law(batch, context))
    return surface


def bilinear(batch: int, context: int) -> float:
    return 1.0 + 0.1 * batch + 1e-4 * context + 1e-6 * batch * context


def memory_then_compute(batch: int, context: int) -> float:
    """A step as GPUs have it: flat until the knee, then linear; the KV cache read on top."""
    return max(5e-3, 5e-3 * batch / 40) + 2e-9 * batch * context


@given(st.integers(1, 256), st.integers(512, 32768))
def test_a_bilinear_law_is_predicted_exactly(batch: int, context: int) -> None:
    assert surface_of(bilinear).predict(batch, context) == pytest.approx(bilinear(batch, context), rel=1e-9)


@given(
    st.dictionaries(
        st.integers(1, 64),
        st.dictionaries(st.integers(0, 10_000), st.floats(1e-4, 1.0), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_between_points_the_profiler_reads_what_the_simulator_reads(
    rows: dict[int, dict[int, float]], along_batch: float, along_context: float
) -> None:
    surface = Surface(rows)
    batch = round(min(rows) + along_batch * (max(rows) - min(rows)))
    longest = min(max(row) for row in rows.values())
    context = round(along_context * longest)
    expected = _interpolate(rows, np.array([float(batch)]), np.array([float(context)]))[0, 0]
    assert surface.predict(batch, context) == pytest.approx(expected, rel=1e-9)


def test_a_measured_point_is_returned_as_it_was_measured() -> None:
    surface = surface_of(memory_then_compute)
    for batch in BATCHES:
        for context in CONTEXTS:
            assert surface.predict(batch, context) == memory_then_compute(batch, context)


def test_leaving_out_a_point_of_a_bilinear_law_costs_nothing() -> None:
    errors = [guess.error for guess in surface_of(bilinear).leave_one_out()]
    # 5 batches with one inner context each, 3 inner batches with three contexts each.
    assert len(errors) == 5 + 9
    assert max(map(abs, errors)) < 1e-9


def refine(law: Law, rounds: int = 20) -> Surface:
    key = (Operation.DECODE, 1)
    known = {Point(*key, batch, context): law(batch, context) for batch in BATCHES for context in CONTEXTS}
    for _ in range(rounds):
        found = surfaces(known.items())
        new = [] if is_fine(leave_one_out(found)) else refinement(found, frozenset(known))
        if not new:
            break
        known |= {point: law(point.batch, point.context_tokens) for point in new}
    return surfaces(known.items())[key]


@pytest.mark.parametrize(
    "law",
    [
        memory_then_compute,
        lambda b, c: 5e-3 + 1e-4 * math.sqrt(b) + 1e-9 * b * c,
        lambda b, c: 4e-3 + 6e-3 * (1 - math.exp(-b / 12)) + 1e-9 * b * c,
        lambda b, c: 1e-3 + 1e-8 * b * c**1.1,
    ],
    ids=["knee", "root", "experts", "attention"],
)
def test_refinement_stops_inside_its_target(law: Law) -> None:
    surface = refine(law)
    random = np.random.default_rng(0)
    errors = []
    for _ in range(500):
        batch = round(math.exp(random.uniform(0, math.log(256))))
        context = round(math.exp(random.uniform(math.log(512), math.log(32768))))
        errors.append(surface.predict(batch, context) / law(batch, context) - 1)
    found = summary(errors)
    assert found is not None
    assert found.median <= TARGET_MEDIAN
    assert found.p90 <= TARGET_P90


def test_refinement_goes_where_the_law_bends() -> None:
    key = (Operation.DECODE, 1)
    found = {key: surface_of(memory_then_compute)}
    known = frozenset(Point(*key, batch, context) for batch in BATCHES for context in CONTEXTS)
    new = refinement(found, known)
    assert new
    assert not known & set(new)
    # The knee is at batch 40: the first new batch lies in the gap that holds it.
    assert 16 < new[0].batch < 64
    assert all(BATCHES[0] <= point.batch <= BATCHES[-1] for point in new)


def test_a_law_without_bends_needs_no_more_points() -> None:
    found = {(Operation.DECODE, 1): surface_of(bilinear)}
    assert is_fine(leave_one_out(found))
    assert refinement(found, frozenset()) == []


def test_held_out_points_are_new_and_inside() -> None:
    keys = [(Operation.DECODE, 1), (Operation.VERIFY, 4)]
    found = {key: surface_of(bilinear) for key in keys}
    known = frozenset(Point(*key, batch, context) for key in keys for batch in BATCHES for context in CONTEXTS)
    points = held_out(found, known, 12, seed=3)
    assert len(set(points)) == 12
    assert not known & set(points)
    assert {(point.operation, point.tokens_per_seq) for point in points} == set(keys)
    for point in points:
        assert found[point.operation, point.tokens_per_seq].covers(point.batch, point.context_tokens)
    assert points == held_out(found, known, 12, seed=3)
    assert points != held_out(found, known, 12, seed=4)


def test_a_row_that_ends_early_covers_no_more_than_it_has() -> None:
    surface = surface_of(bilinear, (1, 4), (100, 1000))
    surface.add(16, 100, bilinear(16, 100))
    surface.add(16, 400, bilinear(16, 400))
    assert surface.covers(8, 300)
    assert not surface.covers(8, 900)
    assert not surface.covers(17, 100)
    with pytest.raises(ValueError, match="batch 17 is outside"):
        surface.predict(17, 100)


def test_the_coarse_grid_has_every_operation_that_a_step_needs() -> None:
    request = GridRequest((1, 8), (64, 256), 2, (16,), (0, 32))
    points = coarse_grid(request)
    by_key: dict[tuple[Operation, int], int] = {}
    for point in points:
        key = (point.operation, point.tokens_per_seq)
        by_key[key] = by_key.get(key, 0) + 1
    assert by_key == {
        (Operation.DECODE, 1): 4,
        **{(Operation.VERIFY, q): 4 for q in (2, 3)},
        **{(Operation.DRAFT, q): 4 for q in (1, 2, 3)},
        **{(Operation.SAMPLE, q): 2 for q in (1, 2, 3)},
        (Operation.LM_HEAD, 1): 2,
        (Operation.PREFILL, 16): 2,
    }


def test_a_summary_is_of_sizes() -> None:
    found = summary([-0.1, 0.02, 0.0, 0.3])
    assert found is not None
    assert (found.num_points, found.median, found.worst) == (4, 0.06, 0.3)
    assert summary([]) is None
