"""What if: this very run, with drafts. The log's lengths and entropy, the calibrated scenario, and the simulator.

A synchronous run is replayed step by step with and without drafts, and the ratio is applied to the logged seconds: what
the model misses of a step's generation cancels. A run whose generation overlaps with training is simulated whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.calibrate import Calibration
from simulator.calibration.replay import generation_s, replay_parts
from simulator.calibration.speculation import AS_LOGGED, with_logged_arm
from simulator.config import ArmConfig, EngineConfig, PiecewiseEntropy, Scenario
from simulator.errors import ScenarioError
from simulator.inputs import BASELINE, Inputs, Noise, resolve
from simulator.run import simulate
from traces.report import Interval

F64 = NDArray[np.float64]

DRAFTS: Final = "drafts"
MAX_STEPS: Final = 60
"""Steps that are replayed, evenly spread over the log."""
MAX_SIMULATED: Final = 200
_NINETY: Final = 1.645


@dataclass(frozen=True, slots=True)
class StepWhatIf:
    """One logged step beside the same step with drafts."""

    step: int
    entropy_nats: float | None
    accept_length: float | None
    logged_s: float | None
    plain_s: float
    """Without drafts: as logged, unless the run drafted."""
    drafted_s: float

    @property
    def speedup(self) -> float:
        """Seconds without drafts over those with them."""
        return self.plain_s / self.drafted_s


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A logged run, with drafts."""

    calibration: Calibration
    arm: ArmConfig
    end_to_end: Interval
    """Plain decoding over drafts; 90 % interval."""
    generation: Interval
    rollout_share: float
    """Share R of a plain step in which it generates."""
    accept_length: float
    over_logged: float | None
    """The logged run over drafts, where it drafted already."""
    steps: tuple[StepWhatIf, ...]
    notes: tuple[str, ...]

    @property
    def amdahl_bound(self) -> float:
        """1 / (R / s + 1 - R): no run with this share of generation and this generation speedup gains more."""
        return 1.0 / (self.rollout_share / self.generation.mean + 1.0 - self.rollout_share)


def what_if(calibration: Calibration, arm: ArmConfig) -> WhatIf:
    """Return what drafts would change in the run that a scenario was calibrated to.

    Raises:
        ScenarioError: The acceptance needs an entropy that the log does not have, or covers no such k; one line.
    """
    notes, logged = [], calibration.logged
    entropy = logged.entropy
    if np.isnan(entropy).all():
        notes.append("entropy: not logged; the scenario's is taken")
        if arm.acceptance is not None and arm.acceptance.kind == "law" and calibration.scenario.entropy is None:
            raise ScenarioError(
                f"entropy: missing in {logged.run.name} and in the scenario, but --acceptance is a law of entropy; "
                "give rates, or a scenario with an entropy"
            )
    for field in ("draft_and_verify", "accept_length"):
        if not getattr(calibration.scenario.uncertainty, field):
            notes.append(f"uncertainty.{field}: the scenario states none, so the interval holds none")
    tools = [step.tool_s_mean for step in logged.steps if step.tool_s_mean]
    if tools and getattr(calibration.scenario.workload, "turns", None) is None:
        notes.append(
            f"tools take {np.mean(tools):.3g} s of a trajectory on average, which no draft makes shorter; the scenario "
            "has no workload.turns, so that they count as generation here"
        )
    if calibration.engine is not None:
        return _replayed(calibration, arm, notes)
    return _simulated(calibration, arm, notes)


def _replayed(calibration: Calibration, arm: ArmConfig, notes: list[str]) -> WhatIf:
    logged = calibration.logged
    timed = np.flatnonzero(np.isfinite(logged.seconds["generation"]) & np.isfinite(logged.seconds["step"]))
    if len(timed) > MAX_STEPS:
        timed = timed[np.unique(np.linspace(0, len(timed) - 1, MAX_STEPS).round().astype(int))]
        notes.append(f"{len(timed)} of {len(logged)} steps are replayed, evenly spread")
    scenario = _scenario(calibration, arm, range(len(logged)))
    names = [BASELINE, DRAFTS] + ([AS_LOGGED] if AS_LOGGED in scenario.arms else [])
    seconds = _generation(scenario, calibration, timed, names)
    steps, plain, drafted = _steps(calibration, arm, scenario, timed, seconds)
    generation = logged.seconds["generation"][timed] / seconds.get(AS_LOGGED, seconds[BASELINE])
    plain_generation, drafted_generation = (float((generation * seconds[n]).sum()) for n in (BASELINE, DRAFTS))
    error = _error(scenario, calibration, timed)
    share = plain_generation / plain.sum()
    speedup = plain_generation / drafted_generation
    # Only generation is uncertain: its error reaches the run through the share that generation has after the speedup.
    passed_on = error * drafted_generation / float(drafted.sum())
    lengths = [one.accept_length for one in steps if one.accept_length is not None]
    return WhatIf(
        calibration=calibration,
        arm=arm,
        end_to_end=_interval(float(plain.sum() / drafted.sum()), passed_on),
        generation=_interval(speedup, error),
        rollout_share=float(share),
        accept_length=float(np.mean(lengths)) if lengths else 1.0,
        over_logged=_over_logged(steps) if AS_LOGGED in scenario.arms else None,
        steps=steps,
        notes=tuple(notes),
    )


def _steps(
    calibration: Calibration, arm: ArmConfig, scenario: Scenario, timed: NDArray[np.int64], seconds: dict[str, F64]
) -> tuple[tuple[StepWhatIf, ...], F64, F64]:
    """Return every replayed step, and the seconds of all of them without drafts and with drafts."""
    logged, inputs = calibration.logged, resolve(scenario)
    measured, generation = logged.seconds["step"][timed], logged.seconds["generation"][timed]
    per_replayed = generation / seconds.get(AS_LOGGED, seconds[BASELINE])
    trained = np.nan_to_num(logged.seconds["train"][timed], nan=0.0)
    plain = measured - generation + per_replayed * seconds[BASELINE]
    drafted = measured - generation + per_replayed * seconds[DRAFTS] + arm.train_overhead * trained
    steps = tuple(
        StepWhatIf(
            step=logged.steps[i].step,
            entropy_nats=logged.steps[i].entropy_nats,
            accept_length=_accept_length(inputs, int(i)),
            logged_s=float(measured[n]),
            plain_s=float(plain[n]),
            drafted_s=float(drafted[n]),
        )
        for n, i in enumerate(timed)
    )
    return steps, plain, drafted


def _simulated(calibration: Calibration, arm: ArmConfig, notes: list[str]) -> WhatIf:
    """Simulate the calibrated scenario whole, its entropy as logged."""
    logged = calibration.logged
    numbers = [step.step for step in logged.steps]
    scenario = _scenario(calibration, arm, numbers)
    run = scenario.run.model_copy(update={"num_steps": min(len(logged), MAX_SIMULATED), "first_step": numbers[0]})
    if run.num_steps <= scenario.warmup_steps:
        raise ScenarioError(f"{logged.run.name}: {run.num_steps} steps are all warm-up; give a longer log")
    notes.append("generation overlaps with training: the calibrated scenario is simulated whole")
    scenario = scenario.model_copy(update={"run": run})
    report = simulate(scenario)
    notes.extend(report.warnings)
    drafted, plain = report.arms[DRAFTS], report.baseline
    base = report.arms.get(AS_LOGGED)
    by_number = {number: i for i, number in enumerate(numbers)}
    steps = tuple(
        StepWhatIf(
            step=mine.rl_step,
            entropy_nats=mine.entropy_nats,
            accept_length=mine.accept_length,
            logged_s=_logged(logged.seconds["step"], by_number.get(mine.rl_step)),
            plain_s=theirs.step_s,
            drafted_s=mine.step_s,
        )
        for mine, theirs in zip(drafted.by_step, plain.by_step, strict=True)
        if not mine.is_warmup
    )
    return WhatIf(
        calibration=calibration,
        arm=arm,
        end_to_end=drafted.end_to_end_speedup,
        generation=drafted.rollout_speedup,
        rollout_share=_share_of(drafted.amdahl_bound, drafted.rollout_speedup.mean),
        accept_length=drafted.accept_length,
        over_logged=base.step_s / drafted.step_s if base is not None else None,
        steps=steps,
        notes=tuple(notes),
    )


def _scenario(calibration: Calibration, arm: ArmConfig, numbers: Sequence[int]) -> Scenario:
    """Return the calibrated scenario with this arm alone, and the log's entropy at these RL steps."""
    entropy = calibration.logged.entropy
    update: dict[str, object] = {"arms": {DRAFTS: arm}, "measured": (), "setups": {}}
    known = np.flatnonzero(np.isfinite(entropy))
    ascending = all(later > earlier for earlier, later in pairwise(numbers))
    at = numbers if ascending else range(len(numbers))
    if len(known):
        points = tuple((at[int(i)], float(entropy[i])) for i in known)
        update["entropy"] = PiecewiseEntropy(points=points)
    scenario = calibration.scenario
    update["run"] = scenario.run.model_copy(update={"first_step": 0})
    return with_logged_arm(scenario.model_copy(update=update), calibration.logged.run)


def _generation(
    scenario: Scenario,
    calibration: Calibration,
    timed: NDArray[np.int64],
    names: Sequence[str],
    noise: Noise | None = None,
) -> dict[str, F64]:
    """Return replayed generation seconds of each arm at each step; all arms generate the same responses."""
    inputs = resolve(scenario)
    noise = noise or Noise(accept_length=0.0)
    return {
        name: np.array([generation_s(replay_parts(inputs, calibration.logged, int(i), name, noise)) for i in timed])
        for name in names
    }


def _error(scenario: Scenario, calibration: Calibration, timed: NDArray[np.int64]) -> float:
    """Return the error of the logarithm of the generation speedup: half the change over one deviation of each input."""
    some = timed[:: max(len(timed) // 12, 1)]
    uncertain = scenario.uncertainty
    noises = []
    if uncertain.accept_length:
        noises.append([Noise(accept_length=sign * uncertain.accept_length) for sign in (-1.0, 1.0)])
    if uncertain.draft_and_verify:
        noises.append(
            [
                Noise(accept_length=0.0, draft_and_verify=float(np.exp(sign * uncertain.draft_and_verify)))
                for sign in (-1.0, 1.0)
            ]
        )

    def log_speedup(changed: Scenario, noise: Noise | None = None) -> float:
        seconds = _generation(changed, calibration, some, [BASELINE, DRAFTS], noise)
        return float(np.log(seconds[BASELINE].sum() / seconds[DRAFTS].sum()))

    changes = [log_speedup(scenario, high) - log_speedup(scenario, low) for low, high in noises]
    for engines in _engines(scenario, calibration):
        low, high = (log_speedup(scenario.model_copy(update={"engine": engine})) for engine in engines)
        changes.append(high - low)
    return float(np.sqrt(sum((change / 2) ** 2 for change in changes)))


def _engines(scenario: Scenario, calibration: Calibration) -> list[list[EngineConfig]]:
    """Return pairs of engines one deviation from the fitted one, along each axis of their common error."""
    fitted = calibration.engine
    assert fitted is not None
    layers = resolve(scenario).architecture.num_layers
    variances, axes = np.linalg.eigh(fitted.fit.covariance[:2, :2])
    pairs: list[list[EngineConfig]] = []
    for variance, axis in zip(variances, axes.T, strict=True):
        if variance < 1e-8:
            continue
        pair = []
        for sign in (-1.0, 1.0):
            slowness, gap = np.exp(fitted.fit.parameters[:2] + sign * np.sqrt(variance) * axis)
            overhead_s = min(float(gap) / layers, 0.1) if fitted.is_gap_known else scenario.engine.layer_overhead_s
            update = {"efficiency": min(float(1 / slowness), 10.0), "layer_overhead_s": overhead_s}
            pair.append(scenario.engine.model_copy(update=update))
        pairs.append(pair)
    return pairs


def _accept_length(inputs: Inputs, index: int) -> float | None:
    rates = inputs.rates(DRAFTS)
    k = inputs.arm(DRAFTS).k
    if rates is None or k == 0:
        return 1.0
    return 1.0 + float(rates.cumulative(k, index, inputs.entropy.at(index)).sum())


def _over_logged(steps: Sequence[StepWhatIf]) -> float:
    return sum(one.logged_s or 0.0 for one in steps) / sum(one.drafted_s for one in steps)


def _interval(mean: float, error: float) -> Interval:
    reach = float(np.exp(_NINETY * error))
    return Interval(mean=mean, low=mean / reach, high=mean * reach)


def _share_of(bound: float, speedup: float) -> float:
    """Return R from 1 / (R / s + 1 - R)."""
    return float(np.clip((1 - 1 / bound) / (1 - 1 / speedup), 0.0, 1.0)) if abs(speedup - 1) > 1e-9 else 1.0


def _logged(seconds: F64, index: int | None) -> float | None:
    return float(seconds[index]) if index is not None and np.isfinite(seconds[index]) else None
