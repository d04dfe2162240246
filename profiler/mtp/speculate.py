"""Speculative decoding for real: head drafts, target verifies, sequences advance by what was accepted.

The order of an engine: verify k drafts and the token before them, emit, run the head over all verified places, then
over one place at a time. Records what every step decided and from which chances. Does not know what is counted.
"""

# Shape letters: B sequences, T tokens of a prompt, k draft tokens, S verify steps.

from dataclasses import dataclass

import torch
from torch import Tensor

from profiler.models.decoder import Decoder
from profiler.mtp.heads import DraftCache, Head
from profiler.mtp.ragged import new_caches, placed_forward
from profiler.mtp.rejection import VERIFIERS, draw, process, propose


@dataclass(frozen=True, slots=True)
class Steps:
    """Verify steps of a batch of sequences."""

    place_SB: Tensor
    """Position of the first token that the step drafts."""
    live_SB: Tensor
    """Whether the sequence was still running."""
    accepted_SB: Tensor
    chance_SBk: Tensor
    """Chance that position j is accepted once those before it are, over all drafts: sum min(p, q), or p(argmax q).

    Block verification has no such chance; it holds those of token by token.
    """
    at_least_SBk: Tensor
    """P(the first j drafts are accepted), given the drafts."""
    entropy_SBk: Tensor
    """Of the target at the places of the drafts, nats, at the temperature of sampling."""
    likeliest_SBk: Tensor
    """Largest probability of the target there."""


@torch.no_grad()
def speculate(
    decoder: Decoder,
    head: Head,
    prompts_BT: Tensor,
    num_tokens: int,
    *,
    verify_rule: str = "rejection",
    num_drafts: int = 3,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> tuple[Tensor, Steps]:
    """Generate at least `num_tokens` behind every prompt.

    Returns:
        Tokens [B, T + num_tokens], distributed as the target's own, and the steps that made them.
    """
    rule, (batch, length), device = VERIFIERS[verify_rule], prompts_BT.shape, prompts_BT.device
    end, places = length + num_tokens, length + num_tokens + 2 * num_drafts + 2
    caches, drafts = new_caches(decoder, batch, places), DraftCache.empty(head, batch, places)
    rows_B1, ahead = torch.arange(batch, device=device)[:, None], torch.arange(num_drafts + 1, device=device)

    positions = torch.arange(length, device=device).expand(batch, -1)
    hidden = placed_forward(decoder, prompts_BT, positions, caches)
    first = draw(process(decoder.logits(hidden[:, -1]), temperature, top_p=top_p))[:, None]
    tokens = torch.zeros(batch, places, dtype=torch.long, device=device)
    tokens[:, : length + 1] = torch.cat((prompts_BT, first), dim=1)
    state = drafts.pass_of(hidden, tokens[:, 1 : length + 1], positions)[:, -1:]
    known_B = torch.full((batch,), length + 1, device=device)
    recorded = []
    while bool((known_B < end).any()):
        chain_Bk, proposal = _draft(drafts, state, known_B - 2, num_drafts, verify_rule, temperature)
        positions = known_B[:, None] - 1 + ahead
        block = torch.cat((tokens.gather(1, positions[:, :1]), chain_Bk), dim=1)
        hidden = placed_forward(decoder, block, positions, caches)
        target = process(decoder.logits(hidden), temperature, top_p=top_p)
        emitted, accepted_B = rule(target, chain_Bk, proposal)
        live_B = known_B < end
        recorded.append((known_B, live_B, accepted_B, *_chances(verify_rule, target, chain_Bk, proposal)))
        tokens[rows_B1, positions + 1] = torch.where(live_B[:, None], emitted, tokens.gather(1, positions + 1))
        state = drafts.pass_of(hidden, emitted, positions)[rows_B1, accepted_B[:, None]]
        # A sequence that has ended stays where it is; what it still computes is not counted.
        known_B = torch.where(live_B, known_B + accepted_B + 1, known_B)
    return tokens[:, :end], Steps(*(torch.stack(column) for column in zip(*recorded, strict=True)))


def _draft(
    drafts: DraftCache, state_B1H: Tensor, place_B: Tensor, num_drafts: int, verify_rule: str, temperature: float
) -> tuple[Tensor, Tensor | None]:
    """Return a chain of drafts [B, k], and what they were drawn from; `place` is that of the state."""
    chain: list[Tensor] = []
    proposals = []
    for index in range(num_drafts):
        if index > 0:
            state_B1H = drafts.pass_of(state_B1H, chain[-1], (place_B + index)[:, None])
        draft_B1, proposal = propose(drafts.head.logits(state_B1H), verify_rule, temperature)
        chain.append(draft_B1)
        proposals.append(proposal)
    known = [proposal for proposal in proposals if proposal is not None]
    return torch.cat(chain, dim=1), torch.cat(known, dim=1) if known else None


def _chances(verify_rule: str, target: Tensor, chain_Bk: Tensor, proposal: Tensor | None) -> tuple[Tensor, ...]:
    """Return what `Steps` holds of chances and entropies."""
    rule, p_BkV = VERIFIERS[verify_rule], target[:, :-1]
    law = rule.law(rule.chances(target, chain_Bk, proposal).pass_Bk)
    at_least = law.flip(1).cumsum(1).flip(1)[:, 1:]
    if proposal is None:
        chance = p_BkV.gather(2, chain_Bk[..., None])[..., 0]
    else:
        chance = torch.minimum(p_BkV, proposal).sum(-1)
    return chance, at_least, torch.special.entr(p_BkV).sum(-1), p_BkV.amax(-1)
