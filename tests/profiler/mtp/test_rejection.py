"""Verification of drafts is lossless, and accepts as much as its paper says."""

import itertools
from collections.abc import Callable

import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from profiler.mtp import rejection  # noqa: E402
from profiler.mtp.rejection import VERIFIERS, draw, emission, greedy, probabilities, process, propose  # noqa: E402

NUM_SEQUENCES = 200_000
TARGET = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2], [0.25, 0.25, 0.4, 0.1]])
PROPOSAL = torch.tensor([[0.2, 0.5, 0.2, 0.1], [0.3, 0.3, 0.3, 0.1]])


def verified(rule: str, target: "torch.Tensor", proposal: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    torch.manual_seed(0)
    targets = target.expand(NUM_SEQUENCES, -1, -1)
    proposals = proposal.expand(NUM_SEQUENCES, -1, -1)
    drafts = greedy(proposals) if rule == "greedy_draft" else draw(proposals)
    return VERIFIERS[rule](targets, drafts, None if rule == "greedy_draft" else proposals)


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_verified_tokens_are_distributed_as_the_targets_own(rule: str) -> None:
    tokens, accepted = verified(rule, TARGET, PROPOSAL)
    # What is not emitted yet the target samples by itself later.
    later = draw(TARGET.expand(NUM_SEQUENCES, -1, -1))
    emitted = torch.arange(3)[None] <= accepted[:, None]
    sequence = torch.where(emitted, tokens, later)
    index = (sequence * torch.tensor([16, 4, 1])).sum(1)
    found = torch.bincount(index, minlength=64).float() / NUM_SEQUENCES
    expected = torch.einsum("a,b,c->abc", *TARGET).flatten()
    # 64 cells of 200,000 draws: the standard error of a cell is below 0.0008.
    assert (found - expected).abs().max() < 0.004
    assert 0.5 * (found - expected).abs().sum() < 0.012


def test_greedy_drafts_are_accepted_with_the_targets_probability_of_them() -> None:
    _, accepted = verified("greedy_draft", TARGET, PROPOSAL)
    first, second = TARGET[0, 1].item(), TARGET[1, 0].item()
    assert (accepted > 0).float().mean().item() == pytest.approx(first, abs=0.004)
    assert (accepted > 1).float().mean().item() == pytest.approx(first * second, abs=0.004)


def test_rejection_accepts_the_overlap_of_the_two_distributions() -> None:
    _, accepted = verified("rejection", TARGET, PROPOSAL)
    overlap = torch.minimum(TARGET[:2], PROPOSAL).sum(1)
    assert (accepted > 0).float().mean().item() == pytest.approx(overlap[0].item(), abs=0.004)
    assert (accepted > 1).float().mean().item() == pytest.approx(overlap.prod().item(), abs=0.004)


@pytest.mark.parametrize(("rule", "expected"), [("rejection", 10 / 9), ("block", 11 / 9)])
def test_the_example_of_the_block_verification_paper(rule: str, expected: float) -> None:
    target, proposal = torch.tensor([[1 / 3, 2 / 3]]), torch.tensor([[2 / 3, 1 / 3]])
    _, accepted = verified(rule, target.expand(3, -1), proposal.expand(2, -1))
    assert accepted.float().mean().item() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_a_perfect_draft_is_always_accepted(rule: str) -> None:
    certain = torch.eye(4)[:3]
    tokens, accepted = verified(rule, certain, certain[:2])
    assert (accepted == 2).all()
    assert (tokens == torch.arange(3)).all()


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_an_impossible_draft_is_never_accepted(rule: str) -> None:
    tokens, accepted = verified(rule, torch.eye(4)[:3], torch.eye(4)[[3, 3]])
    assert (accepted == 0).all()
    assert (tokens[:, 0] == 0).all()


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.0, 1.0])
    assert probabilities(logits, 0.5)[1] == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item())


Model = Callable[[tuple[int, ...]], "torch.Tensor"]
"""Logits of the token that follows a prefix."""


def random_model(vocab: int, seed: int, spread: float = 1.5) -> Model:
    def logits(prefix: tuple[int, ...]) -> "torch.Tensor":
        generator = torch.Generator().manual_seed(hash((seed, *prefix)) % 2**31)
        return spread * torch.randn(vocab, generator=generator, dtype=torch.float64)

    return logits


def emitted_law(
    rule: str,
    target: Model,
    draft: Model,
    vocab: int,
    k: int,
    temperature: float = 1.0,
    *,
    biased: bool = False,
    **cuts: float,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the exact law of the first k + 1 tokens, [V] * (k + 1), and the mean number of accepted drafts.

    Every chain of drafts and every count of accepted ones is gone through, with the functions that verify for real.
    What is not emitted yet the target samples by itself later. `biased` drafts by argmax and verifies with the full q.
    """
    verify = VERIFIERS[rule]

    def p(prefix: tuple[int, ...]) -> "torch.Tensor":
        return process(target(prefix), temperature, **cuts)  # type: ignore[arg-type]

    law, mean_accepted = torch.zeros((vocab,) * (k + 1), dtype=torch.float64), 0.0
    for chain in itertools.product(range(vocab), repeat=k):
        prefixes = [chain[:i] for i in range(k + 1)]
        q_kV = torch.stack([process(draft(prefix), temperature) for prefix in prefixes[:k]])
        one_hot = torch.nn.functional.one_hot(q_kV.argmax(-1), vocab).double()
        drawn_from = one_hot if biased or not verify.needs_proposal else q_kV
        chance = drawn_from.gather(1, torch.tensor(chain)[:, None]).prod().item()
        if chance == 0:
            continue
        blocks = torch.stack([p(prefix) for prefix in prefixes])[None], torch.tensor(chain)[None]
        proposal = q_kV[None] if verify.needs_proposal else None
        chances = verify.chances(*blocks, proposal)
        for accepted, of_count in enumerate(verify.law(chances.pass_Bk)[0].tolist()):
            mean_accepted += chance * of_count * accepted
            weights = emission(*blocks, proposal, torch.tensor([accepted]), chances.weight_Bj)[0]
            for token, of_token in enumerate((weights / weights.sum()).tolist()):
                if of_count * of_token > 0:
                    prefix = (*chain[:accepted], token)
                    law[prefix] += chance * of_count * of_token * own_law(p, prefix, vocab, k + 1 - len(prefix))
    return law, torch.tensor(mean_accepted)


def own_law(p: Model, prefix: tuple[int, ...], vocab: int, num_more: int) -> "torch.Tensor":
    """Return the target's own law of the next tokens."""
    if num_more == 0:
        return torch.tensor(1.0, dtype=torch.float64)
    return torch.stack([p(prefix)[x] * own_law(p, (*prefix, x), vocab, num_more - 1) for x in range(vocab)])


SETTINGS = [
    {},
    {"temperature": 0.4},
    {"temperature": 1.7},
    {"top_k": 2},
    {"top_p": 0.7},
    {"temperature": 1.3, "top_k": 3, "top_p": 0.8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("vocab", "k"), [(2, 4), (3, 3), (4, 2)])
@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_the_law_of_what_is_emitted_is_exactly_the_targets(
    rule: str, vocab: int, k: int, settings: dict[str, float]
) -> None:
    target, draft = random_model(vocab, 1), random_model(vocab, 2)
    found, _ = emitted_law(rule, target, draft, vocab, k, **settings)  # type: ignore[arg-type]
    cuts = {"temperature": 1.0, **settings}
    expected = own_law(lambda prefix: process(target(prefix), **cuts), (), vocab, k + 1)  # type: ignore[arg-type]
    assert (found - expected).abs().max() < 1e-12
    assert found.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_drafting_by_argmax_and_verifying_with_the_full_q_is_caught(rule: str) -> None:
    target, draft = random_model(3, 1), random_model(3, 2)
    found, _ = emitted_law(rule, target, draft, 3, 2, biased=True)
    expected = own_law(lambda prefix: process(target(prefix)), (), 3, 3)
    assert 0.5 * (found - expected).abs().sum() > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_block_verification_accepts_at_least_as_much_as_token_by_token(seed: int) -> None:
    models = random_model(3, 10 + seed), random_model(3, 20 + seed)
    by_token, by_block = (emitted_law(rule, *models, 3, 3)[1].item() for rule in ("rejection", "block"))
    assert by_token < by_block


def test_mean_accepted_drafts_of_rejection_are_sums_of_overlaps_along_the_drafts() -> None:
    target, draft = random_model(3, 1), random_model(3, 2)
    first = torch.minimum(target(()).softmax(-1), draft(()).softmax(-1))
    second = [torch.minimum(target((x,)).softmax(-1), draft((x,)).softmax(-1)).sum() for x in range(3)]
    expected = first.sum() + sum(first[x] * second[x] for x in range(3))
    assert emitted_law("rejection", target, draft, 3, 2)[1].item() == pytest.approx(expected.item())


LARGE = 5000


def zipf_models() -> "tuple[torch.Tensor, torch.Tensor]":
    """A target and a draft over a large vocabulary, [1, 3, V] and [1, 2, V] logits, alike but not the same."""
    generator = torch.Generator().manual_seed(0)
    rank = torch.arange(1, LARGE + 1).float()
    target = -1.1 * rank.log() + 0.5 * torch.randn(1, 3, LARGE, generator=generator)
    return target, target[:, :2] + 0.7 * torch.randn(1, 2, LARGE, generator=generator)


def chi_square_p_value(counts: "torch.Tensor", expected: "torch.Tensor") -> float:
    """Return the p-value of counts under a law; tokens expected fewer than 20 times are taken together."""
    total = counts.sum()
    often = expected * total >= 20
    found, wanted = (torch.cat((x[often], x[~often].sum()[None])).double() for x in (counts, expected))
    if wanted[-1] == 0:
        assert found[-1] == 0
        found, wanted = found[:-1], wanted[:-1]
    return float(stats.chisquare(found.numpy(), (wanted / wanted.sum() * total).numpy()).pvalue)


def p_values(rule: str, *, biased: bool = False, top_p: float = 1.0) -> list[float]:
    """Return the p-values of the first, second and third token of many steps."""
    torch.manual_seed(1)
    target_logits, draft_logits = zipf_models()
    target, batch = process(target_logits, top_p=top_p), 500
    counts = torch.zeros(3, LARGE)
    targets, logits = target.expand(batch, -1, -1), draft_logits.expand(batch, -1, -1)
    for _ in range(60):
        drafts, proposal = propose(logits, rule, 1.0)
        if biased:
            drafts = greedy(logits)
        tokens, accepted = VERIFIERS[rule](targets, drafts, proposal)
        later = draw(targets)
        sequence = torch.where(torch.arange(3) <= accepted[:, None], tokens, later)
        counts += torch.stack([torch.bincount(column, minlength=LARGE) for column in sequence.T])
    return [chi_square_p_value(*both) for both in zip(counts, target[0], strict=True)]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_a_large_vocabulary_is_sampled_as_the_target_would(rule: str, top_p: float) -> None:
    assert min(p_values(rule, top_p=top_p)) > 1e-3


def test_the_same_test_catches_the_biased_mixture() -> None:
    assert min(p_values("rejection", biased=True)) < 1e-9


@pytest.mark.parametrize("vocab", [4096, 4099, 151936])
def test_drawing_by_search_follows_the_weights(vocab: int) -> None:
    torch.manual_seed(0)
    weights = torch.zeros(20_000 if vocab < 5000 else 500, vocab)
    places = [0, 1, 511, 512, vocab // 2, vocab - 1]
    weights[:, places] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 0.5])
    counts = torch.bincount(draw(weights), minlength=vocab)
    assert counts.sum() == counts[places].sum()
    assert chi_square_p_value(counts, weights[0] / weights[0].sum()) > 1e-3


@pytest.mark.parametrize("vocab", [4096, 4099])
def test_a_token_without_weight_is_never_drawn_at_the_ends_of_the_search(vocab: int) -> None:
    weights = torch.zeros(2, vocab)
    weights[:, [70, 3000]] = torch.tensor([0.1, 0.2])
    ends = torch.tensor([[0.0], [1.0 - 2**-53]], dtype=torch.float64)
    assert rejection._search(weights, ends).tolist() == [70, 3000]


@pytest.mark.parametrize("vocab", [8, 5000])
@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_a_rejection_that_rounding_leaves_nothing_for_emits_a_token_of_the_target(rule: str, vocab: int) -> None:
    target, proposal = torch.zeros(1, 2, vocab), torch.zeros(1, 1, vocab)
    target[..., 5], proposal[..., 5] = 1.0 - 1e-7, 1.0
    accepted = torch.zeros(1, dtype=torch.long)
    needs = VERIFIERS[rule].needs_proposal
    weights = emission(target, torch.tensor([[5]]), proposal if needs else None, accepted)
    assert draw(weights).tolist() == [5]


@pytest.mark.parametrize("rest", [1e-3, 1e-9, 1e-20])
def test_chances_of_block_verification_are_chances_also_where_p_and_q_nearly_agree(rest: float) -> None:
    target = torch.tensor([[[1.0, 0.0, 0.0], [1.0, rest, 0.0], [1.0, 0.0, 0.0]]])
    proposal = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, rest]]])
    chances = VERIFIERS["block"].chances(target, torch.tensor([[0, 0]]), proposal)
    assert chances.pass_Bk.tolist() == [[1.0, 1.0]]
    law = VERIFIERS["block"].law(chances.pass_Bk)
    assert law.sum().item() == pytest.approx(1.0)


def test_a_rule_without_its_proposal_says_so() -> None:
    with pytest.raises(ValueError, match="proposal: missing"):
        VERIFIERS["rejection"](TARGET[None], torch.tensor([[0, 0]]))


def test_a_target_is_cut_as_engines_cut_it() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert process(logits, top_k=2).tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert process(logits, top_p=0.69).tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert process(logits, top_p=0.71).tolist() == pytest.approx([4 / 9, 3 / 9, 2 / 9, 0])
    assert process(logits, top_p=1e-9).tolist() == [1, 0, 0, 0]
    assert process(logits, top_k=3, top_p=0.5).tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert process(logits, temperature=0).tolist() == [1, 0, 0, 0]


def test_top_k_keeps_ties() -> None:
    assert process(torch.zeros(4), top_k=2).tolist() == [0.25] * 4


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_settings_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="correct them"):
        process(torch.zeros(4), **wrong)  # type: ignore[arg-type]


def test_drafts_are_warmed_but_not_cut() -> None:
    logits = torch.tensor([[[0.0, 1.0, -2.0]]])
    drafts, proposal = propose(logits, "rejection", 0.5)
    assert proposal is not None
    assert torch.allclose(proposal, (2 * logits).softmax(-1))
    assert propose(logits, "greedy_draft", 0.5) == (torch.tensor([[1]]), None)
    assert drafts.shape == (1, 1)
