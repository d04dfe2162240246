"""Explain: where the gain was lost, from accept length to end-to-end speedup.

The same run is made again with effects taken away, and they come back one at a time in a stated order. Each factor is
the speedup with an effect over the speedup without it, so the factors multiply to the end-to-end speedup exactly.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from simulator.config import FullyAsyncPolicy
from simulator.parts import Parts
from simulator.step_law import StepLaw
from simulator.step_table import StepTable, build_step_table
from simulator.trainer import TrainerCost
from traces.report import Factor

STAGES = ("full_batch_decoding", "decoding", "rollout", "unbounded_staleness")
"""Counterfactuals, from the barest to the whole: decoding at the full batch; at the real batches; with prefill and
weight sync; with the trainer. The run itself adds the staleness rule."""

MEANING = {
    "accept_length": "tokens emitted per verify step: the speedup if a speculative step cost no more than a plain one",
    "draft_verify_cost": "a speculative step costs more than a plain one, here at the full batch",
    "tail_batches": "batches that shrink towards the end of a generation phase, where steps cost differently",
    "prefill_and_sync": "prefill and weight sync, which drafting does not shorten, and prefill again after aborts",
    "trainer_bound": "training time that generation has to wait for, or the other way round",
    "staleness_stalls": "replicas that stand still or run small batches because the staleness rule admits no new work",
}


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """How to take effects away from a run."""

    full_batch: int
    """Largest batch that the baseline really reached."""
    unbounded_staleness: int

    def apply(self, stage: str, parts: Parts) -> Parts:
        """Return the parts of a stage."""
        depth = STAGES.index(stage)
        policy = parts.policy
        if isinstance(policy, FullyAsyncPolicy):
            in_flight = policy.in_flight if depth >= 2 else "in_place"
            unbounded = {"max_staleness": self.unbounded_staleness, "staleness_fraction": None, "overdue": None}
            policy = policy.model_copy(update={**unbounded, "in_flight": in_flight})
        elif policy.kind == "synchronous" and depth < 3:
            policy = policy.model_copy(update={"switch_s": 0.0})
        table = parts.table
        if depth < 2:
            table = without_prefill(table)
        law_of = parts.law_of
        if depth < 1:
            full_batch = min(self.full_batch, parts.max_running)
            table = at_full_batch(table, full_batch)
            if len(law_of(0).level_of_batch) > 1:
                law_of = with_full_batch_level(law_of, full_batch)
        return replace(
            parts,
            policy=policy,
            table=table,
            table_while_training=parts.table_while_training if depth >= 3 else None,
            law_of=law_of,
            trainer=parts.trainer if depth >= 3 else TrainerCost(0.0, 0.0),
            failures=parts.failures if depth >= 3 else None,
            crashes=parts.crashes if depth >= 2 else None,
            sync_s=parts.sync_s if depth >= 2 else 0.0,
            swap_s=parts.swap_s if depth >= 2 else 0.0,
            chunk_tokens=parts.chunk_tokens if depth >= 2 else 0,
        )


def without_prefill(table: StepTable) -> StepTable:
    """Return a table whose prefills take no time."""
    return table._replace(prefill_s=table.prefill_s * 0.0, attention_s_per_token2=0.0)


def at_full_batch(table: StepTable, batch: int) -> StepTable:
    """Return a table in which every step costs as much as at this batch."""
    full = np.arange(len(table.step_s)) // table.rows_per_level * table.rows_per_level + batch
    return build_step_table(
        table.knots,
        table.step_s[full],
        table.prefill_tokens,
        table.prefill_s,
        table.attention_s_per_token2,
        num_levels=len(table.step_s) // table.rows_per_level,
    )


def with_full_batch_level(law_of: Callable[[int], StepLaw], batch: int) -> Callable[[int], StepLaw]:
    """Return laws under which the engine always drafts as many tokens as at this batch."""

    @cache
    def law(version: int) -> StepLaw:
        whole = law_of(version)
        level = whole.level_of_batch[min(batch, len(whole.level_of_batch) - 1)]
        return whole._replace(level_of_batch=np.full(1, level))

    return law


def waterfall(
    accept_lengths: Sequence[float], speedups: Mapping[str, Sequence[float]], whole: Sequence[float]
) -> list[Factor]:
    """Return the factors, geometric means over replications.

    Args:
        accept_lengths: Of the arm, one per replication.
        speedups: Stage -> baseline's time over the arm's, one per replication.
        whole: The end-to-end speedups.
    """
    levels = [geometric_mean(v) for v in (accept_lengths, *(speedups[stage] for stage in STAGES), whole)]
    factors = []
    previous = 1.0
    for name, level in zip(MEANING, levels, strict=True):
        factors.append(Factor(name=name, factor=level / previous, speedup_after=level, meaning=MEANING[name]))
        previous = level
    return factors


def geometric_mean(values: Iterable[float]) -> float:
    """Return the mean of ratios."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))
