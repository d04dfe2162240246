"""Parts: everything one run of one arm is made of, settled before it starts. Does not know what happens in the run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulator.config import BatchPolicy, FullyAsyncPolicy, PolicyConfig, Router, SyncMode
from simulator.failures import ReplicaFailures, TrainerFailures
from simulator.step_law import StepLaw
from simulator.step_table import StepTable
from simulator.trainer import TrainerCost
from simulator.workload import NO_FILTER, Bools, Workload


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
    """Costs of an engine; where `table_while_training` is given, while the trainer does not compute."""
    num_draft_tokens: int
    num_classes: int
    law_of: Callable[[int], StepLaw]
    """RL steps trained on -> how many steps responses need under the policy that came of them."""
    trainer: TrainerCost
    sync_s: float
    """Of one weight sync: until the replicas go on (blocking), of the transfer (overlapped), of each replica (pull)."""
    stream: np.uint64
    """Key of the acceptance draws."""
    kv_block_tokens: int = 1
    """KV is handed out in blocks of so many; 1: token by token."""
    share_prompts: bool = False
    """Whether the responses of a group on one replica share the KV of their prompt."""
    router: Router = "least_in_flight"
    slowness: tuple[float, ...] = ()
    """Factor of the first replicas' latencies; 1 for the rest."""
    num_helpers: int = 0
    """Replicas that the trainer's GPUs can be while the trainer waits."""
    switch_s: float = 0.0
    """Seconds to turn them into replicas, and back."""
    sync_mode: SyncMode = "blocking"
    swap_s: float = 0.0
    """Seconds that replicas stand still when an overlapped transfer is done."""
    failures: TrainerFailures | None = None
    """None: the trainer never fails."""
    crashes: ReplicaFailures | None = None
    """None: replicas never crash."""
    piece_from: tuple[int, ...] = (0,)
    """Tokens of a response at which acceptance changes; the first piece begins at 0."""
    table_while_training: StepTable | None = None
    """Costs of an engine on whose machine the trainer computes; None: the trainer slows nothing down."""

    @property
    def share_a_machine(self) -> bool:
        """Whether trainer and engines slow each other down."""
        return self.table_while_training is not None or self.trainer.while_generating is not None

    @property
    def fetch_groups(self) -> int:
        """Groups that the trainer takes at once."""
        return getattr(self.policy, "fetch_groups", None) or self.groups_per_step


def groups_needed(
    num_steps: int, groups_per_step: int, policy: PolicyConfig, num_ahead: int = 0, useful: Bools = NO_FILTER
) -> int:
    """Return how many groups a run may admit before it ends.

    Args:
        num_steps: RL steps.
        groups_per_step: Groups that each trains on.
        policy: How they are admitted.
        num_ahead: Groups that may be admitted in advance in any case.
        useful: Which groups pass the filter; empty: all. Where these are too few, one more than there are is returned.
    """
    if isinstance(policy, BatchPolicy):
        return _groups_in_rounds(num_steps + (policy.kind == "one_step_off"), groups_per_step, policy, useful)
    trained = num_steps * groups_per_step
    # A dropped group has taken one of (max_staleness + 1) x groups per sync places during at least max_staleness + 1
    # syncs, so no more groups are dropped than trained on.
    times = 1 if policy.overdue in (None, "keep") else 2
    needed = max(times * trained + groups_ahead(groups_per_step, policy), trained + num_ahead)
    return int(np.searchsorted(np.cumsum(useful), needed)) + 1 if len(useful) else needed


def _groups_in_rounds(num_steps: int, groups_per_step: int, policy: BatchPolicy, useful: Bools) -> int:
    """Every step submits rounds until it has enough; what it leaves is thrown away, or shortens the next step's."""
    per_round = policy.round_groups(groups_per_step)
    if not len(useful):
        return num_steps * per_round
    passed, position = np.concatenate([[0], np.cumsum(useful)]), 0
    for _ in range(num_steps):
        begin = position
        while position == begin or passed[position] - passed[begin] < groups_per_step:
            position += per_round
            if position > len(useful):
                return len(useful) + 1
    return position


def groups_ahead(groups_per_step: int, policy: FullyAsyncPolicy) -> int:
    """Return how many groups more may be admitted than had been trained on at the last weight sync.

    verl's fully_async_policy, whose rollouter may submit (1 + staleness_threshold) x trigger_parameter_sync_step x
    required samples a period, less what is left from before; for whole fractions AReaL's (staleness + 1) batches.
    """
    return int((1 + policy.staleness) * policy.groups_per_sync(groups_per_step) + 1e-9)
