"""A running engine's law of step time, given back by its trace, and by the simulator that reads the trace."""

from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.errors import UsageError
from profiler.sources.engine.measure import Written, measure
from profiler.sources.engine.request import EngineRequest
from simulator.latency import Need, TraceLatency
from tests.profiler.engine_server import PlayedEngine, playing
from traces.acceptance import AcceptanceTrace, VerifyRule
from traces.latency import LatencyTrace, Operation
from traces.store import load_trace

ACCEPTANCE = (0.8, 0.6, 0.4)


def law(batch: int, context_tokens: float, tokens_per_seq: int) -> float:
    """Weights, tokens, KV cache: seconds."""
    return 5e-3 + 2e-5 * batch * tokens_per_seq + 1e-8 * batch * context_tokens


def request(url: str, **changes: object) -> EngineRequest:
    wanted = {
        "url": url,
        "gpu": "H200",
        "batches": (1, 4, 8),
        "contexts_tokens": (256, 1024),
        "prefill_tokens": (100, 1000),
        "num_tokens": 64,
        "num_sweeps": 1,
        "num_held_out": 0,
        "budget_s": 60.0,
        "timeout_s": 5.0,
        "temperature": 1.0,
        "seed": 0,
        "precision": "bf16",
        **changes,
    }
    return EngineRequest(**wanted)  # type: ignore[arg-type]


def profile(engine: PlayedEngine, path: Path, **changes: object) -> Written:
    with playing(engine) as url:
        return measure(request(url, **changes), path, clock=engine.clock)


def steps(trace: LatencyTrace, operation: Operation) -> dict[tuple[int, int], float]:
    return {(row.batch, row.context_tokens): row.latency_s for row in trace.rows if row.operation is operation}


def simulated(trace: LatencyTrace, k: int, *, tp_size: int = 1) -> Callable[[int, int], float]:
    """Return seconds of a step by batch and context, as the simulator composes it."""
    most = max(row.batch for row in trace.rows)
    table, _ = TraceLatency(trace, tp_size=tp_size).step_table(Need("arm", k, most, 256, 1e9))
    return lambda batch, context: float(table.step_s[batch, list(table.knots).index(context)])


def test_a_plain_engine_gives_its_law_back(tmp_path: Path) -> None:
    trace = profile(PlayedEngine(law), tmp_path / "plain.json", num_held_out=2).trace
    step_s = simulated(trace, 0)
    assert set(steps(trace, Operation.DECODE)) == {(b, c) for b in (1, 4, 8) for c in (256, 1024)}
    for batch, context in steps(trace, Operation.DECODE):
        assert step_s(batch, context) == pytest.approx(law(batch, context, 1), rel=0.005)
    assert {row.operation for row in trace.rows} == {Operation.DECODE, Operation.PREFILL}
    assert trace.measurement is not None
    assert trace.measurement.held_out is not None
    assert trace.measurement.held_out.worst < 0.01  # the law is bilinear, and so is the rule between points


def test_prefill_is_the_time_to_the_first_token_of_an_uncached_prompt(tmp_path: Path) -> None:
    engine = PlayedEngine(law, prefill_s_per_token=2e-4)
    trace = profile(engine, tmp_path / "plain.json", num_sweeps=2, batches=(1,), contexts_tokens=(256,)).trace
    prefill = {row.tokens_per_seq: row.latency_s for row in trace.rows if row.operation is Operation.PREFILL}
    assert prefill == pytest.approx({100: 0.02, 1000: 0.2})


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_the_simulator_composes_the_speculative_step_that_was_measured(tmp_path: Path, dialect: str) -> None:
    engine = PlayedEngine(law, dialect=dialect, k=3, acceptance=ACCEPTANCE)
    trace = profile(
        engine, tmp_path / "k3.json", num_tokens=160, precision=None if dialect == "sglang" else "bf16"
    ).trace
    tp_size = 2 if dialect == "sglang" else 1  # SGLang says so itself
    step_s = simulated(trace, 3, tp_size=tp_size)
    for batch, context in steps(trace, Operation.VERIFY):
        assert step_s(batch, context) == pytest.approx(law(batch, context, 4), rel=0.01)
    assert (trace.precision, trace.model) == ("bf16", "Qwen3-8B")
    assert "whole speculative step of 3 drafts" in (trace.provenance.notes or "")


def test_accepted_drafts_are_counted_by_position(tmp_path: Path) -> None:
    engine = PlayedEngine(law, k=3, acceptance=ACCEPTANCE)
    written = profile(engine, tmp_path / "k3.json", num_tokens=160, verify_rule="greedy_draft", temperature=0.7)
    found = load_trace(tmp_path / "k3.acceptance.json", AcceptanceTrace)
    assert found == written.acceptance
    (row,) = found.rows
    assert row.cumulative == pytest.approx(ACCEPTANCE, abs=0.03)
    # Steps of samples that a busy machine spoilt are counted by the engine, and left out here.
    assert row.num_steps is not None
    assert 0.5 * engine.counts["drafts"] < row.num_steps < 1.05 * engine.counts["drafts"]
    assert (row.verify_rule, row.temperature, row.task) == (VerifyRule.GREEDY_DRAFT, 0.7, "random tokens")


def test_sglang_counts_no_positions_so_nothing_is_said_about_them(tmp_path: Path) -> None:
    engine = PlayedEngine(law, dialect="sglang", k=3, acceptance=ACCEPTANCE)
    assert profile(engine, tmp_path / "k3.json", batches=(1,), contexts_tokens=(256,)).acceptance is None
    assert not (tmp_path / "k3.acceptance.json").exists()


def test_without_counters_a_plain_server_is_measured_and_it_is_said(tmp_path: Path) -> None:
    engine = PlayedEngine(law, dialect="sglang", statuses={"/metrics": (404, "")})
    trace = profile(engine, tmp_path / "k0.json", batches=(1,), contexts_tokens=(256,)).trace
    assert simulated(trace, 0, tp_size=2)(1, 256) == pytest.approx(law(1, 256, 1), rel=0.005)
    assert "would have gone unnoticed" in (trace.provenance.notes or "")


def test_rows_of_the_plain_server_join_those_of_the_speculating_one(tmp_path: Path) -> None:
    profile(PlayedEngine(law), tmp_path / "plain.json")
    engine = PlayedEngine(law, k=3, acceptance=(1.0, 1.0, 0.0))
    plain = tmp_path / "plain.json"
    trace = profile(engine, tmp_path / "both.json", plain=plain, prefill_tokens=(100,)).trace
    assert simulated(trace, 0)(4, 256) == pytest.approx(law(4, 256, 1), rel=0.005)
    assert simulated(trace, 3)(4, 256) == pytest.approx(law(4, 256, 4), rel=0.005)
    assert load_trace(plain).content_hash() in (trace.provenance.notes or "")


def test_a_plain_trace_of_another_model_is_refused(tmp_path: Path) -> None:
    profile(PlayedEngine(law), tmp_path / "plain.json", model="Qwen3-4B", batches=(1,), contexts_tokens=(256,))
    with pytest.raises(UsageError, match="model is Qwen3-4B, here Qwen3-8B"):
        profile(PlayedEngine(law, k=3), tmp_path / "both.json", plain=tmp_path / "plain.json")


def test_a_batch_beyond_the_servers_limit_is_recorded_as_infeasible(tmp_path: Path) -> None:
    silent = PlayedEngine(law, max_running=4)  # vLLM does not tell its max_num_seqs
    telling = PlayedEngine(law, max_running=4, dialect="sglang")
    for engine, reason in ((silent, "the server runs fewer"), (telling, "runs at most 4 sequences")):
        trace = profile(engine, tmp_path / f"{engine.dialect}.json", contexts_tokens=(256,)).trace
        assert trace.measurement is not None
        (point,) = trace.measurement.infeasible
        assert point.batch == 8
        assert reason in point.reason
        assert {batch for batch, _ in steps(trace, Operation.DECODE)} == {1, 4}


def test_a_batch_that_does_not_fit_the_kv_cache_is_recorded_as_infeasible(tmp_path: Path) -> None:
    engine = PlayedEngine(law, kv_cache_seqs=7)
    trace = profile(engine, tmp_path / "x.json", batches=(1, 8), contexts_tokens=(256,)).trace
    assert trace.measurement is not None
    (point,) = trace.measurement.infeasible
    assert point.batch == 8
    assert "its KV cache is too small" in point.reason


def test_a_context_beyond_the_models_is_recorded_as_infeasible(tmp_path: Path) -> None:
    engine = PlayedEngine(law)
    trace = profile(engine, tmp_path / "x.json", batches=(1,), contexts_tokens=(256, 32768), prefill_tokens=(99,)).trace
    assert trace.measurement is not None
    (point,) = trace.measurement.infeasible
    assert (point.context_tokens, point.reason) == (32768, "needs 32800 tokens per sequence, the server takes 32768")


def test_a_slow_start_is_met_with_longer_requests(tmp_path: Path) -> None:
    engine = PlayedEngine(law, steps_between_prefills=60)  # 64 tokens of each would overlap for 4 steps
    trace = profile(engine, tmp_path / "x.json", batches=(2,), contexts_tokens=(256,), prefill_tokens=(9,)).trace
    assert steps(trace, Operation.DECODE)[2, 256] == pytest.approx(law(2, 256, 1), rel=0.01)


def test_a_finished_ledger_asks_nothing_again(tmp_path: Path) -> None:
    engine = PlayedEngine(law)
    with playing(engine) as url:
        first = measure(request(url, batches=(1,)), tmp_path / "x.json", clock=engine.clock)
        asked = engine.num_requests
        again = measure(request(url, batches=(1,)), tmp_path / "x.json", clock=engine.clock)
        assert engine.num_requests == asked
        assert again.trace.rows == first.trace.rows
        with pytest.raises(UsageError, match="samples of another request"):
            measure(request(url, batches=(1,), num_tokens=32), tmp_path / "x.json", clock=engine.clock)
