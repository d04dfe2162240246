"""What the Profiles view shows of a latency trace: the trace's rows, the simulator's reading between them, no more."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dashboard import profile_tables, profiles
from dashboard.figures.latency_surface import latency_surface
from dashboard.figures.profile_ratio import profile_ratio, region_name
from dashboard.figures.verify_ratio import verify_ratio
from dashboard.uploads import Upload
from profiler.errors import UsageError
from profiler.step_times import step_times
from tests.profiler.test_step_times import row, trace_of
from traces.base import Origin
from traces.errors import TraceError
from traces.latency import ErrorSummary, InfeasiblePoint, LatencyTrace, Measurement, Operation
from traces.store import save_trace

SHIPPED = "qwen3-8b-h200-tp1"
ONE_GPU = (1, 1)


def corner() -> LatencyTrace:
    """Three of the four corners of a rectangle: its hull has a step in it."""
    return trace_of(
        row(Operation.DECODE, 1, 1, 0, 0.010),
        row(Operation.DECODE, 1, 1, 1000, 0.020),
        row(Operation.DECODE, 1, 9, 0, 0.050),
    )


def measured(**values: object) -> Measurement:
    return Measurement.model_validate(
        {"num_sweeps": 3, "num_samples": 60, "noisy_spread": 0.05, "num_noisy": 2, **values}
    )


def test_a_surface_holds_the_rows_and_reads_between_them_along_context_then_batch() -> None:
    trace = trace_of(*(row(Operation.DECODE, 1, b, c, 0.01 + 1e-3 * b + 1e-5 * c) for b in (1, 9) for c in (0, 1000)))
    found = profiles.surface_of(trace, ONE_GPU, Operation.DECODE, 1)
    assert found.num_points == 4
    assert {cell.origin for cell in found.cells} == {Origin.MEASURED, Origin.INTERPOLATED}
    for cell in found.cells:
        # The rows lie on a plane, and so does everything between them.
        assert cell.latency_s == pytest.approx(0.01 + 1e-3 * cell.batch + 1e-5 * cell.context_tokens)
    assert [(cell.context_tokens, cell.batch) for cell in found.cells] == [
        (context, batch) for context in found.contexts_tokens for batch in found.batches
    ]


def test_outside_the_points_a_surface_says_nothing() -> None:
    cells = profiles.surface_of(corner(), ONE_GPU, Operation.DECODE, 1).cells
    outside = [cell for cell in cells if cell.origin is Origin.EXTRAPOLATED]
    assert outside
    assert all(cell.latency_s is None and cell.batch > 1 and cell.context_tokens > 0 for cell in outside)


@pytest.mark.parametrize("dark", [False, True])
def test_a_surface_is_drawn_with_a_marker_per_row_and_a_hole_outside(dark: bool) -> None:
    figure = latency_surface(profiles.surface_of(corner(), ONE_GPU, Operation.DECODE, 1), dark=dark)
    colours, points, legend = figure.data
    assert len(points.x) == 3
    assert legend.name == "measured (3 points)"
    drawn = [value for line in colours.z for value in line]
    assert None in drawn
    known = [value for value in drawn if value is not None]
    assert min(known) == pytest.approx(math.log10(10.0))
    assert max(known) == pytest.approx(math.log10(50.0))
    assert figure.layout.xaxis.title.text == "batch (sequences)"
    assert figure.layout.yaxis.title.text == "context (tokens)"
    assert figure.data[0].colorbar.title.text == "ms"


def test_one_point_alone_is_a_surface_of_one_cell() -> None:
    found = profiles.surface_of(trace_of(row(Operation.DRAFT, 1, 4, 64, 0.002)), ONE_GPU, Operation.DRAFT, 1)
    assert (found.batches, found.contexts_tokens, len(found.cells)) == ((4,), (64,), 1)
    assert json.loads(latency_surface(found).to_json())["data"]


def test_an_operation_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UsageError, match="no rows of verify at q 4"):
        profiles.surface_of(corner(), ONE_GPU, Operation.VERIFY, 4)


def test_a_shipped_surface_has_all_rows_of_its_operation() -> None:
    trace = profiles.load(SHIPPED)
    for operation in profiles.operations_of(trace, ONE_GPU):
        for q in profiles.queries_of(trace, ONE_GPU, operation):
            rows = [one for one in trace.rows if (one.operation, one.tokens_per_seq) == (operation, q)]
            found = profiles.surface_of(trace, ONE_GPU, operation, q)
            assert found.num_points == len(rows)
            assert len(found.batches) <= 2 * profiles.MAX_CELLS


def test_regions_count_every_row_once_with_its_origin() -> None:
    trace = profiles.load(SHIPPED)
    regions = profiles.regions_of(trace, ONE_GPU)
    assert sum(region.num_rows for region in regions) == len(trace.rows)
    for region in regions:
        own = [one for one in trace.rows if one.operation is region.operation]
        assert dict(region.origins) == {
            Origin(origin): sum(one.origin == origin for one in own) for origin in {one.origin for one in own}
        }
    table = profile_tables.regions_table(regions)
    assert any("violet-badge" in cell for cell in table["origin"])
    assert any("orange-badge[**" in cell for cell in table["origin"]), "what nobody measured stands out"


def test_the_ratio_of_verify_to_decode_is_that_of_the_passes() -> None:
    passes = step_times(profiles.load(SHIPPED))
    ratios = profiles.verify_ratios(passes.times, 8192)
    figure = verify_ratio(ratios)
    assert [line.name for line in figure.data] == [f"q = {q}" for q in range(2, 10)]
    for line, (q, times) in zip(figure.data, ratios.items(), strict=True):
        decode = {
            one.batch: one.latency_s for one in passes.times if (one.tokens_per_seq, one.context_tokens) == (1, 8192)
        }
        assert list(line.y) == [pytest.approx(one.latency_s / decode[one.batch]) for one in times], q
    assert verify_ratio({}).layout.annotations[0].text.startswith("No verify pass")


def test_a_comparison_draws_the_median_between_the_lowest_and_the_highest() -> None:
    found = profiles.comparison_of(SHIPPED, "qwen3-8b-h100-tp1")
    decode = [region for region in found.regions if region.operation is Operation.DECODE]
    (rows,) = profile_ratio(decode).data
    assert list(rows.x) == [region.median for region in decode]
    assert list(np.array(rows.x) + rows.error_x.array) == pytest.approx([region.highest for region in decode])
    assert list(np.array(rows.x) - rows.error_x.arrayminus) == pytest.approx([region.lowest for region in decode])
    table = profile_tables.ratios_table(decode)
    assert table["median"] == [f"**{region.median:.3f}**" for region in decode]
    assert len(set(map(region_name, decode))) == len(decode)


def test_an_uploaded_trace_is_checked_in_full_and_named_without_its_folder(tmp_path: Path) -> None:
    save_trace(corner(), tmp_path / "made-up.json")
    content = (tmp_path / "made-up.json").read_bytes()
    assert profiles.load(Upload("mine.json", content)) == corner()
    with pytest.raises(TraceError) as caught:
        profiles.load(Upload("mine.json", content.replace(b"0.05", b"0.06")))
    assert str(caught.value).startswith("mine.json: content has sha256")


def test_errors_of_a_measured_trace_are_told_with_noisy_and_infeasible_points() -> None:
    reason = "needs <b>90 GB</b>, the GPU has 80"
    point = InfeasiblePoint(operation=Operation.DECODE, batch=512, context_tokens=8, tokens_per_seq=1, reason=reason)
    errors = ErrorSummary(num_points=7, median=0.01, p90=0.03, worst=0.08)
    found = measured(held_out=errors, infeasible=(point,))
    assert profile_tables.errors_table(found)["worst"] == ["8.0%"]
    assert "**2 points noisy**" in profile_tables.measurement_sentence(found)
    assert "**1 infeasible**" in profile_tables.measurement_sentence(found)
    assert r"\<b\>" in profile_tables.infeasible_table(found.infeasible)["why"][0]
    assert "states no errors" in profile_tables.measurement_sentence(None)
