"""Roofline: laws of a pass first, closed forms of the operators, then the fit against measured kernels."""

import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kernel_rows import load_kernel_rows
from simulator.roofline import DEFAULT_BATCHES, DEFAULT_CONTEXTS_TOKENS, roofline_points, roofline_trace
from simulator.roofline_fit import OPERATORS, fit_roofline, operator_errors
from simulator.roofline_moe import distinct_experts, expert_probabilities, moe_s
from simulator.roofline_ops import all_reduce_s, attention_s, delta_net_decode_s, gemm_s, smooth_maximum
from simulator.roofline_parameters import load_roofline_parameters
from simulator.roofline_passes import HOST_GAP_S, Machine, draft_pass_s, lm_head_s, prefill_pass_s, target_pass_s
from traces.architecture import list_architectures, load_architecture
from traces.base import Origin
from traces.errors import TraceFormatError
from traces.hardware import load_gpu
from traces.latency import LatencyTrace, Operation

FIT = load_roofline_parameters()
H200 = load_gpu("H200")
MODELS = list_architectures()
SHAPES = {"num_kv_heads": 8, "kv_bytes_per_token": 4096, "flops_per_query_key": 4 * 32 * 128}

# Largest errors a fit may have, fractions: what `python benchmarks/roofline.py` printed, rounded up to a percent.
MEDIAN_AND_P90_LIMITS = {
    ("gemm", "fit"): (0.05, 0.13),
    ("gemm", "held_out"): (0.06, 0.13),
    ("moe", "fit"): (0.05, 0.14),
    ("moe", "held_out"): (0.03, 0.09),
    ("attention", "fit"): (0.04, 0.11),
    ("attention", "held_out"): (0.05, 0.10),
    ("all_reduce", "fit"): (0.03, 0.10),
    ("all_reduce", "held_out"): (0.10, 0.14),
}


def machine(model: str = "Qwen3-8B", gpu: str = "H200", tp_size: int = 1, ep_size: int = 1) -> Machine:
    return Machine(load_architecture(model), load_gpu(gpu), FIT, tp_size, ep_size)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def step(m: Machine, batch: int, context: int, tokens: int) -> float:
    return float(target_pass_s(m, column(batch), column(context), column(tokens))[0])


@given(
    st.sampled_from(MODELS),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 512),
    st.integers(0, 131072),
    st.integers(2, 17),
)
def test_verify_costs_between_one_decode_and_as_many_decodes_as_tokens(
    model: str, tp_size: int, batch: int, context: int, tokens: int
) -> None:
    m = machine(model, tp_size=tp_size)
    verify_s = step(m, batch, context, tokens)
    decodes_s = target_pass_s(m, np.full(tokens, batch), context + np.arange(tokens), np.ones(tokens))
    assert decodes_s[0] <= verify_s <= decodes_s.sum() * (1 + 1e-12)


@given(st.sampled_from(MODELS), st.integers(1, 512), st.integers(0, 131072), st.integers(1, 17))
def test_a_pass_never_gets_cheaper_with_more_sequences_context_or_tokens(
    model: str, batch: int, context: int, tokens: int
) -> None:
    m = machine(model)
    for cost in (target_pass_s, draft_pass_s):
        grown = cost(
            m,
            column(batch, batch + 1, batch, batch),
            column(context, context, context + 64, context),
            column(tokens, tokens, tokens, tokens + 1),
        )
        assert (grown[1:] >= grown[0]).all()


@given(st.sampled_from(MODELS), st.integers(1, 512), st.integers(0, 65536), st.integers(1, 9))
def test_a_draft_pass_is_cheaper_than_the_target_pass(model: str, batch: int, context: int, tokens: int) -> None:
    m = machine(model)
    assert draft_pass_s(m, column(batch), column(context), column(tokens))[0] < step(m, batch, context, tokens)


def test_prefill_grows_with_the_prompt_and_with_the_cached_prefix() -> None:
    m = machine("Qwen3.5-9B")
    prompts = column(16, 256, 4096, 32768)
    for cached in (0, 65536):
        assert (np.diff(prefill_pass_s(m, np.full(4, cached), prompts)) > 0).all()
    assert (prefill_pass_s(m, np.full(4, 65536), prompts) > prefill_pass_s(m, np.zeros(4), prompts)).all()


def test_attention_reads_the_cache_once_whatever_the_number_of_verified_tokens() -> None:
    batch, context = column(64), column(16384)
    one, four = (
        attention_s(H200, FIT.attention, batch=batch, context_tokens=context, tokens_per_seq=q, **SHAPES)
        for q in (1, 4)
    )
    assert four[0] == pytest.approx(one[0], rel=0.001)


def test_attention_becomes_compute_bound_with_many_queries_per_key() -> None:
    def at(tokens: float) -> float:
        return float(
            attention_s(
                H200, FIT.attention, batch=column(1), context_tokens=column(32768), tokens_per_seq=tokens, **SHAPES
            )[0]
        )

    assert at(2048) / at(1024) == pytest.approx(2, rel=0.05)


@given(st.integers(1, 16), st.integers(64, 4096))
def test_delta_net_verify_over_decode_tends_to_half_of_k_plus_two(num_draft_tokens: int, batch: int) -> None:
    state_bytes = load_architecture("Qwen3.5-9B").state_bytes_per_seq_per_layer
    decode_s, verify_s = (
        delta_net_decode_s(H200, FIT.gemm, column(batch), q, state_bytes)[0] - FIT.gemm.floor_s
        for q in (1, num_draft_tokens + 1)
    )
    assert verify_s / decode_s == pytest.approx((num_draft_tokens + 2) / 2)


@pytest.mark.parametrize("skew", [0.0, 0.63, 1.2])
@pytest.mark.parametrize(("num_experts", "top"), [(128, 8), (512, 10)])
def test_distinct_experts_closed_form_agrees_with_monte_carlo(num_experts: int, top: int, skew: float) -> None:
    rng = np.random.default_rng(7)
    probabilities = expert_probabilities(num_experts, top, skew)
    num_trials, num_tokens = 300, 16
    counts = []
    for _ in range(num_trials):
        seen: set[int] = set()
        for _ in range(num_tokens):
            # Systematic sampling: exactly top-k distinct experts, each with its own probability.
            order = rng.permutation(num_experts)
            marks = np.cumsum(probabilities[order])
            picks = np.searchsorted(marks, rng.random() + np.arange(top))
            seen.update(order[np.minimum(picks, num_experts - 1)].tolist())
        counts.append(len(seen))
    standard_error = np.std(counts) / np.sqrt(num_trials)
    closed_form = distinct_experts(column(num_tokens), num_experts, top, skew)[0]
    assert closed_form == pytest.approx(np.mean(counts), abs=5 * standard_error)


def test_distinct_experts_of_a_uniform_router_is_the_textbook_number() -> None:
    # E (1 - (1 - K/E)^n) for E = 128, K = 8, n = 16.
    assert distinct_experts(column(16), 128, 8, 0.0)[0] == pytest.approx(128 * (1 - (1 - 8 / 128) ** 16))
    assert distinct_experts(column(1), 128, 8, 0.63)[0] == pytest.approx(8)


@given(st.sampled_from([(128, 8), (256, 8), (512, 10)]), st.floats(0, 3), st.integers(1, 4096))
def test_distinct_experts_are_bounded_and_fewer_the_more_skewed_the_router(
    experts: tuple[int, int], skew: float, num_tokens: int
) -> None:
    num_experts, top = experts
    probabilities = expert_probabilities(num_experts, top, skew)
    assert probabilities.sum() == pytest.approx(top)
    assert (probabilities <= 1).all()
    uniform, skewed = (distinct_experts(column(num_tokens), num_experts, top, s)[0] for s in (0.0, skew))
    assert top * (1 - 1e-9) <= skewed <= min(num_experts, num_tokens * top) * (1 + 1e-9)
    assert skewed <= uniform * (1 + 1e-9)


@given(st.integers(1, 8192))
def test_twice_the_bandwidth_and_flops_halve_what_is_above_the_floors(num_tokens: int) -> None:
    double = H200.model_copy(update={"hbm_bytes_per_s": 2 * H200.hbm_bytes_per_s, "bf16_flops": 2 * H200.bf16_flops})
    moe_fit = FIT.moe.model_copy(update={"expert_overhead_s": 0.0})
    attention_fit = FIT.attention.model_copy(update={"ramp_s": 0.0, "wave_s": 0.0})
    moe_shape = {"distinct": 64, "experts_per_token": 8, "hidden_size": 2048, "inner_size": 768, "imbalance": 1.0}
    gemm, moe, attention = (
        [call(gpu) for gpu in (H200, double)]
        for call in (
            lambda gpu: gemm_s(gpu, FIT.gemm, num_tokens, 4096, 4096) - FIT.gemm.floor_s,
            lambda gpu: moe_s(gpu, moe_fit, num_tokens=num_tokens, **moe_shape) - moe_fit.floor_s,
            lambda gpu: (
                attention_s(gpu, attention_fit, batch=8, context_tokens=num_tokens, tokens_per_seq=4, **SHAPES)
                - attention_fit.floor_s
            ),
        )
    )
    for single, doubled in (gemm, moe, attention):
        assert float(single / doubled) == pytest.approx(2)


def test_a_small_product_is_bound_by_memory_and_a_large_one_by_compute() -> None:
    small, large = (gemm_s(H200, FIT.gemm, m, 12288, 4096) - FIT.gemm.floor_s for m in (1, 16384))
    assert small == pytest.approx(12288 * 4096 * 2 / (FIT.gemm.bandwidth_efficiency * 4.8e12), rel=0.01)
    assert large == pytest.approx(2 * 16384 * 12288 * 4096 / (FIT.gemm.flop_efficiency * H200.bf16_flops), rel=0.01)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 20))
def test_smooth_maximum_lies_between_maximum_and_sum(first: float, second: float, sharpness: float) -> None:
    joined = float(smooth_maximum(np.asarray(first), np.asarray(second), sharpness))
    assert max(first, second) * (1 - 1e-12) <= joined <= (first + second) * (1 + 1e-12)


def test_all_reduce_is_free_on_one_gpu_and_never_faster_for_larger_messages() -> None:
    sizes = 2.0 ** np.arange(8, 31)
    assert (all_reduce_s(H200, FIT.all_reduce, sizes, 1) == 0).all()
    for num_gpus in (2, 4, 8):
        assert (np.diff(all_reduce_s(H200, FIT.all_reduce, sizes, num_gpus)) > 0).all()


def test_tensor_parallelism_helps_less_than_the_number_of_gpus() -> None:
    one, four = (step(machine("Qwen3-32B", tp_size=tp_size), 32, 4096, 1) for tp_size in (1, 4))
    assert one / 4 < four < one


def test_expert_parallelism_reads_the_same_expert_bytes_per_gpu_as_splitting_each_expert() -> None:
    split, shared_out = (step(machine("Qwen3-30B-A3B", tp_size=4, ep_size=ep), 64, 4096, 1) for ep in (1, 4))
    # Fewer experts per GPU cost less overhead, the bytes are the same.
    assert 0.9 * split <= shared_out <= split


def test_expert_parallelism_divides_the_work_of_many_tokens_too() -> None:
    split, shared_out = (step(machine("Qwen3-30B-A3B", tp_size=4, ep_size=ep), 512, 0, 16) for ep in (1, 4))
    assert 0.9 * split <= shared_out <= split


@given(st.integers(1, 512), st.integers(1, 9))
def test_the_target_projects_every_position_to_the_vocabulary_and_the_draft_pass_none(batch: int, tokens: int) -> None:
    small = machine()
    wide = replace(
        small, architecture=small.architecture.model_copy(update={"vocab_size": 2 * small.architecture.vocab_size})
    )
    added_s = step(wide, batch, 4096, tokens) - step(small, batch, 4096, tokens)
    num_rows = column(batch * tokens)
    assert added_s == pytest.approx((lm_head_s(wide, num_rows) - lm_head_s(small, num_rows))[0], rel=1e-6)
    drafts = [draft_pass_s(m, column(batch), column(4096), column(tokens))[0] for m in (small, wide)]
    assert drafts[0] == drafts[1]


def test_a_mixture_of_experts_pays_for_verification_at_batch_one_and_not_at_mid_batch() -> None:
    m = machine("Qwen3-30B-A3B")
    assert step(m, 1, 1024, 4) / step(m, 1, 1024, 1) > 1.4
    assert step(m, 64, 1024, 4) / step(m, 64, 1024, 1) < 1.35


# What a composed step should cost (Qwen3-8B, H200, context 4096): an earlier composition of measured operators, checked
# against, never fitted.
@pytest.mark.parametrize(("batch", "decode_ms", "verify_ms"), [(1, 5.17, 5.28), (32, 9.76, 10.18), (128, 23.1, 28.7)])
def test_composed_steps_are_within_seven_percent_of_composed_measurements(
    batch: int, decode_ms: float, verify_ms: float
) -> None:
    assert 1e3 * step(machine(), batch, 4096, 1) == pytest.approx(decode_ms, rel=0.07)
    assert 1e3 * step(machine(), batch, 4096, 4) == pytest.approx(verify_ms, rel=0.07)


def test_no_kept_kernel_row_is_faster_than_the_memory_and_two_that_were_are_dropped() -> None:
    assert {name: load_kernel_rows(name).num_impossible for name in OPERATORS} == {
        "gemm": 0,
        "moe": 2,
        "attention": 0,
        "all_reduce": 0,
    }


@pytest.mark.parametrize("operator", OPERATORS)
def test_held_out_rows_share_no_shape_with_the_fitted_ones(operator: str) -> None:
    names = {"gemm": ("n", "k"), "moe": ("hidden", "inner"), "attention": ("batch",), "all_reduce": ("gpus",)}[operator]
    rows = load_kernel_rows(operator)
    fitted, held_out = (
        set(zip(*(part.columns[name].tolist() for name in names), strict=True))
        for part in (rows.fitted(), rows.held_out())
    )
    assert fitted
    assert held_out
    assert not fitted & held_out


def test_stored_parameters_are_what_the_fit_gives() -> None:
    def flat(content: object, prefix: str = "") -> dict[str, float]:
        if isinstance(content, dict):
            return {k: v for key, part in content.items() for k, v in flat(part, f"{prefix}{key}.").items()}
        return {prefix: content} if isinstance(content, float) else {}

    stored, fitted = flat(FIT.model_dump()), flat(fit_roofline().model_dump())
    assert stored.keys() == fitted.keys()
    assert list(stored.values()) == pytest.approx(list(fitted.values()), rel=2e-3)


@pytest.mark.parametrize(("operator", "kind"), MEDIAN_AND_P90_LIMITS)
def test_errors_on_measured_kernels_stay_within_the_printed_ones(operator: str, kind: str) -> None:
    errors = operator_errors(FIT, operator)[kind]
    median, p90 = MEDIAN_AND_P90_LIMITS[operator, kind]
    assert errors["median_error"] <= median
    assert errors["p90_error"] <= p90
    assert abs(errors["signed"]) <= median


@pytest.mark.parametrize("model", MODELS)
def test_a_trace_has_every_operation_and_says_where_it_comes_from(model: str) -> None:
    trace = roofline_trace(
        load_architecture(model), H200, tp_size=4, max_draft_tokens=3, batches=(1, 32), contexts_tokens=(0, 4096)
    )
    lengths: dict[Operation, set[int]] = defaultdict(set)
    for row in trace.rows:
        lengths[row.operation].add(row.tokens_per_seq)
        assert (row.tp_size, row.measured_fraction) == (4, 0)
        assumed = row.operation in (Operation.SAMPLE, Operation.HOST_GAP)
        assert row.origin is (Origin.ASSUMED if assumed else Origin.MODELLED)
    assert lengths[Operation.DECODE] == lengths[Operation.LM_HEAD] == lengths[Operation.HOST_GAP] == {1}
    assert lengths[Operation.VERIFY] == {2, 3, 4}
    assert lengths[Operation.DRAFT] == lengths[Operation.SAMPLE] == {1, 2, 3, 4}
    assert {16, 32768} <= lengths[Operation.PREFILL]
    assert {row.latency_s for row in trace.rows if row.operation is Operation.HOST_GAP} == {HOST_GAP_S}
    assert LatencyTrace.model_validate_json(trace.model_dump_json()) == trace


def test_the_same_arguments_give_the_same_hash_and_the_order_of_axes_does_not_matter() -> None:
    one, two = (
        roofline_trace(
            load_architecture("Qwen3-8B"), H200, max_draft_tokens=2, batches=batches, contexts_tokens=(0, 64)
        )
        for batches in ((1, 8), (8, 1, 8))
    )
    assert one.content_hash() == two.content_hash()


def test_notes_tell_an_extrapolated_card_an_assumed_head_and_the_router() -> None:
    def notes(model: str, gpu: str) -> str:
        trace = roofline_trace(load_architecture(model), load_gpu(gpu), batches=(1,), contexts_tokens=(0,))
        return trace.provenance.notes or ""

    assert "extrapolated from H200 to this card (B200)" in notes("Qwen3.5-9B", "B200")
    assert "extrapolated" not in notes("Qwen3.5-9B", "H200")
    assert "released without an MTP head" in notes("Qwen3-8B", "H200")
    assert "MoE router: power_law_1.01" in notes("Qwen3.5-35B-A3B", "H200")


def test_without_drafts_there_is_no_verify_row() -> None:
    trace = roofline_trace(load_architecture("Qwen3-8B"), H200, max_draft_tokens=0, batches=(1,), contexts_tokens=(0,))
    assert Operation.VERIFY not in {row.operation for row in trace.rows}


def test_a_default_grid_takes_less_than_a_third_of_a_second() -> None:
    m = machine("Qwen3.5-35B-A3B")
    start = time.perf_counter()
    roofline_points(m, 8, DEFAULT_BATCHES, DEFAULT_CONTEXTS_TOKENS)
    assert time.perf_counter() - start < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tp_size": 3}, "tp_size 3: must divide the 32 query heads of Qwen3-8B"),
        ({"ep_size": 2}, "ep_size 2: must divide tp_size 1"),
        ({"max_draft_tokens": -1}, "max_draft_tokens -1: must be 0 to 64"),
        ({"batches": ()}, "at least one each"),
        ({"contexts_tokens": (-1,)}, "contexts from 0"),
    ],
)
def test_a_wrong_argument_names_value_and_limit(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roofline_trace(load_architecture("Qwen3-8B"), H200, **arguments)


def test_a_card_without_nvlink_is_modelled_alone_only() -> None:
    l40s = load_gpu("L40S")
    assert roofline_trace(load_architecture("Qwen3-8B"), l40s, batches=(1,)).gpu == "L40S"
    with pytest.raises(ValueError, match="tp_size 2: L40S has no NVLink"):
        roofline_trace(load_architecture("Qwen3-8B"), l40s, tp_size=2)


def test_a_model_with_a_blank_fact_is_refused_clearly() -> None:
    incomplete = load_architecture("Qwen3.5-0.8B").model_copy(update={"num_linear_k_heads": None})
    with pytest.raises(TraceFormatError, match=r"Qwen3\.5-0\.8B: column linear_"):
        roofline_trace(incomplete, H200)
