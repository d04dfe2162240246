"""Verification of drafts, lossless: what leaves is distributed as the target's own tokens.

A rule says with which chance each draft passes, which count of drafts follows from the passes, and what is emitted
after them. Those are plain functions of probabilities, so that a test can go through every outcome; chance enters last.
Does not know models, nor waits for a GPU: nothing here comes back to the host.

Losslessness needs the target as it is sampled from (temperature, top-k, top-p) and the proposal that drafts were really
drawn from: `process` and `propose` make both as engines do. Drafting by argmax and verifying with the full q is biased.
"""

# Shape letters: B sequences, k draft tokens, V vocabulary. A target has k + 1 rows: one more than drafts.

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SEARCHED_FROM = 4096
"""Vocabulary from which a CPU draws by search."""

CACHED_VALUES = 310_000
"""Values of one array that a CPU works on at once."""

Verified = tuple[Tensor, Tensor]
"""Tokens [B, k + 1], of which the first `accepted + 1` count, and the number of accepted drafts [B]."""


def process(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """Return the fp32 distribution that is sampled from: temperature, then top-k, then top-p, as in vLLM.

    Args:
        logits: Over the last axis.
        temperature: 0 puts everything on the likeliest token.
        top_k: Tokens kept; those as likely as the last of them stay too. None keeps all.
        top_p: Keeps the fewest likeliest tokens that together have at least this mass, 0 < top_p <= 1.

    Raises:
        ValueError: A value outside its range.
    """
    if temperature < 0 or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ValueError(
            f"temperature {temperature}, top_k {top_k}, top_p {top_p}: below 0, below 1 or outside 0..1; correct them"
        )
    if temperature == 0:
        return torch.zeros_like(logits, dtype=_precision(logits)).scatter(-1, greedy(logits)[..., None], 1.0)
    scaled = logits.to(_precision(logits)) / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        last = scaled.topk(top_k, dim=-1).values[..., -1:]
        scaled = scaled.masked_fill(scaled < last, -torch.inf)
    chances = scaled.softmax(-1)
    if top_p == 1:
        return chances
    ordered, order = chances.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.zeros_like(chances).scatter(-1, order, torch.where(before < top_p, ordered, 0.0))
    return kept / kept.sum(-1, keepdim=True)


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return fp32 softmax(logits / temperature)."""
    return process(logits, temperature)


def propose(logits: Tensor, verify_rule: str, temperature: float) -> tuple[Tensor, Tensor | None]:
    """Return draft tokens, and the distribution they were drawn from unless it is one-hot.

    Engines apply the temperature to drafts, but neither top-k nor top-p: drafts outside the nucleus are rejected.
    """
    if verify_rule == "greedy_draft":
        return greedy(logits), None
    proposal = process(logits, temperature)
    return draw(proposal), proposal


def greedy(logits: Tensor) -> Tensor:
    """Return the likeliest tokens."""
    return logits.argmax(-1)


def draw(weights: Tensor) -> Tensor:
    """Return tokens with probability proportional to `weights` over the last axis; one of weight 0 never.

    A race of exponentials (argmax of w / e), as in vLLM; on a CPU with a large vocabulary, where a random number per
    token is dear, the inverse of the distribution function, in two levels so that weights are read once.
    """
    if weights.device.type != "cpu" or weights.shape[-1] < SEARCHED_FROM:
        return (weights / torch.empty_like(weights).exponential_(1.0)).argmax(-1)
    flat = weights.reshape(-1, weights.shape[-1])
    uniform_B1 = torch.rand(flat.shape[0], 1, dtype=torch.float64, device=flat.device)
    return _search(flat, uniform_B1).reshape(weights.shape[:-1])


def _search(weights_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """Return the token at which the distribution function first exceeds `uniform`."""
    width = next((size for size in range(1024, 63, -1) if weights_BV.shape[1] % size == 0), 0)
    if width == 0:
        width = 512
        weights_BV = torch.nn.functional.pad(weights_BV, (0, -weights_BV.shape[1] % width))
    pieces = weights_BV.view(weights_BV.shape[0], -1, width)
    sums = pieces.sum(-1)
    until = sums.double().cumsum(-1)
    wanted = uniform_B1 * until[:, -1:]
    piece = torch.searchsorted(until, wanted, right=True)
    in_piece = sums.gather(1, piece).double()
    inside = pieces[torch.arange(pieces.shape[0], device=pieces.device), piece[:, 0]].double().cumsum(-1)
    # The sum of a piece is rounded: a share of it, below 1, is a place inside.
    share = ((wanted - until.gather(1, piece) + in_piece) / in_piece).clamp(0.0, 1.0 - 1e-12)
    return piece[:, 0] * width + torch.searchsorted(inside, share * inside[:, -1:], right=True)[:, 0]


@dataclass(frozen=True, slots=True)
class Chances:
    """What a rule decides from the probabilities of one block of drafts, before anything is drawn."""

    pass_Bk: Tensor
    """Chance that each draft passes its own test, independently of the others."""
    weight_Bj: Tensor | None = None
    """By number of accepted drafts 0..k: weight w of p in what is emitted next, (w p - q)_+. None: 1 everywhere."""


def token_chances(target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None) -> Chances:
    """Return min(1, p / q) of each draft; without a proposal it is one-hot and the chance is p(draft).

    Source: Leviathan et al. (arXiv:2211.17192), Algorithm 1.
    """
    p_Bk = _chosen(target_BkV, draft_Bk)
    return Chances(p_Bk if proposal_BkV is None else (p_Bk / _chosen(proposal_BkV, draft_Bk)).clamp(max=1.0))


def block_chances(target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None) -> Chances:
    """Return the chances of block verification.

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
            left_B = _left_over(weight_B, target_BkV[:, position + 1], proposal_BkV[:, position + 1])
            # 1 - weight first: left + 1 would round a small left away, and the chance would be anything.
            chances.append(left_B / (left_B + (1.0 - weight_B)).clamp(min=1e-30))
        else:
            chances.append(weight_B)
    return Chances(torch.stack(chances, dim=1), torch.stack(weights, dim=1))


def _left_over(weight_B: Tensor, target_BV: Tensor, proposal_BV: Tensor) -> Tensor:
    """Return sum of (w p - q)_+, [B], in pieces that caches hold, each changed in place."""
    sums = []
    for rows in _pieces(target_BV):
        sums.append((target_BV[rows] * weight_B[rows, None]).sub_(proposal_BV[rows]).relu_().sum(-1))
    return torch.cat(sums)


def leading(passed_Bk: Tensor) -> Tensor:
    """Return how many drafts pass before the first that does not: token by token."""
    return passed_Bk.long().cumprod(1).sum(1)


def last(passed_Bk: Tensor) -> Tensor:
    """Return the position of the last draft that passes, 0 if none does: block verification."""
    return (passed_Bk * torch.arange(1, passed_Bk.shape[1] + 1, device=passed_Bk.device)).amax(1)


def law_of_leading(pass_Bk: Tensor) -> Tensor:
    """Return P(0..k drafts accepted), [B, k + 1], of `leading`."""
    reached = torch.cat((torch.ones_like(pass_Bk[:, :1]), pass_Bk.cumprod(1)), dim=1)
    return reached * torch.cat((1.0 - pass_Bk, torch.ones_like(pass_Bk[:, :1])), dim=1)


def law_of_last(pass_Bk: Tensor) -> Tensor:
    """Return P(0..k drafts accepted), [B, k + 1], of `last`."""
    one = torch.ones_like(pass_Bk[:, :1])
    none_after = torch.cat(((1.0 - pass_Bk).flip(1).cumprod(1).flip(1), one), dim=1)
    return none_after * torch.cat((one, pass_Bk), dim=1)


def emission(
    target_BkV: Tensor,
    draft_Bk: Tensor,
    proposal_BkV: Tensor | None,
    accepted_B: Tensor,
    weight_Bj: Tensor | None = None,
) -> Tensor:
    """Return weights [B, V] of the token after the accepted drafts: (w p - q)_+ after a rejection, else p."""
    num_drafts = draft_Bk.shape[1]
    # In place: with a vocabulary of 151,936 a new array takes longer to make than to use.
    p_BV = _row(target_BkV, accepted_B)
    index_B = accepted_B.clamp(max=num_drafts - 1)
    # Behind the last draft there is no proposal: a q of 0 leaves all of p.
    was_rejected_B1 = (accepted_B < num_drafts).to(p_BV.dtype)[:, None]
    if proposal_BkV is None:
        # Where a draft was rejected it cannot be what the target emits instead.
        draft_B1 = draft_Bk.gather(1, index_B[:, None])
        before_B1 = p_BV.gather(1, draft_B1)
        p_BV.scatter_(1, draft_B1, before_B1 * (1.0 - was_rejected_B1))
        nothing_left_B1 = p_BV.amax(1, keepdim=True) == 0
        return p_BV.scatter_(1, draft_B1, torch.where(nothing_left_B1, before_B1, p_BV.gather(1, draft_B1)))
    weight_B1 = torch.ones_like(was_rejected_B1) if weight_Bj is None else weight_Bj.gather(1, accepted_B[:, None])
    rest = _row(proposal_BkV, index_B).mul_(-was_rejected_B1).addcmul_(p_BV, weight_B1).clamp_(min=0.0)
    # p = q but for rounding: a rejection may leave nothing to emit, and then the target's own is right.
    return rest.addcmul_(p_BV, (rest.amax(1, keepdim=True) == 0).to(rest.dtype))


@dataclass(frozen=True, slots=True)
class VerifyRule:
    """One way to check drafts."""

    chances: Callable[[Tensor, Tensor, Tensor | None], Chances]
    count: Callable[[Tensor], Tensor]
    """Which drafts passed, [B, k] -> how many are accepted, [B]."""
    law: Callable[[Tensor], Tensor]
    """The chances of passing, [B, k] -> distribution of the count, [B, k + 1]."""
    needs_proposal: bool = True

    def __call__(self, target_BkV: Tensor, draft_Bk: Tensor, proposal_BkV: Tensor | None = None) -> Verified:
        """Verify drafts.

        Args:
            target_BkV: Target probabilities at the k draft positions and the one after, [B, k + 1, V].
            draft_Bk: Draft tokens.
            proposal_BkV: What the drafts were drawn from, [B, k, V]; not read where it is one-hot.

        Raises:
            ValueError: The rule needs the proposal, and there is none.
        """
        if not self.needs_proposal:
            proposal_BkV = None
        elif proposal_BkV is None:
            raise ValueError("proposal: missing; this rule needs the probabilities that drafts were drawn from")
        chances = self.chances(target_BkV, draft_Bk, proposal_BkV)
        accepted_B = self.count(torch.rand_like(chances.pass_Bk) < chances.pass_Bk)
        drawn = []
        for rows in _pieces(target_BkV):
            proposal, weight = (None if x is None else x[rows] for x in (proposal_BkV, chances.weight_Bj))
            drawn.append(draw(emission(target_BkV[rows], draft_Bk[rows], proposal, accepted_B[rows], weight)))
        tokens = torch.cat((draft_Bk, draft_Bk[:, :1]), dim=1)
        return tokens.scatter(1, accepted_B[:, None], torch.cat(drawn)[:, None]), accepted_B


Verifier = VerifyRule
VERIFIERS: dict[str, VerifyRule] = {
    "greedy_draft": VerifyRule(token_chances, leading, law_of_leading, needs_proposal=False),
    "rejection": VerifyRule(token_chances, leading, law_of_leading),
    "block": VerifyRule(block_chances, last, law_of_last),
}
"""How drafts are checked, by the names that scenarios use."""


def _pieces(target: Tensor) -> list[slice]:
    """Return which sequences to treat at once: all on a GPU, as many as its caches hold on a CPU."""
    batch, vocab = target.shape[0], target.shape[-1]
    size = batch if target.device.type != "cpu" else max(1, CACHED_VALUES // vocab)
    return [slice(begin, begin + size) for begin in range(0, batch, size)]


def _chosen(probabilities_BkV: Tensor, draft_Bk: Tensor) -> Tensor:
    return probabilities_BkV[:, : draft_Bk.shape[1]].gather(2, draft_Bk[..., None])[..., 0]


def _row(values_BkV: Tensor, index_B: Tensor) -> Tensor:
    return values_BkV[torch.arange(values_BkV.shape[0], device=values_BkV.device), index_B]


def _precision(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
