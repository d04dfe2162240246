"""Losses of MTP heads: what a draft head minimises so that more of its drafts are accepted.

All of them are functions of four divergences between the target's distribution p and the draft's q, which come from
logits here, or without whole logits from `chunked.py`. p is never trained. Does not know models, nor how a head is
unrolled: the last axis is the draft step, 1..k.
"""

# Shape letters: N positions (any leading axes), k draft steps, V vocabulary.

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_OVERLAP = 1e-5
"""Overlap below which `negative_log_acceptance` stops growing, as in vLLM's speculators."""
HYBRID_ETA = 3.0
"""How fast the LK hybrid leaves KL for TV as acceptance grows. Source: LK losses (arXiv:2602.23881)."""


@dataclass(frozen=True, slots=True)
class Divergences:
    """How far q is from p at every position and draft step, each [N, k]; differentiable with respect to q."""

    cross_entropy: Tensor
    """-ln q(label), nats."""
    kl: Tensor
    """KL(p || q), nats."""
    reverse_kl: Tensor
    """KL(q || p), nats."""
    overlap: Tensor
    """sum of min(p, q) = 1 - TV(p, q): the acceptance rate of rejection sampling (eq. 2)."""


def divergences(
    target_NkV: Tensor, draft_NkV: Tensor, labels_Nk: Tensor | None = None, temperature: float = 1.0
) -> Divergences:
    """Return the divergences of softmax(draft / temperature) from softmax(target / temperature).

    Args:
        target_NkV: The target's logits; no gradient reaches them. -inf excludes a token.
        draft_NkV: The draft head's logits.
        labels_Nk: Tokens for `cross_entropy`; None takes the target's likeliest ones.
        temperature: That of the rollout, above 0.
    """
    log_p = log_softmax(target_NkV.detach(), temperature)
    log_q = log_softmax(draft_NkV, temperature)
    p, q = log_p.exp(), log_q.exp()
    labels = log_p.argmax(-1) if labels_Nk is None else labels_Nk
    return Divergences(
        cross_entropy=-log_q.gather(-1, labels[..., None])[..., 0],
        kl=(p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1),
        reverse_kl=(q * (log_q - log_p)).sum(-1),
        # Not torch.minimum, whose gradient is one half where p = q: eq. 11 counts those tokens in full.
        overlap=torch.where(q <= p, q, p).sum(-1),
    )


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / temperature) in fp32, or in fp64 where the logits are."""
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=-1)


def cross_entropy(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of -ln q(label): the loss that MTP layers are pre-trained with (DeepSeek-V3, sec. 2.2)."""
    return _mean(d.cross_entropy, mask_Nk)


def kl(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of KL(p || q); its gradient is that of cross-entropy with p as soft labels."""
    return _mean(d.kl, mask_Nk)


def reverse_kl(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of KL(q || p)."""
    return _mean(d.reverse_kl, mask_Nk)


def tv(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of 1 - sum min(p, q): per-step total variation (eq. 10)."""
    return _mean(1.0 - d.overlap, mask_Nk)


def end_to_end_tv(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return 1 - (1/k) sum over j of prod over i <= j of the overlaps: the end-to-end TV loss (eq. 13).

    A step counts only where all steps before it do. With steps left out, it is the mean of 1 - prod over those that
    count, which is eq. 13 where none is.
    """
    return _mean(1.0 - d.overlap.cumprod(-1), mask_Nk)


def negative_log_acceptance(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of -ln sum min(p, q): TV's gradient divided by the overlap, which a cold start needs.

    Source: LK losses (arXiv:2602.23881), L_alpha.
    """
    return _mean(-d.overlap.clamp(min=MIN_OVERLAP).log(), mask_Nk)


def lk_hybrid(d: Divergences, mask_Nk: Tensor | None = None) -> Tensor:
    """Return the mean of w KL(p || q) + (1 - w) TV with w = exp(-3 overlap), not differentiated, at each position.

    Source: LK losses (arXiv:2602.23881), L_lambda; w per position as in vLLM's speculators.
    """
    weight = torch.exp(-HYBRID_ETA * d.overlap.detach())
    return _mean(weight * d.kl + (1.0 - weight) * (1.0 - d.overlap), mask_Nk)


Loss = Callable[[Divergences, Tensor | None], Tensor]
LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "tv": tv,
    "e2e_tv": end_to_end_tv,
    "nla": negative_log_acceptance,
    "lk_hybrid": lk_hybrid,
}
"""Losses by the names that acceptance traces use."""
READS: dict[str, tuple[str, ...]] = {
    "ce": ("cross_entropy",),
    "kl": ("kl",),
    "reverse_kl": ("reverse_kl",),
    "tv": ("overlap",),
    "e2e_tv": ("overlap",),
    "nla": ("overlap",),
    "lk_hybrid": ("kl", "overlap"),
}
"""Divergences that each loss reads."""


def _mean(values_Nk: Tensor, mask_Nk: Tensor | None) -> Tensor:
    """Return the mean over the steps that count: those whose mask, and that of all steps before, is True.

    Raises:
        ValueError: No step counts.
    """
    if mask_Nk is None:
        return values_Nk.mean()
    counts = mask_Nk.to(torch.int8).cumprod(-1).bool()
    num = counts.sum()
    if num == 0:
        raise ValueError("mask: excludes every draft step; leave at least one first step in")
    # where, not a product: what is left out may be infinite.
    return torch.where(counts, values_Nk, 0.0).sum() / num
