"""One arm of a scenario, run whole and without input errors: seconds per RL step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.config import Scenario
from simulator.inputs import Noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlainRun:
    """Means over RL steps, warm-up left out."""

    step_s: float
    series_s: F64
    """[steps]: mean over replications, warm-up included."""


def plain_run(scenario: Scenario, arm: str, *, replications: int = 2) -> PlainRun:
    """Return what one arm takes in a run whose inputs are as stated."""
    inputs, series = resolve(scenario), []
    for replication in range(replications):
        workload = make_workload(inputs, replication)
        parts, _ = make_parts(inputs, arm, workload, Noise(accept_length=0.0), replication)
        log = run_cluster(parts)
        series.append(np.diff([0.0] + [step.end_s for step in log.steps]))
    mean = np.mean(series, axis=0)
    return PlainRun(float(mean[scenario.warmup_steps :].mean()), mean)
