"""Parts: everything one run of one arm is made of, settled before it starts. Does not know what happens in the run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.config import FullyAsyncPolicy, PolicyConfig
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
    """RL steps trained on -> how many steps responses need under the policy that came of them."""
    trainer: TrainerCost
    sync_s: float
    stream: np.uint64
    """Key of the acceptance draws."""
    slowness: tuple[float, ...] = ()
    """Factor of the first replicas' latencies; 1 for the rest."""

    @property
    def fetch_groups(self) -> int:
        """Groups that the trainer takes at once."""
        return getattr(self.policy, "fetch_groups", None) or self.groups_per_step


def groups_needed(num_steps: int, groups_per_step: int, policy: PolicyConfig) -> int:
    """Return how many groups a run may admit before it ends."""
    if isinstance(policy, FullyAsyncPolicy):
        # A dropped group has taken one of (max_staleness + 1) x groups per sync places during at least
        # max_staleness + 1 syncs, so no more groups are dropped than trained on.
        times = 2 if policy.overdue == "drop" else 1
        return times * num_steps * groups_per_step + groups_ahead(groups_per_step, policy)
    return (num_steps + (0 if policy.kind == "synchronous" else 1)) * groups_per_step


def groups_ahead(groups_per_step: int, policy: FullyAsyncPolicy) -> int:
    """Return how many groups more may be admitted than had been trained on at the last weight sync.

    verl's fully_async_policy, whose rollouter may submit (1 + staleness_threshold) x trigger_parameter_sync_step x
    required samples a period, less what is left from before; for whole fractions AReaL's (staleness + 1) batches.
    """
    return int((1 + policy.staleness) * policy.groups_per_sync(groups_per_step) + 1e-9)
