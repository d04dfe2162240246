"""How a logged run decoded: an arm with its draft tokens and its mean acceptance. Does not know entropy."""

import numpy as np
from scipy.optimize import brentq

from simulator.config import ArmConfig, FixedAcceptance, Scenario
from simulator.inputs import BASELINE
from traces.measured import MeasuredRun

AS_LOGGED = "as-logged"
"""Name of the arm that decodes as the log says."""


def logged_arm(run: MeasuredRun) -> ArmConfig | None:
    """Return the arm that the run's counters describe; None where it decoded plainly, or does not say otherwise."""
    counts = [step.speculation for step in run.steps if step.speculation is not None]
    positions = [count.per_position for count in counts if count.per_position]
    k = run.setup.num_draft_tokens or max((len(row) for row in positions), default=0)
    if positions and all(len(row) >= k for row in positions):
        mean = np.mean([row[:k] for row in positions], axis=0)
        return ArmConfig(k=k, acceptance=FixedAcceptance(cumulative=tuple(np.minimum.accumulate(mean).tolist())))
    lengths = [count.accept_length for count in counts if count.accept_length is not None]
    if not lengths or float(np.mean(lengths)) <= 1.0:
        return None
    k = k or max(int(np.ceil(max(lengths))) - 1, 1)
    return ArmConfig(k=k, acceptance=FixedAcceptance(cumulative=geometric(float(np.mean(lengths)), k)))


def geometric(accept_length: float, k: int) -> tuple[float, ...]:
    """Return c_1..c_k of one conditional rate at every position, with this accept length."""
    wanted = min(accept_length, k + 1.0)
    rate = float(brentq(lambda a: sum(a**j for j in range(k + 1)) - wanted, 0.0, 1.0))
    return tuple(rate**j for j in range(1, k + 1))


def arm_name(arm: ArmConfig | None) -> str:
    """Return the name under which a scenario with the logged arm has it."""
    return BASELINE if arm is None else AS_LOGGED


def with_logged_arm(scenario: Scenario, run: MeasuredRun) -> Scenario:
    """Return the scenario with an arm that decodes as the log says, if it did not decode plainly."""
    arm = logged_arm(run)
    return scenario if arm is None else scenario.model_copy(update={"arms": {**scenario.arms, AS_LOGGED: arm}})
