"""Decode and verify passes of a trace, beside each other and above the least time of the datasheet."""

import pytest

from profiler.errors import UsageError
from profiler.step_times import step_times, typical_contexts
from tests.traces.examples import PROVENANCE
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import find_trace, load_trace


def row(operation: Operation, q: int, batch: int, context: int, seconds: float, tp_size: int = 1) -> LatencyRow:
    return LatencyRow(
        operation=operation,
        tokens_per_seq=q,
        batch=batch,
        context_tokens=context,
        latency_s=seconds,
        tp_size=tp_size,
    )


def trace_of(*rows: LatencyRow, gpu: str = "H200", model: str = "Qwen3-8B", precision: str = "bf16") -> LatencyTrace:
    return LatencyTrace(
        name="made-up", provenance=PROVENANCE, gpu=gpu, model=model, precision=precision, engine="none", rows=rows
    )


DECODE = row(Operation.DECODE, 1, 8, 512, 0.010)
VERIFY = row(Operation.VERIFY, 4, 8, 512, 0.013)


def test_a_verify_pass_stands_beside_the_decode_pass_of_its_batch_and_context() -> None:
    lonely = row(Operation.VERIFY, 4, 16, 512, 0.02)
    draft = row(Operation.DRAFT, 1, 8, 512, 0.001)
    # Databases repeat decode as a verify pass of one token: it is drawn once.
    repeated = row(Operation.VERIFY, 1, 8, 512, 0.010)
    times = step_times(trace_of(VERIFY, DECODE, lonely, draft, repeated)).times
    assert [(time.tokens_per_seq, time.batch) for time in times] == [(1, 8), (4, 8), (4, 16)]
    assert [time.over_decode for time in times] == [1.0, pytest.approx(1.3), None]


def test_the_least_time_of_a_small_batch_is_that_of_its_weights() -> None:
    (time,) = step_times(trace_of(row(Operation.DECODE, 1, 1, 0, 0.01))).times
    # Qwen3-8B: 7.57e9 weights that are read in bf16, less the L2 cache of 60 MB, over 4.8 TB/s (datasheet of H200).
    assert time.floor_s == pytest.approx((2 * 7.57e9 - 60e6) / 4.8e12, rel=0.01)


@pytest.mark.parametrize("name", ["qwen3-8b-h200-tp1", "qwen3-32b-h100-tp4", "qwen3.5-35b-a3b-b200-tp2-ep2"])
def test_no_shipped_pass_is_faster_than_its_least_time(name: str) -> None:
    found = step_times(load_trace(find_trace(name, "latency"), LatencyTrace))
    assert found.no_floor is None
    assert len(found.times) == 15 * 9 * 9
    assert all(time.floor_s is not None and 0 < time.floor_s < time.latency_s for time in found.times)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpu": "AMD EPYC, 2 threads"}, "no datasheet peaks of AMD EPYC"),
        ({"model": "tiny"}, "no architecture named 'tiny'"),
        ({"precision": "Q8_0"}, "the size of Q8_0 values is not known"),
    ],
)
def test_where_the_least_time_is_unknown_the_reason_is_given(changes: dict[str, str], reason: str) -> None:
    found = step_times(trace_of(DECODE, VERIFY, **changes))
    assert reason in (found.no_floor or "")
    assert {time.floor_s for time in found.times} == {None}


def test_one_layout_is_shown_and_the_others_are_named() -> None:
    trace = trace_of(DECODE, row(Operation.DECODE, 1, 8, 512, 0.006, tp_size=2))
    assert step_times(trace).other_layouts == ((2, 1),)
    assert [time.latency_s for time in step_times(trace, tp_size=2).times] == [0.006]
    with pytest.raises(UsageError, match="no rows of --tp 4 --ep any; it has --tp 1 --ep 1, --tp 2 --ep 1"):
        step_times(trace, tp_size=4)


def test_contexts_with_few_points_are_not_typical() -> None:
    full = [row(Operation.DECODE, 1, batch, context, 0.01) for batch in (1, 8) for context in (64, 512, 1024, 4096)]
    times = step_times(trace_of(*full, row(Operation.DECODE, 1, 1, 300, 0.01))).times
    assert typical_contexts(times) == (64, 1024, 4096)
    assert typical_contexts(times, 9) == (64, 512, 1024, 4096)
    assert typical_contexts(()) == ()
