"""Losses equal the published formulas, and their gradients the closed forms."""

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.chunked import MAX_PIECES, chunked_divergences  # noqa: E402
from profiler.mtp.losses import LOSSES, Divergences, divergences  # noqa: E402
from tests.profiler.mtp.memory import LiveBytes  # noqa: E402

N, K, V, H = 6, 4, 37, 12
by_loss = pytest.mark.parametrize("name", list(LOSSES))


def random_logits(seed: int = 0) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    generator = torch.Generator().manual_seed(seed)
    target = 2 * torch.randn(N, K, V, dtype=torch.float64, generator=generator)
    draft = 2 * torch.randn(N, K, V, dtype=torch.float64, generator=generator)
    return target, draft.requires_grad_(), torch.randint(V, (N, K), generator=generator)


def published(name: str, z_p: "torch.Tensor", z_q: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """The formulas of the papers, a token at a time and with no trick."""
    p, q = z_p.exp() / z_p.exp().sum(-1, keepdim=True), z_q.exp() / z_q.exp().sum(-1, keepdim=True)
    total_variation = 0.5 * (p - q).abs().sum(-1)
    if name == "ce":
        return torch.nn.functional.cross_entropy(z_q.reshape(-1, V), labels.reshape(-1))
    if name == "kl":
        return (p * (p / q).log()).sum(-1).mean()
    if name == "reverse_kl":
        return (q * (q / p).log()).sum(-1).mean()
    if name == "tv":
        return total_variation.mean()
    if name == "nla":
        return -(1 - total_variation).log().mean()
    if name == "lk_hybrid":
        weight = torch.exp(-3 * (1 - total_variation)).detach()
        return (weight * (p * (p / q).log()).sum(-1) + (1 - weight) * total_variation).mean()
    accepted = 0.0
    for j in range(K):
        product = 1.0
        for i in range(j + 1):
            product = product * (1 - total_variation[:, i])
        accepted = accepted + product
    return (1 - accepted / K).mean()


@by_loss
def test_a_loss_is_its_published_formula(name: str) -> None:
    target, draft, labels = random_logits()
    found = LOSSES[name](divergences(target, draft, labels), None)
    assert found.item() == pytest.approx(published(name, target, draft, labels).item(), rel=1e-12)


@by_loss
def test_gradients_agree_with_finite_differences(name: str) -> None:
    target, draft, labels = random_logits(1)
    frozen = divergences(target, draft, labels).overlap.detach()

    def loss(logits: "torch.Tensor") -> "torch.Tensor":
        d = divergences(target, logits, labels)
        if name == "lk_hybrid":  # its weight is not differentiated: hold it where it is
            weight = torch.exp(-3 * frozen)
            return (weight * d.kl + (1 - weight) * (1 - d.overlap)).mean()
        return LOSSES[name](d, None)

    assert torch.autograd.gradcheck(loss, (draft,), eps=1e-7, atol=1e-7)
    analytic = torch.autograd.grad(LOSSES[name](divergences(target, draft, labels), None), draft)[0]
    assert torch.allclose(analytic, torch.autograd.grad(loss(draft), draft)[0], atol=1e-14)


def closed_form(name: str, z_p: "torch.Tensor", z_q: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Gradients of one position and step, as engines.md and eq. 11 write them."""
    p, q = z_p.softmax(-1), z_q.softmax(-1)
    if name == "ce":
        return q - torch.nn.functional.one_hot(labels, V)
    if name == "kl":
        return q - p
    if name == "reverse_kl":
        return q * ((q / p).log() - (q * (q / p).log()).sum(-1, keepdim=True))
    covered = (q <= p).double()
    return -q * (covered - (covered * q).sum(-1, keepdim=True))


@pytest.mark.parametrize("name", ["ce", "kl", "reverse_kl", "tv"])
def test_gradients_are_the_closed_forms(name: str) -> None:
    target, draft, labels = random_logits(2)
    found = torch.autograd.grad(LOSSES[name](divergences(target, draft, labels), None), draft)[0]
    expected = closed_form(name, target, draft.detach(), labels) / (N * K)
    assert torch.allclose(found, expected, atol=1e-14)


def test_the_gradient_of_total_variation_is_bounded_by_one() -> None:
    target, draft, labels = random_logits(3)
    extreme = (20 * draft.detach()).requires_grad_()
    loss = LOSSES["tv"](divergences(20 * target, extreme, labels), None) * (N * K)
    assert torch.autograd.grad(loss, extreme)[0].abs().max() <= 1.0


def test_negative_log_acceptance_scales_the_gradient_of_total_variation_by_one_over_the_overlap() -> None:
    target, draft, labels = random_logits(4)
    d = divergences(target, draft, labels)
    by_tv = torch.autograd.grad(LOSSES["tv"](d, None), draft, retain_graph=True)[0]
    by_log = torch.autograd.grad(LOSSES["nla"](d, None), draft)[0]
    assert torch.allclose(by_log, by_tv / d.overlap.detach()[..., None], atol=1e-14)


def test_negative_log_acceptance_is_cross_entropy_where_the_target_is_certain() -> None:
    _, draft, labels = random_logits(5)
    certain = torch.full((N, K, V), -torch.inf, dtype=torch.float64).scatter(-1, labels[..., None], 0.0)
    d = divergences(certain, draft, labels)
    by_log, by_entropy = LOSSES["nla"](d, None), LOSSES["ce"](d, None)
    assert by_log.item() == pytest.approx(by_entropy.item())
    both = [torch.autograd.grad(loss, draft, retain_graph=True)[0] for loss in (by_log, by_entropy)]
    assert torch.allclose(*both, atol=1e-14)
    assert d.kl.isfinite().all()


def position_weights(alphas: "torch.Tensor") -> "list[float]":
    """w_i = prod over l < i of alpha_l, times 1 + sum over j > i of prod over i < l <= j of alpha_l."""
    rates, weights = alphas.tolist(), []
    for i in range(len(rates)):
        before = torch.tensor(rates[:i]).prod().item()
        after = sum(torch.tensor(rates[i + 1 : j + 1]).prod().item() for j in range(i + 1, len(rates)))
        weights.append(before * (1 + after))
    return weights


def as_overlaps(overlap: "torch.Tensor") -> Divergences:
    nothing = torch.zeros_like(overlap)
    return Divergences(nothing, nothing, nothing, overlap)


def test_the_end_to_end_loss_weighs_positions_as_its_formula_says() -> None:
    overlap = torch.tensor([[0.8, 0.6, 0.5, 0.4]], dtype=torch.float64, requires_grad=True)
    loss = LOSSES["e2e_tv"](as_overlaps(overlap), None)
    assert loss.item() == pytest.approx(1 - (0.8 + 0.48 + 0.24 + 0.096) / 4)
    gradient = -4 * torch.autograd.grad(loss, overlap)[0][0]
    assert gradient.tolist() == pytest.approx(position_weights(overlap[0].detach()))
    assert gradient.tolist() == pytest.approx([2.02, 1.36, 0.672, 0.24])


def test_the_end_to_end_gradient_is_that_of_total_variation_times_the_weight() -> None:
    target, draft, labels = random_logits(6)
    d = divergences(target, draft, labels)
    found = torch.autograd.grad(LOSSES["e2e_tv"](d, None), draft)[0]
    weights = torch.tensor([position_weights(row) for row in d.overlap.detach()], dtype=torch.float64)
    expected = closed_form("tv", target, draft.detach(), labels) * weights[..., None] / (N * K)
    assert torch.allclose(found, expected, atol=1e-8)  # weights go through fp32 in the closed form


def test_an_impossible_position_does_not_stop_the_gradient_of_the_others() -> None:
    overlap = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(LOSSES["e2e_tv"](as_overlaps(overlap), None), overlap)[0]
    assert gradient[0].tolist() == pytest.approx([-1 / 3, -(0.5 + 0.25) / 3, 0.0])


@by_loss
def test_a_perfect_draft_has_no_loss_beyond_the_entropy_of_its_labels(name: str) -> None:
    target, _, labels = random_logits(7)
    d = divergences(target, target, labels)
    floor = -target.log_softmax(-1).gather(-1, labels[..., None]).mean().item() if name == "ce" else 0.0
    assert LOSSES[name](d, None).item() == pytest.approx(floor, abs=1e-12)


@by_loss
def test_masked_steps_count_for_nothing_and_end_their_chain(name: str) -> None:
    target, draft, labels = random_logits(8)
    mask = torch.tensor([[True] * K] * 3 + [[True, True, False, True]] * 2 + [[False] * K])
    found = LOSSES[name](divergences(target, draft, labels), mask)
    if name == "e2e_tv":
        overlap = divergences(target, draft, labels).overlap.cumprod(-1)
        rows = torch.cat((overlap[:3].flatten(), overlap[3:5, :2].flatten()))
        expected = 1 - rows.mean()
    else:
        kept = [(slice(0, 3), slice(0, K)), (slice(3, 5), slice(0, 2))]
        sums = [
            LOSSES[name](divergences(target[i, j], draft[i, j], labels[i, j]), None) * labels[i, j].numel()
            for i, j in kept
        ]
        expected = sum(sums) / (3 * K + 2 * 2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradient = torch.autograd.grad(found, draft)[0]
    assert gradient[5].abs().sum() == 0
    assert gradient[3:5, 2:].abs().sum() == 0


def test_a_mask_of_nothing_is_an_error() -> None:
    target, draft, labels = random_logits()
    with pytest.raises(ValueError, match="excludes every draft step"):
        LOSSES["tv"](divergences(target, draft, labels), torch.zeros(N, K, dtype=torch.bool))


def test_temperature_divides_the_logits_of_both() -> None:
    target, draft, labels = random_logits(9)
    warm, cold = divergences(target, draft, labels, 0.5), divergences(2 * target, 2 * draft, labels)
    assert torch.allclose(warm.overlap, cold.overlap)


def test_half_precision_logits_are_compared_in_single_precision() -> None:
    target, draft, labels = random_logits(10)
    halves = divergences(target.bfloat16(), draft.detach().bfloat16(), labels)
    assert halves.overlap.dtype == torch.float32


def hidden_states(rows: int, vocab: int, dtype: "torch.dtype") -> "tuple[torch.Tensor, ...]":
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(rows, K, H, generator=generator, dtype=dtype)
    draft = (target + 0.5 * torch.randn(rows, K, H, generator=generator, dtype=dtype)).requires_grad_()
    head = torch.randn(vocab, H, generator=generator, dtype=dtype).requires_grad_()
    return target, draft, head, torch.randint(vocab, (rows, K), generator=generator)


@by_loss
@pytest.mark.parametrize("piece", [7, 10, 37, 64])
def test_chunked_evaluation_is_identical_to_the_plain_form(name: str, piece: int) -> None:
    target, draft, head, labels = hidden_states(N, V, torch.float64)
    mask = torch.arange(K) < torch.tensor([K, K, 3, 2, 1, K])[:, None]
    plain = LOSSES[name](divergences(target @ head.detach().T, draft @ head.T, labels, 0.7), mask)
    chunked = LOSSES[name](chunked_divergences(target, draft, head, labels, 0.7, piece), mask)
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-12)
    expected, found = (torch.autograd.grad(loss, (draft, head)) for loss in (plain, chunked))
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["ce", "e2e_tv", "lk_hybrid"])
def test_chunked_evaluation_never_holds_whole_logits(name: str) -> None:
    rows, vocab, piece = 64, 4096, 64
    target, draft, head, labels = hidden_states(rows, vocab, torch.float32)
    head = head.detach()
    with LiveBytes() as live:
        LOSSES[name](chunked_divergences(target, draft, head, labels, 1.0, piece), None).backward()
    whole, chunk, inputs = 4 * rows * K * vocab, 4 * rows * K * piece, 4 * rows * K * (3 * H + 40)
    assert live.largest < whole / 16
    assert live.peak <= MAX_PIECES * chunk + inputs < whole / 5


def test_the_plain_form_holds_whole_logits_which_is_why_there_is_another() -> None:
    rows, vocab = 64, 4096
    target, draft, head, labels = hidden_states(rows, vocab, torch.float32)
    with LiveBytes() as live:
        LOSSES["e2e_tv"](divergences(target @ head.T, draft @ head.T, labels), None).backward()
    assert live.peak > 4 * 4 * rows * K * vocab
