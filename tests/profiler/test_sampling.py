"""Verification of drafts is lossless, and accepts as much as its paper says."""

import pytest

torch = pytest.importorskip("torch")

from profiler.ops.sampling import VERIFIERS, draw, greedy, probabilities  # noqa: E402

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
