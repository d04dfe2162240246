"""Costs: where step latencies, training time and weight-sync time come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from traces.base import Strict


class TraceLatency(Strict):
    """Step latencies from a LatencyTrace."""

    kind: Literal["trace"] = "trace"
    trace: str
    """Name of committed data or path of a file."""
    allow_extrapolation: bool = False
    """Whether points outside the trace may be used; the report then says so."""
    allow_mismatch: bool = False
    """Whether the trace may be of another model, GPU or precision; the report then says so."""
    while_training: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Another trace of the same engine, measured while a trainer computes on the same machine: it holds whenever the
    trainer does. None: they do not slow each other down."""


class RooflineLatency(Strict):
    """Step latencies from the architecture and the GPU's datasheet; nothing measured on this pair."""

    kind: Literal["roofline"] = "roofline"
    draft: Literal["mtp", "eagle", "eagle3", "ngram", "parallel"] = Field(
        default="mtp", exclude_if=lambda value: value == "mtp"
    )
    """What drafts: the model's MTP layer; an EAGLE or EAGLE-3 head; n-grams of the text; a head that drafts all at
    once (DFlash, P-EAGLE)."""


LatencyConfig = Annotated[TraceLatency | RooflineLatency, Field(discriminator="kind")]


class TrainerStall(Strict):
    """Something that keeps the trainer busy now and then: a validation, a checkpoint."""

    every_steps: PositiveInt
    """It follows every n-th RL step of the run."""
    seconds: NonNegativeFloat


Stalls = Annotated[tuple[TrainerStall, ...], Field(max_length=20)]


class WhileGenerating(Strict):
    """What an RL step's training takes while engines generate on the same machine."""

    constant_s: NonNegativeFloat = 0.0
    s_per_token: NonNegativeFloat
    """All passes together, per token of prompt and response."""


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
    critic_s_per_token: NonNegativeFloat | None = None
    """Values and update of a critic; None: no critic."""
    while_generating: WhileGenerating | None = Field(default=None, exclude_if=lambda value: value is None)
    """The same while engines generate on the same machine; None: they do not slow it down."""
    stalls: Stalls | None = None


class MfuTrainer(Strict):
    """Seconds from FLOPs: 6 N per token for training and 2 N per forward-only pass (N = active parameters).

    A critic adds both: values before the update, and its own update (PPO; HybridFlow, arXiv 2409.19256, sec. 2.1).
    """

    kind: Literal["mfu"] = "mfu"
    mfu: Annotated[float, Field(gt=0, le=1)]
    """Achieved share of the trainer GPUs' dense bf16 peak."""
    constant_s: NonNegativeFloat = 0.0
    log_prob_pass: bool = False
    reference_pass: bool = False
    critic_size: Annotated[float, Field(gt=0, le=100)] | None = None
    """Active parameters of the critic over the policy's, 1 where it is the same model; None: no critic (GRPO)."""
    stalls: Stalls | None = None


TrainerConfig = Annotated[LinearTrainer | MfuTrainer, Field(discriminator="kind")]


SyncMode = Literal["blocking", "overlapped", "pull"]
"""Who waits for a weight sync: trainer and replicas; nobody but for `swap_s`, while the trainer trains on; each replica
by itself, with the trainer's weights in a relay (Laminar, arXiv 2510.12633)."""


class _WeightSync(Strict):
    mode: SyncMode | None = None
    """None: blocking."""
    swap_s: NonNegativeFloat | None = None
    """Seconds that replicas stand still when an overlapped transfer is done; None: 0."""

    @model_validator(mode="after")
    def _only_overlapped_swaps(self) -> Self:
        if self.swap_s and self.mode != "overlapped":
            raise ValueError(f"swap_s: {self.swap_s:g} has a meaning only when overlapped; set mode = overlapped")
        return self


class SecondsWeightSync(_WeightSync):
    """A known duration."""

    kind: Literal["seconds"] = "seconds"
    seconds: NonNegativeFloat


class BandwidthWeightSync(_WeightSync):
    """Latency plus bytes over effective bandwidth."""

    kind: Literal["bandwidth"] = "bandwidth"
    bytes_per_s: PositiveFloat
    """Effective rate for the whole model, all links together."""
    latency_s: NonNegativeFloat = 0.0


WeightSyncConfig = Annotated[SecondsWeightSync | BandwidthWeightSync, Field(discriminator="kind")]
