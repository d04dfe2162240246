"""Overlap from hidden states, some positions at a time, with its gradient made on the way: what TV losses cost least.

At one position the gradient of the overlap with respect to the draft's hidden state is a vector (eq. 11, through the
lm_head), and whatever a loss makes of the overlap scales it by a number. So the vector is made while the logits are
there, and going backward multiplies no matrix: 3 products with the lm_head in all, where a fused cross-entropy has 2
and `chunked`, which serves all losses and a trained lm_head, 7 or 8. Does not know losses.
"""

# Shape letters: N positions (draft steps included), R positions at a time, H hidden, V vocabulary.

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from profiler.mtp.losses import Divergences

VALUES_AT_ONCE = 20_000_000
"""R V of one array; at most five exist at a time: 400 MB in fp32."""


def fused_overlap(
    target_hidden: Tensor,
    draft_hidden: Tensor,
    head_VH: Tensor,
    temperature: float = 1.0,
    values_at_once: int = VALUES_AT_ONCE,
) -> Divergences:
    """Return the overlap of the draft's distribution and the target's, both through one lm_head.

    The other divergences are nan: losses of the overlap alone (TV, end-to-end TV, negative log acceptance) can be made.

    Args:
        target_hidden: Normed hidden states of the target, [..., H]; no gradient reaches them.
        draft_hidden: Those of the head, same shape.
        head_VH: The lm_head; not trained.
        temperature: That of the rollout, above 0.
        values_at_once: R V, the memory to spend.

    Raises:
        ValueError: The lm_head is trained.
    """
    if head_VH.requires_grad:
        raise ValueError("head_VH: requires a gradient, which this has none of; detach it, or use chunked_divergences")
    shape, hidden = draft_hidden.shape[:-1], draft_hidden.shape[-1]
    rows = max(1, values_at_once // head_VH.shape[0])
    apply: Callable[..., Tensor] = _Fused.apply
    flat = (target_hidden.detach().reshape(-1, hidden), draft_hidden.reshape(-1, hidden))
    overlap = apply(*flat, head_VH, temperature, rows).reshape(shape)
    unknown = torch.full_like(overlap, torch.nan)
    return Divergences(unknown, unknown, unknown, overlap)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, target_NH: Tensor, draft_NH: Tensor, head_VH: Tensor, temperature: float, rows: int
    ) -> Tensor:
        overlaps, gradients = [], []
        for target_RH, draft_RH in zip(target_NH.split(rows), draft_NH.split(rows), strict=True):
            p, q = _chances(target_RH, head_VH, temperature), _chances(draft_RH, head_VH, temperature)
            # What the overlap takes of q where q is the smaller, S, and of p elsewhere.
            below = (q <= p).to(q.dtype).mul_(q)
            share = below.sum(-1, keepdim=True)
            overlaps.append(torch.minimum(p, q, out=p).sum(-1))
            if ctx.needs_input_grad[1]:
                gradients.append(below.addcmul_(q, share, value=-1.0).to(head_VH.dtype) @ head_VH)
        if gradients:
            ctx.save_for_backward(torch.cat(gradients).div_(temperature))
        return torch.cat(overlaps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NH,) = ctx.saved_tensors
        return None, grads[0][:, None].to(gradient_NH.dtype) * gradient_NH, None, None, None


def _chances(hidden_RH: Tensor, head_VH: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / temperature) [R, V], at least fp32, in the array of the logits where those are."""
    logits = hidden_RH @ head_VH.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature != 1.0:
        logits.div_(temperature)
    logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(-1, keepdim=True))
