"""Divergences from hidden states, a piece of the vocabulary at a time: whole logits never exist.

At N = 8 x 4096 positions, k = 5 and V = 248,320 the logits of one side alone take 163 GB in fp32. Here three passes
over pieces of C tokens (softmax sums, divergences, gradients) take at most MAX_PIECES arrays of [N, C] beside what
goes in and out. The price is products: 4 with the lm_head forward and 3 backward, where whole logits need 3 in all.
Same numbers as `losses.divergences`. Does not know losses.
"""

# Shape letters: N positions (draft steps included), H hidden, V vocabulary, C tokens of a piece.

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from profiler.mtp.losses import Divergences

MAX_PIECES = 9
"""Most arrays of [N, C] alive at once, forward or backward; a test counts them."""
DEFAULT_PIECE_TOKENS = 4096


def chunked_divergences(
    target_hidden: Tensor,
    draft_hidden: Tensor,
    head_VH: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    piece_tokens: int = DEFAULT_PIECE_TOKENS,
) -> Divergences:
    """Return the divergences of the draft's distribution from the target's, both through one lm_head.

    Args:
        target_hidden: Normed hidden states of the target, [..., H]; no gradient reaches them.
        draft_hidden: Those of the head, same shape.
        head_VH: The lm_head; its gradient is that of the draft's logits only, as the target is not trained.
        labels: Tokens for `cross_entropy`, [...].
        temperature: That of the rollout, above 0.
        piece_tokens: C, the memory to spend.
    """
    shape = draft_hidden.shape[:-1]
    apply: Callable[..., tuple[Tensor, ...]] = _Chunked.apply
    parts = apply(
        draft_hidden.reshape(-1, draft_hidden.shape[-1]),
        head_VH,
        target_hidden.detach().reshape(-1, target_hidden.shape[-1]),
        labels.reshape(-1),
        temperature,
        piece_tokens,
    )
    return Divergences(*(part.reshape(shape) for part in parts))


class _Chunked(torch.autograd.Function):
    """-ln q(label), KL(p || q), KL(q || p) and the overlap, with their gradients in closed form (eq. 11)."""

    @staticmethod
    def forward(
        ctx: Any, draft: Tensor, head_VH: Tensor, target: Tensor, labels_N: Tensor, temperature: float, piece: int
    ) -> tuple[Tensor, ...]:
        pieces = head_VH.split(piece)
        minus_infinity = draft.new_full(draft.shape[:1], -torch.inf, dtype=_precision(draft))
        sum_p, sum_q = minus_infinity, minus_infinity
        for part in pieces:
            sum_p = torch.logaddexp(sum_p, _logits(target, part, temperature).logsumexp(-1))
            sum_q = torch.logaddexp(sum_q, _logits(draft, part, temperature).logsumexp(-1))
        kl, reverse, overlap, below = (torch.zeros_like(sum_p) for _ in range(4))
        label_log_q = torch.zeros_like(sum_p)
        for start, part in zip(range(0, head_VH.shape[0], piece), pieces, strict=True):
            log_p = _logits(target, part, temperature).sub_(sum_p[:, None])
            log_q = _logits(draft, part, temperature).sub_(sum_q[:, None])
            inside = (labels_N >= start) & (labels_N < start + part.shape[0])
            chosen = (labels_N - start).clamp(0, part.shape[0] - 1)
            label_log_q += torch.where(inside, log_q.gather(1, chosen[:, None])[:, 0], 0.0)
            p, q = log_p.exp(), log_q.exp()
            excess = log_p.sub_(log_q)  # ln(p / q)
            kl += (p * torch.where(p > 0, excess, 0.0)).sum(-1)
            reverse -= (q * excess).sum(-1)
            covered = q <= p
            overlap += torch.where(covered, q, p).sum(-1)
            below += torch.where(covered, q, 0.0).sum(-1)
        ctx.save_for_backward(draft, head_VH, target, labels_N, sum_p, sum_q, reverse, below)
        ctx.temperature, ctx.piece = temperature, piece
        ctx.set_materialize_grads(False)
        return -label_log_q, kl, reverse.clone(), overlap

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        draft, head_VH, target, labels_N, sum_p, sum_q, reverse, below = ctx.saved_tensors
        grad_draft = torch.zeros_like(draft, dtype=_precision(draft))
        grad_head = torch.zeros_like(head_VH) if ctx.needs_input_grad[1] else None
        for start in range(0, head_VH.shape[0], ctx.piece):
            part = head_VH[start : start + ctx.piece]
            log_q = _logits(draft, part, ctx.temperature).sub_(sum_q[:, None])
            log_p = _logits(target, part, ctx.temperature).sub_(sum_p[:, None])
            grad_logits = _logit_gradient(log_p, log_q, reverse, below, grads)
            if grads[0] is not None:
                inside = (labels_N >= start) & (labels_N < start + part.shape[0])
                chosen = (labels_N - start).clamp(0, part.shape[0] - 1)
                grad_logits.scatter_add_(1, chosen[:, None], torch.where(inside, -grads[0], 0.0)[:, None])
            grad_logits = grad_logits.div_(ctx.temperature).to(draft.dtype)
            grad_draft += grad_logits @ part
            if grad_head is not None:
                grad_head[start : start + ctx.piece] = (grad_logits.T @ draft).to(head_VH.dtype)
        return grad_draft.to(draft.dtype), grad_head, None, None, None, None


def _logit_gradient(
    log_p: Tensor, log_q: Tensor, reverse: Tensor, below: Tensor, grads: tuple[Tensor | None, ...]
) -> Tensor:
    """Return the gradient with respect to the draft's logits, but for the label's own term of cross-entropy.

    cross-entropy q - 1[label]; KL q - p; reverse KL q (ln(q / p) - KL(q || p)); overlap q (1[q <= p] - S), eq. 11.
    """
    entropy_grad, kl_grad, reverse_grad, overlap_grad = grads
    p, q = log_p.exp(), log_q.exp()
    total = torch.zeros_like(q)
    if entropy_grad is not None:
        total += q * entropy_grad[:, None]
    if kl_grad is not None:
        total += (q - p) * kl_grad[:, None]
    if reverse_grad is not None:
        total += q * log_q.sub(log_p).sub_(reverse[:, None]) * reverse_grad[:, None]
    if overlap_grad is not None:
        total += q * (q <= p).to(q.dtype).sub_(below[:, None]) * overlap_grad[:, None]
    return total


def _logits(hidden_NH: Tensor, head_CH: Tensor, temperature: float) -> Tensor:
    return (hidden_NH @ head_CH.T).to(_precision(hidden_NH)).div_(temperature)


def _precision(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
