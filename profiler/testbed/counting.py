"""What the policy writes before RL, and what of its drafts is accepted: counted in the engine on prompts of the config.

Does not know clocks.
"""

import datetime
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from profiler.result import own_version
from profiler.testbed.engine import Counters, Finished
from profiler.testbed.neighbour import requests_of
from profiler.testbed.parts import PreparedParts
from profiler.testbed.prepared import HEAD_LOSS
from profiler.testbed.step_trace import MOST_DRAFTS
from traces.acceptance import AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Provenance
from traces.testbed import TestbedConfig

NUM_RESPONSES = 1536
FEW_RESPONSES = 32
"""Where acceptance is forced and lengths are imposed: there is nothing to count, only to train on."""
PER_GROUP = 2
"""Responses to one prompt, at most: enough to see what they have in common. Lengths differ more between prompts than
between responses to one, so many prompts tell the mean length best."""
QUANTILES = 20
SEED_OF_COUNTS = 77
"""Added to the config's: a run samples otherwise."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted."""

    finished: list[Finished]
    acceptance: AcceptanceTrace | None
    """None where the config drafts nothing, or forces what is accepted."""
    response_tokens: tuple[tuple[float, int], ...]
    """Quantiles: [probability, tokens]."""
    group_correlation: float
    entropy_nats: float


def count(config: TestbedConfig, num_responses: int = NUM_RESPONSES) -> Counted:
    """Generate some hundred responses, and count."""
    # Acceptance at a position does not depend on how many follow, but for the rule that decides them together.
    is_fixed = config.k == 0 or config.verify_rule == "block" or config.forced_acceptance is not None
    k = config.k if is_fixed else max(config.k, MOST_DRAFTS)
    engine = PreparedParts().engine(config.model_copy(update={"k": k}))
    torch.manual_seed(config.seed + SEED_OF_COUNTS)
    per_group = min(PER_GROUP, config.group_size)
    num = FEW_RESPONSES if config.forced_acceptance is not None else num_responses
    requests = requests_of(config.model_copy(update={"group_size": per_group}), -(-num // per_group))
    engine.submit(requests)
    finished: list[Finished] = []
    while engine.num_running + engine.num_waiting:
        finished += engine.step()
    counters = engine.take_counters()
    finished.sort(key=lambda one: one.request.sample_id)  # who ends first is short
    return Counted(
        finished,
        acceptance_trace(config, counters) if k and config.forced_acceptance is None else None,
        config.response_tokens or quantiles([len(one.tokens) for one in finished]),
        group_correlation(finished) if config.response_tokens is None else 0.0,
        counters.entropy_nats,
    )


def acceptance_trace(config: TestbedConfig, counters: Counters) -> AcceptanceTrace:
    """Return the counts as a trace of one row."""
    row = AcceptanceRow(
        loss=HEAD_LOSS if config.head_batches else "untrained",
        verify_rule=VerifyRule(config.verify_rule),
        temperature=config.temperature,
        entropy_nats=counters.entropy_nats or None,
        task="sums",
        cumulative=tuple(hits / counters.num_seq_steps for hits in counters.accepted_at),
        num_steps=counters.num_seq_steps,
    )
    return AcceptanceTrace(
        name="acceptance",
        model=f"testbed-{config.model.hidden_size}x{config.model.num_layers}",
        rows=(row,),
        provenance=Provenance(
            source=f"counted in the testbed's engine; head trained on {config.head_batches} batches",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            versions={"bebop-rollout": own_version(), "torch": torch.__version__},
            notes="Policy and head before RL, on prompts of the config; steps count with all positions, also where a "
            "response ends inside.",
        ),
    )


def quantiles(lengths: Sequence[int]) -> tuple[tuple[float, int], ...]:
    """Return [probability, tokens] of lengths, both ends included."""
    shares = np.linspace(0.0, 1.0, QUANTILES + 1)
    found = np.quantile(lengths, shares, method="inverted_cdf")
    return tuple((round(float(share), 6), int(length)) for share, length in zip(shares, found, strict=True))


def group_correlation(finished: Sequence[Finished]) -> float:
    """Return the share of the variance of log length that responses to one prompt have in common, 0..1.

    The intraclass correlation of a one-way analysis of variance with equally large groups.
    """
    groups: dict[int, list[float]] = {}
    for one in finished:
        groups.setdefault(one.request.group_id, []).append(float(np.log(len(one.tokens))))
    size = min(map(len, groups.values()))
    if size < 2 or len(groups) < 2:
        return 0.0
    within = statistics.fmean(statistics.variance(logs[:size]) for logs in groups.values())
    between = size * statistics.variance([statistics.fmean(logs[:size]) for logs in groups.values()])
    total = between + (size - 1) * within
    return min(max((between - within) / total, 0.0), 1.0) if total > 0 else 0.0
