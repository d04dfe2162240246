"""Policies: placement, staleness, and what happens at a weight sync."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from traces.base import Strict

InFlightRule = Literal["wait", "abort_resume", "restart", "in_place", "in_place_recompute"]
"""What happens to running sequences at a weight sync: they finish first; they are aborted and prefilled again with
all they had; they are aborted and begin again from their prompt, with the length they were to have; they stay, with a
KV cache of mixed policies; they stay, and their KV cache is computed again."""
OverdueRule = Literal["keep", "drop", "drop_running"]
"""What becomes of groups that are too old: they are trained on and counted (SkyRL); the finished ones are dropped when
the trainer fetches, and new ones admitted in their place (TRL, miles); those under way too, before the weight sync that
makes them too old (prime-rl)."""
RefillRule = Literal["at_once", "by_round"]
"""When a filter has left too few groups, the next round is submitted: as soon as those ready and under way are fewer
than the RL step needs (slime); when nothing is under way any more, as every round is generated whole (verl DAPO)."""
LeftoverRule = Literal["drop", "resume"]
"""What becomes of groups beyond those that an RL step needs, when it has them: they are thrown away; the finished ones
are kept for the next step, and the others go on in it (partial rollout)."""
OrderRule = Literal["as_ready", "in_order"]
"""Which groups a fetch takes: the first to be finished; the next ones in the order of their admission, for which it
waits (NeMo-RL, whose trajectories are tagged with the step that they are for)."""


class BatchPolicy(Strict):
    """A generation phase for every RL step: a whole batch is submitted, and a whole batch is trained on."""

    oversampling: Annotated[float, Field(ge=1, le=100)] | None = None
    """Groups submitted at once over those that an RL step needs (slime `--over-sampling-batch-size`, verl
    `data.gen_batch_size`, redundant groups of RollPacker); None: 1."""
    refill: RefillRule | None = None
    """None: at_once."""
    leftover: LeftoverRule | None = None
    """None: drop."""

    def round_groups(self, groups_per_step: int) -> int:
        """Return how many groups are submitted at once."""
        return math.ceil(groups_per_step * (self.oversampling or 1.0) - 1e-9)


class SynchronousPolicy(BatchPolicy):
    """Colocated: generate a whole batch, train on it, sync, on the same GPUs."""

    kind: Literal["synchronous"] = "synchronous"
    switch_s: NonNegativeFloat = 0.0
    """Seconds per RL step to move the GPUs from generation to training and back."""


class OneStepOffPolicy(BatchPolicy):
    """Split: the trainer works on one whole batch while the next is generated."""

    kind: Literal["one_step_off"] = "one_step_off"


class FullyAsyncPolicy(Strict):
    """Split: generation never stops; admission keeps it a bounded number of groups ahead of the trainer.

    Admitted groups never exceed those trained on at the last weight sync by more than (1 + staleness) x groups per
    sync period. Staleness is stated in policy versions (AReaL, arXiv 2505.24298, sec. 5.1) or as a fraction of a sync
    period (verl's fully_async_policy); exactly one of the two.
    A group that straggles can still arrive older than that; `overdue` says what becomes of it.
    """

    kind: Literal["fully_async"] = "fully_async"
    max_staleness: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Policy versions that admission may run ahead."""
    staleness_fraction: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Share of a sync period that admission may run ahead (verl `staleness_threshold`)."""
    in_flight: InFlightRule = "abort_resume"
    fetch_groups: PositiveInt | None = None
    """Groups that the trainer takes at once (verl `require_batches` x `ppo_mini_batch_size`), a divisor of
    prompts_per_step; None: prompts_per_step."""
    fetches_per_sync: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Fetches trained on between two weight syncs (verl `trigger_parameter_sync_step`, slime
    `update_weights_interval`); None: 1."""

    overdue: OverdueRule | None = None
    """What becomes of finished groups older than max_staleness; None: keep."""
    elastic_switch_s: NonNegativeFloat | None = None
    """The trainer's GPUs generate while it waits for samples: seconds to turn them into replicas, and back; None: they
    stand still."""
    order: OrderRule | None = None
    """Which groups a fetch takes; None: as_ready."""

    @model_validator(mode="after")
    def _dropping_has_a_limit(self) -> Self:
        if self.overdue in ("drop", "drop_running") and self.max_staleness is None:
            raise ValueError(f"overdue: {self.overdue} needs an age in policy versions; state max_staleness")
        if self.overdue in ("drop", "drop_running") and self.order == "in_order":
            raise ValueError(
                f"order: in_order waits for every group, but overdue = {self.overdue} drops some; choose one of them"
            )
        return self

    @model_validator(mode="after")
    def _staleness_has_one_unit(self) -> Self:
        if (self.max_staleness is None) == (self.staleness_fraction is None):
            said = "neither" if self.max_staleness is None else "both"
            raise ValueError(
                f"max_staleness and staleness_fraction: {said} stated; give one, in policy versions or as a "
                "fraction of a sync period"
            )
        return self

    @property
    def staleness(self) -> float:
        """Sync periods that admission may run ahead: the limit in either unit."""
        return self.max_staleness if self.max_staleness is not None else self.staleness_fraction or 0.0

    @property
    def versions_ahead(self) -> int:
        """The limit in whole policy versions."""
        return math.ceil(self.staleness)

    def groups_per_sync(self, groups_per_step: int) -> int:
        """Return the groups trained on between two weight syncs, for so many per RL step."""
        return (self.fetches_per_sync or 1) * (self.fetch_groups or groups_per_step)


PolicyConfig = Annotated[SynchronousPolicy | OneStepOffPolicy | FullyAsyncPolicy, Field(discriminator="kind")]
