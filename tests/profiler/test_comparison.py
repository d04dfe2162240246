"""The ratio of two traces by region: exact where they differ by a factor, and honest about what only one covers."""

import pytest

from profiler.comparison import Comparison, compare
from profiler.errors import UsageError
from tests.profiler.test_step_times import row, trace_of
from traces.latency import LatencyTrace, Operation

PASSES = ((Operation.DECODE, 1), (Operation.VERIFY, 2), (Operation.VERIFY, 4))


def plane(batches: tuple[int, ...], contexts: tuple[int, ...], factor: float = 1.0) -> LatencyTrace:
    """Latencies linear in batch and in context, which interpolation reproduces exactly."""
    return trace_of(
        *(
            row(operation, q, batch, context, factor * (0.004 + 1e-5 * batch * q + 1e-7 * batch * context))
            for operation, q in PASSES
            for batch in batches
            for context in contexts
        )
    )


def test_traces_that_differ_by_a_factor_show_it_in_every_region() -> None:
    found = compare(plane((1, 16, 64), (128, 4096)), plane((1, 8, 64), (128, 2048, 4096), factor=1.3))
    assert [(gap.of, gap.num_points) for gap in found.outside] == []
    assert {region.operation for region in found.regions} == {Operation.DECODE, Operation.VERIFY}
    for region in found.regions:
        assert (region.median, region.lowest, region.highest) == pytest.approx((1.3, 1.3, 1.3))
    # Batches 1, 8, 16 and 64 with contexts 128, 2048 and 4096 are the grid that both span together.
    assert points(found, Operation.DECODE) == 12
    assert points(found, Operation.VERIFY) == 24


def points(found: Comparison, operation: Operation) -> int:
    return sum(region.num_points for region in found.regions if region.operation is operation)


def test_regions_are_ranges_of_batch_and_context() -> None:
    found = compare(plane((1, 4, 64), (128, 4096)), plane((1, 4, 64), (128, 4096)))
    decode = [(r.batches, r.contexts_tokens) for r in found.regions if r.operation is Operation.DECODE]
    assert decode == [((1, 4), (128, 128)), ((1, 4), (4096, 4096)), ((64, 64), (128, 128)), ((64, 64), (4096, 4096))]
    verify = [r.queries for r in found.regions if r.operation is Operation.VERIFY]
    assert set(verify) == {(2, 4)}


def test_extremes_of_a_region_are_those_of_its_points() -> None:
    rows = [row(Operation.DECODE, 1, batch, 128, 0.01) for batch in (1, 2, 4)]
    other = [row(Operation.DECODE, 1, batch, 128, seconds) for batch, seconds in ((1, 0.01), (2, 0.012), (4, 0.02))]
    (region,) = compare(trace_of(*rows), trace_of(*other)).regions
    assert (region.median, region.lowest, region.highest) == pytest.approx((1.2, 1.0, 2.0))


def test_what_only_one_trace_covers_is_said_of_both() -> None:
    small = plane((1, 8), (128, 1024))
    large = trace_of(*plane((1, 16), (128, 512)).rows, row(Operation.DRAFT, 1, 1, 128, 0.001))
    found = compare(small, large)
    outside = {(gap.operation, gap.of): gap for gap in found.outside}
    assert outside.keys() == {
        (Operation.DECODE, "A"),
        (Operation.DECODE, "B"),
        (Operation.VERIFY, "A"),
        (Operation.VERIFY, "B"),
        (Operation.DRAFT, "B"),
    }
    assert outside[Operation.DECODE, "A"].contexts_tokens == (1024, 1024)
    assert outside[Operation.DECODE, "A"].num_points == 2
    assert outside[Operation.DECODE, "A"].num_total == 4
    assert outside[Operation.VERIFY, "B"].batches == (16, 16)
    assert outside[Operation.VERIFY, "B"].queries == (2, 4)
    # Nothing outside either hull was compared.
    assert max(region.batches[1] for region in found.regions) == 8
    assert max(region.contexts_tokens[1] for region in found.regions) == 512


def test_traces_without_a_common_point_are_refused() -> None:
    with pytest.raises(UsageError, match="no point in common"):
        compare(plane((1, 2), (128, 256)), plane((4, 8), (128, 256)))


def test_a_trace_of_several_layouts_is_refused() -> None:
    both = trace_of(row(Operation.DECODE, 1, 1, 1, 0.01), row(Operation.DECODE, 1, 1, 1, 0.02, tp_size=2))
    with pytest.raises(UsageError, match="rows of 2 parallel layouts"):
        compare(both, both)
