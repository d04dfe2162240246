"""Heads are trained on what they will see when they draft."""

import pytest

torch = pytest.importorskip("torch")

from profiler.models.decoder import Decoder, build_decoder  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.step import Step  # noqa: E402
from profiler.models.weights import WeightMaker  # noqa: E402
from profiler.mtp.heads import DraftCache, Head, head_of, new_head, shifted_ahead, step_mask, unroll  # noqa: E402
from profiler.mtp.ragged import generate, new_caches, placed_forward  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from tests.profiler.shapes import DENSE  # noqa: E402

BATCH, LENGTH, STEPS = 2, 9, 4


def small_decoder(**changes: bool) -> Decoder:
    return build_decoder(
        slice_rank(shapes.small("trainable", **changes)), WeightMaker.seeded(torch.device("cpu"), "fp32")
    )


def tokens_of(decoder: Decoder, length: int = LENGTH) -> "torch.Tensor":
    return decoder.maker.tokens(BATCH, length, below=DENSE.vocab_size)


@pytest.mark.parametrize("output_gate", [False, True])
def test_a_pass_at_any_positions_is_the_profilers_pass(output_gate: bool) -> None:
    decoder = small_decoder(output_gate=output_gate)
    tokens = tokens_of(decoder)
    expected = decoder.forward(tokens, None, Step(0, LENGTH))
    caches = new_caches(decoder, BATCH, LENGTH)
    # One sequence reads four tokens first, the other six; then the rest, in two more passes with overlap.
    found = torch.full_like(expected, torch.nan)
    for starts, num in (((0, 0), 4), ((4, 2), 4), ((5, 5), 4)):
        positions = torch.tensor(starts)[:, None] + torch.arange(num)
        hidden = placed_forward(decoder, tokens.gather(1, positions), positions, caches)
        found[torch.arange(BATCH)[:, None], positions] = hidden
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_first_step_is_the_profilers_mtp_head() -> None:
    decoder = small_decoder()
    tokens = tokens_of(decoder)
    hidden = decoder.forward(tokens, None, Step(0, LENGTH))
    expected = decoder.draft(hidden[:, :-1], tokens[:, 1:], None, Step(0, LENGTH - 1))
    found = unroll(head_of(decoder), hidden, tokens, 1)[:, :-1, 0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_unrolled_chains_compute_what_drafting_with_a_cache_computes() -> None:
    decoder = small_decoder()
    head, tokens = head_of(decoder), tokens_of(decoder)
    hidden = decoder.forward(tokens, None, Step(0, LENGTH))
    unrolled = unroll(head, hidden, tokens, STEPS)
    for start in range(LENGTH - STEPS):
        drafts = DraftCache.empty(head, BATCH, LENGTH + STEPS)
        places = torch.arange(start + 1).expand(BATCH, -1)
        state = drafts.pass_of(hidden[:, : start + 1], tokens[:, 1 : start + 2], places)[:, -1:]
        for step in range(1, STEPS + 1):
            if step > 1:
                place = torch.full((BATCH, 1), start + step - 1)
                state = drafts.pass_of(state, tokens[:, start + step, None], place)
            assert torch.allclose(state[:, 0], unrolled[:, start, step - 1], atol=1e-5)


def test_a_chain_does_not_see_the_tokens_it_is_to_predict() -> None:
    decoder = small_decoder()
    head, tokens = head_of(decoder), tokens_of(decoder)
    hidden = decoder.forward(tokens, None, Step(0, LENGTH))
    before = unroll(head, hidden, tokens, STEPS)
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % DENSE.vocab_size
    after = unroll(head, decoder.forward(changed, None, Step(0, LENGTH)), changed, STEPS)
    differs = (before != after).any(-1).any(0)
    for chain in range(LENGTH):
        for step in range(1, STEPS + 1):
            if chain + step < 5:
                assert not differs[chain, step - 1]
            elif chain + step == 5:  # the token is its newest input
                assert differs[chain, step - 1]


def test_gradients_reach_the_head_and_nothing_of_the_target() -> None:
    decoder = small_decoder()
    tokens = tokens_of(decoder)
    decoder.embedding_VH.requires_grad_()
    decoder.head_VH.requires_grad_()
    hidden = decoder.forward(tokens, None, Step(0, LENGTH))
    head = head_of(decoder)
    for weight in head.parameters():
        weight.requires_grad_()
    head.logits(unroll(head, hidden.detach(), tokens, STEPS)).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in head.parameters())
    assert decoder.embedding_VH.grad is None
    assert decoder.head_VH.grad is None


def test_a_step_counts_where_the_token_it_predicts_does() -> None:
    counts = torch.tensor([[False, False, False, True, True, True, False]])
    mask = step_mask(counts, 3)[0]
    # A chain at t predicts t + 2, t + 3, t + 4.
    assert mask[1].tolist() == [True, True, True]
    assert mask[0].tolist() == [False, True, True]
    assert mask[3].tolist() == [True, False, False]
    assert mask[5].tolist() == [False, False, False]


def test_looking_ahead_finds_what_a_step_is_held_against() -> None:
    found = shifted_ahead(torch.arange(6)[None], 3, 1)[0]
    assert found[0].tolist() == [1, 2, 3]
    assert found[4].tolist() == [5, 5, 5]


def test_a_head_for_any_target_has_its_own_weights_only() -> None:
    embedding, lm_head = torch.randn(160, 64), torch.randn(160, 64)
    head = new_head(DENSE, embedding, lm_head)
    assert isinstance(head, Head)
    assert head.lm_head_VH.data_ptr() == lm_head.data_ptr()
    assert all(weight.data_ptr() not in (embedding.data_ptr(), lm_head.data_ptr()) for weight in head.parameters())
    with pytest.raises(ValueError, match="the head has 64"):
        new_head(DENSE, torch.randn(160, 32), torch.randn(160, 32))


def test_generated_tokens_follow_the_targets_distribution() -> None:
    decoder = small_decoder()
    torch.manual_seed(0)
    prompt = tokens_of(decoder, 3)[:1]
    tokens = generate(decoder, prompt.expand(4000, -1), 2, temperature=0.3)
    assert (tokens[:, :3] == prompt).all()
    first = (decoder.logits(decoder.forward(prompt, None, Step(0, 3))[:, -1]) / 0.3).softmax(-1)[0]
    found = torch.bincount(tokens[:, 3], minlength=DENSE.vocab_size) / 4000
    assert 0.5 * (found - first).abs().sum() < 0.05
    # The second token, given the likeliest first one.
    likeliest = first.argmax()
    chosen = tokens[tokens[:, 3] == likeliest]
    context = torch.cat((prompt[0], likeliest[None]))[None]
    second = (decoder.logits(decoder.forward(context, None, Step(0, 4))[:, -1]) / 0.3).softmax(-1)[0]
    found = torch.bincount(chosen[:, 4], minlength=DENSE.vocab_size) / len(chosen)
    assert 0.5 * (found - second).abs().sum() < 3 * (DENSE.vocab_size / len(chosen)) ** 0.5
