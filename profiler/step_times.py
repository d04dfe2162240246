"""Step times: what a trace says of decode and verify passes, beside each other and above what physics allows.

Rows as they stand: nothing is interpolated, fitted or averaged. Does not know how they are shown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import UnsupportedModelError, UsageError
from profiler.models.rank import Rank, slice_rank
from profiler.plausibility import floor_of
from profiler.point import Point
from traces.architecture import BYTES_PER_VALUE, load_architecture
from traces.base import Origin
from traces.errors import TraceFormatError
from traces.hardware import Gpu, list_gpus, load_gpu
from traces.latency import LatencyRow, LatencyTrace, Operation


@dataclass(frozen=True, slots=True)
class StepTime:
    """One pass of the target."""

    tokens_per_seq: int
    """q: 1 for decode, k + 1 for verify."""
    batch: int
    context_tokens: int
    latency_s: float
    over_decode: float | None
    """Latency over that of the decode pass at the same batch and context; None where the trace has no such row."""
    floor_s: float | None
    """Least time that the datasheet's peaks allow; None where `StepTimes.no_floor` says why."""
    origin: Origin
    measured_fraction: float | None


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Decode and verify passes of one parallel layout of a trace, by context, batch and q."""

    tp_size: int
    ep_size: int
    other_layouts: tuple[tuple[int, int], ...]
    """(tp_size, ep_size) of the rows left out."""
    times: tuple[StepTime, ...]
    no_floor: str | None
    """Why no floor is known."""
    floor_note: str | None = None
    """What a floor leaves out, where it does."""

    @property
    def queries(self) -> tuple[int, ...]:
        """Every q, ascending."""
        return tuple(sorted({time.tokens_per_seq for time in self.times}))

    @property
    def contexts_tokens(self) -> tuple[int, ...]:
        """Every context, ascending."""
        return tuple(sorted({time.context_tokens for time in self.times}))


def step_times(trace: LatencyTrace, tp_size: int | None = None, ep_size: int | None = None) -> StepTimes:
    """Return the decode and verify rows of one layout; None takes the first that the trace has.

    Raises:
        UsageError: No row of that layout.
    """
    layouts = sorted({(row.tp_size, row.ep_size) for row in trace.rows})
    wanted = [(tp, ep) for tp, ep in layouts if tp_size in (None, tp) and ep_size in (None, ep)]
    if not wanted:
        known = ", ".join(f"--tp {tp} --ep {ep}" for tp, ep in layouts)
        raise UsageError(f"{trace.name}: no rows of --tp {tp_size or 'any'} --ep {ep_size or 'any'}; it has {known}")
    layout = wanted[0]
    rows = [row for row in trace.rows if (row.tp_size, row.ep_size) == layout and _is_pass(row)]
    decodes = {(row.batch, row.context_tokens): row.latency_s for row in rows if row.operation is Operation.DECODE}
    floors, no_floor, note = _floors(trace, layout, rows)
    times = [
        StepTime(
            tokens_per_seq=row.tokens_per_seq,
            batch=row.batch,
            context_tokens=row.context_tokens,
            latency_s=row.latency_s,
            over_decode=row.latency_s / decodes[place]
            if (place := (row.batch, row.context_tokens)) in decodes
            else None,
            floor_s=floor_s,
            origin=Origin(row.origin),
            measured_fraction=row.measured_fraction,
        )
        for row, floor_s in zip(rows, floors, strict=True)
    ]
    times.sort(key=lambda time: (time.context_tokens, time.batch, time.tokens_per_seq))
    return StepTimes(*layout, tuple(other for other in layouts if other != layout), tuple(times), no_floor, note)


def typical_contexts(times: Sequence[StepTime], count: int = 3) -> tuple[int, ...]:
    """Return at most `count` contexts spread over those that have most points: an adaptive grid is full at few."""
    points = Counter(time.context_tokens for time in times)
    full = sorted(context for context, number in points.items() if number == max(points.values()))
    if len(full) <= count:
        return tuple(full)
    return tuple(full[round(index * (len(full) - 1) / (count - 1))] for index in range(count))


def _ratio(latency_s: float, decode_s: float | None) -> float | None:
    return None if decode_s is None else latency_s / decode_s


def _is_pass(row: LatencyRow) -> bool:
    """Return whether the row is the one pass of the target at its q: decode at 1, verify from 2 on."""
    return row.operation is (Operation.DECODE if row.tokens_per_seq == 1 else Operation.VERIFY)


def _floors(
    trace: LatencyTrace, layout: tuple[int, int], rows: Sequence[LatencyRow]
) -> tuple[list[float | None], str | None, str | None]:
    """Return the least time of each row, or Nones and the reason; and what it leaves out."""
    try:
        rank, gpu = _known(trace, layout)
    except (TraceFormatError, UnsupportedModelError) as error:
        return [None] * len(rows), str(error).partition(";")[0], None
    points = [Point(row.operation, row.tokens_per_seq, row.batch, row.context_tokens) for row in rows]
    counted = "one token's experts" if rank.ep_size == 1 else "no routed expert"
    note = f"least time: {counted} read" if rank.whole.is_moe else None
    return [floor_of(point, rank, trace.precision).seconds(gpu, trace.precision) for point in points], None, note


def _known(trace: LatencyTrace, layout: tuple[int, int]) -> tuple[Rank, Gpu]:
    if trace.gpu not in list_gpus():
        raise UnsupportedModelError(f"no datasheet peaks of {trace.gpu}")
    if trace.precision not in BYTES_PER_VALUE:
        raise UnsupportedModelError(f"the size of {trace.precision} values is not known")
    return slice_rank(load_architecture(trace.model), *layout), load_gpu(trace.gpu)
