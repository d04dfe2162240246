"""Engine habits, number formats and draft kinds: closed forms, and nothing where nothing is asked for."""

import numpy as np
import pytest

from simulator.engine_habits import EngineHabits, load_habits
from simulator.latency import Need, TraceLatency
from simulator.roofline import roofline_trace
from simulator.roofline_drafts import DraftKind
from traces.architecture import load_architecture
from traces.hardware import load_gpu
from traces.latency import MIN_LATENCY_S, LatencyTrace, Operation

H200 = load_gpu("H200")
DENSE = load_architecture("Qwen3-8B")
EXPERTS = load_architecture("Qwen3.5-35B-A3B")


def trace(model: str = "Qwen3-8B", **arguments: object) -> LatencyTrace:
    defaults = {"batches": (1, 16, 64), "contexts_tokens": (1024,), "max_draft_tokens": 3}
    return roofline_trace(load_architecture(model), H200, **{**defaults, **arguments})  # type: ignore[arg-type]


def step_s(source: LatencyTrace, k: int, batch: int, habits: EngineHabits | None = None) -> float:
    latency = TraceLatency(source, allow_extrapolation=True, habits=habits)
    table, _ = latency.step_table(Need("arm", k, 64, 1024, 1e9))
    return float(table.step_s[batch, 0])


def seconds(source: LatencyTrace, operation: Operation, tokens: int = 1, batch: int = 1) -> float:
    (found,) = [
        row.latency_s
        for row in source.rows
        if row.operation is operation and row.tokens_per_seq == tokens and row.batch == batch
    ]
    return found


def test_no_habits_are_byte_for_byte_no_change() -> None:
    assert trace().content_hash() == trace(habits=EngineHabits(), precision="bf16", draft="mtp").content_hash()
    for k in (0, 3):
        assert step_s(trace(), k, 16, EngineHabits()) == step_s(trace(), k, 16)


@pytest.mark.parametrize(("k", "batch"), [(0, 1), (0, 64), (3, 1), (3, 64)])
def test_host_seconds_are_added_per_step_and_per_sequence(k: int, batch: int) -> None:
    habits = EngineHabits(step_s=1e-3, step_s_per_seq=1e-5, speculative_step_s=2e-3, speculative_step_s_per_seq=3e-5)
    added = 1e-3 + batch * 1e-5 + (2e-3 + batch * 3e-5 if k else 0.0)
    assert step_s(trace(), k, batch, habits) - step_s(trace(), k, batch) == pytest.approx(added)


def test_a_draft_pass_takes_no_less_than_its_launch() -> None:
    source = trace()
    first = seconds(source, Operation.DRAFT, 4) + seconds(source, Operation.LM_HEAD)
    later = seconds(source, Operation.DRAFT) + seconds(source, Operation.LM_HEAD)
    launch_s = 5e-3
    added = step_s(source, 3, 1, EngineHabits(draft_launch_s=launch_s)) - step_s(source, 3, 1)
    assert added == pytest.approx((launch_s - first) + 2 * (launch_s - later))
    assert step_s(source, 3, 1, EngineHabits(draft_launch_s=1e-6)) == step_s(source, 3, 1)


def test_n_gram_drafts_launch_nothing() -> None:
    source = trace(draft="ngram")
    assert step_s(source, 3, 1, EngineHabits(draft_launch_s=5e-3)) == step_s(source, 3, 1)
    assert seconds(source, Operation.DRAFT) == MIN_LATENCY_S


def test_draft_kinds_cost_in_the_order_of_what_they_compute() -> None:
    costs: dict[DraftKind, float] = {
        kind: step_s(trace(draft=kind), 3, 1) for kind in ("ngram", "parallel", "eagle3", "eagle", "mtp")
    }
    assert list(costs.values()) == sorted(costs.values())
    assert costs["eagle"] == costs["mtp"]  # one dense layer of the same shape, the same lm_head


def test_an_eagle3_head_projects_to_its_own_small_vocabulary() -> None:
    full, small = seconds(trace(), Operation.LM_HEAD), seconds(trace(draft="eagle3"), Operation.LM_HEAD)
    floor_s = 4.1e-6
    assert (small - floor_s) / (full - floor_s) == pytest.approx(32_000 / DENSE.vocab_size, rel=0.1)


def test_verify_of_experts_that_are_shared_costs_less_and_plain_decoding_the_same() -> None:
    alone, shared = trace("Qwen3.5-35B-A3B"), trace("Qwen3.5-35B-A3B", habits=EngineHabits(draft_expert_reuse=0.5))
    assert seconds(shared, Operation.DECODE) == seconds(alone, Operation.DECODE)
    assert seconds(shared, Operation.VERIFY, 4) < seconds(alone, Operation.VERIFY, 4)


def test_a_state_that_is_read_slowly_is_written_as_fast_as_before() -> None:
    slow = trace("Qwen3.5-9B", habits=EngineHabits(recurrence_efficiency=0.2))
    plain = trace("Qwen3.5-9B")
    at_decode = seconds(slow, Operation.DECODE, batch=64) - seconds(plain, Operation.DECODE, batch=64)
    at_verify = seconds(slow, Operation.VERIFY, 4, 64) - seconds(plain, Operation.VERIFY, 4, 64)
    assert at_decode > 0
    assert at_verify == pytest.approx(at_decode)  # one read, whatever the drafts


@pytest.mark.parametrize(("precision", "least", "most"), [("fp8", 0.5, 0.75), ("nvfp4", 0.3, 0.6), ("int4", 0.3, 0.6)])
def test_fewer_bytes_of_weights_make_small_batches_faster(precision: str, least: float, most: float) -> None:
    ratio = seconds(trace("Qwen3-32B", precision=precision), Operation.DECODE) / seconds(
        trace("Qwen3-32B"), Operation.DECODE
    )
    assert least < ratio < most


def test_weights_of_four_bits_multiply_no_faster_than_bf16() -> None:
    prefill = {
        name: next(
            row.latency_s
            for row in trace("Qwen3-32B", precision=name).rows
            if row.operation is Operation.PREFILL and (row.context_tokens, row.tokens_per_seq) == (0, 4096)
        )
        for name in ("bf16", "int4", "fp8")
    }
    assert prefill["int4"] == pytest.approx(prefill["bf16"], rel=0.05)
    assert prefill["fp8"] < 0.75 * prefill["bf16"]


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"precision 'fp3': known are .*bf16.*fp8"):
        trace(precision="fp3")


def test_shipped_habits_are_finite_and_name_what_decided_them() -> None:
    for habits in load_habits().values():
        assert habits.fitted_on
        assert np.isfinite([habits.step_s_per_seq, habits.speculative_step_s, habits.draft_launch_s]).all()
