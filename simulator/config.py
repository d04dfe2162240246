"""Scenario: everything a prediction needs, as people write it in TOML; the only place with defaults.

Does not read files (`scenario_file`) and does not know what any field does to the run.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from traces.acceptance import VerifyRule
from traces.base import Origin, Strict

MAX_DRAFT_TOKENS = 16
MAX_SEQUENCES_PER_STEP = 1_000_000
MAX_SEQUENCES_PER_RUN = 20_000_000
MAX_GPUS = 65_536
MAX_TOKENS = 1_000_000
"""Limits of one scenario (trust.md F20): checked before any work starts."""

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelConfig(Strict):
    """The policy being trained."""

    name: str = Field(min_length=1, max_length=200)
    """A name of the architecture table, e.g. `Qwen3.5-35B-A3B`."""
    precision: str = "bf16"
    """Precision of the rollout engine's weights and KV cache."""


class ClusterConfig(Strict):
    """Which GPUs do what. Under a synchronous policy both sides are the same GPUs and both counts are equal."""

    gpu: str = Field(min_length=1, max_length=100)
    num_rollout_gpus: Annotated[int, Field(ge=1, le=MAX_GPUS)]
    num_train_gpus: Annotated[int, Field(ge=1, le=MAX_GPUS)]
    tp_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Tensor-parallel GPUs of one rollout replica."""
    ep_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """Expert-parallel size inside the replica's GPUs (it does not add GPUs)."""
    stragglers: tuple[tuple[PositiveInt, Annotated[float, Field(ge=0.1, le=100)]], ...] | None = None
    """(replicas, factor): so many replicas take `factor` times as long for everything; None: all are alike."""

    @model_validator(mode="after")
    def _replicas_are_whole(self) -> Self:
        if self.num_rollout_gpus % self.tp_size:
            raise ValueError(
                f"num_rollout_gpus: {self.num_rollout_gpus} is not a multiple of tp_size {self.tp_size}; "
                "a replica has tp_size GPUs"
            )
        return self

    @model_validator(mode="after")
    def _stragglers_are_replicas(self) -> Self:
        named = sum(count for count, _ in self.stragglers or ())
        if named > self.num_replicas:
            raise ValueError(f"stragglers: {named} replicas, but there are only {self.num_replicas}; name fewer")
        return self

    @property
    def num_replicas(self) -> int:
        """Rollout engines."""
        return self.num_rollout_gpus // self.tp_size

    @property
    def slowness(self) -> tuple[float, ...]:
        """Factor of each straggler's latencies; replicas beyond the last entry are as the latency source says."""
        return tuple(factor for count, factor in self.stragglers or () for _ in range(count))


InFlightRule = Literal["wait", "abort_resume", "restart", "in_place", "in_place_recompute"]
"""What happens to running sequences at a weight sync: they finish first; they are aborted and prefilled again with
all they had; they are aborted and begin again from their prompt, with the length they were to have; they stay, with a
KV cache of mixed policies; they stay, and their KV cache is computed again."""


OverdueRule = Literal["keep", "drop"]
"""What becomes of finished groups that are too old when the trainer fetches: they are trained on and counted (SkyRL);
they are dropped, and new ones admitted in their place (prime-rl, TRL, miles)."""


class SynchronousPolicy(Strict):
    """Colocated: generate a whole batch, train on it, sync, on the same GPUs."""

    kind: Literal["synchronous"] = "synchronous"
    switch_s: NonNegativeFloat = 0.0
    """Seconds per RL step to move the GPUs from generation to training and back."""


class OneStepOffPolicy(Strict):
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

    @model_validator(mode="after")
    def _dropping_has_a_limit(self) -> Self:
        if self.overdue == "drop" and self.max_staleness is None:
            raise ValueError("overdue: drop needs an age in policy versions; state max_staleness")
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


class EngineConfig(Strict):
    """One rollout replica: an inference engine with continuous batching."""

    max_running_seqs: Annotated[int, Field(ge=1, le=8192)]
    """Sequences decoded together (vLLM `max_num_seqs`)."""
    max_live_trajectories: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Trajectories a replica holds, those at a tool included; None: max_running_seqs."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of GPU memory the engine may use; what weights leave is KV cache."""
    kv_cache_tokens: PositiveInt | None = None
    """KV-cache capacity of a replica in tokens; None derives it from memory, weights and architecture."""
    chunked_prefill_tokens: Annotated[int, Field(ge=16, le=MAX_TOKENS)] | None = None
    """Token budget of a step that mixes prefill with decoding; None prefills at once while decoding waits."""
    layer_overhead_s: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """Seconds per decoder layer and pass beyond the latency source, e.g. kernel launches without CUDA graphs."""
    prefix_cache: Literal["kept", "lost"] = "kept"
    """Whether the KV of earlier turns survives a tool call."""


class ConstantLength(Strict):
    """Always the same."""

    kind: Literal["constant"] = "constant"
    value: Annotated[float, Field(ge=0, le=MAX_TOKENS)]


class LognormalLength(Strict):
    """Log-normal, cut to [minimum, maximum]; stated by its mean or by its median."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Annotated[float, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Mean before the cut."""
    median: Annotated[float, Field(gt=0, le=MAX_TOKENS)] | None = None
    """Median; the cut does not move it."""
    sigma: Annotated[float, Field(ge=0, le=5)]
    """Standard deviation of the logarithm."""
    minimum: NonNegativeFloat = 1.0
    maximum: Annotated[float, Field(gt=0, le=MAX_TOKENS)]

    @model_validator(mode="after")
    def _range_holds_centre(self) -> Self:
        if self.mean is not None and self.median is not None:
            raise ValueError(f"median: {self.median:g} stands beside mean {self.mean:g}; state only one of them")
        name, centre = ("median", self.median) if self.mean is None else ("mean", self.mean)
        if centre is None:
            raise ValueError("mean: missing, and median too; state one of them")
        if not self.minimum <= centre <= self.maximum:
            raise ValueError(
                f"{name}: {centre:g} must lie between minimum {self.minimum:g} and maximum {self.maximum:g}; "
                "change one of them"
            )
        return self


class QuantilesLength(Strict):
    """As (probability, length) points say, straight lines in the logarithm of the length between them.

    A level end, [0.97, 8192] before [1.0, 8192], is the share that is cut at the longest length.
    """

    kind: Literal["quantiles"] = "quantiles"
    points: tuple[tuple[Share, Annotated[float, Field(gt=0, le=MAX_TOKENS)]], ...] = Field(
        min_length=2, max_length=1000
    )
    """[probability, length] from 0 to 1: the median stands at 0.5, the 99th percentile at 0.99."""

    @model_validator(mode="after")
    def _points_ascend(self) -> Self:
        shares, lengths = [share for share, _ in self.points], [length for _, length in self.points]
        if shares[0] != 0 or shares[-1] != 1:
            raise ValueError(
                f"points: probabilities go from {shares[0]:g} to {shares[-1]:g}, not from 0 to 1; add the shortest "
                "length at 0 and the longest at 1"
            )
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after[0] <= before[0]:
                raise ValueError(f"points: probability {after[0]:g} does not ascend after {before[0]:g}; sort them")
            if after[1] < before[1]:
                raise ValueError(f"points: length {after[1]:g} falls after {before[1]:g}; a quantile never does")
        if lengths[0] == lengths[-1]:
            raise ValueError(f'points: every length is {lengths[0]:g}; use kind = "constant"')
        return self


Length = Annotated[ConstantLength | LognormalLength | QuantilesLength, Field(discriminator="kind")]


class TurnsConfig(Strict):
    """Multi-turn trajectories: generate, wait for a tool, read its answer, generate again."""

    num_turns: Length
    """Turns of a trajectory; the response is split evenly among them."""
    observation_tokens: Length
    """Tokens that the tool's answer adds to the context."""
    delay_s: Length
    """Seconds of tool or environment time between two turns."""
    max_context_tokens: Tokens
    """A trajectory ends before the turn that would exceed this context."""


LengthDrift = Annotated[
    tuple[tuple[NonNegativeInt, Annotated[float, Field(gt=0, le=100)]], ...], Field(min_length=1, max_length=1000)
]


class SyntheticWorkload(Strict):
    """Drawn prompts and responses."""

    kind: Literal["synthetic"] = "synthetic"
    prompts_per_step: Annotated[int, Field(ge=1, le=MAX_SEQUENCES_PER_STEP)]
    """Groups consumed by one RL step."""
    group_size: Annotated[int, Field(ge=1, le=4096)]
    """Responses per prompt."""
    prompt_tokens: Length
    response_tokens: Length
    """Generated tokens of a response, all turns together."""
    group_correlation: Share | None = None
    """Share of the variance of log length that responses to one prompt have in common (Gaussian copula); None: 0."""
    length_drift: LengthDrift | None = None
    """(rl_step, factor on the length of responses), straight lines between, flat beyond the ends; None: 1."""
    turns: TurnsConfig | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0

    @model_validator(mode="after")
    def _drift_steps_ascend(self) -> Self:
        steps = [step for step, _ in self.length_drift or ()]
        if steps != sorted(set(steps)):
            raise ValueError(f"length_drift: rl_step must ascend without repeats, got {steps}; sort the points")
        return self


class TraceWorkload(Strict):
    """Prompts and responses from a WorkloadTrace, its RL steps repeated in order."""

    kind: Literal["trace"] = "trace"
    trace: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0


WorkloadConfig = Annotated[SyntheticWorkload | TraceWorkload, Field(discriminator="kind")]


class ConstantEntropy(Strict):
    """Policy entropy stays."""

    kind: Literal["constant"] = "constant"
    entropy_nats: Annotated[float, Field(ge=0, le=20)]


class PiecewiseEntropy(Strict):
    """Straight lines between (rl_step, entropy in nats) points; flat beyond the ends."""

    kind: Literal["piecewise"] = "piecewise"
    points: tuple[tuple[NonNegativeInt, Annotated[float, Field(ge=0, le=20)]], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        steps = [step for step, _ in self.points]
        if steps != sorted(set(steps)):
            raise ValueError(f"points: rl_step must ascend without repeats, got {steps}")
        return self


class TraceEntropy(Strict):
    """The entropy trajectory of a WorkloadTrace, e.g. of one of the paper's runs."""

    kind: Literal["trace"] = "trace"
    trace: str


EntropyConfig = Annotated[ConstantEntropy | PiecewiseEntropy | TraceEntropy, Field(discriminator="kind")]


class TraceLatency(Strict):
    """Step latencies from a LatencyTrace."""

    kind: Literal["trace"] = "trace"
    trace: str
    """Name of committed data or path of a file."""
    allow_extrapolation: bool = False
    """Whether points outside the trace may be used; the report then says so."""
    allow_mismatch: bool = False
    """Whether the trace may be of another model, GPU or precision; the report then says so."""


class RooflineLatency(Strict):
    """Step latencies from the architecture and the GPU's datasheet; nothing measured on this pair."""

    kind: Literal["roofline"] = "roofline"


LatencyConfig = Annotated[TraceLatency | RooflineLatency, Field(discriminator="kind")]


class TrainerStall(Strict):
    """Something that keeps the trainer busy now and then: a validation, a checkpoint."""

    every_steps: PositiveInt
    """It follows every n-th RL step of the run."""
    seconds: NonNegativeFloat


Stalls = Annotated[tuple[TrainerStall, ...], Field(max_length=20)]


class LinearTrainer(Strict):
    """Seconds = constant + tokens x slope, per pass."""

    kind: Literal["linear"] = "linear"
    constant_s: NonNegativeFloat = 0.0
    """Per RL step, whatever its tokens."""
    s_per_token: NonNegativeFloat
    """Forward, backward and optimizer, all trainer GPUs together, per token of prompt and response."""
    log_prob_s_per_token: NonNegativeFloat = 0.0
    """Recomputation of the old policy's log-probabilities."""
    reference_s_per_token: NonNegativeFloat = 0.0
    """Log-probabilities of a reference policy."""
    stalls: Stalls | None = None


class MfuTrainer(Strict):
    """Seconds from FLOPs: 6 N per token for training and 2 N per forward-only pass (N = active parameters)."""

    kind: Literal["mfu"] = "mfu"
    mfu: Annotated[float, Field(gt=0, le=1)]
    """Achieved share of the trainer GPUs' dense bf16 peak."""
    constant_s: NonNegativeFloat = 0.0
    log_prob_pass: bool = False
    reference_pass: bool = False
    stalls: Stalls | None = None


TrainerConfig = Annotated[LinearTrainer | MfuTrainer, Field(discriminator="kind")]


class SecondsWeightSync(Strict):
    """A known duration."""

    kind: Literal["seconds"] = "seconds"
    seconds: NonNegativeFloat


class BandwidthWeightSync(Strict):
    """Latency plus bytes over effective bandwidth."""

    kind: Literal["bandwidth"] = "bandwidth"
    bytes_per_s: PositiveFloat
    """Effective rate for the whole model, all links together."""
    latency_s: NonNegativeFloat = 0.0


WeightSyncConfig = Annotated[SecondsWeightSync | BandwidthWeightSync, Field(discriminator="kind")]


class LawAcceptance(Strict):
    """Accept length from policy entropy by a fitted law, split into positions."""

    kind: Literal["law"] = "law"
    recipe: Literal["to", "rs_ce", "rs_tv", "rs_e2e_tv"]
    """Verify rule and loss of the head: TO = greedy draft."""
    fit: str = Field(min_length=1, max_length=100)
    """Which runs the law was fitted on."""
    trace: str = "bebop-paper"


class FixedAcceptance(Strict):
    """Known acceptance by position: c_j = P(the first j drafts are all accepted), as engines count it."""

    kind: Literal["fixed"] = "fixed"
    cumulative: tuple[Share, ...] = Field(min_length=1, max_length=MAX_DRAFT_TOKENS)

    @model_validator(mode="after")
    def _never_increases(self) -> Self:
        if any(b > a for a, b in zip(self.cumulative, self.cumulative[1:], strict=False)):
            raise ValueError(
                f"cumulative: {list(self.cumulative)} increases; give P(first j accepted), not conditional rates"
            )
        return self


class TraceAcceptance(Strict):
    """Counted acceptance rows of an AcceptanceTrace, interpolated over entropy."""

    kind: Literal["trace"] = "trace"
    trace: str
    loss: str
    verify_rule: VerifyRule = VerifyRule.REJECTION
    task: str | None = None


AcceptanceConfig = Annotated[LawAcceptance | FixedAcceptance | TraceAcceptance, Field(discriminator="kind")]


class DraftLengthByBatch(Strict):
    """k from a table over the engine's live batch (vLLM `num_speculative_tokens_per_batch_size`)."""

    kind: Literal["by_batch"] = "by_batch"
    table: tuple[tuple[PositiveInt, PositiveInt, NonNegativeInt], ...] = Field(min_length=1, max_length=100)
    """[first batch, last batch, k] rows, ascending and without gaps; the last row holds for larger batches too.

    At k = 0 one draft pass still runs, which keeps the draft head's KV cache whole.
    """

    @model_validator(mode="after")
    def _rows_follow_each_other(self) -> Self:
        expected = 1
        for first, last, _ in self.table:
            if first != expected or last < first:
                raise ValueError(
                    f"table: row [{first}, {last}, ...] does not begin at batch {expected} and end after it; rows "
                    "ascend without gaps from batch 1"
                )
            expected = last + 1
        return self


class AdaptiveDraftLength(Strict):
    """The k, from 0 to the arm's, that emits most tokens per second at the live batch under the current acceptance."""

    kind: Literal["adaptive"] = "adaptive"


DraftLength = Annotated[DraftLengthByBatch | AdaptiveDraftLength, Field(discriminator="kind")]


class ArmConfig(Strict):
    """One way of decoding, compared with plain decoding."""

    k: Annotated[int, Field(ge=0, le=MAX_DRAFT_TOKENS)]
    """Draft tokens per step, the most where `draft_length` chooses; 0 is plain decoding."""
    draft_length: DraftLength | None = None
    """How the engine chooses k at its live batch; None: always k."""
    acceptance: AcceptanceConfig | None = None
    """Needed when k > 0."""
    dispersion: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Standard deviation between requests of the log-odds of acceptance."""
    train_overhead: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Extra training time as a share, e.g. 0.07 for online MTP training."""

    @model_validator(mode="after")
    def _speculation_has_acceptance(self) -> Self:
        if self.k > 0 and self.acceptance is None:
            raise ValueError(f"acceptance: missing, though k is {self.k}; give a law, a trace or fixed rates")
        if self.draft_length is not None and self.draft_length.kind == "by_batch":
            most = max(k for _, _, k in self.draft_length.table)
            if most != self.k:
                raise ValueError(f"k: {self.k} is not the largest k of draft_length.table, {most}; make them equal")
        return self


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
    """A published or logged number to show beside the prediction; never used to make it."""

    arm: Name
    quantity: Literal["step_s", "rollout_s", "trajectory_s", "train_s", "accept_length"]
    baseline: PositiveFloat | None = None
    with_spec: PositiveFloat | None = None
    speedup: PositiveFloat | None = None
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        if self.speedup is None and self.with_spec is None:
            raise ValueError("speedup and with_spec: both missing; a measured row states at least one")
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
    arms: dict[Name, ArmConfig] = Field(min_length=1, max_length=32)
    """Name of the arm -> how it decodes. The baseline, k = 0, is always run and needs no entry."""
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    run: RunConfig = RunConfig()
    measured: tuple[MeasuredConfig, ...] = ()
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
            if row.arm not in self.arms:
                raise ValueError(f"measured.{index}.arm: {row.arm!r} is not an arm; arms are {sorted(self.arms)}")
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
            if per_step * self.run.num_steps > MAX_SEQUENCES_PER_RUN:
                raise ValueError(
                    f"run.num_steps: {self.run.num_steps} x {per_step} sequences = {per_step * self.run.num_steps}, "
                    f"above the limit {MAX_SEQUENCES_PER_RUN}; simulate fewer steps"
                )
        if self.warmup_steps >= self.run.num_steps:
            raise ValueError(
                f"run.num_steps: {self.run.num_steps} leaves nothing after {self.warmup_steps} warm-up steps; "
                "raise it or set run.warmup_steps"
            )
        return self

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
