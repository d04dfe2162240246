"""Profile tables: what a latency trace rests on, and two of them by region -> columns of Markdown cells, escaped."""

from collections.abc import Sequence

from dashboard.figures.profile_ratio import region_name
from dashboard.profiles import RegionOrigin
from dashboard.tables import NOTHING, Table, badge
from dashboard.words import escape_markdown
from profiler.comparison import Comparison, Outside, Region
from traces.latency import ErrorSummary, InfeasiblePoint, LatencyTrace, Measurement

MAX_INFEASIBLE = 20
"""Infeasible points shown; the trace holds all."""


def about_table(trace: LatencyTrace) -> Table:
    """Return what a trace is of, and where it comes from."""
    versions = ", ".join(f"{name} {version}" for name, version in trace.provenance.versions.items())
    facts = {
        "model": trace.model,
        "GPU": trace.gpu,
        "precision": trace.precision,
        "engine": trace.engine,
        "source": trace.provenance.source,
        "made": trace.provenance.created,
        "versions": versions,
        "notes": trace.provenance.notes or "",
    }
    known = {name: value for name, value in facts.items() if value}
    return {"fact": list(known), "value": [escape_markdown(value) for value in known.values()]}


def regions_table(regions: Sequence[RegionOrigin]) -> Table:
    """Return a row per operation: how its points came about, and where they lie."""
    return {
        "operation": [f"**{escape_markdown(region.operation.value)}**" for region in regions],
        "points": [f"{region.num_rows:,}" for region in regions],
        "origin": [
            " ".join(badge(origin, f"{count:,} {origin.value}") for origin, count in region.origins)
            for region in regions
        ],
        **{title: cells for title, cells in _said(regions).items() if any(cell != NOTHING for cell in cells)},
        "q": [_ends(region.queries) for region in regions],
        "batch": [_ends(region.batches) for region in regions],
        "context (tokens)": [_ends(region.contexts_tokens) for region in regions],
    }


def errors_table(measurement: Measurement) -> Table:
    """Return what a measured trace says of the space between its points."""
    rows: list[tuple[str, ErrorSummary]] = [
        (name, found)
        for name, found in (("held-out points", measurement.held_out), ("leave one out", measurement.leave_one_out))
        if found is not None
    ]
    return {
        "predicted from the rows": [name for name, _ in rows],
        "points": [f"{found.num_points:,}" for _, found in rows],
        "median error": [f"{found.median:.1%}" for _, found in rows],
        "p90": [f"{found.p90:.1%}" for _, found in rows],
        "worst": [f"{found.worst:.1%}" for _, found in rows],
    }


def measurement_sentence(measurement: Measurement | None) -> str:
    """Return how the rows were timed, as one sentence."""
    if measurement is None:
        return "Nobody timed whole passes of this trace, so it states no errors of its own."
    return (
        f"{measurement.num_samples:,} samples, at least {measurement.num_sweeps} of every point; "
        f"**{measurement.num_noisy} points noisy** (sweeps differ by more than {measurement.noisy_spread:.0%}), "
        f"**{len(measurement.infeasible)} infeasible**."
    )


def composed_table(measurement: Measurement) -> Table:
    """Return whole speculative steps beside the sums of their parts."""
    steps = measurement.composed
    return {
        "k": [str(step.num_draft_tokens) for step in steps],
        "batch": [f"{step.batch:,}" for step in steps],
        "context (tokens)": [f"{step.context_tokens:,}" for step in steps],
        "whole step": [f"{1e3 * step.measured_s:.4g} ms" for step in steps],
        "sum of its parts": [f"{step.sum_of_parts_s / step.measured_s - 1:+.1%}" for step in steps],
    }


def infeasible_table(points: Sequence[InfeasiblePoint]) -> Table:
    """Return the first infeasible points, and why."""
    shown = points[:MAX_INFEASIBLE]
    return {
        "operation": [escape_markdown(point.operation.value) for point in shown],
        "q": [f"{point.tokens_per_seq:,}" for point in shown],
        "batch": [f"{point.batch:,}" for point in shown],
        "context (tokens)": [f"{point.context_tokens:,}" for point in shown],
        "why": [escape_markdown(point.reason) for point in shown],
    }


def ratios_table(regions: Sequence[Region]) -> Table:
    """Return the ratio of two traces by region, as `bebop profile compare` prints it."""
    return {
        "region": [escape_markdown(region_name(region)) for region in regions],
        "points": [f"{region.num_points:,}" for region in regions],
        "median": [f"**{region.median:.3f}**" for region in regions],
        "lowest": [f"{region.lowest:.3f}" for region in regions],
        "highest": [f"{region.highest:.3f}" for region in regions],
    }


def outside_lines(found: Comparison) -> list[str]:
    """Return what only one of two traces covers, a line each, escaped."""
    return [_outside(gap) for gap in found.outside]


def _said(regions: Sequence[RegionOrigin]) -> Table:
    """Return the columns that only some traces have something for."""
    return {
        "of it measured": [_shares(region.measured_fraction) for region in regions],
        "worst spread": [_percent(region.worst_spread) for region in regions],
        "infeasible": [str(region.num_infeasible) if region.num_infeasible else NOTHING for region in regions],
    }


def _outside(gap: Outside) -> str:
    other = "A" if gap.of == "B" else "B"
    where = f"q {_ends(gap.queries)}, batch {_ends(gap.batches)}, context {_ends(gap.contexts_tokens)}"
    count = f"{gap.num_points:,} of {gap.num_total:,} points of {gap.of}"
    return escape_markdown(f"{gap.operation.value}: {count} are outside {other} ({where})")


def _shares(ends: tuple[float, float] | None) -> str:
    if ends is None:
        return NOTHING
    low, high = (f"{end:.0%}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{fraction:.1%}"


def _ends(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"
