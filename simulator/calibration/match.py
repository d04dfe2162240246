"""Match: the step that a calibrated scenario predicts, with its interval, beside the logged one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.engine import EngineFit
from simulator.calibration.plain_run import plain_run
from simulator.calibration.speculation import arm_name, logged_arm, with_logged_arm
from simulator.calibration.trainer import TrainerFit
from simulator.calibration.values import Value
from simulator.config import Scenario
from simulator.forecast.steps import LoggedSteps

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Match:
    """The calibrated scenario's step beside the logged one."""

    predicted_s: float
    low_s: float
    high_s: float
    logged_s: float
    """Mean of the steps that the scenario runs."""
    num_steps: int


def match_step(
    scenario: Scenario,
    logged: LoggedSteps,
    steady: Bools,
    engine: EngineFit | None,
    trainer: TrainerFit | None,
    values: Sequence[Value],
) -> Match | None:
    """Return the calibrated step beside the logged one, over the RL steps that the scenario runs."""
    numbers = np.array([step.step for step in logged.steps])
    first = scenario.run.first_step
    # A scenario that counts from 0 runs as many steps as a log that counts from 1.
    begin = first + scenario.warmup_steps + (1 if first == 0 and numbers.min() > 0 else 0)
    compared = steady & (numbers >= begin) & (numbers < first + scenario.run.num_steps + 1)
    compared &= np.isfinite(logged.seconds["step"])
    if not compared.any():
        return None
    runnable = with_logged_arm(scenario, logged.run)
    arm = arm_name(logged_arm(logged.run))
    done = plain_run(runnable, arm)
    measured = logged.seconds["step"][compared]
    shares = (logged.measured("generation")[compared] / measured)[np.isfinite(logged.measured("generation")[compared])]
    share = float(np.median(shares)) if len(shares) else 1.0
    variance = _spread_of_lengths(runnable, arm, values) ** 2
    if engine is not None:
        variance += (min(share, 1.0) * float(engine.fit.law_sd(engine.features).mean())) ** 2
    variance += sum((_relative_error(value) * share) ** 2 for value in values if value.path == "engine.efficiency") * (
        engine is None
    )
    if trainer is not None:
        variance += float(np.mean(trainer.fits["train"].law_sd(logged.all_tokens[compared]))) ** 2
    middle = np.log(measured / float(np.exp(np.mean(np.log(measured)))))
    variance += float(np.var(middle)) / max(len(measured), 1) + _SIMULATED**2
    reach = float(np.exp(1.645 * variance**0.5))
    return Match(done.step_s, done.step_s / reach, done.step_s * reach, float(measured.mean()), int(compared.sum()))


_SIMULATED: Final = 0.01
"""Relative error of a mean over a few replications. Assumed; lengths are drawn again in each."""


def _spread_of_lengths(scenario: Scenario, arm: str, values: Sequence[Value]) -> float:
    """Return by how much (of the logarithm) the step changes over one deviation of the length tail's spread."""
    value = next(value for value in values if value.path == "workload.response_tokens.sigma")
    workload = scenario.workload
    assert workload.kind == "synthetic"
    lengths, mean = workload.response_tokens, workload.response_tokens.mean_after_cut
    assert lengths.kind == "lognormal"
    steps = []
    for sigma in (value.low, value.high):
        other = lengths.model_copy(update={"sigma": max(sigma, 0.0)})
        # The mean is logged: a wider tail has a smaller median.
        other = other.model_copy(update={"median": (lengths.median or mean) * mean / max(other.mean_after_cut, 1e-9)})
        changed = workload.model_copy(update={"response_tokens": other})
        steps.append(plain_run(scenario.model_copy(update={"workload": changed}), arm, replications=1).step_s)
    return abs(float(np.log(steps[1] / steps[0]))) / (2 * 1.645)


def _relative_error(value: Value) -> float:
    return float(np.log(value.high / value.low)) / (2 * 1.645) if value.low > 0 else 0.0
