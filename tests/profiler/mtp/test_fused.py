"""The fused overlap is the plain one, gradient included, and holds some rows of logits only."""

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.fused import fused_overlap  # noqa: E402
from profiler.mtp.losses import LOSSES, divergences  # noqa: E402
from tests.profiler.mtp.memory import LiveBytes  # noqa: E402

N, K, V, H = 6, 4, 37, 12
of_overlap = pytest.mark.parametrize("name", ["tv", "e2e_tv", "nla"])


def hidden_states(rows: int, vocab: int, dtype: "torch.dtype") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(rows, K, H, generator=generator, dtype=dtype)
    draft = (target + 0.5 * torch.randn(rows, K, H, generator=generator, dtype=dtype)).requires_grad_()
    return target, draft, torch.randn(vocab, H, generator=generator, dtype=dtype)


@of_overlap
@pytest.mark.parametrize("rows", [1, 5, 7, 1000])
def test_a_loss_of_the_fused_overlap_is_that_of_the_plain_one(name: str, rows: int) -> None:
    target, draft, head = hidden_states(N, V, torch.float64)
    mask = torch.arange(K) < torch.tensor([K, K, 3, 2, 1, K])[:, None]
    plain = LOSSES[name](divergences(target @ head.T, draft @ head.T, None, 0.7), mask)
    fused = LOSSES[name](fused_overlap(target, draft, head, 0.7, rows * V), mask)
    assert fused.item() == pytest.approx(plain.item(), rel=1e-12)
    expected, found = (torch.autograd.grad(loss, draft)[0] for loss in (plain, fused))
    assert torch.allclose(found, expected, atol=1e-13)


def test_a_perfect_draft_has_an_overlap_of_one_and_no_gradient() -> None:
    target, _, head = hidden_states(N, V, torch.float64)
    draft = target.clone().requires_grad_()
    overlap = fused_overlap(target, draft, head).overlap
    assert torch.allclose(overlap, torch.ones_like(overlap))
    # Eq. 11 with q <= p everywhere: q (1 - S), S = 1.
    assert torch.autograd.grad(overlap.sum(), draft)[0].abs().max() < 1e-12


def test_a_loss_that_needs_more_than_the_overlap_is_no_number() -> None:
    target, draft, head = hidden_states(N, V, torch.float32)
    found = fused_overlap(target, draft, head)
    assert all(LOSSES[name](found, None).isnan() for name in ("ce", "kl", "reverse_kl", "lk_hybrid"))


def test_a_trained_lm_head_is_refused() -> None:
    target, draft, head = hidden_states(N, V, torch.float32)
    with pytest.raises(ValueError, match="requires a gradient"):
        fused_overlap(target, draft, head.requires_grad_())


def test_without_a_gradient_only_the_overlap_is_made() -> None:
    target, draft, head = hidden_states(N, V, torch.float32)
    with torch.no_grad():
        found = fused_overlap(target, draft, head).overlap
    assert torch.allclose(found, divergences(target @ head.T, draft @ head.T).overlap, atol=1e-6)


def test_only_some_rows_of_logits_exist_at_once() -> None:
    rows, vocab, at_once = 64, 4096, 8
    target, draft, head = hidden_states(rows, vocab, torch.float32)
    with LiveBytes() as live:
        LOSSES["e2e_tv"](fused_overlap(target, draft, head, 1.0, at_once * vocab), None).backward()
    whole, piece, inputs = 4 * rows * K * vocab, 4 * at_once * vocab, 4 * rows * K * (6 * H + 40)
    assert live.largest <= piece < whole / 16
    assert live.peak <= 5 * piece + inputs < whole / 4
