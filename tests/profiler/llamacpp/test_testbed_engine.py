"""llama.cpp as a rollout engine of the testbed: nothing is lost, and its counters add up to what it handed out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

from profiler.errors import RunError
from profiler.testbed.engine import Finished, Request
from profiler.testbed.llamacpp_engine import LlamaCppEngine
from profiler.testbed.task import PROMPT_TOKENS, problems
from tests.profiler.llamacpp.tiny_engine import settings

RATES = (0.9, 0.6, 0.3)
LENGTHS = (1, 2, 5, 40, 3, 17, 200, 1, 9, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=[0, 3])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[LlamaCppEngine]:
    k: int = request.param
    found = LlamaCppEngine(
        settings(folder, num_slots=3, num_draft_tokens=k, acceptance=RATES[:k] or None, samples_drafts=True)
    )
    yield found
    found.close()


def requests(lengths: tuple[int, ...] = LENGTHS) -> list[Request]:
    prompts = [problem.prompt for problem in problems(len(lengths), 0)]
    return [
        Request(sample, sample // 2, prompt, num_tokens=length)
        for sample, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def run_out(engine: LlamaCppEngine) -> list[Finished]:
    finished = []
    while engine.num_running + engine.num_waiting:
        assert engine.num_running <= 3
        finished += engine.step()
    return finished


def test_every_request_ends_once_with_the_tokens_asked_for(engine: LlamaCppEngine) -> None:
    asked = requests()
    engine.submit(asked)
    assert engine.num_waiting == len(asked)
    finished = sorted(run_out(engine), key=lambda one: one.request.sample_id)
    assert [one.request for one in finished] == asked
    assert [len(one.tokens) for one in finished] == list(LENGTHS)
    assert all(one.versions == (0,) * len(one.tokens) and one.log_probs == () for one in finished)
    assert all(one.started_s < one.finished_s for one in finished)
    assert engine.step() == []


def test_counters_add_up_exactly(engine: LlamaCppEngine) -> None:
    for lengths in (LENGTHS, LENGTHS[:4]):
        engine.submit(requests(lengths))
        finished = run_out(engine)
        found = engine.take_counters()
        assert found.num_tokens == sum(lengths)
        assert found.num_prefills == len(lengths)
        assert found.num_prefill_tokens == PROMPT_TOKENS * len(lengths)
        assert found.num_tokens + found.num_cut_tokens == (
            found.num_prefills + found.num_seq_steps + sum(found.accepted_at)
        )
        assert max(lengths) - 1 - sum(found.accepted_at) <= found.num_steps <= found.num_seq_steps + len(lengths)
        begin_s, end_s = min(one.started_s for one in finished), max(one.finished_s for one in finished)
        assert found.busy_s == pytest.approx(end_s - begin_s, abs=0.02)
    assert engine.take_counters().num_tokens == 0


def test_forced_rates_are_what_is_accepted(folder: Path) -> None:
    engine = LlamaCppEngine(settings(folder, num_draft_tokens=3, acceptance=RATES))
    engine.submit(requests((400,) * 8))
    run_out(engine)
    found = engine.take_counters()
    assert [hits / found.num_seq_steps for hits in found.accepted_at] == pytest.approx(RATES, abs=0.06)
    engine.close()


def test_a_new_version_counts_from_where_nothing_runs(engine: LlamaCppEngine) -> None:
    engine.submit(requests((300,)))
    engine.step()
    if engine.num_running:
        with pytest.raises(RunError, match="came while 1 requests run"):
            engine.set_weights([], 1)
    run_out(engine)
    engine.set_weights([], 1)
    engine.submit(requests((4,)))
    assert run_out(engine)[0].versions == (1, 1, 1, 1)


def test_what_it_cannot_do_is_refused_in_one_line(engine: LlamaCppEngine) -> None:
    prompt = requests()[0].prompt
    with pytest.raises(RunError, match=r"set policy\.in_flight"):
        engine.abort()
    for refused in (
        Request(0, 0, prompt),
        Request(0, 0, prompt, generated=(65,), num_tokens=4),
        Request(0, 0, prompt, num_tokens=10_000),
    ):
        with pytest.raises(ValueError, match=r"sample 0: .*; ") as raised:
            engine.submit([refused])
        assert "\n" not in str(raised.value)
    assert engine.num_waiting == 0
