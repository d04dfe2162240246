"""Laws of the testbed's engine: it samples what the policy says, whatever else runs, and counts what it did."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from profiler.models.decoder import Decoder, build_decoder
from profiler.models.rank import slice_rank
from profiler.models.step import Step
from profiler.models.weights import WeightMaker
from profiler.mtp.heads import head_of
from profiler.mtp.ragged import generate, grouped
from profiler.mtp.rejection import VERIFIERS
from profiler.mtp.units import dense_shape
from profiler.testbed.engine import Counters, Finished, Request
from profiler.testbed.prepared import weights_of
from profiler.testbed.torch_engine import Sampling, TorchEngine

NEVER = -1
"""An end token that no policy writes."""
ROOM = 24
PROMPT = 6


def decoder_of(seed: int = 0, vocab_size: int = 128) -> Decoder:
    shape = dense_shape("tiny", 64, 2).model_copy(update={"vocab_size": vocab_size})
    return build_decoder(slice_rank(shape), WeightMaker.seeded(torch.device("cpu"), "fp32", seed))


def engine_of(
    decoder: Decoder,
    k: int,
    *,
    slots: int = 4,
    temperature: float = 1.0,
    end: int = NEVER,
    rule: str = "rejection",
) -> TorchEngine:
    return TorchEngine(decoder, head_of(decoder), Sampling(k, rule, temperature, end, ROOM), slots, PROMPT)


def requests_of(num: int, tokens: Sequence[int | None] = (12,), seed: int = 1) -> list[Request]:
    made = torch.Generator().manual_seed(seed)
    prompts = torch.randint(120, (num, PROMPT), generator=made)
    return [Request(i, i, tuple(row.tolist()), num_tokens=tokens[i % len(tokens)]) for i, row in enumerate(prompts)]


def run(engine: TorchEngine, requests: Sequence[Request] = (), most_steps: int = 10_000) -> dict[int, Finished]:
    engine.submit(requests)
    finished: dict[int, Finished] = {}
    for _ in range(most_steps):
        if engine.num_running + engine.num_waiting == 0:
            break
        for one in engine.step():
            assert one.request.sample_id not in finished
            finished[one.request.sample_id] = one
    return finished


def log_probs_of(decoder: Decoder, prompt: tuple[int, ...], tokens: tuple[int, ...], temperature: float) -> Tensor:
    """What the whole model says of a response, read at once without any cache."""
    text = torch.tensor([prompt + tokens])
    with torch.no_grad():
        logits = decoder.logits(decoder.forward(text[:, :-1], None, Step(0, text.shape[1] - 1)))[0, len(prompt) - 1 :]
    chances = (logits / temperature).log_softmax(-1)
    return chances.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def check_counts(counters: Counters) -> None:
    made = counters.num_prefills + counters.num_seq_steps + sum(counters.accepted_at)
    assert counters.num_tokens + counters.num_cut_tokens == made
    assert counters.accepted_at == sorted(counters.accepted_at, reverse=True)
    assert all(hits <= counters.num_seq_steps for hits in counters.accepted_at)
    assert counters.num_draft_tokens == len(counters.accepted_at) * counters.num_seq_steps
    assert 0 <= counters.prefill_s <= counters.busy_s


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_cold_engine_writes_what_plain_generation_writes(k: int) -> None:
    decoder, requests = decoder_of(), requests_of(7)
    found = run(engine_of(decoder, k, temperature=1e-4), requests)
    plain = generate(decoder, torch.tensor([r.prompt for r in requests]), 12, temperature=0)[:, PROMPT:]
    assert [found[i].tokens for i in range(7)] == [tuple(row.tolist()) for row in plain]


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probs_are_those_of_the_whole_model_however_busy_the_engine_is(k: int, temperature: float) -> None:
    torch.manual_seed(2)
    decoder, requests = decoder_of(), requests_of(11, (3, 24, 9, 1, 17))
    for one in run(engine_of(decoder, k, temperature=temperature), requests).values():
        wanted = log_probs_of(decoder, one.request.prompt, one.tokens, temperature)
        assert torch.allclose(torch.tensor(one.log_probs), wanted, atol=2e-4)
        assert len(one.tokens) == one.request.num_tokens == len(one.versions)


def test_a_sequence_does_not_notice_others_that_come_and_go() -> None:
    decoder, requests = decoder_of(), requests_of(9, (3, 12, 5, 24))
    alone = {r.sample_id: run(engine_of(decoder, 2, temperature=1e-4), [r])[r.sample_id] for r in requests}
    busy = run(engine_of(decoder, 2, temperature=1e-4, slots=3), requests)
    for number, one in busy.items():
        assert one.tokens == alone[number].tokens
        assert one.log_probs == pytest.approx(alone[number].log_probs, abs=1e-3)


@pytest.mark.parametrize("rule", sorted(VERIFIERS))
def test_drafts_do_not_change_what_is_sampled(rule: str) -> None:
    """Pairs of tokens behind one prompt, against the product of what the model says: a chi-square test."""
    torch.manual_seed(3)
    decoder, num = decoder_of(vocab_size=4), 3000
    prompt = (0, 1, 2, 3, 1, 0)
    asked = [Request(i, 0, prompt, num_tokens=3) for i in range(num)]
    found = run(engine_of(decoder, 3, slots=500, rule=rule), asked)
    counts = torch.zeros(4, 4, 4)
    for one in found.values():
        counts[one.tokens] += 1
    every = [(a, b, c) for a in range(4) for b in range(4) for c in range(4)]
    wanted = torch.stack([log_probs_of(decoder, prompt, one, 1.0).sum().exp() for one in every]).view(4, 4, 4)
    assert float(wanted.sum()) == pytest.approx(1.0, abs=1e-4)
    chi_square = float(((counts - num * wanted) ** 2 / (num * wanted)).sum())
    assert chi_square < 63 + 4 * math.sqrt(2 * 63)


@pytest.mark.parametrize("k", [0, 3])
def test_counters_add_up_at_every_step(k: int) -> None:
    torch.manual_seed(4)
    engine = engine_of(decoder_of(), k, slots=3, end=7)
    engine.submit(requests_of(12, (None, 5, 14)))
    kept, total = 0, Counters(accepted_at=[0] * k)
    while engine.num_running + engine.num_waiting:
        finished = engine.step()
        kept += sum(len(one.tokens) for one in finished)
        counters = engine.take_counters()
        check_counts(counters)
        total.num_tokens += counters.num_tokens
        total.num_prefills += counters.num_prefills
    assert (total.num_tokens, total.num_prefills) == (kept, 12)


@pytest.mark.parametrize("k", [0, 3])
def test_a_response_ends_at_its_first_end_token_or_where_there_is_no_more_room(k: int) -> None:
    torch.manual_seed(5)
    decoder = decoder_of(vocab_size=8)
    requests = [replace(r, prompt=tuple(t % 8 for t in r.prompt)) for r in requests_of(60, (None, None, 10))]
    found = run(engine_of(decoder, k, slots=20, end=3), requests)
    lengths = set()
    for one in found.values():
        if one.request.num_tokens is not None:  # an imposed length holds, whatever is written
            assert len(one.tokens) == one.request.num_tokens
            continue
        assert 3 not in one.tokens[:-1]
        assert one.tokens[-1] == 3 or len(one.tokens) == ROOM
        lengths.add(len(one.tokens))
    assert len(lengths) > 5


@pytest.mark.parametrize("k", [0, 2])
def test_an_aborted_response_goes_on_with_what_it_had(k: int) -> None:
    decoder, requests = decoder_of(), requests_of(6, (24, 10, 15))
    whole = run(engine_of(decoder, k, temperature=1e-4), requests)
    engine = engine_of(decoder, k, temperature=1e-4)
    done = run(engine, requests, most_steps=4)
    left = engine.abort()
    assert (engine.num_running, engine.num_waiting) == (0, 0)
    assert [r.sample_id for r in left] == sorted(set(range(6)) - set(done))
    assert left[0].generated
    assert len(left[0].versions) == len(left[0].log_probs) == len(left[0].generated)
    engine.set_weights([w.clone() for w in weights_of(decoder, head_of(decoder))], version=1)
    done |= run(engine, left)
    for number, one in done.items():
        assert one.tokens == whole[number].tokens
        assert one.log_probs == pytest.approx(whole[number].log_probs, abs=1e-3)
    had = {r.sample_id: len(r.generated) for r in left}
    for number, one in done.items():
        from_before = had.get(number, len(one.tokens))
        assert one.versions == (0,) * from_before + (1,) * (len(one.tokens) - from_before)
    check_counts(engine.take_counters())


def test_new_weights_in_place_change_what_running_sequences_sample() -> None:
    first, second = decoder_of(0), decoder_of(1)
    engine = engine_of(first, 2, temperature=1e-4)
    engine.submit(requests_of(3, (24,)))
    for _ in range(4):
        engine.step()
    engine.set_weights(weights_of(second, head_of(second)), version=5)
    found = run(engine)
    for one in found.values():
        assert set(one.versions) == {0, 5}
        assert list(one.versions) == sorted(one.versions)
    fresh = run(engine, requests_of(3, (12,), seed=9))
    wanted = run(engine_of(decoder_of(1), 0, temperature=1e-4), requests_of(3, (12,), seed=9))
    # Embedding and lm_head are no part of a sync: give the reference those of the first policy.
    mixed = decoder_of(1)
    mixed.embedding_VH, mixed.head_VH = first.embedding_VH, first.head_VH
    wanted = run(engine_of(mixed, 0, temperature=1e-4), requests_of(3, (12,), seed=9))
    assert {i: one.tokens for i, one in fresh.items()} == {i: one.tokens for i, one in wanted.items()}


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_drafts_from_the_policys_own_distribution_are_all_accepted(rule: str) -> None:
    """Layers that add nothing leave the embedding; a head that reads only the embedding is then the policy itself."""
    decoder = decoder_of()
    for layer in (*decoder.layers, decoder.mtp.layer):
        grouped(layer).out.zero_()
        layer.ffn.down.zero_()
    decoder.mtp.project.copy_(torch.cat((torch.zeros(64, 64), torch.eye(64)), dim=1))
    engine = engine_of(decoder, 3, rule=rule)
    run(engine, requests_of(8))
    counters = engine.take_counters()
    assert counters.accept_length > 3.99  # rounding alone rejects
    assert counters.num_steps == pytest.approx(math.ceil(11 / 4) * 2, abs=2)


def test_requests_that_no_slot_can_hold_are_refused() -> None:
    engine = engine_of(decoder_of(), 0)
    with pytest.raises(ValueError, match=r"a prompt of 7 tokens, slots hold 1\.\.6"):
        engine.submit([Request(0, 0, (1,) * 7)])
    with pytest.raises(ValueError, match="responses have up to 24"):
        engine.submit([Request(0, 0, (1,), num_tokens=25)])
    with pytest.raises(ValueError, match="submit what is not finished"):
        engine.submit([Request(0, 0, (1,), generated=(1, 2), versions=(0, 0), log_probs=(0.0, 0.0), num_tokens=2)])
    assert engine.step() == []
