"""Fused divergences are the plain ones, gradients included, and hold some rows of logits only."""

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.fused import MAX_ARRAYS, NAMES, fused_divergences  # noqa: E402
from profiler.mtp.losses import LOSSES, READS, divergences  # noqa: E402
from tests.profiler.mtp.memory import LiveBytes  # noqa: E402

N, K, V, H = 6, 4, 37, 12
by_loss = pytest.mark.parametrize("name", list(LOSSES))


def hidden_states(rows: int, vocab: int, dtype: "torch.dtype") -> "tuple[torch.Tensor, ...]":
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(rows, K, H, generator=generator, dtype=dtype)
    draft = (target + 0.5 * torch.randn(rows, K, H, generator=generator, dtype=dtype)).requires_grad_()
    head = torch.randn(vocab, H, generator=generator, dtype=dtype)
    return target, draft, head, torch.randint(vocab, (rows, K), generator=generator)


@by_loss
@pytest.mark.parametrize("rows", [1, 5, 7, 1000])
def test_a_fused_loss_is_the_plain_one(name: str, rows: int) -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float64)
    mask = torch.arange(K) < torch.tensor([K, K, 3, 2, 1, K])[:, None]
    plain = LOSSES[name](divergences(target @ head.T, draft @ head.T, labels, 0.7), mask)
    fused = LOSSES[name](fused_divergences(target, draft, head, labels, READS[name], 0.7, rows * V), mask)
    assert fused.item() == pytest.approx(plain.item(), rel=1e-12)
    expected, found = (torch.autograd.grad(loss, draft)[0] for loss in (plain, fused))
    assert torch.allclose(found, expected, atol=1e-13)


def test_all_divergences_at_once_are_those_one_by_one() -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float64)
    whole = fused_divergences(target, draft, head, labels, NAMES)
    plain = divergences(target @ head.T, draft @ head.T, labels)
    for name in NAMES:
        both = [getattr(found, name) for found in (whole, plain)]
        assert torch.allclose(*both, atol=1e-13)
        gradients = [torch.autograd.grad(one.square().sum(), draft, retain_graph=True)[0] for one in both]
        assert torch.allclose(*gradients, atol=1e-12)


def test_where_the_target_is_certain_single_precision_makes_no_infinity() -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float32)
    found = fused_divergences(200 * target, draft, head, labels, NAMES)
    plain = divergences(200 * target @ head.T, draft @ head.T, labels)
    for name in NAMES:
        assert torch.allclose(getattr(found, name), getattr(plain, name), rtol=1e-4, atol=1e-4), name


def test_a_perfect_draft_has_an_overlap_of_one_and_no_gradient() -> None:
    target, _, head, labels = hidden_states(N, V, torch.float64)
    draft = target.clone().requires_grad_()
    overlap = fused_divergences(target, draft, head, labels, ["overlap"]).overlap
    assert torch.allclose(overlap, torch.ones_like(overlap))
    # Eq. 11 with q <= p everywhere: q (1 - S), S = 1.
    assert torch.autograd.grad(overlap.sum(), draft)[0].abs().max() < 1e-12


@by_loss
def test_a_loss_reads_what_it_says_and_is_no_number_without_it(name: str) -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float32)
    for left_out in READS[name]:
        found = fused_divergences(target, draft, head, labels, [one for one in NAMES if one != left_out])
        assert LOSSES[name](found, None).isnan()


def test_a_trained_lm_head_is_refused() -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float32)
    with pytest.raises(ValueError, match="requires a gradient"):
        fused_divergences(target, draft, head.requires_grad_(), labels, ["overlap"])


@pytest.mark.parametrize("wanted", [[], ["overlaps"], ["kl", "tv"]])
def test_what_is_no_divergence_is_refused(wanted: list[str]) -> None:
    with pytest.raises(ValueError, match="are not one or more of cross_entropy, kl, reverse_kl, overlap; correct them"):
        fused_divergences(*hidden_states(N, V, torch.float32), wanted)


def test_without_a_gradient_only_values_are_made() -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float32)
    with torch.no_grad():
        found = fused_divergences(target, draft, head, labels, ["overlap"]).overlap
    assert torch.allclose(found, divergences(target @ head.T, draft @ head.T).overlap, atol=1e-6)


@by_loss
def test_only_some_rows_of_logits_exist_at_once(name: str) -> None:
    rows, vocab, at_once = 64, 4096, 8
    target, draft, head, labels = hidden_states(rows, vocab, torch.float32)
    with LiveBytes() as live:
        LOSSES[name](fused_divergences(target, draft, head, labels, READS[name], 1.0, at_once * vocab), None).backward()
    whole, piece, inputs = 4 * rows * K * vocab, 4 * at_once * vocab, 4 * rows * K * (8 * H + 40)
    assert live.largest <= piece < whole / 16
    assert live.peak <= MAX_ARRAYS * piece + inputs < whole / 4
