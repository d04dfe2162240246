"""Acceptance of verify steps: counted, beside what the probabilities say it must be, and as rows of a trace.

A step is counted with all its k positions, as engines do, also where a sequence ends inside it. Does not know models.
"""

# Shape letters: B sequences, T tokens, S verify steps, k draft tokens.

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from profiler.mtp.speculate import Steps
from traces.acceptance import AcceptanceRow, VerifyRule

AGREEMENT_SIGMA = 3.0
"""How far counts may be from the analytic acceptance, in standard errors."""

ROUNDING = 1e-4
"""Least standard error: chances are sums of fp32 values."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Acceptance over a set of verify steps, by position 1..k."""

    cumulative: tuple[float, ...]
    """c_j = P(first j drafts accepted), counted."""
    analytic: tuple[float, ...]
    """The same expected of the steps that were made: mean of P(first j - 1 | drafts) x sum min(p, q) at position j."""
    sigma: tuple[float, ...]
    """(counted - analytic) / its standard error."""
    accept_length: float
    """Tokens per verify step, bonus included."""
    accept_length_sd: float
    """Standard error of it, sequences being independent and steps of one not."""
    entropy_nats: float
    """Mean entropy of the target where the first draft stands."""
    top_probability: float
    """Mean of the target's largest probability there."""
    num_steps: int

    @property
    def rate(self) -> float:
        """(accept length - 1) / k, the paper's acceptance rate."""
        return (self.accept_length - 1.0) / len(self.cumulative)

    @property
    def agrees(self) -> bool:
        """Whether counts and probabilities agree."""
        return max(map(abs, self.sigma)) <= AGREEMENT_SIGMA


def summarise(steps: Steps, counts_SB: Tensor, verify_rule: str) -> Acceptance:
    """Return the acceptance over those steps that count.

    Raises:
        ValueError: No step counts.
    """
    counts_SB = counts_SB & steps.live_SB
    num = int(counts_SB.sum())
    if num == 0:
        raise ValueError("counts: no verify step counts; generate more tokens or widen the condition")
    k = steps.chance_SBk.shape[-1]
    positions_k = torch.arange(1, k + 1, device=counts_SB.device)
    hits_Nk = (steps.accepted_SB[counts_SB][:, None] >= positions_k).double()
    expected_Nk = _expected(steps, verify_rule)[counts_SB].double()
    # Given what is expected of it, each step is a coin of that chance.
    error = (expected_Nk * (1.0 - expected_Nk)).clamp(min=0.0).sum(0).sqrt() / num
    sigma = (hits_Nk.mean(0) - expected_Nk.mean(0)) / error.clamp(min=ROUNDING)
    length, length_sd = _ratio((steps.accepted_SB + 1) * counts_SB, counts_SB)
    return Acceptance(
        cumulative=tuple(hits_Nk.mean(0).tolist()),
        analytic=tuple(expected_Nk.mean(0).tolist()),
        sigma=tuple(sigma.tolist()),
        accept_length=length,
        accept_length_sd=length_sd,
        entropy_nats=float(steps.entropy_SBk[..., 0][counts_SB].mean()),
        top_probability=float(steps.likeliest_SBk[..., 0][counts_SB].mean()),
        num_steps=num,
    )


def of_own_tokens(steps: Steps, own_BT: Tensor) -> Tensor:
    """Return which steps begin with a token that the policy writes itself, [S, B]."""
    rows_B = torch.arange(own_BT.shape[0], device=own_BT.device)
    return own_BT.T[steps.place_SB.clamp(max=own_BT.shape[1] - 1), rows_B]


def entropy_bins(steps: Steps, counts_SB: Tensor, num_bins: int) -> Iterable[Tensor]:
    """Yield which steps lie in each of `num_bins` bins of equally many, by the target's entropy at the first draft."""
    entropy_SB, counts_SB = steps.entropy_SBk[..., 0], counts_SB & steps.live_SB
    order = entropy_SB[counts_SB].sort().values
    edges = [order[len(order) * i // num_bins].item() for i in range(1, num_bins)]
    for low, high in zip([-torch.inf, *edges], [*edges, torch.inf], strict=True):
        chosen = counts_SB & (entropy_SB >= low) & (entropy_SB < high)
        if chosen.any():
            yield chosen


def place_bins(steps: Steps, counts_SB: Tensor, starts: tuple[int, ...]) -> Iterable[tuple[int, Tensor]]:
    """Yield (first position, which steps begin from there up to the next one of `starts`)."""
    for low, high in zip(starts, [*starts[1:], None], strict=True):
        inside = (steps.place_SB >= low) if high is None else (steps.place_SB >= low) & (steps.place_SB < high)
        chosen = counts_SB & steps.live_SB & inside
        if chosen.any():
            yield low, chosen


def row(
    found: Acceptance,
    *,
    loss: str,
    verify_rule: str,
    temperature: float,
    task: str,
    with_entropy: bool,
    from_token: int | None = None,
) -> AcceptanceRow:
    """Return a row of an AcceptanceTrace.

    Rows with and without entropy do not mix in a trace: those of a whole domain have none unless they are asked to.
    """
    return AcceptanceRow(
        loss=loss,
        verify_rule=VerifyRule(verify_rule),
        temperature=temperature,
        entropy_nats=round(found.entropy_nats, 4) if with_entropy else None,
        task=task,
        from_token=from_token,
        cumulative=tuple(round(rate, 5) for rate in found.cumulative),
        num_steps=found.num_steps,
    )


def _expected(steps: Steps, verify_rule: str) -> Tensor:
    """Return P(first j drafts are accepted) given as much of the drafts as the rule has a formula for, [S, B, k]."""
    if verify_rule == VerifyRule.BLOCK:
        return steps.at_least_SBk
    reached = torch.cat((torch.ones_like(steps.at_least_SBk[..., :1]), steps.at_least_SBk[..., :-1]), dim=-1)
    return reached * steps.chance_SBk


def _ratio(sums_SB: Tensor, counts_SB: Tensor) -> tuple[float, float]:
    """Return sum / count and its standard error over sequences (a ratio estimate, linearised)."""
    sum_B, count_B = sums_SB.sum(0).double(), counts_SB.sum(0).double()
    ratio = sum_B.sum() / count_B.sum()
    rest = sum_B - ratio * count_B
    num = len(rest)
    error = (rest.square().sum() * num / max(num - 1, 1)).sqrt() / count_B.sum()
    return float(ratio), float(error)
