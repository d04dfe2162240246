"""What a run of the testbed logs: a record per RL step, as a MeasuredRun and in verl's console form.

Times are of one clock of the machine (`time.perf_counter`), so that those of several processes line up. A step lasts
from the end of the last weight sync to the end of its own, as in the simulator. Does not know who measures.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from profiler.testbed.buffer import Staleness
from profiler.testbed.engine import Counters
from traces.base import Provenance
from traces.measured import MeasuredRun, MeasuredStep, Quality, Setup, Speculation
from traces.testbed import TestbedConfig

FRAMEWORK = "bebop"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One RL step, as trainer and engine lived it."""

    step: int
    """From 1; also the policy version that it made."""
    begin_s: float
    """When the trainer asked for samples."""
    end_s: float
    """When the rollout actor had the new weights."""
    wait_s: float
    """Trainer waiting for samples; with one_step_off also for the next batch to be whole, before the sync."""
    train_s: float
    drain_s: float
    """Trainer waiting for running sequences to end before the sync; in-flight rule wait only."""
    sync_s: float
    stop_s: float
    """Of it, until the engine had ended its step and stood still."""
    message_s: float
    """The rollout actor between steps of its engine, waiting left out; what it gets and sends costs its core."""
    checkpoint_s: float
    counters: Counters
    """Of the engine, from the sync before to this one."""
    num_groups: int
    response_tokens: tuple[int, ...]
    """Of the samples trained on."""
    prompt_tokens: int
    """Of every prompt."""
    num_at_limit: int
    """Responses as long as a response may be."""
    rewards: tuple[float, ...]
    staleness: Staleness
    loss: float
    ratio_mean: float
    num_ready_groups: int
    """That stayed in the buffer when the batch was taken."""
    num_lost_samples: int
    """Since the start of the run."""
    is_resumed: bool = False
    """The trainer died in this step, or in one before it, and came back from its checkpoint."""

    @property
    def num_tokens(self) -> int:
        """Prompts and responses trained on."""
        return sum(self.response_tokens) + self.prompt_tokens * len(self.response_tokens)


def measured_steps(records: Sequence[StepRecord], config: TestbedConfig) -> tuple[MeasuredStep, ...]:
    """Return the records as steps of a MeasuredRun; `logged` has the keys of verl's console."""
    log = StepLog(config)
    for record in records:
        log.add(record)
    return tuple(log.steps)


class StepLog:
    """Steps of a MeasuredRun as they come."""

    def __init__(self, config: TestbedConfig) -> None:
        self.steps: list[MeasuredStep] = []
        self._config = config
        self._end_s: float | None = None
        self._segment = 0

    def add(self, record: StepRecord) -> MeasuredStep:
        """Return the next record as a step."""
        step_s = record.end_s - (record.begin_s if self._end_s is None else self._end_s)
        self._end_s, self._segment = record.end_s, self._segment + record.is_resumed
        self.steps.append(_measured_step(record, step_s, self._segment, self._config))
        return self.steps[-1]


def console_line(step: MeasuredStep) -> str:
    """Return a step as verl's console logger prints it; the verl importer reads the same numbers back."""
    return f"step:{step.step} - " + " - ".join(f"{key}:{value!r}" for key, value in step.logged.items())


def measured_run(
    config: TestbedConfig, steps: Sequence[MeasuredStep], versions: dict[str, str], notes: str, command: str
) -> MeasuredRun:
    """Return a run of at least one step."""
    policy = config.policy
    return MeasuredRun(
        name=config.name,
        provenance=Provenance(
            source=f"testbed: engine {config.engine}, policy {policy.kind}, k {config.k}",
            created=datetime.now(UTC).date().isoformat(),
            command=command,
            versions=versions,
            notes=notes,
        ),
        framework=FRAMEWORK,
        setup=Setup(
            model=f"{config.model.num_layers} layers of {config.model.hidden_size}",
            engine=config.engine,
            is_asynchronous=policy.kind != "synchronous",
            groups_per_step=config.prompts_per_step,
            group_size=config.group_size,
            max_response_tokens=config.max_response_tokens,
            temperature=config.temperature,
            num_draft_tokens=config.k,
            max_staleness_versions={"synchronous": 0, "one_step_off": 1}.get(policy.kind, policy.max_staleness),
        ),
        steps=tuple(steps),
    )


def _measured_step(record: StepRecord, step_s: float, segment: int, config: TestbedConfig) -> MeasuredStep:
    is_synchronous = config.policy.kind == "synchronous"
    generation_s = record.wait_s if is_synchronous else record.counters.busy_s + record.message_s
    lengths, counters = record.response_tokens, record.counters
    return MeasuredStep(
        step=record.step,
        segment=segment,
        quality=(Quality.RESTARTED,) if record.is_resumed else (),
        step_s=step_s,
        generation_s=generation_s,
        generation_wait_s=record.wait_s,
        train_s=record.train_s,
        sync_s=record.sync_s,
        num_sequences=len(lengths),
        num_groups=record.num_groups,
        response_tokens_mean=statistics.fmean(lengths),
        response_tokens_median=statistics.median(lengths),
        response_tokens_min=min(lengths),
        response_tokens_max=max(lengths),
        clipped_fraction=record.num_at_limit / len(lengths),
        prompt_tokens_mean=record.prompt_tokens,
        prompt_tokens_max=record.prompt_tokens,
        total_tokens=record.num_tokens,
        entropy_nats=counters.entropy_nats if counters.entropy_sum_nats else None,
        reward_mean=statistics.fmean(record.rewards),
        speculation=_speculation(counters, config.k),
        staleness_mean_versions=record.staleness.mean,
        staleness_max_versions=record.staleness.max,
        tokens_per_s_per_gpu=record.num_tokens / step_s,
        logged=_logged(record, step_s, generation_s, config),
    )


def _speculation(counters: Counters, k: int) -> Speculation | None:
    """Return the counters of the step; None where nothing was drafted."""
    if k == 0 or not counters.num_seq_steps or not counters.num_draft_tokens:
        return None
    num_accepted = sum(counters.accepted_at)
    return Speculation(
        num_drafts=counters.num_seq_steps,
        num_draft_tokens=counters.num_draft_tokens,
        num_accepted_tokens=num_accepted,
        accept_length=counters.accept_length,
        accept_rate=num_accepted / counters.num_draft_tokens,
        per_position=tuple(count / counters.num_seq_steps for count in counters.accepted_at),
    )


def _logged(record: StepRecord, step_s: float, generation_s: float, config: TestbedConfig) -> dict[str, float]:
    """Return the step under verl's keys, and under our own what verl has no key for.

    Accept length and rate are means over verify steps, where verl's own are means over requests.
    """
    lengths, counters = record.response_tokens, record.counters
    prompt = float(record.prompt_tokens)
    is_synchronous = config.policy.kind == "synchronous"
    found = {
        "training/global_step": record.step,
        "timing_s/step": step_s,
        "timing_s/gen" if is_synchronous else "timing_s/generate_async": generation_s,
        "timing_s/update_actor": record.train_s,
        "timing_s/update_weights": record.sync_s,
        "response_length/mean": statistics.fmean(lengths),
        "response_length/min": min(lengths),
        "response_length/max": max(lengths),
        "response_length/clip_ratio": record.num_at_limit / len(lengths),
        "prompt_length/mean": prompt,
        "prompt_length/max": prompt,
        "perf/total_num_tokens": record.num_tokens,
        "perf/time_per_step": step_s,
        "perf/throughput": record.num_tokens / step_s,
        "critic/rewards/mean": statistics.fmean(record.rewards),
        "actor/pg_loss": record.loss,
        "training/off_policy/trajectory_staleness_worst/mean": record.staleness.mean,
        "training/off_policy/trajectory_staleness_worst/max": record.staleness.max,
        **_own(record, step_s),
    }
    if not is_synchronous:
        found["timing_s/wait_prev_gen"] = record.wait_s
    if counters.entropy_sum_nats:
        found["actor/entropy"] = counters.entropy_nats
    speculation = _speculation(counters, config.k)
    if speculation is not None:
        assert speculation.accept_length is not None
        assert speculation.accept_rate is not None
        found["rollout/spec_accept_length"] = speculation.accept_length
        found["rollout/spec_accept_rate"] = speculation.accept_rate
        found |= {f"bebop/accepted_at_{j}": count for j, count in enumerate(counters.accepted_at, start=1)}
    return {key: float(value) for key, value in found.items()}


def _own(record: StepRecord, step_s: float) -> dict[str, float]:
    counters = record.counters
    return {
        "bebop/hand_over_s": step_s - record.wait_s - record.train_s - record.drain_s - record.sync_s,
        "bebop/checkpoint_s": record.checkpoint_s,
        "bebop/drain_s": record.drain_s,
        "bebop/sync_stop_s": record.stop_s,
        "bebop/busy_s": counters.busy_s,
        "bebop/message_s": record.message_s,
        "bebop/prefill_s": counters.prefill_s,
        "bebop/num_prefills": counters.num_prefills,
        "bebop/num_prefill_tokens": counters.num_prefill_tokens,
        "bebop/num_engine_steps": counters.num_steps,
        "bebop/num_verify_steps": counters.num_seq_steps,
        "bebop/num_draft_tokens": counters.num_draft_tokens,
        "bebop/num_generated_tokens": counters.num_tokens,
        "bebop/response_length_median": statistics.median(record.response_tokens),
        "bebop/sample_staleness_mean": record.staleness.sample_mean,
        "bebop/token_staleness_mean": record.staleness.token_mean,
        "bebop/num_mixed_samples": record.staleness.num_mixed,
        "bebop/ratio_mean": record.ratio_mean,
        "bebop/num_ready_groups": record.num_ready_groups,
        "bebop/num_lost_samples": record.num_lost_samples,
    }
