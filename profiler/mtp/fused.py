"""Divergences from hidden states, some positions at a time, with gradients made on the way: what losses cost least.

At one position the gradient of a divergence with respect to the draft's hidden state is a vector (its closed form,
through the lm_head), and whatever a loss makes of the divergence scales it by a number. So the vector is made while the
logits are there, and going backward multiplies no matrix. Products with the lm_head: one for each side's logits, one
for each divergence that is asked for; a fused cross-entropy has 2, TV losses 3, the LK hybrid 4. `chunked`, which also
trains the lm_head, has 7 or 8. Does not know losses.
"""

# Shape letters: N positions (draft steps included), R positions at a time, H hidden, V vocabulary.

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from profiler.mtp.losses import Divergences

VALUES_AT_ONCE = 20_000_000
"""R V of one array: 80 MB in fp32."""
MAX_ARRAYS = 5
"""Most arrays of [R, V] alive at once; a test counts them."""
NAMES = tuple(field.name for field in fields(Divergences))


def fused_divergences(
    target_hidden: Tensor,
    draft_hidden: Tensor,
    head_VH: Tensor,
    labels: Tensor,
    wanted: Collection[str],
    temperature: float = 1.0,
    values_at_once: int = VALUES_AT_ONCE,
) -> Divergences:
    """Return divergences of the draft's distribution from the target's, both through one lm_head; nan if not wanted.

    Args:
        target_hidden: Normed hidden states of the target, [..., H]; no gradient reaches them.
        draft_hidden: Those of the head, same shape.
        head_VH: The lm_head; not trained.
        labels: Tokens for `cross_entropy`, [...].
        wanted: Fields of `Divergences`, at least one; `losses.READS` has those of each loss.
        temperature: That of the rollout, above 0.
        values_at_once: R V, the memory to spend.

    Raises:
        ValueError: The lm_head is trained, or nothing is wanted.
    """
    if head_VH.requires_grad:
        raise ValueError("head_VH: requires a gradient, which this has none of; detach it, or use chunked_divergences")
    names = tuple(name for name in NAMES if name in wanted)
    if len(names) < max(1, len(wanted)):
        raise ValueError(f"wanted: {sorted(wanted)} are not one or more of {', '.join(NAMES)}; correct them")
    shape, hidden = draft_hidden.shape[:-1], draft_hidden.shape[-1]
    apply: Callable[..., tuple[Tensor, ...]] = _Fused.apply
    parts = apply(
        draft_hidden.reshape(-1, hidden),
        target_hidden.detach().reshape(-1, hidden),
        labels.reshape(-1),
        head_VH,
        names,
        temperature,
        max(1, values_at_once // head_VH.shape[0]),
    )
    found = {name: part.reshape(shape) for name, part in zip(names, parts, strict=True)}
    unknown = torch.full_like(found[names[0]], torch.nan)
    return Divergences(**{name: found.get(name, unknown) for name in NAMES})


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        draft_NH: Tensor,
        target_NH: Tensor,
        labels_N: Tensor,
        head_VH: Tensor,
        names: tuple[str, ...],
        temperature: float,
        rows: int,
    ) -> tuple[Tensor, ...]:
        values: dict[str, list[Tensor]] = {name: [] for name in names}
        gradients: dict[str, list[Tensor]] = {name: [] for name in names}
        for draft, target, labels in zip(*(x.split(rows) for x in (draft_NH, target_NH, labels_N)), strict=True):
            for name, value, gradient in _of_rows(draft, target, labels, head_VH, names, temperature):
                values[name].append(value)
                if ctx.needs_input_grad[0]:
                    gradients[name].append(gradient().to(head_VH.dtype) @ head_VH)
                del gradient  # it holds the arrays of these rows, which the next ones need room for
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(*(torch.cat(found).div_(temperature) for found in gradients.values()))
        ctx.set_materialize_grads(False)
        return tuple(torch.cat(found) for found in values.values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        parts = [
            grad_N[:, None].to(gradient_NH.dtype) * gradient_NH
            for grad_N, gradient_NH in zip(grads, ctx.saved_tensors, strict=True)
            if grad_N is not None
        ]
        return sum(parts[1:], parts[0]), None, None, None, None, None, None


def _of_rows(
    draft_RH: Tensor, target_RH: Tensor, labels_R: Tensor, head_VH: Tensor, names: tuple[str, ...], temperature: float
) -> Iterator[tuple[str, Tensor, Callable[[], Tensor]]]:
    """Yield the name of a divergence, its values [R], and what makes its gradient in the draft's logits [R, V].

    cross-entropy q - 1[label]; KL q - p; reverse KL q (ln(q / p) - KL(q || p)); overlap q (1[q <= p] - S), eq. 11.
    """
    q, labels_R1 = _logits(draft_RH, head_VH, temperature), labels_R[:, None]
    of_label_R = q.gather(1, labels_R1)[:, 0]
    if names == ("cross_entropy",):
        yield names[0], _soften(q)[:, 0] - of_label_R, lambda: _less_one_at(q, labels_R1)
        return
    p = _logits(target_RH, head_VH, temperature)
    needs_ratio = bool({"kl", "reverse_kl"} & {*names})
    ratio = q - p if needs_ratio else q.new_empty(0)
    sum_q, sum_p = _soften(q), _soften(p)
    if needs_ratio:
        ratio.sub_(sum_q - sum_p)  # ln(q / p), which is a number also where both are rounded to 0
    if "cross_entropy" in names:
        yield "cross_entropy", sum_q[:, 0] - of_label_R, lambda: _less_one_at(q.clone(), labels_R1)
    if "kl" in names:
        yield "kl", -(p * ratio).sum(-1), lambda: q - p
    if "reverse_kl" in names:
        reverse_R = (q * ratio).sum(-1)
        yield "reverse_kl", reverse_R, lambda: (ratio - reverse_R[:, None]).mul_(q)
    if "overlap" in names:
        del ratio
        # What the overlap takes of q where q is the smaller, S in sum, and of p elsewhere.
        below = (q <= p).to(q.dtype).mul_(q)
        share_R1 = below.sum(-1, keepdim=True)
        # The last one to read p.
        yield "overlap", torch.minimum(p, q, out=p).sum(-1), lambda: below.addcmul_(q, share_R1, value=-1.0)


def _logits(hidden_RH: Tensor, head_VH: Tensor, temperature: float) -> Tensor:
    logits = hidden_RH @ head_VH.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits.div_(temperature)


def _soften(logits_RV: Tensor) -> Tensor:
    """Make logits probabilities, in their own array; return the logarithm of what was divided by, [R, 1]."""
    top_R1 = logits_RV.amax(-1, keepdim=True)
    total_R1 = logits_RV.sub_(top_R1).exp_().sum(-1, keepdim=True)
    logits_RV.div_(total_R1)
    return total_R1.log().add_(top_R1)


def _less_one_at(values_RV: Tensor, places_R1: Tensor) -> Tensor:
    return values_RV.scatter_add_(1, places_R1, values_RV.new_full(places_R1.shape, -1.0))
