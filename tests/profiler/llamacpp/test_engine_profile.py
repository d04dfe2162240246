"""A profile of an engine: whole steps become a trace that the simulator adds up to the same whole steps again."""

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from bebop import main as bebop
from profiler.errors import DeviceError
from profiler.grid import GridRequest
from profiler.ledger import COMPOSED, GRID, Ledger
from profiler.request import ProfileRequest
from profiler.sources.llamacpp.profile import EngineProfile, settings_of
from profiler.sources.llamacpp.session import Answer, Call, EngineSettings
from profiler.sources.llamacpp.steps import arrangements, num_runs
from profiler.sources.llamacpp.trace import ACCEPTED, Machine, WholeSteps, compose_trace
from profiler.sources.llamacpp.worker import Batch, EngineWorker
from simulator.latency import Need, TraceLatency
from tests.profiler.llamacpp.tiny_engine import MODEL, call, settings
from traces.latency import LatencyTrace, Operation
from traces.store import load_trace

ROOT = Path(__file__).parents[3]
MACHINE = Machine("test CPU", {"xllamacpp": "test"})
REQUEST = ProfileRequest(
    "test",
    MODEL,
    "cpu",
    "fp32",
    GridRequest((1, 2, 4), (64, 128, 256), 3, (8, 16), (0,)),
    num_threads=1,
    num_held_out=4,
)


class ClosedFormEngine:
    """An engine whose steps take a known time; its slots begin one after the other, as calls arrive."""

    def __init__(self, stop_after: int = 1 << 30, error: BaseException | None = None) -> None:
        self.num_calls = 0
        self._stop_after, self._error = stop_after, error

    def complete(self, settings: EngineSettings, calls: Sequence[Call]) -> Batch:
        self.num_calls += 1
        if self._error is not None and self.num_calls > self._stop_after:
            raise self._error
        answers = []
        for position, one in enumerate(calls):
            seconds, tokens = 0.0, 1
            while tokens < one.num_tokens:
                drafts = min(settings.num_draft_tokens, one.num_tokens - tokens - 1)
                accepted = sum(rate > 0 for rate in settings.acceptance[:drafts]) if settings.acceptance else 0
                accepted = 0 if settings.drops_drafts else accepted
                context = len(one.prompt) + tokens
                seconds += self.step_s(len(calls), context, drafts, accepted, dropped=settings.drops_drafts)
                tokens += 1 + accepted
            prefill_s = 1e-5 * len(one.prompt) * (1.5 if settings.num_draft_tokens else 1.0)
            answers.append(Answer(one.num_tokens, prefill_s, seconds + 1e-3 * position, 0, 0))
        wall_s = max(answer.prefill_s + answer.decode_s for answer in answers)
        return Batch(tuple(answers), wall_s, wall_s)

    @staticmethod
    def step_s(batch: int, context: float, drafts: int, accepted: float, *, dropped: bool = False) -> float:
        width = 1 if dropped else drafts + 1
        passes = 2e-4 * (drafts + 1) if drafts else 0.0
        return 1e-3 + 1e-4 * batch * width + 1e-6 * batch * context + passes * batch**0.5 + 5e-5 * accepted * batch


def profiled(path: Path, engine: ClosedFormEngine) -> Ledger:
    ledger = Ledger.open(path / "x.samples.jsonl", REQUEST.identity())
    model = EngineSettings("none.gguf", 4, 1024)
    EngineProfile(REQUEST, engine, model, ledger).run()
    return ledger


def simulated_step_s(trace: LatencyTrace, k: int, batch: int, context: int) -> float:
    """Return what the simulator charges for a step."""
    table, _ = TraceLatency(trace, allow_extrapolation=True).step_table(Need("mtp", k, 4, 300, 1e9))
    return float(table.step_s[batch][list(table.knots).index(context)])


def test_the_simulator_adds_the_rows_up_to_the_whole_step(tmp_path: Path) -> None:
    ledger = profiled(tmp_path, ClosedFormEngine())
    for share in (0.0, 0.5, 1.0):
        trace = compose_trace(REQUEST, MACHINE, ledger, share)
        for k in range(4):
            for batch in (1, 2, 4):
                for context in (64, 128, 256):
                    whole_s = ClosedFormEngine.step_s(batch, context, k, share * k)
                    # The timed steps lie around the context up to one response token.
                    assert simulated_step_s(trace, k, batch, context) == pytest.approx(whole_s, rel=3e-3)


def test_drafts_are_told_from_the_verify_pass(tmp_path: Path) -> None:
    trace = compose_trace(REQUEST, MACHINE, profiled(tmp_path, ClosedFormEngine()), 0.0)
    rows = {(row.operation, row.tokens_per_seq, row.batch, row.context_tokens): row.latency_s for row in trace.rows}
    assert rows[Operation.DRAFT, 4, 4, 128] == pytest.approx(2 * 2e-4 * 2, rel=1e-3)
    assert rows[Operation.DRAFT, 1, 4, 128] == pytest.approx(2e-4 * 2, rel=1e-3)
    assert rows[Operation.VERIFY, 4, 4, 128] == pytest.approx(1e-3 + 16e-4 + 512e-6, rel=3e-3)


def test_what_is_between_the_rows_and_half_accepted_is_measured_too(tmp_path: Path) -> None:
    ledger = profiled(tmp_path, ClosedFormEngine())
    trace = compose_trace(REQUEST, MACHINE, ledger, 0.5)
    assert trace.measurement is not None
    assert trace.measurement.held_out is not None
    assert trace.measurement.held_out.num_points == 4
    assert trace.measurement.held_out.worst < 0.05
    assert {step.num_draft_tokens for step in trace.measurement.composed} == {2}
    for step in trace.measurement.composed:
        assert step.sum_of_parts_s == pytest.approx(step.measured_s, rel=3e-3)
    plain = compose_trace(REQUEST, MACHINE, ledger, 0.5, plain_prefill=True)
    prompts = [[row.latency_s for row in t.rows if row.operation is Operation.PREFILL] for t in (trace, plain)]
    assert prompts[0] == pytest.approx([1.5 * seconds for seconds in prompts[1]])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("llama.cpp died")])
def test_what_was_measured_before_an_end_is_kept(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        profiled(tmp_path, ClosedFormEngine(stop_after=100, error=error))
    kept = Ledger.open(tmp_path / "x.samples.jsonl", REQUEST.identity()).samples
    assert sum(sample.latency_s is not None for sample in kept) > 5
    assert profiled(tmp_path, ClosedFormEngine()).samples[: len(kept)] == kept


def test_a_step_that_fails_is_recorded_and_the_others_are_rows(tmp_path: Path) -> None:
    class Fragile(ClosedFormEngine):
        def complete(self, settings: EngineSettings, calls: Sequence[Call]) -> Batch:
            if len(calls) == 4 and settings.num_draft_tokens == 3:
                raise DeviceError("llama.cpp died")
            return super().complete(settings, calls)

    trace = compose_trace(REQUEST, MACHINE, profiled(tmp_path, Fragile()), 0.5)
    assert trace.measurement is not None
    assert {point.reason for point in trace.measurement.infeasible} == {"llama.cpp died"}
    assert {(point.batch, point.tokens_per_seq) for point in trace.measurement.infeasible} == {(4, 4)}
    assert {row.batch for row in trace.rows if row.operation is Operation.VERIFY} == {1, 2}
    assert {row.batch for row in trace.rows if row.operation is Operation.DECODE} == {1, 2, 4}


def test_an_engine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    engine = ClosedFormEngine(stop_after=0, error=DeviceError("llama.cpp does not load it"))
    with pytest.raises(DeviceError, match="does not load it"):
        profiled(tmp_path, engine)
    assert engine.num_calls == 5


def test_a_model_beyond_the_memory_is_refused_before_it_is_written() -> None:
    grid = GridRequest((1, 256), (64, 2_000_000), 3, (8,), (0,))
    with pytest.raises(DeviceError, match="lower --batches or --contexts"):
        settings_of(ProfileRequest("test", MODEL, "cpu", "fp32", grid))


@pytest.mark.parametrize(("batch", "num_slots"), [(1, 8), (8, 8), (4, 8), (3, 4), (4, 16)])
def test_arrangements_have_as_many_runs_as_chance_gives(batch: int, num_slots: int) -> None:
    places = arrangements(batch, num_slots)
    assert all(len(set(slots)) == batch and max(slots) < num_slots for slots in places)
    expected = batch * (num_slots - batch + 1) / num_slots
    assert sum(map(num_runs, places)) / len(places) == pytest.approx(expected, abs=0.35)


def test_a_dead_worker_is_one_line_and_the_next_call_starts_another(tmp_path: Path) -> None:
    with EngineWorker() as worker:
        assert worker.complete(settings(tmp_path), [call(4)]).answers[0].num_tokens == 4
        with pytest.raises(DeviceError, match="no such file"):
            worker.complete(EngineSettings("none.gguf", 1, 64), [call(4)])
        (child,) = multiprocessing.active_children()
        child.kill()
        child.join()
        with pytest.raises(DeviceError, match=r"llama.cpp died \(SIGKILL\)"):
            worker.complete(settings(tmp_path), [call(4)])
        assert worker.complete(settings(tmp_path), [call(4)]).answers[0].num_tokens == 4
    assert multiprocessing.active_children() == []


def test_profile_the_real_engine_then_simulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--batches", "1,8", "--contexts", "64,512", "--prefills", "16", "--sweeps", "1", "--held-out", "1"]
    options += ["--max-draft-tokens", "2"]
    assert bebop(["profile", *options, "-o", "tiny-qwen3.5.json", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    trace = load_trace(Path("tiny-qwen3.5.json"), LatencyTrace)
    assert trace.content_hash() == answer["sha256"]
    assert (answer["infeasible"], answer["held_out"]["num_points"]) == (0, 1)
    samples = Path("tiny-qwen3.5.samples.jsonl")
    ledger = Ledger.open(samples, json.loads(samples.read_text().splitlines()[0])["request"])
    assert {sample.purpose for sample in ledger.samples} >= {GRID, ACCEPTED, COMPOSED}
    steps = WholeSteps.of(ledger)
    table, _ = TraceLatency(trace).step_table(Need("mtp", 2, 8, 512, 4096.0))
    for point in steps.points(Operation.VERIFY):
        if point.tokens_per_seq == 3:
            composed_s = table.step_s[point.batch][list(table.knots).index(point.context_tokens)]
            assert composed_s == pytest.approx(steps.step_s(point, 0.5), rel=1e-9)
    scenario = [str(ROOT / "docs" / "tiny.toml"), "--set", "arms.mtp.k=2"]
    assert bebop(["simulate", *scenario, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arms"]
