"""Parts: everything one run of one arm is made of, settled before it starts. Does not know what happens in the run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.config import PolicyConfig
from simulator.step_law import StepLaw
from simulator.step_table import StepTable
from simulator.trainer import TrainerCost
from simulator.workload import Workload


@dataclass(frozen=True, slots=True)
class Parts:
    """One arm on one cluster, with one replication's workload."""

    workload: Workload
    num_steps: int
    groups_per_step: int
    policy: PolicyConfig
    num_replicas: int
    max_running: int
    max_live: int
    kv_tokens: float
    chunk_tokens: int
    """Token budget of a step with chunked prefill; 0: prefill at once."""
    keep_prefix: bool
    table: StepTable
    num_draft_tokens: int
    num_classes: int
    law_of: Callable[[int], StepLaw]
    """Policy version -> how many steps responses need under it."""
    trainer: TrainerCost
    sync_s: float
    stream: np.uint64
    """Key of the acceptance draws."""

    @property
    def max_staleness(self) -> int:
        """Policy versions that admission may run ahead of the trainer."""
        return getattr(self.policy, "max_staleness", 0)


def groups_needed(num_steps: int, groups_per_step: int, policy: PolicyConfig) -> int:
    """Return how many groups a run may admit before it ends."""
    ahead = {"synchronous": 0, "one_step_off": 1}.get(policy.kind, getattr(policy, "max_staleness", 0) + 1)
    return (num_steps + ahead) * groups_per_step
