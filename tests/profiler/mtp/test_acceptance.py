"""Speculation leaves the target's distribution alone, and counts what the probabilities say."""

import pytest

torch = pytest.importorskip("torch")

from profiler.models.step import Step  # noqa: E402
from profiler.mtp.acceptance import (  # noqa: E402
    entropy_bins,
    of_own_tokens,
    place_bins,
    row,
    summarise,
)
from profiler.mtp.heads import unroll  # noqa: E402
from profiler.mtp.rejection import VERIFIERS  # noqa: E402
from profiler.mtp.speculate import Steps, speculate  # noqa: E402
from tests.profiler.mtp.small import PROMPT, prompts, trained  # noqa: E402

by_rule = pytest.mark.parametrize("rule", list(VERIFIERS))
NUM_TOKENS = 40


@by_rule
def test_speculation_samples_from_the_target(rule: str) -> None:
    decoder, head, _ = trained()
    torch.manual_seed(2)
    prompt = prompts(1, seed=4)
    tokens, _ = speculate(decoder, head, prompt.expand(4000, -1), 3, verify_rule=rule, temperature=0.7)
    # The second and third token behind the prompt come out of a verify step; the first does not.
    first = tokens[:, PROMPT].mode().values
    chosen = tokens[tokens[:, PROMPT] == first]
    context = torch.cat((prompt[0], first[None]))[None]
    expected = (decoder.logits(decoder.forward(context, None, Step(0, PROMPT + 1))[:, -1]) / 0.7).softmax(-1)[0]
    found = torch.bincount(chosen[:, PROMPT + 1], minlength=len(expected)) / len(chosen)
    error = (expected * (1 - expected) / len(chosen)).sqrt()
    assert len(chosen) > 400
    assert ((found - expected).abs() <= 4.5 * error + 1 / len(chosen)).all()


@by_rule
def test_what_a_step_saw_is_what_a_pass_over_the_final_text_sees(rule: str) -> None:
    decoder, head, _ = trained()
    torch.manual_seed(3)
    tokens, steps = speculate(decoder, head, prompts(6), NUM_TOKENS, verify_rule=rule)
    hidden = decoder.forward(tokens, None, Step(0, tokens.shape[1]))
    p = decoder.logits(hidden).softmax(-1)
    q = head.logits(unroll(head, hidden, tokens, 1)[:, :, 0]).softmax(-1)
    entropy, overlap = torch.special.entr(p).sum(-1), torch.minimum(p[:, 1:], q[:, :-1]).sum(-1)
    live = steps.live_SB
    place, sequence = steps.place_SB[live], torch.arange(6).expand_as(live)[live]
    assert torch.allclose(steps.entropy_SBk[live][:, 0], entropy[sequence, place - 1], atol=1e-4)
    if rule != "greedy_draft":
        assert torch.allclose(steps.chance_SBk[live][:, 0], overlap[sequence, place - 2], atol=1e-4)


@by_rule
@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.4])
def test_counts_agree_with_the_analytic_acceptance(rule: str, temperature: float) -> None:
    decoder, head, _ = trained()
    torch.manual_seed(4)
    _, steps = speculate(decoder, head, prompts(128), NUM_TOKENS, verify_rule=rule, temperature=temperature)
    found = summarise(steps, steps.live_SB, rule)
    assert found.num_steps > 1000
    assert found.agrees, found
    assert found.accept_length == pytest.approx(1 + sum(found.cumulative))
    assert all(abs(c - a) < 0.05 for c, a in zip(found.cumulative, found.analytic, strict=True))


def test_steps_advance_by_what_they_accept_and_one() -> None:
    decoder, head, _ = trained()
    _, steps = speculate(decoder, head, prompts(6), NUM_TOKENS)
    advance = torch.where(steps.live_SB, steps.accepted_SB + 1, 0)
    assert torch.equal(steps.place_SB[1:] - steps.place_SB[:-1], advance[:-1])
    assert (steps.place_SB[0] == PROMPT + 1).all()
    assert ((steps.place_SB + advance)[-1] >= PROMPT + NUM_TOKENS).all()


def test_a_low_temperature_suits_greedy_drafts_and_a_high_one_does_not() -> None:
    decoder, head, _ = trained()
    lengths = {}
    for rule in ("greedy_draft", "rejection"):
        for temperature in (0.1, 1.4):
            torch.manual_seed(5)
            _, steps = speculate(decoder, head, prompts(64), NUM_TOKENS, verify_rule=rule, temperature=temperature)
            lengths[rule, temperature] = summarise(steps, steps.live_SB, rule).accept_length
    loss_of_greedy = lengths["greedy_draft", 0.1] - lengths["greedy_draft", 1.4]
    assert loss_of_greedy > lengths["rejection", 0.1] - lengths["rejection", 1.4]


def made_up(chances: float, accepted: "torch.Tensor") -> Steps:
    shape = (*accepted.shape, 2)
    flat = torch.full(shape, chances)
    place = 2 * torch.arange(accepted.shape[0])[:, None].expand(accepted.shape)
    live = torch.ones_like(accepted, dtype=torch.bool)
    entropy = torch.arange(accepted.numel()).float().reshape(accepted.shape)[..., None].expand(shape)
    return Steps(place, live, accepted, flat, flat.cumprod(-1), entropy, flat)


def test_counts_that_the_probabilities_cannot_explain_do_not_agree() -> None:
    accepted = torch.full((20, 10), 2)
    assert not summarise(made_up(0.8, accepted), torch.ones(20, 10, dtype=torch.bool), "rejection").agrees
    assert summarise(made_up(1.0, accepted), torch.ones(20, 10, dtype=torch.bool), "rejection").agrees


def test_a_summary_counts_by_hand() -> None:
    accepted = torch.tensor([[0, 2], [1, 2]])
    found = summarise(made_up(0.5, accepted), torch.tensor([[True, True], [True, False]]), "rejection")
    assert found.cumulative == pytest.approx((2 / 3, 1 / 3))
    assert found.analytic == pytest.approx((0.5, 0.25))
    assert found.accept_length == pytest.approx(2.0)
    assert found.rate == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no verify step counts"):
        summarise(made_up(0.5, accepted), torch.zeros(2, 2, dtype=torch.bool), "rejection")


def test_bins_hold_every_step_once() -> None:
    steps = made_up(0.5, torch.randint(0, 3, (12, 5)))
    counts = torch.rand(12, 5) < 0.8
    for bins in (list(entropy_bins(steps, counts, 4)), [chosen for _, chosen in place_bins(steps, counts, (0, 6, 14))]):
        assert torch.equal(torch.stack(bins).sum(0), counts.long())
    sizes = [int(chosen.sum()) for chosen in entropy_bins(steps, counts, 4)]
    assert max(sizes) - min(sizes) <= 1


def test_steps_count_where_the_policy_writes() -> None:
    steps = made_up(0.5, torch.zeros(3, 2, dtype=torch.long))
    own = torch.tensor([[True, True, True, True, True], [True, True, False, True, True]])
    assert of_own_tokens(steps, own).tolist() == [[True, True], [True, False], [True, True]]


def test_a_row_says_what_was_counted() -> None:
    found = summarise(made_up(0.5, torch.tensor([[0, 2], [1, 2]])), torch.ones(2, 2, dtype=torch.bool), "rejection")
    made = row(found, loss="ce", verify_rule="rejection", temperature=0.7, task="math", with_entropy=False)
    assert made.cumulative == (0.75, 0.5)
    assert (made.num_steps, made.entropy_nats, made.origin.value) == (4, None, "measured")
