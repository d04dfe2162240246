"""Metrics: one run's log boiled down to the numbers of the report, warm-up left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.parts import Parts
from simulator.run_log import RunLog, StepRecord
from traces.report import LostWork

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one arm did in one replication. Times are means per RL step unless said."""

    step_s: float
    rollout_s: float
    trajectory_s: float
    train_s: float
    weight_sync_s: float
    exposed_generation_s: float
    accept_length: float
    tokens_per_s: float
    """Response tokens trained on per second."""
    total_s: float
    """The whole run, warm-up included."""
    rollout_shares: tuple[float, float, float, float, float]
    """Generating, weight sync, staleness stall, other idle, down; of the rollout side's time."""
    trainer_shares: tuple[float, float, float, float]
    """Training, weight sync, waiting, other idle; of the trainer's time, which failures share."""
    failure_shares: tuple[float, float]
    """Lost to failures, down; of the trainer's time."""
    staleness: F64
    """Share of trained groups by versions behind."""
    preemptions: int
    num_dropped: int
    """Groups dropped in the whole run because they were too old."""
    lost: LostWork
    wasted_fraction: float
    """Share of the tokens prefilled and generated that were computed again, or that nothing was trained on."""
    max_batch: int
    step_series_s: F64
    """Duration of every RL step, warm-up included."""
    accept_series: F64
    """Accept length of what ended during each RL step."""
    rollout_share: float
    """Share R of the time in which any sequence is under way (Amdahl)."""


def measure(log: RunLog, parts: Parts, warmup_steps: int) -> Outcome:
    """Return the outcome of a run, its first `warmup_steps` steps left out of all means."""
    window = log.steps[warmup_steps:]
    before = log.steps[warmup_steps - 1] if warmup_steps else None
    begin_s = before.end_s if before else 0.0
    span_s = window[-1].end_s - begin_s
    num_steps = len(window)
    tokens = sum(step.output_tokens for step in window)
    num_samples = sum(step.num_samples for step in window)

    def gained(name: str) -> float:
        """Return how much a total of the rollout side grew in the window."""
        return float(getattr(window[-1].totals, name) - (getattr(before.totals, name) if before else 0.0))

    generated = gained("stretch_tokens") + gained("first_tokens")
    steps = gained("stretch_steps")
    finished = gained("finished")
    replica_s = (parts.num_replicas + parts.num_helpers) * span_s - gained("away_s")
    generating, sync = gained("busy_s") / replica_s, gained("sync_s") / replica_s
    down = gained("down_s") / replica_s
    starved = gained("starved_s") / replica_s if parts.policy.kind != "synchronous" else 0.0
    if parts.policy.kind == "fully_async":
        # Work in progress at the window's ends belongs to neither: cost per token, times the tokens trained on.
        rollout_s = gained("busy_s") / parts.num_replicas * (tokens / num_steps) / generated if generated else 0.0
    else:
        rollout_s = sum(step.generation_s for step in window) / num_steps
    trained = [sum(getattr(step, name) for step in window) / span_s for name in ("train_s", "sync_s", "wait_s")]
    undone = [sum(getattr(step, name) for step in window) / span_s for name in ("lost_s", "down_s")]
    wasted = gained("recomputed_tokens") + window[-1].dropped_tokens - (before.dropped_tokens if before else 0)
    wasted += gained("restarted_tokens") + gained("filtered_tokens") + gained("discarded_tokens")
    return Outcome(
        step_s=span_s / num_steps,
        rollout_s=rollout_s,
        trajectory_s=gained("trajectory_s") / finished if finished else 0.0,
        train_s=trained[0] * span_s / num_steps,
        weight_sync_s=trained[1] * span_s / num_steps,
        exposed_generation_s=_exposed(window, parts) / num_steps,
        accept_length=gained("stretch_tokens") / steps if steps else 1.0,
        tokens_per_s=tokens / span_s,
        total_s=log.steps[-1].end_s,
        rollout_shares=(generating, sync, starved, _rest(generating, sync, starved, down), down),
        trainer_shares=(trained[0], trained[1], trained[2], _rest(*trained, *undone)),
        failure_shares=(undone[0], undone[1]),
        staleness=_staleness(window),
        preemptions=log.steps[-1].totals.preemptions,
        num_dropped=log.steps[-1].num_dropped,
        lost=LostWork(
            filtered_groups=gained("filtered_groups") / num_steps,
            discarded_groups=gained("discarded_groups") / num_steps,
            replica_crashes=log.num_crashes,
            trainer_failures=log.num_failures,
            lost_steps=log.num_lost_steps,
            dropped_groups=(window[-1].num_dropped - (before.num_dropped if before else 0)) / num_steps,
            aborts_per_sample=gained("aborts") / num_samples,
            restarts_per_sample=gained("restarts") / num_samples,
            max_restarts=log.steps[-1].totals.max_restarts,
            # What is thrown away in the window may have been generated before it.
            restarted_tokens_fraction=min(gained("restarted_tokens") / max(generated, 1.0), 1.0),
            useful_tokens_fraction=max(
                1.0 - (gained("restarted_tokens") + gained("discarded_tokens")) / max(generated, 1.0), 0.0
            ),
        ),
        # Dropped groups may have been generated before the window.
        wasted_fraction=min(wasted / max(gained("prefill_tokens") + generated, 1.0), 1.0),
        max_batch=log.max_batch,
        step_series_s=np.diff([0.0] + [step.end_s for step in log.steps]),
        accept_series=_accept_series(log),
        rollout_share=min(gained("live_s") / span_s, 1.0),
    )


def _exposed(window: list[StepRecord], parts: Parts) -> float:
    """Return the seconds in which the trainer had nothing to train on because generation was not done."""
    return sum(step.generation_s if parts.policy.kind == "synchronous" else step.wait_s for step in window)


def _rest(*shares: float) -> float:
    """Return what is left of 1, without rounding errors."""
    rest = 1.0
    for share in shares:
        rest -= share
    return rest if rest > 1e-9 else 0.0


def _staleness(window: list[StepRecord]) -> F64:
    counts = np.zeros(max(len(step.staleness) for step in window))
    for step in window:
        counts[: len(step.staleness)] += step.staleness
    shares: F64 = counts / counts.sum()
    return shares


def _accept_series(log: RunLog) -> F64:
    tokens = np.diff([0.0] + [step.totals.stretch_tokens for step in log.steps])
    steps = np.diff([0.0] + [step.totals.stretch_steps for step in log.steps])
    lengths: F64 = np.where(steps > 0, tokens / np.maximum(steps, 1.0), np.nan)
    return lengths
