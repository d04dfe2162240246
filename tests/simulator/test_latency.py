"""Step latency: composed from operations, exact at the trace's points, honest outside it."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import TraceCoverageError
from simulator.latency import Need, TraceLatency
from simulator.step_table import StepTable, prefill_seconds
from tests.simulator import made_up
from tests.simulator.made_up import BATCHES, CONTEXTS, MAX_K, rising
from traces.base import Origin
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import list_traces, load_trace

DECODE, VERIFY, DRAFT = Operation.DECODE, Operation.VERIFY, Operation.DRAFT
LM_HEAD, SAMPLE, HOST_GAP, PREFILL = Operation.LM_HEAD, Operation.SAMPLE, Operation.HOST_GAP, Operation.PREFILL


def need(
    k: int = 3, *, max_batch: int = 16, max_context_tokens: int = 4096, kv_tokens: float = 1e9, arm: str = "spec"
) -> Need:
    return Need(arm, k, max_batch, max_context_tokens, kv_tokens)


def table_of(trace: LatencyTrace, k: int = 3, *, max_batch: int = 16) -> StepTable:
    table, warnings = TraceLatency(trace).step_table(need(k, max_batch=max_batch))
    assert warnings == ()
    return table


def refusal(trace: LatencyTrace, asked: Need) -> str:
    with pytest.raises(TraceCoverageError) as error:
        TraceLatency(trace).step_table(asked)
    assert "\n" not in str(error.value)
    return str(error.value)


def without(*unwanted: tuple[Operation, int]) -> LatencyTrace:
    """Return the made-up trace without some (operation, tokens per sequence)."""
    return made_up.trace([row for row in made_up.rows() if (row.operation, row.tokens_per_seq) not in unwanted])


def row(operation: Operation, batch: int, context: int, tokens: int, seconds: float) -> LatencyRow:
    return LatencyRow(
        operation=operation, batch=batch, context_tokens=context, tokens_per_seq=tokens, latency_s=seconds
    )


# ---------------------------------------------------------------- one step, by hand


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_plain_step_is_decode_sampling_and_host_gap(batch: int, context: int) -> None:
    table = table_of(made_up.trace(), k=0)
    expected = rising(DECODE, batch, context, 1) + rising(SAMPLE, batch, 0, 1) + rising(HOST_GAP, batch, 0, 1)
    assert table.step_s[batch, CONTEXTS.index(context)] == pytest.approx(expected, rel=1e-14)
    assert table.knots.tolist() == list(CONTEXTS)


@pytest.mark.parametrize("k", range(1, MAX_K + 1))
@pytest.mark.parametrize("batch", BATCHES)
def test_a_speculative_step_is_the_sum_of_its_passes(k: int, batch: int) -> None:
    table = table_of(made_up.trace(), k=k)
    for place, context in enumerate(CONTEXTS):
        expected = (
            rising(VERIFY, batch, context, k + 1)
            + rising(DRAFT, batch, context, k + 1)
            + (k - 1) * rising(DRAFT, batch, context, 1)
            + k * rising(LM_HEAD, batch, 0, 1)
            + rising(SAMPLE, batch, 0, k + 1)
            + k * rising(SAMPLE, batch, 0, 1)
            + (k + 1) * rising(HOST_GAP, batch, 0, 1)
        )
        assert table.step_s[batch, place] == pytest.approx(expected, rel=1e-14)


def test_the_speculative_step_in_numbers() -> None:
    """k = 3, every operation constant: 7 + 1.1 + 2 x 1.1 + 3 x 0.13 + 0.017 + 3 x 0.017 + 4 x 0.019 ms."""
    table = table_of(made_up.trace(made_up.rows(made_up.constant)))
    assert table.step_s[1:] == pytest.approx(np.full((16, 3), 10.834e-3), rel=1e-12)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_overheads_are_added_to_every_target_and_every_draft_pass(k: int) -> None:
    bare = table_of(made_up.trace(), k=k)
    source = TraceLatency(made_up.trace(), target_overhead_s=0.036, draft_overhead_s=0.001)
    loaded = source.step_table(need(k))[0]
    assert loaded.step_s[1:] - bare.step_s[1:] == pytest.approx(np.full((16, 3), 0.036 + k * 0.001))
    assert loaded.prefill_s - bare.prefill_s == pytest.approx(np.full(len(bare.prefill_s), 0.036))


# ---------------------------------------------------------------- between the points


def test_without_graphs_batches_between_points_are_on_a_straight_line() -> None:
    step_s = table_of(made_up.trace(), k=0).step_s
    for low, high in itertools.pairwise(BATCHES):
        for batch in range(low, high + 1):
            share = (batch - low) / (high - low)
            assert step_s[batch] == pytest.approx(step_s[low] + share * (step_s[high] - step_s[low]), rel=1e-12)


def decode_only(seconds: dict[int, float], graphs: tuple[int, ...]) -> LatencyTrace:
    """Return a trace of decode (k = 0), one context, with free sampling."""
    decode = [row(DECODE, batch, 128, 1, value) for batch, value in seconds.items()]
    return made_up.trace([*decode, row(PREFILL, 1, 0, 16, 1e-3)], graphs=graphs)


def steps(trace: LatencyTrace, k: int, max_batch: int) -> list[float]:
    table, _ = TraceLatency(trace).step_table(need(k, max_batch=max_batch, max_context_tokens=128))
    return [round(float(value), 9) for value in table.step_s[1:, 0]]


def test_a_graph_makes_batches_pay_for_the_next_captured_size() -> None:
    trace = decode_only({1: 0.01, 8: 0.08, 16: 0.16}, graphs=(1, 2, 4, 8, 12))
    assert steps(trace, 0, 16) == [0.01, 0.02, *[0.04] * 2, *[0.08] * 4, *[0.12] * 4, 0.13, 0.14, 0.15, 0.16]


def test_a_measured_batch_between_two_graphs_is_exact_and_ends_its_step() -> None:
    trace = decode_only({1: 0.01, 5: 0.06, 8: 0.08}, graphs=(1, 4, 8))
    assert steps(trace, 0, 8) == [0.01, *[0.0475] * 3, 0.06, *[0.08] * 3]


def test_graph_sizes_are_rounded_up_to_multiples_of_k_plus_one() -> None:
    """Sizes 1, 4, 10 and 24 tokens hold 1, 1, 3 and 6 sequences of 4 tokens (vLLM rounds up to multiples)."""
    made = made_up.rows(lambda operation, batch, *_: 0.001 * batch if operation is VERIFY else 1e-7, batches=(1, 16))
    trace = made_up.trace(made, graphs=(1, 4, 10, 24))
    table = table_of(trace, k=3, max_batch=8)
    assert [round(1e3 * value) for value in table.step_s[1:, 0]] == [1, 3, 3, 6, 6, 6, 7, 8]


GRIDS = st.lists(st.floats(1e-4, 1.0), min_size=15, max_size=15)


@given(GRIDS, st.integers(0, 3), st.none() | st.sets(st.integers(1, 64), min_size=1, max_size=8))
def test_every_measured_point_is_reproduced(values: Sequence[float], k: int, graphs: set[int] | None) -> None:
    grid = dict(zip([(batch, context) for batch in BATCHES for context in CONTEXTS], values, strict=True))
    operation, width = (VERIFY, k + 1) if k else (DECODE, 1)
    made = [row(operation, *point, width, value) for point, value in grid.items()]
    drafts = {(DRAFT, width) for width in (1, k + 1)} if k else set()
    made += [row(*draft[:1], *point, draft[1], 1e-7) for draft in drafts for point in grid]
    trace = made_up.trace([*made, row(PREFILL, 1, 0, 16, 1e-3)], graphs=tuple(sorted(graphs)) if graphs else None)
    table, _ = TraceLatency(trace).step_table(need(k))
    for (batch, context), value in grid.items():
        assert table.step_s[batch, CONTEXTS.index(context)] == pytest.approx(value + k * 1e-7, rel=1e-9)


@given(GRIDS, st.none() | st.sets(st.integers(1, 64), min_size=1, max_size=8))
def test_steps_never_get_cheaper_with_batch_or_context_when_the_trace_does_not(
    values: Sequence[float], graphs: set[int] | None
) -> None:
    grid = np.maximum.accumulate(np.maximum.accumulate(np.reshape(values, (5, 3)), axis=0), axis=1)
    decode = [row(DECODE, b, c, 1, grid[i, j]) for i, b in enumerate(BATCHES) for j, c in enumerate(CONTEXTS)]
    trace = made_up.trace([*decode, row(PREFILL, 1, 0, 16, 1e-3)], graphs=tuple(sorted(graphs)) if graphs else None)
    step_s = TraceLatency(trace).step_table(need(0))[0].step_s[1:]
    assert np.all(np.diff(step_s, axis=0) >= -1e-12)
    assert np.all(np.diff(step_s, axis=1) >= -1e-12)
    assert step_s.min() >= grid.min() - 1e-12
    assert step_s.max() <= grid.max() + 1e-12


@pytest.mark.parametrize("entry", list_traces("latency"), ids=lambda entry: entry.name)
def test_shipped_traces_give_steps_that_grow_with_batch_context_and_drafts(entry) -> None:  # type: ignore[no-untyped-def]
    trace = load_trace(entry.path, LatencyTrace)
    layout = {"tp_size": trace.rows[0].tp_size, "ep_size": trace.rows[0].ep_size}
    tables = []
    for k in (0, 1, 3, 8):
        table, warnings = TraceLatency(trace, **layout).step_table(need(k, max_batch=512, max_context_tokens=131072))
        assert warnings == ()
        tables.append(table.step_s[1:])
        assert tables[-1].min() > 0
        # Kernels are chosen by size, so a little more work may take a little less time.
        assert np.all(np.diff(tables[-1], axis=0) >= -0.01 * tables[-1][1:])
        assert np.all(np.diff(tables[-1], axis=1) >= 0)
    for fewer, more in itertools.pairwise(tables):
        measured = [b - 1 for b in sorted({r.batch for r in trace.rows if r.operation is VERIFY})]
        assert np.all(more[measured] > fewer[measured])  # between them another k may be padded less


# ---------------------------------------------------------------- outside the hull


def test_a_batch_above_the_trace_is_refused_or_said() -> None:
    fact = "engine.max_running_seqs: 20 is above 16, the largest batch of latency trace made-up"
    asked = need(max_batch=20)
    line = f"{fact}; lower it or profile larger batches, or set latency.allow_extrapolation = true"
    assert refusal(made_up.trace(), asked) == line
    table, warnings = TraceLatency(made_up.trace(), allow_extrapolation=True).step_table(asked)
    assert warnings == (f"{fact}; extrapolated",)
    assert table.step_s[20] == pytest.approx(table.step_s[16] + 0.5 * (table.step_s[16] - table.step_s[8]), rel=1e-9)


def test_a_batch_above_the_rows_of_a_small_operation_is_refused_too() -> None:
    made = [r for r in made_up.rows() if not (r.operation is LM_HEAD and r.batch > 4)]
    assert refusal(made_up.trace(made), need()) == (
        "engine.max_running_seqs: 16 is above 4, the largest batch of lm_head in latency trace made-up; "
        "lower it or profile larger batches, or set latency.allow_extrapolation = true"
    )
    once = [r for r in made_up.rows() if not (r.operation is HOST_GAP and r.batch > 1)]
    assert TraceLatency(made_up.trace(once)).step_table(need())[1] == ()  # the host does not care for the batch


def test_extrapolated_steps_never_fall() -> None:
    falling = decode_only({1: 0.03, 2: 0.02, 4: 0.01}, graphs=(64,))
    table, _ = TraceLatency(falling, allow_extrapolation=True).step_table(need(0, max_batch=64))
    assert table.step_s[5:].min() == pytest.approx(0.01)


def test_a_context_above_the_trace_is_refused_or_said() -> None:
    fact = "workload: contexts reach 5000 tokens at batch 1, but latency trace made-up ends at 4096 there"
    asked = need(max_context_tokens=5000)
    remedy = "shorten responses, lower engine.max_running_seqs or profile longer contexts"
    assert refusal(made_up.trace(), asked) == f"{fact}; {remedy}, or set latency.allow_extrapolation = true"
    assert TraceLatency(made_up.trace(), allow_extrapolation=True).step_table(asked)[1] == (f"{fact}; extrapolated",)


def test_a_corner_that_no_memory_holds_need_not_be_measured() -> None:
    """16 sequences of 4096 tokens need 65,536 tokens of KV cache: with room for 20,000 they never come together."""
    made = [r for r in made_up.rows() if not (r.batch == 16 and r.context_tokens == 4096)]
    _, warnings = TraceLatency(made_up.trace(made)).step_table(need(kv_tokens=16_000))
    assert warnings == ()
    assert refusal(made_up.trace(made), need(kv_tokens=20_000)).startswith(
        "workload: contexts reach 1250 tokens at batch 16, but latency trace made-up ends at 1024 there"
    )


def test_a_trace_that_begins_above_batch_1_is_refused_because_tails_shrink() -> None:
    trace = made_up.trace(made_up.rows(batches=(4, 8)))
    line = "latency trace made-up begins at batch 4, and tails shrink to 1; profile batch 1, or set latency.allow_extr"
    assert refusal(trace, need(max_batch=8)).startswith(line)
    table, warnings = TraceLatency(trace, allow_extrapolation=True).step_table(need(max_batch=8))
    assert warnings == ("latency trace made-up begins at batch 4, and tails shrink to 1; extrapolated",)
    assert np.array_equal(table.step_s[1], table.step_s[4])


def test_a_context_below_the_trace_costs_what_its_smallest_does_and_says_so_if_that_is_large() -> None:
    made = [r for r in made_up.rows() if r.context_tokens in (0, 4096) or r.operation is PREFILL]
    table, warnings = TraceLatency(made_up.trace(made)).step_table(need())
    assert warnings == ("latency trace made-up: contexts below 4096 tokens cost as much as at 4096",)
    assert np.array_equal(table.step_s[:, 0], table.step_s[:, 1])


def test_a_k_above_the_trace_is_refused() -> None:
    assert refusal(made_up.trace(), need(5, arm="eager")) == (
        "arms.eager.k: 5 needs verify at 6 tokens per sequence, but latency trace made-up covers k up to 4; "
        "lower k or profile more"
    )


def test_a_hole_in_k_is_refused() -> None:
    assert refusal(without((VERIFY, 3)), need(2)) == (
        "latency.trace: made-up has no verify rows at 3 tokens per sequence, which arm spec (k = 2) needs; "
        "profile them or use another trace"
    )


@pytest.mark.parametrize(
    ("operation", "tokens", "k"), [(DECODE, 1, 0), (VERIFY, 4, 3), (DRAFT, 4, 3), (DRAFT, 1, 3), (DRAFT, 2, 1)]
)
def test_a_missing_pass_is_refused(operation: Operation, tokens: int, k: int) -> None:
    line = refusal(without((operation, tokens)), need(k))
    assert f"has no {operation.value} rows at {tokens} tokens per sequence, which arm spec (k = {k}) needs" in line


def test_what_an_arm_does_not_use_may_be_missing() -> None:
    assert TraceLatency(without((DRAFT, 1))).step_table(need(1))[1] == ()
    assert TraceLatency(without((VERIFY, 4), (LM_HEAD, 1))).step_table(need(0))[1] == ()


def test_a_missing_small_operation_counts_as_contained_and_is_said() -> None:
    table, warnings = TraceLatency(without((LM_HEAD, 1), (SAMPLE, 4))).step_table(need(3))
    whole = table_of(made_up.trace(), k=3)
    assert warnings == tuple(
        f"latency trace made-up: no {operation} rows at {tokens} tokens per sequence; taken as contained in its passes"
        for operation, tokens in (("lm_head", 1), ("sample", 4))
    )
    left_out = 3 * rising(LM_HEAD, 8, 0, 1) + rising(SAMPLE, 8, 0, 4)
    assert whole.step_s[8] - table.step_s[8] == pytest.approx(np.full(3, left_out))


def test_a_layout_that_the_trace_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(TraceCoverageError) as error:
        TraceLatency(made_up.trace(), tp_size=2, ep_size=4)
    assert str(error.value) == (
        "cluster.tp_size, cluster.ep_size: (2, 4) is not in latency trace made-up, which has [(1, 1)]; choose one of "
        "them or another trace"
    )


def test_rows_of_other_layouts_are_not_used() -> None:
    twice = [r.model_copy(update={"tp_size": 2, "latency_s": r.latency_s / 3}) for r in made_up.rows()]
    both = made_up.trace([*made_up.rows(), *twice])
    one = TraceLatency(both).step_table(need())[0].step_s
    two = TraceLatency(both, tp_size=2).step_table(need())[0].step_s
    assert np.array_equal(one, table_of(made_up.trace()).step_s)
    assert two == pytest.approx(one / 3)


# ---------------------------------------------------------------- prefill and origin


def cost_of_prefill(table: StepTable, tokens: int, context: int) -> float:
    """Return what the kernels charge for new tokens behind a cached context."""
    return prefill_seconds(table, float(tokens)) + table.attention_s_per_token2 * tokens * (context + tokens / 2)


def test_prefill_rows_are_reproduced_with_and_without_a_context() -> None:
    table = table_of(made_up.trace())
    assert table.attention_s_per_token2 == pytest.approx(1e-9)
    for r in made_up.rows():
        if r.operation is PREFILL:
            expected = pytest.approx(r.latency_s, rel=1e-9)
            assert cost_of_prefill(table, r.tokens_per_seq, r.context_tokens) == expected


@pytest.mark.parametrize("entry", list_traces("latency"), ids=lambda entry: entry.name)
def test_shipped_prefill_rows_are_reproduced(entry) -> None:  # type: ignore[no-untyped-def]
    trace = load_trace(entry.path, LatencyTrace)
    layout = {"tp_size": trace.rows[0].tp_size, "ep_size": trace.rows[0].ep_size}
    table = TraceLatency(trace, **layout).step_table(need(0, max_batch=1))[0]
    for r in trace.rows:
        if r.operation is PREFILL:
            loose = 1e-3 if r.context_tokens == 0 else 0.1  # one number stands for attention to any context
            assert cost_of_prefill(table, r.tokens_per_seq, r.context_tokens) == pytest.approx(r.latency_s, rel=loose)


def test_prefill_never_gets_cheaper_with_tokens_and_goes_on_in_proportion() -> None:
    table = table_of(made_up.trace())
    costs = [prefill_seconds(table, float(tokens)) for tokens in range(0, 10_000, 7)]
    assert costs == sorted(costs)
    assert prefill_seconds(table, 8192.0) == pytest.approx(4 * prefill_seconds(table, 2048.0))


def test_a_trace_without_prefill_is_refused() -> None:
    trace = made_up.trace([r for r in made_up.rows() if r.operation is not PREFILL])
    assert refusal(trace, need()) == (
        "latency.trace: made-up has no prefill rows at batch 1 and context 0; profile prefill"
    )


def test_evidence_names_the_trace_and_its_weakest_common_origin() -> None:
    (origin,) = TraceLatency(made_up.trace()).evidence().origins
    assert (origin.name, origin.origin) == ("latency", Origin.ASSUMED)
    assert origin.value == f"{len(made_up.rows())} rows on H200, bf16, none"
    assert origin.source == "latency trace made-up: a test"
    measured = [r.model_copy(update={"origin": Origin.MEASURED}) for r in made_up.rows()]
    assert TraceLatency(made_up.trace(measured)).evidence().origins[0].origin is Origin.INTERPOLATED
