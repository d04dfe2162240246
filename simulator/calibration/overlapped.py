"""The engine of a run whose generation overlaps with training: one number, from the length of whole steps.

Where the trainer waits for samples, a step is as long as generation makes it, so that the engine's efficiency and host
gap show in it together; where it does not, nothing of the engine shows. Does not know the rest of a calibration.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from simulator.calibration.plain_run import plain_run
from simulator.calibration.speculation import arm_name, logged_arm, with_logged_arm
from simulator.calibration.values import Value
from simulator.config import Scenario
from simulator.forecast.steps import LoggedSteps

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SLOWEST, _FASTEST = 0.05, 5.0
_LEAST_ELASTICITY: Final = 0.2
"""Share of a change of the engine that has to show in the step."""
_PATH: Final = "engine.efficiency"


def fit_overlapped(scenario: Scenario, logged: LoggedSteps, steady: Bools) -> Value:
    """Return the efficiency with which the scenario's mean step is as long as the logged one, host gap as stated."""
    timed = steady & np.isfinite(logged.seconds["step"])
    stated = scenario.engine.efficiency or 1.0
    if not timed.any():
        return _untold(stated, "the log has no seconds of a step")
    measured = logged.seconds["step"][timed]
    wanted = float(np.log(np.mean(measured)))
    arm, with_arm = logged_arm(logged.run), with_logged_arm(scenario, logged.run)

    def excess(log_efficiency: float) -> float:
        engine = with_arm.engine.model_copy(update={"efficiency": float(np.exp(log_efficiency))})
        run = plain_run(with_arm.model_copy(update={"engine": engine}), arm_name(arm), replications=1)
        return float(np.log(run.step_s)) - wanted

    slow, fast = float(np.log(_SLOWEST)), float(np.log(_FASTEST))
    if excess(slow) < 0:
        return _untold(stated, f"even an engine of efficiency {_SLOWEST:g} makes shorter steps than the log has")
    if excess(fast) > 0:
        return _untold(stated, "the trainer's own time fills the logged step: it does not wait for samples")
    found = float(brentq(excess, slow, fast, xtol=0.01))
    elasticity = (excess(found - 0.1) - excess(found + 0.1)) / 0.2
    if elasticity < _LEAST_ELASTICITY:
        return _untold(
            stated,
            f"a 10 % slower engine makes the step {max(10 * elasticity, 0.0):.1f} % longer: generation overlaps with "
            "training, and the trainer hardly waits",
        )
    error = float(np.std(np.log(measured))) / len(measured) ** 0.5 + 0.02
    reach = 1.645 * error / elasticity
    why = f"mean of {len(measured)} steps, in which generation is exposed; with the host gap as the scenario has it"
    return Value(
        _PATH, float(np.exp(found)), float(np.exp(found - reach)), float(np.exp(found + reach)), "weakly told", why
    )


def _untold(stated: float, why: str) -> Value:
    return Value(_PATH, stated, stated, stated, "not told", f"{why}; the scenario's engine stays")
