"""Steps and requests of llama.cpp as a run has them, timed in a server whose times are known, and in a real one."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")

from profiler.point import Point
from profiler.sources.llamacpp.session import Answer, Call, EngineSettings
from profiler.sources.llamacpp.worker import Batch, EngineWorker
from profiler.statistics import collect
from profiler.testbed import llamacpp_steps
from profiler.testbed.cli import read_config
from profiler.testbed.llamacpp_steps import TimedServer, latency_trace, rows_of, time_engine, visits_of
from profiler.testbed.task import PROMPT_TOKENS
from simulator.latency import Need, TraceLatency
from simulator.step_table import find_segment, step_seconds
from simulator.testbed_scenario import profile_key
from tests.profiler.llamacpp.tiny_engine import settings
from traces import testbed
from traces.latency import MIN_LATENCY_S, Operation

CONFIGS = Path(llamacpp_steps.__file__).parent / "configs"
PROMPT_S = 0.014


def known_step_s(batch: int, num_draft_tokens: int) -> float:
    return 0.001 + 0.001 * batch * (1 + num_draft_tokens)


@dataclass
class KnownServer:
    """Continuous batching on a clock of its own; forced rates are 0 or 1, so that all that is drafted has one fate."""

    slower: list[float] = field(default_factory=lambda: [1.0])
    """Factors of all times, one call after the other."""
    num_calls: int = 0

    def complete(self, settings: EngineSettings, calls: Sequence[Call]) -> Batch:
        factor = self.slower[self.num_calls % len(self.slower)]
        self.num_calls += 1
        per_step = 1 + round(sum(settings.acceptance or ()))
        waiting = {slot: [call for call in calls if call.slot == slot] for slot in range(settings.num_slots)}
        running: dict[int, tuple[Call, int, int, float]] = {}
        answers: dict[int, Answer] = {}
        now_s = 0.0
        while running or any(waiting.values()):
            new = [slot for slot, queue in waiting.items() if slot not in running and queue]
            now_s += PROMPT_S * len(new)
            running |= {slot: (waiting[slot].pop(0), 1, 0, now_s) for slot in new}
            now_s += known_step_s(len(running), settings.num_draft_tokens)
            for slot, (call, num_tokens, num_accepted, first_s) in list(running.items()):
                emitted = min(per_step, call.num_tokens - num_tokens)
                running[slot] = (call, num_tokens + emitted, num_accepted + emitted - 1, first_s)
                if num_tokens + emitted == call.num_tokens:
                    del running[slot]
                    decode_s = factor * (now_s - first_s)
                    answers[id(call)] = Answer(call.num_tokens, 0.0, decode_s, 0, num_accepted + emitted - 1)
        return Batch(tuple(answers[id(call)] for call in calls), factor * now_s, factor * now_s)


def config(k: int = 3, accepted: float = 1.0) -> "testbed.TestbedConfig":
    shipped = read_config(CONFIGS / "llamacpp-sync-k3.toml")
    return shipped.model_copy(update={"k": k, "forced_acceptance": (accepted,) * k if k else None})


@pytest.mark.parametrize("accepted", [0.0, 1.0])
def test_a_known_server_is_timed_exactly(accepted: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llamacpp_steps, "settings_of", lambda config: _settings(tmp_path, config))
    pace, samples = time_engine(config(accepted=accepted), KnownServer(slower=[1.0]), 1, lambda: None)
    assert pace.unit_s == pytest.approx(known_step_s(4, 0))
    assert len(samples) == len(visits_of(config()))
    for sample in samples:
        point = sample.point
        if point.operation in (Operation.DECODE, Operation.VERIFY):
            assert sample.latency_s == pytest.approx(known_step_s(point.batch, point.tokens_per_seq - 1)), point
        else:
            assert sample.latency_s == pytest.approx(PROMPT_S * point.tokens_per_seq / PROMPT_TOKENS), point


def test_rows_give_whole_steps_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llamacpp_steps, "settings_of", lambda config: _settings(tmp_path, config))
    monkeypatch.setattr(llamacpp_steps, "_engine", lambda: _Opened(KnownServer()))
    swept: list[int] = []
    trace = latency_trace(config(), "known", "a test", "Known.", 8, lambda: swept.append(1))
    assert len(swept) == 2
    assert trace.measurement is not None
    assert trace.measurement.num_noisy == 0
    for k in (0, 3):
        table, _ = TraceLatency(trace).step_table(Need("arm", k, 4, 400, 1e6))
        for batch in (1, 2, 3, 4):
            segment = find_segment(table.knots, 100.0, 0)
            assert step_seconds(table, batch, 100.0, segment) == pytest.approx(known_step_s(batch, k))


def test_a_machine_that_slows_down_is_said_in_reference_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llamacpp_steps, "settings_of", lambda config: _settings(tmp_path, config))
    steady = time_engine(config(), KnownServer(), 1, lambda: None)
    slower = time_engine(config(), KnownServer(slower=[2.0]), 1, lambda: None)
    for (_, samples), factor in ((steady, 1.0), (slower, 2.0)):
        for sample, known in zip(samples, steady[1], strict=True):
            assert sample.latency_s == pytest.approx(factor * (known.latency_s or 0.0))


def test_what_drafts_add_to_requests_never_falls() -> None:
    found = collect([])
    for num, (plain_s, drafting_s) in enumerate(((0.010, 0.030), (0.020, 0.025)), start=1):
        for operation, seconds in ((Operation.PREFILL, plain_s), (Operation.DRAFT_PREFILL, drafting_s)):
            found.latencies[Point(operation, num * PROMPT_TOKENS, 1)] = seconds
    rows = {(row.operation, row.tokens_per_seq): row.latency_s for row in rows_of(found, 0.0)}
    assert rows[Operation.PREFILL, 2 * PROMPT_TOKENS] == 0.020
    assert rows[Operation.DRAFT_PREFILL, PROMPT_TOKENS] == pytest.approx(0.020)
    assert rows[Operation.DRAFT_PREFILL, 2 * PROMPT_TOKENS] == pytest.approx(0.020)


def test_a_profile_is_of_one_k_and_one_acceptance() -> None:
    keys = [profile_key(config(k, accepted)) for k, accepted in ((2, 1.0), (2, 0.5), (3, 1.0))]
    assert all(one != other for index, one in enumerate(keys) for other in keys[:index])


def test_requests_of_a_real_server_take_longer_together_than_one(tmp_path: Path) -> None:
    with EngineWorker() as worker:
        timed = TimedServer(worker, settings(tmp_path, num_slots=3, num_draft_tokens=2), random.Random(0))
        seconds = {
            (operation, num): timed.seconds(Point(operation, num * PROMPT_TOKENS, 1))
            for operation in (Operation.PREFILL, Operation.DRAFT_PREFILL)
            for num in (1, 3)
        }
        step_s = timed.step_s(Point(Operation.VERIFY, 3, 2, 80))
    assert seconds[Operation.PREFILL, 3] > MIN_LATENCY_S
    assert seconds[Operation.DRAFT_PREFILL, 3] > MIN_LATENCY_S
    assert all(value >= MIN_LATENCY_S for value in seconds.values())
    assert step_s > 0


def _settings(folder: Path, config: "testbed.TestbedConfig") -> EngineSettings:
    return EngineSettings(
        "none",
        num_slots=config.max_running_seqs,
        slot_tokens=1024,
        num_draft_tokens=config.k,
        acceptance=config.forced_acceptance,
    )


@dataclass
class _Opened:
    engine: KnownServer

    def __enter__(self) -> KnownServer:
        return self.engine

    def __exit__(self, *_: object) -> None:
        pass
