"""Sampling and verification of drafts, lossless: what leaves is distributed as the target's own tokens.

Drawing is a race of exponentials (argmax of p / e), as in vLLM: no sort, no host. Does not know models.
"""

# Shape letters: B sequences, k draft tokens, V vocabulary.

from collections.abc import Callable

import torch
from torch import Tensor

Verified = tuple[Tensor, Tensor]
"""Tokens [B, k + 1], of which the first `accepted + 1` count, and the number of accepted drafts [B]."""


def greedy(logits: Tensor) -> Tensor:
    """Return the likeliest tokens."""
    return logits.argmax(-1)


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return fp32 softmax(logits / temperature)."""
    return (logits.float() / temperature).softmax(-1)


def draw(weights: Tensor) -> Tensor:
    """Return tokens with probability proportional to `weights` over the last axis."""
    return (weights / torch.empty_like(weights).exponential_(1.0)).argmax(-1)


def verify_greedy_draft(target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None = None) -> Verified:
    """Accept greedy drafts with probability p(draft).

    Args:
        target_BkV: Target probabilities at the k draft positions and the one after, [B, k + 1, V].
        draft_Bk: Draft tokens.
        proposal_BkV: Not used: the proposal is one-hot.
    """
    del proposal_BkV
    p_Bk = _chosen(target_BkV, draft_Bk)
    accepted_B = _leading(torch.rand_like(p_Bk) < p_Bk)
    residual_BV = _row(target_BkV, accepted_B)
    # Where a draft was rejected it cannot be what the target emits instead.
    rejected_B = draft_Bk.gather(1, accepted_B.clamp(max=draft_Bk.shape[1] - 1)[:, None])
    is_rejected_B = (accepted_B < draft_Bk.shape[1])[:, None]
    kept = residual_BV.scatter(1, rejected_B, 0.0)
    return _emit(torch.where(is_rejected_B, kept, residual_BV), draft_Bk, accepted_B)


def verify_rejection(target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None = None) -> Verified:
    """Accept drafts with probability min(1, p / q); emit from max(p - q, 0) at the first rejection.

    Source: Leviathan et al. (arXiv:2211.17192), Algorithm 1.
    """
    assert proposal_BkV is not None
    ratio_Bk = _chosen(target_BkV, draft_Bk) / _chosen(proposal_BkV, draft_Bk)
    accepted_B = _leading(torch.rand_like(ratio_Bk) < ratio_Bk)
    return _emit(_residual(target_BkV, proposal_BkV, accepted_B), draft_Bk, accepted_B)


def verify_block(target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None = None) -> Verified:
    """Accept the longest prefix that block verification allows; never fewer tokens than token by token.

    Source: Sun et al. (arXiv:2403.10444), Algorithm 2.
    """
    assert proposal_BkV is not None
    num_drafts = draft_Bk.shape[1]
    ratio_Bk = _chosen(target_BkV, draft_Bk) / _chosen(proposal_BkV, draft_Bk)
    weight_B = torch.ones_like(ratio_Bk[:, 0])
    weights, chances = [weight_B], []
    for position in range(num_drafts):
        weight_B = (weight_B * ratio_Bk[:, position]).clamp(max=1.0)
        weights.append(weight_B)
        if position + 1 < num_drafts:
            after = (weight_B[:, None] * target_BkV[:, position + 1] - proposal_BkV[:, position + 1]).clamp(min=0.0)
            left_B = after.sum(-1)
            chances.append(left_B / (left_B + 1.0 - weight_B).clamp(min=1e-20))
        else:
            chances.append(weight_B)
    chance_Bk = torch.stack(chances, dim=1)
    passed_Bk = torch.rand_like(chance_Bk) <= chance_Bk
    positions_k = torch.arange(1, num_drafts + 1, device=draft_Bk.device)
    accepted_B = (passed_Bk * positions_k).amax(1)
    weight_at_B = torch.stack(weights, dim=1).gather(1, accepted_B[:, None])
    return _emit(_residual(target_BkV, proposal_BkV, accepted_B, weight_at_B), draft_Bk, accepted_B)


Verifier = Callable[[Tensor, Tensor, Tensor | None], Verified]
VERIFIERS: dict[str, Verifier] = {
    "greedy_draft": verify_greedy_draft,
    "rejection": verify_rejection,
    "block": verify_block,
}
"""How drafts are checked, by the names that scenarios use."""


def _chosen(probabilities_BkV: Tensor, draft_Bk: Tensor) -> Tensor:
    return probabilities_BkV[:, : draft_Bk.shape[1]].gather(2, draft_Bk[..., None])[..., 0]


def _leading(passed_Bk: Tensor) -> Tensor:
    """Return how many drafts pass before the first that does not."""
    return passed_Bk.long().cumprod(1).sum(1)


def _row(values_BkV: Tensor, index_B: Tensor) -> Tensor:
    return values_BkV.gather(1, index_B[:, None, None].expand(-1, 1, values_BkV.shape[2]))[:, 0]


def _residual(target: Tensor, proposal: Tensor, accepted_B: Tensor, weight_B1: Tensor | None = None) -> Tensor:
    """Return what to emit from: (weight p - q)_+ after a rejection, p itself after the last draft."""
    num_drafts = proposal.shape[1]
    p_BV = _row(target, accepted_B)
    q_BV = _row(proposal, accepted_B.clamp(max=num_drafts - 1))
    weighted = p_BV if weight_B1 is None else weight_B1 * p_BV
    rest = (weighted - q_BV).clamp(min=0.0)
    return torch.where((accepted_B < num_drafts)[:, None], rest, p_BV)


def _emit(weights_BV: Tensor, draft_Bk: Tensor, accepted_B: Tensor) -> Verified:
    tokens = torch.cat((draft_Bk, draft_Bk[:, :1]), dim=1)
    return tokens.scatter(1, accepted_B[:, None], draw(weights_BV)[:, None]), accepted_B
