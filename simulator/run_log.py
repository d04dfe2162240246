"""What one run of one arm did, RL step by RL step. Does not judge it (`metrics`)."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.rollout import RolloutTotals


@dataclass(slots=True)
class StepRecord:
    """One RL step, as the trainer lived it."""

    end_s: float
    wait_s: float
    """Waiting for samples."""
    train_s: float
    drain_s: float
    """Waiting for replicas to stop before the sync."""
    sync_s: float
    generation_s: float
    """Duration of the generation phase that fed this step; 0 where generation never stops."""
    num_samples: int
    output_tokens: int
    staleness: NDArray[np.int64]
    """Groups trained on, by policy versions behind."""
    totals: RolloutTotals
    """The rollout side at the end of the step."""
    num_dropped: int
    """Groups dropped since the start of the run because they were too old."""
    dropped_tokens: int
    """Prompts and responses of groups that were dropped, or whose training a failure undid, since the start."""
    trained_tokens: int = 0
    """Prompts and responses of the groups trained on."""
    lost_s: float = 0.0
    """Before this step: the trainer's time that a failure undid, whatever it did in it."""
    down_s: float = 0.0
    """Before this step: the trainer down after failures."""


@dataclass(slots=True)
class RunLog:
    """All steps of a run; a step that is undone by a failure of the trainer gives way to the one in its place."""

    steps: list[StepRecord] = field(default_factory=list)
    max_batch: int = 0
    """Most sequences that any replica decoded together."""
    num_crashes: int = 0
    """Of rollout replicas."""
    num_failures: int = 0
    """Of the trainer."""
    num_lost_steps: int = 0
    """RL steps that those undid; one that was not finished does not count."""
    num_lost_groups: int = 0
    """Groups taken whose training those undid."""
