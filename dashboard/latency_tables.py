"""Latency traces as text: their passes in tables, their own errors, and the ratio of two of them by region."""

from collections.abc import Iterator, Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from profiler.comparison import Comparison, Outside
from profiler.step_times import StepTime, StepTimes
from traces.latency import LatencyTrace, Measurement

MAX_WIDTH = 240
"""Columns of text at most; a table is as wide as it needs to be."""


def render_trace(trace: LatencyTrace, found: StepTimes, contexts_tokens: Sequence[int]) -> str:
    """Return head, one table per context, and what the trace says of its own errors."""
    out, console = _console()
    layout = f"TP{found.tp_size}" + (f", EP{found.ep_size}" if found.ep_size > 1 else "")
    console.print(f"{trace.name}: {trace.model} on {trace.gpu}, {layout}, {trace.precision}; {trace.engine}")
    console.print(f"{len(trace.rows)} rows; {trace.provenance.source}")
    for tp_size, ep_size in found.other_layouts:
        console.print(f"also holds --tp {tp_size} --ep {ep_size}")
    least = "" if found.no_floor is not None else "; least: what the datasheet's peaks allow the first of them"
    for context in contexts_tokens:
        console.print(f"\ncontext {context} tokens: ms of one pass, and over the decode pass of the same batch{least}")
        console.print(_context_table(found, context))
    left = [context for context in found.contexts_tokens if context not in contexts_tokens]
    if left:
        console.print(f"{len(left)} more contexts: {', '.join(map(str, left))}; --contexts N,... or all shows them")
    if not found.times:
        console.print("no decode or verify rows")
    elif found.no_floor is not None:
        console.print(f"least time unknown: {found.no_floor}")
    elif found.floor_note is not None:
        console.print(found.floor_note)
    for line in _errors(trace.measurement):
        console.print(line)
    return _text(out)


def render_comparison(first: LatencyTrace, second: LatencyTrace, found: Comparison) -> str:
    """Return the ratio by region and what lies outside."""
    out, console = _console()
    for name, trace in (("A", first), ("B", second)):
        console.print(f"{name}  {trace.name}: {trace.model} on {trace.gpu}, {trace.precision}; {trace.engine}")
    for field in ("model", "gpu", "precision"):
        if getattr(first, field) != getattr(second, field):
            console.print(f"not the same {field}: {getattr(first, field)} and {getattr(second, field)}")
    console.print("\nB over A, where both have points around it (above 1: B is slower)")
    table = Table(box=box.SIMPLE, padding=(0, 1))
    for title in ("operation", "q", "batch", "context", "points", "median", "lowest", "highest"):
        table.add_column(title, justify="left" if title == "operation" else "right")
    for region in found.regions:
        ranges = (region.queries, region.batches, region.contexts_tokens)
        ratios = (region.median, region.lowest, region.highest)
        table.add_row(
            region.operation.value, *map(_range, ranges), str(region.num_points), *(f"{value:.3f}" for value in ratios)
        )
    console.print(table)
    if not found.outside:
        console.print("Each covers all points of the other.")
    for gap in found.outside:
        console.print(_outside(gap))
    return _text(out)


def _console() -> tuple[StringIO, Console]:
    out = StringIO()
    console = Console(
        file=out, width=MAX_WIDTH, color_system=None, highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    return out, console


def _text(out: StringIO) -> str:
    """Return what was printed, without the blanks that fill rich's lines."""
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()


def _context_table(found: StepTimes, context: int) -> Table:
    here = [time for time in found.times if time.context_tokens == context]
    queries = sorted({time.tokens_per_seq for time in here})
    table = Table(box=box.SIMPLE, padding=(0, 1))
    table.add_column("batch", justify="right")
    for q in queries:
        table.add_column("decode" if q == 1 else f"q = {q}", justify="right")
    if found.no_floor is None:
        table.add_column("least" if 1 in queries else f"least, q = {queries[0]}", justify="right")
    table.add_column("origin")
    for batch in sorted({time.batch for time in here}):
        row = {time.tokens_per_seq: time for time in here if time.batch == batch}
        cells = [_cell(row.get(q)) for q in queries]
        if found.no_floor is None:
            first = row.get(queries[0])
            cells.append("-" if first is None else _ms(first.floor_s or 0.0))
        table.add_row(str(batch), *cells, _origins(list(row.values())))
    return table


def _cell(time: StepTime | None) -> str:
    if time is None:
        return "-"
    over = "" if time.tokens_per_seq == 1 or time.over_decode is None else f" {time.over_decode:.2f}x"
    return _ms(time.latency_s) + over


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _origins(times: list[StepTime]) -> str:
    origins = "/".join(sorted({time.origin.value for time in times}))
    shares = [time.measured_fraction for time in times if time.measured_fraction is not None]
    return origins if not shares else f"{origins}, {min(shares):.0%}..{max(shares):.0%} measured"


def _errors(found: Measurement | None) -> Iterator[str]:
    """Yield what the trace says of its own errors."""
    if found is None:
        yield "errors: the trace states none (nobody timed it)"
        return
    yield (
        f"errors: {found.num_samples} samples, at least {found.num_sweeps} of every point; {found.num_noisy} points "
        f"noisy (sweeps differ by more than {found.noisy_spread:.0%}), {len(found.infeasible)} infeasible"
    )
    for name, errors in (("held-out points", found.held_out), ("leave one out", found.leave_one_out)):
        if errors is not None:
            yield (
                f"  {name}: median {errors.median:.1%}, p90 {errors.p90:.1%}, worst {errors.worst:.1%} "
                f"of {errors.num_points}"
            )
    for step in found.composed:
        yield (
            f"  whole step, k {step.num_draft_tokens}, batch {step.batch}, context {step.context_tokens}: "
            f"{1e3 * step.measured_s:.4g} ms, sum of its parts {step.sum_of_parts_s / step.measured_s - 1:+.1%}"
        )
    for point in found.infeasible[:5]:
        yield (
            f"  infeasible: {point.operation.value}, batch {point.batch}, context {point.context_tokens}, "
            f"q {point.tokens_per_seq}: {point.reason}"
        )
    if len(found.infeasible) > 5:
        yield f"  and {len(found.infeasible) - 5} more infeasible points"


def _outside(gap: Outside) -> str:
    other = "A" if gap.of == "B" else "B"
    return (
        f"{gap.operation.value}: {gap.num_points} of {gap.num_total} points of {gap.of} are outside {other} "
        f"(q {_range(gap.queries)}, batch {_range(gap.batches)}, context {_range(gap.contexts_tokens)})"
    )


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"
