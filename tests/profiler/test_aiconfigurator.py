"""The committed latency traces, and the source that makes them: physics first, then composition, then the numbers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bebop import main as bebop
from profiler.sources.aiconfigurator import TraceRequest, compile_model, compose_trace
from profiler.sources.committed import committed_requests
from profiler.sources.grid import BATCHES, CONTEXTS_TOKENS, monotone
from profiler.sources.model_config import config_json
from traces.architecture import load_architecture
from traces.base import Origin
from traces.hardware import load_gpu
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import find_trace, load_trace

REQUESTS = committed_requests()
NAMES = [request.name for request in REQUESTS]
Points = dict[tuple[Operation, int, int, int], LatencyRow]
_loaded: dict[str, LatencyTrace] = {}


def trace_of(name: str) -> LatencyTrace:
    if name not in _loaded:
        _loaded[name] = load_trace(find_trace(name, "latency"), LatencyTrace)
    return _loaded[name]


def points_of(name: str) -> Points:
    return {(row.operation, row.tokens_per_seq, row.batch, row.context_tokens): row for row in trace_of(name).rows}


def step_s(name: str, operation: Operation, tokens: int, batch: int, context: int) -> float:
    return points_of(name)[operation, tokens, batch, context].latency_s


def target_rows(name: str) -> Iterator[LatencyRow]:
    return (row for row in trace_of(name).rows if row.operation in (Operation.DECODE, Operation.VERIFY))


@pytest.mark.parametrize("name", NAMES)
def test_no_pass_is_faster_than_the_memory_of_its_gpus(name: str) -> None:
    trace = trace_of(name)
    model, gpu = load_architecture(trace.model), load_gpu(trace.gpu)
    # What every pass must read at least: for MoE only the experts of one token, whose embedding is one row.
    weights = 2.0 * (model.active_params - (0 if model.tied_embeddings else model.lm_head_params))
    for row in target_rows(name):
        kv = row.batch * row.context_tokens * model.kv_bytes_per_token()
        states = row.batch * model.state_bytes_per_seq * (1 + row.tokens_per_seq)
        floor_s = (weights + kv + states) / (row.tp_size * gpu.hbm_bytes_per_s)
        # 5 %: experts of one token may all lie on one expert-parallel rank, never less than their share.
        assert row.latency_s >= 0.95 * floor_s, row


@pytest.mark.parametrize("name", NAMES)
def test_no_pass_computes_faster_than_the_peak_of_its_gpus(name: str) -> None:
    trace = trace_of(name)
    model, gpu = load_architecture(trace.model), load_gpu(trace.gpu)
    weights = model.active_params - (0 if model.tied_embeddings else model.lm_head_params)
    for row in target_rows(name):
        flops = 2.0 * weights * row.batch * row.tokens_per_seq
        assert row.latency_s >= flops / (row.tp_size * gpu.bf16_flops), row


@pytest.mark.parametrize("name", NAMES)
def test_latency_never_falls_with_batch_context_or_tokens(name: str) -> None:
    points = points_of(name)
    lines: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    for (operation, tokens, batch, context), row in points.items():
        lines.setdefault((operation, "tokens", batch, context), []).append((tokens, row.latency_s))
        lines.setdefault((operation, "batch", tokens, context), []).append((batch, row.latency_s))
        lines.setdefault((operation, "context", tokens, batch), []).append((context, row.latency_s))
    for where, line in lines.items():
        assert all(low <= high for (_, low), (_, high) in pairwise(sorted(line))), where


@pytest.mark.parametrize("name", NAMES)
def test_verify_of_one_token_is_decode(name: str) -> None:
    points = points_of(name)
    for batch in BATCHES:
        for context in CONTEXTS_TOKENS:
            decode = points[Operation.DECODE, 1, batch, context]
            assert points[Operation.VERIFY, 1, batch, context].latency_s == decode.latency_s


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("qwen3-8b", "qwen3-32b"))])
def test_verify_of_a_dense_model_reads_the_kv_cache_once(name: str) -> None:
    # Four reads of it would make this ratio about 3 to 4: at 32 x 32768 tokens attention is most of the step.
    assert step_s(name, Operation.VERIFY, 4, 32, 32768) < 1.3 * step_s(name, Operation.DECODE, 1, 32, 32768)


@pytest.mark.parametrize("name", [name for name in NAMES if "a3b" in name])
def test_verify_of_a_moe_model_at_batch_one_wakes_more_experts(name: str) -> None:
    # A rank of two holds half of the experts, so half as many wake on it: the effect is smaller there.
    least = 1.3 if name.endswith("tp1") else 1.15
    assert step_s(name, Operation.VERIFY, 4, 1, 2048) > least * step_s(name, Operation.DECODE, 1, 1, 2048)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("qwen3.5")])
def test_verify_of_a_hybrid_model_stores_one_state_per_token(name: str) -> None:
    trace = trace_of(name)
    state_bytes = load_architecture(trace.model).state_bytes_per_seq
    extra = step_s(name, Operation.VERIFY, 4, 512, 128) - step_s(name, Operation.DECODE, 1, 512, 128)
    three_more_states_s = 3 * 512 * state_bytes / (trace.rows[0].tp_size * load_gpu(trace.gpu).hbm_bytes_per_s)
    assert extra > three_more_states_s


@pytest.mark.parametrize("name", NAMES)
def test_a_draft_pass_costs_about_one_layer(name: str) -> None:
    layers = load_architecture(trace_of(name).model).num_layers
    decode = step_s(name, Operation.DECODE, 1, 32, 4096) - step_s(name, Operation.LM_HEAD, 1, 32, 0)
    assert 0.5 < step_s(name, Operation.DRAFT, 1, 32, 4096) / (decode / layers) < 3


@pytest.mark.parametrize("request_", REQUESTS, ids=NAMES)
def test_committed_traces_say_where_they_come_from(request_: TraceRequest) -> None:
    trace = trace_of(request_.name)
    provenance = trace.provenance
    assert trace.name == request_.name
    assert (trace.model, trace.gpu, trace.precision) == (request_.model, request_.gpu, "bf16")
    assert provenance.command == request_.command
    assert {"aiconfigurator-core", "vllm", "bebop-rollout"} <= set(provenance.versions)
    assert provenance.versions["aiconfigurator-core"] in trace.engine
    assert provenance.notes is not None
    assert "never" not in provenance.source
    for word in ("measured_fraction", "host_gap", "sample", "raised to the roofline", "monotone"):
        assert word in provenance.notes


@pytest.mark.parametrize("name", NAMES)
def test_no_row_claims_to_be_measured(name: str) -> None:
    for row in trace_of(name).rows:
        assumed = row.operation in (Operation.SAMPLE, Operation.HOST_GAP)
        assert row.origin is (Origin.ASSUMED if assumed else Origin.MODELLED)
        assert (row.measured_fraction is None) == assumed


def test_attention_beyond_the_measured_contexts_is_not_counted_as_measured() -> None:
    points = points_of("qwen3-8b-h200-tp1")
    inside = points[Operation.DECODE, 1, 32, 4096].measured_fraction
    outside = points[Operation.DECODE, 1, 512, 131072].measured_fraction
    assert inside is not None
    assert inside > 0.9
    assert outside is not None
    assert outside < 0.1


def test_decode_agrees_with_measured_serving() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "aiconfigurator_check.py"
    done = subprocess.run([sys.executable, str(script), "--json"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["points"] == 56
    assert result["decode_and_prefills"]["median_abs"] < 0.07
    assert result["decode_and_prefills"]["p90_abs"] < 0.17


@pytest.mark.parametrize(
    ("batch", "decode_ms", "verify_ms", "draft_ms"),
    [(1, 5.17, 5.28, 1.35), (32, 9.76, 10.18, 1.80), (128, 23.1, 28.7, 2.96)],
)
def test_qwen3_8b_on_h200_matches_an_independent_composition(
    batch: int, decode_ms: float, verify_ms: float, draft_ms: float
) -> None:
    name = "qwen3-8b-h200-tp1"
    assert 1e3 * step_s(name, Operation.DECODE, 1, batch, 4096) == pytest.approx(decode_ms, rel=0.01)
    assert 1e3 * step_s(name, Operation.VERIFY, 4, batch, 4096) == pytest.approx(verify_ms, rel=0.01)
    draft = step_s(name, Operation.DRAFT, 4, batch, 4096) + 2 * step_s(name, Operation.DRAFT, 1, batch, 4096)
    draft += 3 * step_s(name, Operation.LM_HEAD, 1, batch, 0)
    # That composition leaves out the concat projection, the norms and the embedding of the MTP layer.
    assert draft_ms < 1e3 * draft < 1.13 * draft_ms


def test_monotone_is_the_smallest_array_above_that_never_falls() -> None:
    noisy = np.array([[3.0, 1.0], [2.0, 4.0]])
    assert monotone(noisy).tolist() == [[3.0, 3.0], [3.0, 4.0]]
    assert monotone(monotone(noisy)).tolist() == monotone(noisy).tolist()


def test_composing_again_gives_the_committed_rows() -> None:
    pytest.importorskip("aiconfigurator_core")
    committed = trace_of("qwen3.5-9b-h100-tp1")
    again = compose_trace(TraceRequest("Qwen3.5-9B", "H100"))
    if again.provenance.versions["aiconfigurator-core"] != committed.provenance.versions["aiconfigurator-core"]:
        pytest.skip("another release of aiconfigurator-core has other tables")
    assert again.rows == committed.rows


def test_decode_is_what_aiconfigurator_itself_predicts() -> None:
    engine = pytest.importorskip("aiconfigurator_core.sdk.engine")
    passes = compile_model(TraceRequest("Qwen3-32B", "H200", tp_size=4)).passes
    handle = engine.EngineHandle.compile("Qwen/Qwen3-32B", "h200_sxm", "vllm", tp_size=4)
    for batch, context in ((1, 512), (32, 4096), (128, 16384)):
        theirs_ms = handle.decode_step_latency(batch, context, 2)
        assert 1e3 * passes.target(batch, context, 1).latency_s == pytest.approx(theirs_ms, rel=1e-3)
    assert 1e3 * passes.prefill(1024, 4096).latency_s == pytest.approx(
        handle.predict_prefill_latency(1, 5120, 4096), rel=1e-3
    )


def test_our_description_of_a_model_is_priced_like_the_registrys() -> None:
    models = pytest.importorskip("aiconfigurator_core.sdk.utils")
    theirs = models._load_model_config_from_model_path("Qwen/Qwen3.5-27B")
    ours = config_json(load_architecture("Qwen3.5-27B"))
    assert ours["architectures"] == theirs["architectures"]
    for key, value in ours["text_config"].items():
        if key != "tie_word_embeddings":
            assert theirs["text_config"][key] == value, key


def test_profile_answers_with_the_path_of_a_trace_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiconfigurator_core")
    path = tmp_path / "small.json"
    options = ["--model", "Qwen3-8B", "--gpu", "H200", "--max-draft-tokens", "1", "-o", str(path), "--json"]
    assert bebop(["profile", "--source", "aiconfigurator", *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["path"] == str(path)
    assert load_trace(path, LatencyTrace).content_hash() == answer["sha256"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "Qwen3-8B"], "--model and --gpu are needed"),
        (["--model", "Qwen3-8B", "--gpu", "H200", "--tp", "0"], "--tp 0 is outside 1..64"),
        (["--model", "Qwen3-8B", "--gpu", "H200", "-o", "x.csv"], "end it in .parquet or .json"),
        (["--all", "--gpu", "H200", "-o", "folder"], "drop one or the other"),
        (["--all"], "needs a folder"),
    ],
)
def test_profile_answers_a_mistake_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bebop(["profile", "--source", "aiconfigurator", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "Qwen3-8B", "--gpu", "H20"], "aiconfigurator has A100"),
        (["--model", "Qwen3-8B", "--gpu", "H200", "--tp", "2", "--ep", "2"], "is dense"),
        (["--model", "Qwen3-30B-A3B", "--gpu", "H200", "--tp", "2", "--ep", "4"], "does not divide"),
        (["--model", "Qwen3-9B", "--gpu", "H200"], "no architecture named"),
        (["--model", "DeepSeek-V3", "--gpu", "H200", "--tp", "8", "--ep", "8"], "grouped-query attention"),
        (["--model", "Qwen3.5-9B", "--gpu", "H200", "--tp", "3"], "divisible by tp_size"),
        (["--model", "Qwen3.5-9B", "--gpu", "A100"], "aiconfigurator refuses"),
    ],
)
def test_profile_names_what_it_cannot_price(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiconfigurator_core")
    assert bebop(["profile", "--source", "aiconfigurator", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    monkeypatch.setitem(sys.modules, "aiconfigurator_core.sdk.engine", None)
    assert bebop(["profile", "--source", "aiconfigurator", "--model", "Qwen3-8B", "--gpu", "H200"]) == 5
    assert ".[aiconfigurator]" in capsys.readouterr().err
