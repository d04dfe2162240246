"""RunReport: what a simulation answers: how much faster, how sure, why, and from what.

Numbers only; how they are made is the simulator's business, how they look the dashboard's.
"""

from typing import Annotated, Literal

from pydantic import Field

from traces.base import SCHEMA_VERSION, Origin, Strict

Fraction = Annotated[float, Field(ge=0, le=1)]


class Interval(Strict):
    """A predicted number and the range that holds 90 % of runs whose inputs vary as the scenario says."""

    mean: float
    low: float
    high: float


class Factor(Strict):
    """One step of the waterfall from accept length to end-to-end speedup."""

    name: str
    """Short name: `accept_length`, `draft_verify_cost`, `tail_batches`, `prefill_and_sync`, `trainer_bound`,
    `staleness_stalls`."""
    factor: float
    """What this effect multiplies the speedup by."""
    speedup_after: float
    """Product of all factors so far; the last one is the end-to-end speedup."""
    meaning: str
    """One sentence for a reader."""


class RolloutTime(Strict):
    """How the rollout GPUs spent the run; the shares add up to 1."""

    generating: Fraction
    """At least one sequence of the replica is decoding or being prefilled."""
    weight_sync: Fraction
    """Stopped for a weight sync."""
    staleness_stall: Fraction
    """Nothing to do because the staleness rule admits no new work."""
    other_idle: Fraction
    """Nothing to do for any other reason: the slowest sequences of a batch, tool calls, colocated training."""
    down: Fraction = 0.0
    """Crashed, and not back."""


class TrainerTime(Strict):
    """How the trainer GPUs spent the run; the shares add up to 1."""

    training: Fraction
    """Training, log-prob and reference passes."""
    weight_sync: Fraction
    waiting: Fraction
    """Exposed generation: waiting for samples."""
    other_idle: Fraction
    """Colocated generation, or waiting for replicas to stop before a sync."""
    lost: Fraction = 0.0
    """Whatever it did since the last checkpoint before a failure."""
    down: Fraction = 0.0
    """After a failure, until it worked again."""


class LostWork(Strict):
    """What was generated for nothing, or more than once; each field's default says that nothing was.

    A field's title heads its column wherever the table of lost work is shown.
    """

    dropped_groups: Annotated[float, Field(ge=0, title="dropped groups per step")] = 0.0
    """Finished groups that were too old when fetched, or more than a step needs, per RL step."""
    filtered_groups: Annotated[float, Field(ge=0, title="filtered groups per step")] = 0.0
    """Finished groups that a dynamic-sampling filter took out, per RL step."""
    discarded_groups: Annotated[float, Field(ge=0, title="groups dropped unfinished per step")] = 0.0
    """Groups under way, or about to begin, that were dropped: too old, or more than a step needs; per RL step."""
    aborts_per_sample: Annotated[float, Field(ge=0, title="aborts per sample")] = 0.0
    """Times that a weight sync took a sample out of its batch, per sample trained on."""
    restarts_per_sample: Annotated[float, Field(ge=0, title="restarts per sample")] = 0.0
    """Times that a sample began again from its prompt, per sample trained on."""
    restarted_tokens_fraction: Annotated[Fraction, Field(title="of the generated tokens, restarted")] = 0.0
    """Share of the generated tokens that restarts threw away."""
    max_restarts: Annotated[int, Field(ge=0, title="most restarts of a sample")] = 0
    """Of any one sample in any replication."""
    useful_tokens_fraction: Annotated[Fraction, Field(title="useful over generated tokens")] = 1.0
    """Share of the generated tokens that neither a restart nor the end of an unfinished group threw away."""
    replica_crashes: Annotated[float, Field(ge=0, title="replica crashes per run")] = 0.0
    """Their responses go on, or begin again, elsewhere."""
    trainer_failures: Annotated[float, Field(ge=0, title="trainer failures per run")] = 0.0
    """Each loses what was trained since the last checkpoint."""
    lost_steps: Annotated[float, Field(ge=0, title="RL steps lost per run")] = 0.0
    """Finished RL steps that failures undid, each trained again on fresh samples."""

    def cells(self) -> dict[str, str]:
        """Return title -> value as text of every field that is not its default."""
        fields = type(self).model_fields
        return {
            str(field.title): f"{getattr(self, name):.3g}"
            for name, field in fields.items()
            if getattr(self, name) != field.default
        }


class StalenessBin(Strict):
    """Share of trained groups whose oldest token is `versions` policy versions behind the trainer."""

    versions: Annotated[int, Field(ge=0)]
    fraction: Fraction


class StepPoint(Strict):
    """One RL step, averaged over replications."""

    rl_step: int
    entropy_nats: float | None
    accept_length: float | None
    """Of decoding that ended in this step; None where none did."""
    step_s: float
    speedup: float
    """Baseline's step time over this arm's, at the same RL step."""
    is_warmup: bool = False
    """Left out of every mean: the pipeline was still filling."""


class ArmReport(Strict):
    """What one way of decoding does to the run."""

    num_draft_tokens: Annotated[int, Field(ge=0)]
    """k; 0 is plain decoding."""
    recipe: str
    """Acceptance source in words."""
    end_to_end_speedup: Interval
    """Baseline wall time over this arm's for the same RL steps."""
    rollout_speedup: Interval
    """Baseline generation time over this arm's for the same tokens."""
    trajectory_speedup: Interval
    """Baseline mean time from a response's first admission to an engine to its last token, over this arm's."""
    accept_length: float
    """Tokens emitted per verify step, bonus token included, realised in the run."""
    step_s: float
    """Mean wall time of one RL step, warm-up steps left out."""
    rollout_s: float
    """Generation time per RL step: the phase's duration, or where generation never stops the seconds that a replica
    is busy for one step's tokens."""
    trajectory_s: float
    """Mean time from a response's first admission to an engine to its last token, tool time included."""
    train_s: float
    """Mean training time per RL step, log-prob and reference passes included."""
    weight_sync_s: float
    """Mean weight-sync time per RL step."""
    exposed_generation_s: float
    """Mean time per RL step in which the trainer waits for samples."""
    tokens_per_s_per_gpu: float
    """Response tokens per second of run and per GPU of both sides."""
    gpu_hours: float
    """GPU-hours of both sides for the whole run."""
    rollout_time: RolloutTime
    trainer_time: TrainerTime
    staleness: tuple[StalenessBin, ...]
    amdahl_bound: float
    """1 / (R / s + 1 - R): no run with this rollout share R and rollout speedup s can gain more."""
    num_preemptions: float
    """Sequences thrown out of the KV cache and prefilled again, mean per run."""
    wasted_tokens_fraction: Fraction
    """Share of prefilled and generated tokens computed again after an abort or a preemption."""
    lost: LostWork = LostWork()
    """Work thrown away or done again, by cause."""
    waterfall: tuple[Factor, ...]
    """Where the gain was lost; empty for the baseline."""
    by_step: tuple[StepPoint, ...]


class MeasuredComparison(Strict):
    """A published or logged number beside the prediction of the same quantity."""

    arm: str
    """The arm, or the set-up, of which the number is."""
    baseline_setup: str | None = None
    """The set-up with which a set-up is compared; None for arms, which are compared with plain decoding."""
    quantity: Literal["step_s", "rollout_s", "trajectory_s", "train_s", "exposed_generation_s", "accept_length"]
    measured_baseline: float | None
    measured_arm: float | None
    measured_speedup: float | None
    predicted_baseline: float | None
    """None where a set-up's number is compared with nothing."""
    predicted_arm: float
    predicted_speedup: Interval | None
    relative_error: float
    """Predicted over measured, minus 1; of the speedup where there is one, else of the arm's value."""
    source: str


class InputOrigin(Strict):
    """One input of the prediction and where it comes from."""

    name: str
    """Dotted path in the scenario, or the trace it was read from."""
    value: str
    origin: Origin
    source: str


class RunReport(Strict):
    """The answer to a scenario. Same scenario, same seed: the same bytes."""

    kind: Literal["report"] = "report"
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    scenario: str
    question: str
    """What the scenario asks, in a sentence."""
    scenario_hash: str
    """sha256 of the scenario and of every trace it uses."""
    model_version: str
    """Version of the simulator that answered."""
    seed: int
    replications: int
    num_steps: int
    warmup_steps: int
    policy: str
    """Placement and staleness rule, in words."""
    num_rollout_gpus: int
    num_train_gpus: int
    """Colocated runs count the same GPUs on both sides."""
    num_gpus: int
    baseline: ArmReport
    arms: dict[str, ArmReport]
    measured: tuple[MeasuredComparison, ...]
    provenance: tuple[InputOrigin, ...]
    warnings: tuple[str, ...]

    @property
    def best_arm(self) -> str:
        """The arm with the largest mean end-to-end speedup; the first of equals."""
        return max(self.arms, key=lambda name: self.arms[name].end_to_end_speedup.mean)

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return self.model_dump_json()
