"""MeasuredRun: what a real RL run logged, step by step, in canonical names and units.

A field is None where the log does not say it: a logged 0.0 that means "not measured" is None too. Every key of the log
that is a number stays beside the canonical fields under its own name, so that nothing is lost by an importer that does
not know it. Does not know any framework; `traces.importers` does.
"""

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from traces.base import Strict, Trace

Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
TokensMean = Annotated[float, Field(ge=0, le=10_000_000)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

Key = Annotated[str, Field(min_length=1, max_length=300)]

MAX_STEPS = 200_000
MAX_KEYS = 4000
"""Keys of one step."""


def _sorted(numbers: dict[str, float]) -> dict[str, float]:
    """Return them in one order, so that a file written from another file is the same bytes."""
    return dict(sorted(numbers.items()))


class Quality(StrEnum):
    """What a reader must know about a step before using its numbers."""

    VALIDATION = "validation"
    """The step's time holds a validation pass."""
    CHECKPOINT = "checkpoint"
    """The step's time holds the writing of a checkpoint."""
    AGGREGATED = "aggregated"
    """One line stands for several optimizer or RL steps (`num_aggregated`)."""
    RESTARTED = "restarted"
    """First step after the run was started again; `segment` counts these."""
    PARTIAL = "partial"
    """The line was cut off, or lacks what other lines of the run have."""
    COLLAPSED = "collapsed"
    """Responses have shrunk to almost nothing; times say little about a healthy run."""


class Speculation(Strict):
    """Counters of speculative decoding during one step; all from the same requests.

    `per_position` is unconditional, as in an AcceptanceTrace: c_j = P(the first j drafts are all accepted).
    """

    num_drafts: Count | None = None
    """Verify steps that had a draft."""
    num_draft_tokens: Count | None = None
    num_accepted_tokens: Count | None = None
    accept_length: Annotated[float, Field(ge=1, le=65)] | None = None
    """Tokens emitted per verify step, bonus token included, weighted by verify steps unless `is_request_weighted`."""
    accept_rate: Fraction | None = None
    """Accepted over drafted tokens."""
    per_position: tuple[Fraction, ...] = Field(default=(), max_length=64)
    """c_1..c_k."""
    is_request_weighted: bool = False
    """Mean over requests instead of verify steps: short responses count as much as long ones."""


class MeasuredStep(Strict):
    """One RL step of a log."""

    step: Count
    """Number in the log."""
    segment: Count = 0
    """0 before the first restart of the run, then 1, and so on; (segment, step) is unique."""
    num_aggregated: Annotated[int, Field(ge=1)] = 1
    """RL steps that this line stands for; its times are their sum."""
    quality: tuple[Quality, ...] = ()
    time_s: Annotated[float, Field(ge=0)] | None = None
    """Unix time of the line."""

    step_s: Seconds | None = None
    """Wall time of the whole step."""
    generation_s: Seconds | None = None
    """Rollout engines generating this step's samples, tool calls between turns included."""
    generation_wait_s: Seconds | None = None
    """Exposed generation: the trainer waiting for samples. In a synchronous run the same as `generation_s`."""
    train_s: Seconds | None = None
    """Forward, backward and optimizer of the policy."""
    log_prob_s: Seconds | None = None
    """Log-probabilities of the samples under the policy as trained."""
    reference_s: Seconds | None = None
    """Log-probabilities under a reference or teacher."""
    critic_s: Seconds | None = None
    """Values and critic update."""
    reward_s: Seconds | None = None
    """Reward computation that the step waits for."""
    sync_s: Seconds | None = None
    """Weights from trainer to rollout engines."""
    validation_s: Seconds | None = None
    checkpoint_s: Seconds | None = None

    num_sequences: Count | None = None
    """Responses trained on."""
    num_groups: Count | None = None
    """Prompts trained on."""
    response_tokens_mean: TokensMean | None = None
    """Tokens that the model generated per response; observations of tools are not among them."""
    response_tokens_median: TokensMean | None = None
    response_tokens_min: TokensMean | None = None
    response_tokens_max: TokensMean | None = None
    clipped_fraction: Fraction | None = None
    """Responses cut at the length limit."""
    prompt_tokens_mean: TokensMean | None = None
    prompt_tokens_max: TokensMean | None = None
    observation_tokens_mean: TokensMean | None = None
    """Tokens that tools and environments put into a trajectory."""
    total_tokens: Annotated[float, Field(ge=0)] | None = None
    """Prompt, observation and response tokens of all sequences."""
    turns_mean: Annotated[float, Field(ge=0)] | None = None
    turns_max: Annotated[float, Field(ge=0)] | None = None
    tool_s_mean: Seconds | None = None
    """Tool time per trajectory."""
    tool_s_max: Seconds | None = None
    trajectory_s_mean: Seconds | None = None
    """Generation time of one trajectory, tools left out."""
    trajectory_s_max: Seconds | None = None
    slowest_tokens: TokensMean | None = None
    """Response tokens of the trajectory that took longest."""

    entropy_nats: Annotated[float, Field(ge=0, le=20)] | None = None
    """Mean policy entropy."""
    reward_mean: float | None = None
    speculation: Speculation | None = None
    staleness_mean_versions: Annotated[float, Field(ge=0)] | None = None
    staleness_max_versions: Annotated[float, Field(ge=0)] | None = None
    dropped_samples: Count | None = None
    """Finished samples that were too old, or more than the step needed."""
    aborted_fraction: Fraction | None = None
    """Responses that were aborted while they ran."""
    tokens_per_s_per_gpu: Annotated[float, Field(ge=0)] | None = None
    """As logged; what it counts differs between frameworks (`logged` has the key)."""

    logged: Annotated[dict[Key, float], AfterValidator(_sorted)] = Field(default_factory=dict, max_length=MAX_KEYS)
    """Every number of the step under the log's own key, canonical or not."""


class Setup(Strict):
    """What is known of the run beside its steps: from the log's configuration, or stated by the user."""

    model: str | None = Field(default=None, max_length=200)
    gpu: str | None = Field(default=None, max_length=100)
    num_gpus: Annotated[int, Field(ge=1)] | None = None
    num_train_gpus: Annotated[int, Field(ge=1)] | None = None
    num_rollout_gpus: Annotated[int, Field(ge=1)] | None = None
    """Colocated runs have the same GPUs on both sides."""
    rollout_tp: Annotated[int, Field(ge=1)] | None = None
    engine: str | None = Field(default=None, max_length=100)
    is_asynchronous: bool | None = None
    """Whether generation and training overlap; then a logged generation time is mostly waiting."""
    groups_per_step: Annotated[int, Field(ge=1)] | None = None
    group_size: Annotated[int, Field(ge=1)] | None = None
    """Responses per prompt."""
    max_response_tokens: Annotated[int, Field(ge=1)] | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    max_turns: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    response_includes_observations: bool | None = None
    """Whether the log's response lengths count what tools put in, too; then `response_tokens_*` are upper bounds."""
    num_draft_tokens: Annotated[int, Field(ge=0, le=64)] | None = None
    max_staleness_versions: Annotated[float, Field(ge=0)] | None = None


class ImportAccount(Strict):
    """What an importer understood, missed and left out; nothing is dropped without a line here."""

    num_lines: Count
    """Lines (or records) read."""
    num_step_lines: Count
    """Those that carried numbers of a step."""
    understood: dict[str, str] = Field(default_factory=dict)
    """Canonical field -> the log's key (or keys, and what was computed from them)."""
    missing: tuple[str, ...] = ()
    """Canonical fields that no step has."""
    ignored: dict[str, str] = Field(default_factory=dict)
    """Key, or kind of line -> why it has no canonical field, and how often it was met."""
    dropped: tuple[str, ...] = Field(default=(), max_length=1000)
    """One sentence per step line that was not taken: where and why."""
    num_dropped: Count = 0
    """All of them, where the sentences were cut."""


class MeasuredRun(Trace):
    """What one run logged."""

    kind: Literal["measured"] = "measured"
    framework: str = Field(min_length=1, max_length=50)
    """`verl`, `slime`, `nemo_rl`, ...; `bebop` for runs of the testbed."""
    setup: Setup = Setup()
    account: ImportAccount | None = None
    """How the log was read; None for runs that were written in this format."""
    steps: tuple[MeasuredStep, ...] = Field(min_length=1, max_length=MAX_STEPS)
    """Ascending in (segment, step)."""

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        keys = [(step.segment, step.step) for step in self.steps]
        for before, after in pairwise(keys):
            if after <= before:
                raise ValueError(
                    f"steps: (segment, step) {after} comes after {before}; sort them, keep each once, and count a "
                    "restart in `segment`"
                )
        return self
