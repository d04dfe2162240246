"""A hand-made RunReport: three arms, consistent with itself, made without the simulator."""

import math

from traces.base import Origin
from traces.report import (
    ArmReport,
    Factor,
    InputOrigin,
    Interval,
    MeasuredComparison,
    RolloutTime,
    RunReport,
    StalenessBin,
    StepPoint,
    TrainerTime,
)

BASELINE_STEP_S = 2826.0
NUM_STEPS = 60
FACTOR_NAMES = (
    "accept_length",
    "draft_verify_cost",
    "tail_batches",
    "prefill_and_sync",
    "trainer_bound",
    "staleness_stalls",
)
SPEEDUPS = {"TO": 1.38, "RS+CE": 1.47, "RS+e2e-TV": 1.62, "RS+KL": 1.46, "RS+TV": 1.6, "fixed-0.8": 0.93}


def make_report(num_arms: int = 3, *, measured: bool = True, num_steps: int = NUM_STEPS) -> RunReport:
    """Return a report with 0 to 6 arms."""
    arms = {name: make_arm(name, speedup, num_steps) for name, speedup in list(SPEEDUPS.items())[:num_arms]}
    return RunReport(
        scenario="bebop-reasoning",
        question="How much faster does the paper's Reasoning RL finish with MTP drafts?",
        scenario_hash="0" * 64,
        model_version="0.1.0",
        seed=0,
        replications=8,
        num_steps=num_steps,
        warmup_steps=min(5, num_steps - 1),
        policy="fully asynchronous, max_staleness 4, abort_resume",
        num_rollout_gpus=48,
        num_train_gpus=16,
        num_gpus=64,
        baseline=make_arm("baseline", 1.0, num_steps),
        arms=arms,
        measured=measured_rows(arms) if measured else (),
        provenance=(
            InputOrigin(name="engine.max_running_seqs", value="128", origin=Origin.ASSUMED, source="usual vLLM set-up"),
            InputOrigin(
                name="latency.decode", value="qwen3.5-35b-a3b-h200", origin=Origin.MODELLED, source="aiconfigurator"
            ),
            InputOrigin(
                name="latency.verify", value="k = 3", origin=Origin.INTERPOLATED, source="between k = 2 and k = 4"
            ),
            InputOrigin(
                name="arms.TO.acceptance", value="AL = 3.702 - 1.823 H", origin=Origin.STATED, source="arXiv 2606.12370"
            ),
            InputOrigin(name="trainer.mfu", value="0.35", origin=Origin.ASSUMED, source="typical of MoE training"),
            InputOrigin(name="weight_sync.seconds", value="9.1", origin=Origin.MEASURED, source="a log"),
            InputOrigin(name="entropy", value="0.45 to 0.30", origin=Origin.EXTRAPOLATED, source="law ends at 0.337"),
        ),
        warnings=("entropy: steps 52 to 60 lie below 0.337 nats, where the law rs_e2e_tv was not fitted",),
    )


def make_arm(name: str, speedup: float, num_steps: int = NUM_STEPS) -> ArmReport:
    """Return one arm whose numbers agree with its speedup; speedup 1 is the baseline."""
    baseline = name == "baseline"
    accept_length = 1.0 if baseline else 1.9 + speedup * 0.8
    step_s = BASELINE_STEP_S / speedup
    training = 1000.0 / step_s * 0.9
    sync = 18.0 / step_s
    waiting = 1.0 - training - sync - 0.02
    generating = 0.78
    return ArmReport(
        num_draft_tokens=0 if baseline else 3,
        recipe="plain decoding" if baseline else f"law {name}",
        end_to_end_speedup=Interval(mean=speedup, low=speedup * 0.93, high=speedup * 1.07),
        rollout_speedup=Interval(mean=speedup * 1.2, low=speedup * 1.1, high=speedup * 1.3),
        trajectory_speedup=Interval(mean=speedup * 1.3, low=speedup * 1.2, high=speedup * 1.4),
        accept_length=accept_length,
        step_s=step_s,
        rollout_s=step_s * 0.95,
        trajectory_s=step_s * 1.7,
        train_s=training * step_s,
        weight_sync_s=sync * step_s,
        exposed_generation_s=waiting * step_s,
        tokens_per_s_per_gpu=410.0 * speedup,
        gpu_hours=64 * step_s * num_steps / 3600,
        rollout_time=RolloutTime(
            generating=generating, weight_sync=sync, staleness_stall=0.06, other_idle=1 - generating - sync - 0.06
        ),
        trainer_time=TrainerTime(training=training, weight_sync=sync, waiting=waiting, other_idle=0.02),
        staleness=tuple(
            StalenessBin(versions=v, fraction=f) for v, f in enumerate((0.05, 0.38, 0.31, 0.18, 0.07, 0.01))
        ),
        amdahl_bound=speedup * 1.15,
        num_preemptions=0.0,
        wasted_tokens_fraction=0.03,
        waterfall=() if baseline else waterfall_of(speedup, accept_length),
        by_step=tuple(step_point(i, num_steps, speedup, accept_length) for i in range(num_steps)),
    )


def waterfall_of(speedup: float, accept_length: float) -> tuple[Factor, ...]:
    """Return factors that multiply from the accept length to the speedup."""
    losses = (0.83, 0.80, 0.97, None, 0.99)
    known = accept_length * math.prod(f for f in losses if f is not None)
    factors = (accept_length, *(speedup / known if f is None else f for f in losses))
    product, rows = 1.0, []
    for name, factor in zip(FACTOR_NAMES, factors, strict=True):
        product *= factor
        rows.append(Factor(name=name, factor=factor, speedup_after=product, meaning=f"What {name} does to the run."))
    return tuple(rows)


def step_point(index: int, num_steps: int, speedup: float, accept_length: float) -> StepPoint:
    """Return step `index` of a run whose entropy falls from 0.45 to 0.33 nats."""
    entropy = 0.45 - 0.12 * index / max(num_steps - 1, 1)
    wobble = 1.0 if speedup == 1.0 else 1.0 + 0.03 * math.sin(index * 1.7) + 0.3 * (0.39 - entropy)
    return StepPoint(
        rl_step=5 + index,
        entropy_nats=entropy,
        accept_length=accept_length,
        step_s=BASELINE_STEP_S / speedup / wobble,
        speedup=speedup * wobble,
        is_warmup=index < min(5, num_steps - 1),
    )


def measured_rows(arms: dict[str, ArmReport]) -> tuple[MeasuredComparison, ...]:
    """Return a speedup row per known arm and one row in tokens and one in seconds."""
    rows = [
        MeasuredComparison(
            arm=name,
            quantity="step_s",
            measured_baseline=BASELINE_STEP_S,
            measured_arm=BASELINE_STEP_S / paper,
            measured_speedup=paper,
            predicted_baseline=3011.0,
            predicted_arm=3011.0 / arms[name].end_to_end_speedup.mean,
            predicted_speedup=arms[name].end_to_end_speedup,
            relative_error=arms[name].end_to_end_speedup.mean / paper - 1,
            source="arXiv 2606.12370, figure 8",
        )
        for name, paper in (("TO", 1.38), ("RS+e2e-TV", 1.79))
        if name in arms
    ]
    for quantity, measured in (("accept_length", 2.9), ("train_s", 840.0)):
        predicted = arms["TO"].accept_length if quantity == "accept_length" else arms["TO"].train_s
        rows.append(
            MeasuredComparison(
                arm="TO",
                quantity="accept_length" if quantity == "accept_length" else "train_s",
                measured_baseline=None,
                measured_arm=measured,
                measured_speedup=None,
                predicted_baseline=1.0,
                predicted_arm=predicted,
                predicted_speedup=None,
                relative_error=predicted / measured - 1,
                source="arXiv 2606.12370, figure 9",
            )
        )
    return tuple(rows)
