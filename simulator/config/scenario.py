"""Scenario: the whole question, and what must hold between its parts."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, field_validator, model_validator

from simulator.config.arm import ArmConfig
from simulator.config.cluster import ClusterConfig, EngineConfig, ModelConfig
from simulator.config.costs import LatencyConfig, TrainerConfig, WeightSyncConfig
from simulator.config.failures import FailuresConfig
from simulator.config.limits import MAX_SEQUENCES_PER_RUN, MAX_SEQUENCES_PER_STEP, MAX_TURNS_PER_RUN, Name
from simulator.config.policy import BatchPolicy, FullyAsyncPolicy, PolicyConfig
from simulator.config.workload import EntropyConfig, WorkloadConfig
from traces.base import Origin, Strict


class UncertaintyConfig(Strict):
    """How wrong the inputs may be (relative standard deviations unless said); every replication draws its own."""

    latency: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of every engine latency alike; mostly cancels in a speedup."""
    draft_and_verify: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the cost of a speculative step against a plain one."""
    accept_length: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Of the accept length, in tokens."""
    trainer: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of training time."""
    weight_sync: Annotated[float, Field(ge=0, le=1)] = 0.0


class RunConfig(Strict):
    """How long and how often."""

    num_steps: Annotated[int, Field(ge=1, le=10_000)] = 100
    """RL steps."""
    first_step: NonNegativeInt = 0
    """RL step at which the run starts on the entropy trajectory."""
    warmup_steps: NonNegativeInt | None = None
    """Steps left out of every mean; None leaves out the filling of the pipeline: max_staleness + 1 sync periods."""
    replications: Annotated[int, Field(ge=1, le=1000)] = 8
    seed: NonNegativeInt = 0


class MeasuredConfig(Strict):
    """A published or logged number to show beside the prediction; never used to make it.

    It compares an arm with plain decoding, or plain decoding under one set-up with that under another.
    """

    arm: Name | None = None
    quantity: Literal["step_s", "rollout_s", "trajectory_s", "train_s", "exposed_generation_s", "accept_length"]
    baseline: PositiveFloat | None = None
    """Of plain decoding, under `baseline_setup` where a set-up is compared."""
    with_spec: PositiveFloat | None = None
    """Of the arm."""
    speedup: PositiveFloat | None = None
    setup: tuple[Name, ...] | None = None
    """Names of `setups`, applied from the first to the last, instead of an arm."""
    baseline_setup: tuple[Name, ...] = ()
    """Set-ups of the side compared with; none: the scenario as it stands."""
    with_setup: PositiveFloat | None = None
    """Of plain decoding under `setup`."""
    source: str = Field(min_length=1)

    @property
    def value(self) -> float | None:
        """The number of the arm, or of the set-up."""
        return self.with_spec if self.setup is None else self.with_setup

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if (self.arm is None) == (self.setup is None):
            raise ValueError(
                f"arm and setup: {'neither' if self.arm is None else 'both'} stated; a measured row is of one of them"
            )
        other, wanted = ("with_setup", "with_spec") if self.setup is None else ("with_spec", "with_setup")
        if getattr(self, other) is not None:
            raise ValueError(f"{other}: {getattr(self, other):g} in a row of the other kind; write {wanted}")
        if self.setup is None and self.baseline_setup:
            raise ValueError("baseline_setup: an arm is compared with plain decoding; remove it or state setup")
        if self.speedup is None and self.value is None:
            raise ValueError(f"speedup and {wanted}: both missing; a measured row states at least one")
        if self.quantity == "accept_length" and (self.with_spec is None or self.speedup or self.baseline):
            raise ValueError("quantity: accept_length is of the arm alone; state with_spec, no baseline, no speedup")
        return self


class OriginConfig(Strict):
    """Where the number of a scenario field comes from."""

    origin: Origin
    source: str = Field(min_length=1, max_length=1000)


class Scenario(Strict):
    """A question: on these GPUs, with this model and workload, how much faster is each arm."""

    schema_version: Literal[1] = 1
    name: Name
    question: str = Field(min_length=1, max_length=1000)
    model: ModelConfig
    cluster: ClusterConfig
    policy: PolicyConfig
    engine: EngineConfig
    workload: WorkloadConfig
    entropy: EntropyConfig | None = None
    """Policy entropy along the run; needed by acceptance laws, and by traces with entropy in their rows."""
    latency: LatencyConfig
    trainer: TrainerConfig
    weight_sync: WeightSyncConfig
    failures: FailuresConfig | None = None
    """What breaks; None: nothing."""
    arms: dict[Name, ArmConfig] = Field(min_length=1, max_length=32)
    """Name of the arm -> how it decodes. The baseline, k = 0, is always run and needs no entry."""
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    run: RunConfig = RunConfig()
    measured: tuple[MeasuredConfig, ...] = ()
    setups: dict[Name, dict[str, Any]] = Field(default_factory=dict, max_length=100)
    """Name -> other settings of this scenario, dotted paths as `--set` takes them; for measured rows alone. A table
    as value replaces the whole table."""
    origins: dict[str, OriginConfig] = Field(default_factory=dict)
    """Dotted field path -> where its value comes from; a field without an entry counts as assumed."""

    @field_validator("origins", mode="before")
    @classmethod
    def _paths_are_quoted(cls, origins: object) -> object:
        for path, entry in origins.items() if isinstance(origins, dict) else ():
            if isinstance(entry, dict) and any(isinstance(value, dict) for value in entry.values()):
                raise ValueError(f'{path} is a table of tables; quote the whole path, as in "{path}.field" = {{ .. }}')
        return origins

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        for name, arm in self.arms.items():
            if arm.acceptance is not None and arm.acceptance.kind == "law" and self.entropy is None:
                raise ValueError(f"entropy: missing, but arms.{name}.acceptance is a law of entropy; give a trajectory")
        if "baseline" in self.arms:
            raise ValueError("arms.baseline: the name is taken by plain decoding, which always runs; choose another")
        for index, row in enumerate(self.measured):
            if row.arm is not None and row.arm not in self.arms:
                raise ValueError(f"measured.{index}.arm: {row.arm!r} is not an arm; arms are {sorted(self.arms)}")
            for name in (*(row.setup or ()), *row.baseline_setup):
                if name not in self.setups:
                    raise ValueError(
                        f"measured.{index}: {name!r} is not one of setups, {sorted(self.setups)}; state it"
                    )
        cluster = self.cluster
        if self.policy.kind == "synchronous" and cluster.num_rollout_gpus != cluster.num_train_gpus:
            raise ValueError(
                f"cluster.num_train_gpus: {cluster.num_train_gpus} differs from num_rollout_gpus "
                f"{cluster.num_rollout_gpus}, but a synchronous policy runs both on the same GPUs; make them equal"
            )
        workload = self.workload
        if workload.kind == "synthetic":
            per_step = workload.prompts_per_step * workload.group_size
            if per_step > MAX_SEQUENCES_PER_STEP:
                raise ValueError(
                    f"workload.prompts_per_step: {workload.prompts_per_step} x group_size {workload.group_size} = "
                    f"{per_step} sequences per step, above the limit {MAX_SEQUENCES_PER_STEP}; lower one of them"
                )
            generated = round(self.generated_groups_per_step * workload.group_size)
            if generated * self.run.num_steps > MAX_SEQUENCES_PER_RUN:
                raise ValueError(
                    f"run.num_steps: {self.run.num_steps} x {generated} sequences = {generated * self.run.num_steps}, "
                    f"above the limit {MAX_SEQUENCES_PER_RUN}; simulate fewer steps"
                )
        if self.warmup_steps >= self.run.num_steps:
            raise ValueError(
                f"run.num_steps: {self.run.num_steps} leaves nothing after {self.warmup_steps} warm-up steps; "
                "raise it or set run.warmup_steps"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit_together(self) -> Self:
        if isinstance(self.policy, FullyAsyncPolicy):
            is_filtered = self.workload.kind == "synthetic" and self.workload.useful_fraction is not None
            if is_filtered and self.policy.order == "in_order":
                raise ValueError(
                    "policy.order: in_order waits for every group, but workload.useful_fraction filters some out; "
                    "leave out one of them"
                )
            if self.policy.elastic_switch_s is not None and self.cluster.router != "least_in_flight":
                raise ValueError(
                    f"cluster.router: {self.cluster.router} fixes replicas in advance, but policy.elastic_switch_s "
                    "lets some come and go; choose least_in_flight"
                )
        elif self.weight_sync.mode not in (None, "blocking"):
            raise ValueError(
                f"weight_sync.mode: {self.weight_sync.mode} needs replicas that generate while the trainer trains on; "
                "a policy that is not fully_async syncs when nothing runs, so set blocking"
            )
        return self

    @model_validator(mode="after")
    def _only_what_overlaps_shares_a_machine(self) -> Self:
        for path, stated in (
            ("latency.while_training", getattr(self.latency, "while_training", None)),
            ("trainer.while_generating", getattr(self.trainer, "while_generating", None)),
        ):
            if stated is None:
                continue
            if self.policy.kind == "synchronous":
                raise ValueError(f"{path}: given, but a synchronous policy never generates while it trains; remove it")
            if self.failures is not None:
                raise ValueError(f"{path}: given beside failures, and the two are not modelled together; remove one")
        return self

    @model_validator(mode="after")
    def _turns_fit_into_memory(self) -> Self:
        workload = self.workload
        if workload.kind == "synthetic" and workload.turns is not None:
            num_sequences = round(self.run.num_steps * self.generated_groups_per_step * workload.group_size)
            num_turns = num_sequences * max(workload.turns.num_turns.mean_after_cut, 1.0)
            if num_turns > MAX_TURNS_PER_RUN:
                raise ValueError(
                    f"workload.turns.num_turns: {workload.turns.num_turns.mean_after_cut:.4g} on average x "
                    f"{num_sequences} sequences = {num_turns:.0f} turns, above the limit {MAX_TURNS_PER_RUN}; "
                    "simulate fewer steps or fewer turns"
                )
        return self

    @property
    def generated_groups_per_step(self) -> float:
        """Groups of a synthetic workload that are generated for one RL step, those that are not trained on included."""
        assert self.workload.kind == "synthetic"
        per_step = self.workload.prompts_per_step
        generated = per_step / (self.workload.useful_fraction or 1.0)
        if isinstance(self.policy, BatchPolicy) and self.policy.leftover != "resume":
            return max(generated, self.policy.round_groups(per_step))
        return generated

    @property
    def max_live_per_replica(self) -> int:
        """Trajectories that one replica holds at most."""
        engine = self.engine
        return max(engine.max_live_trajectories or engine.max_running_seqs, engine.max_running_seqs)

    @property
    def max_staleness(self) -> int:
        """Policy versions that samples may be behind the trainer by the rule of this policy."""
        if isinstance(self.policy, FullyAsyncPolicy):
            return self.policy.versions_ahead
        return 0 if self.policy.kind == "synchronous" else 1

    @property
    def warmup_steps(self) -> int:
        """Steps left out of every mean."""
        if self.run.warmup_steps is not None:
            return self.run.warmup_steps
        if self.policy.kind != "fully_async":
            return self.max_staleness + 1
        # A traced workload's groups per step are unknown here; a fetch is then taken for a whole step, its most.
        per_step = self.workload.prompts_per_step if self.workload.kind == "synthetic" else 1
        fetch = (self.policy.fetch_groups or per_step) if self.workload.kind == "synthetic" else 1
        return -(-(self.max_staleness + 1) * (self.policy.fetches_per_sync or 1) * fetch // per_step)
