"""Trial: an arm of a scenario beside plain decoding, once. Searches and sensitivities are made of many.

Without counterfactuals and intervals it takes a fraction of `run.simulate`. Trials with the same seed and replication
draw the same random numbers, so the difference between two scenarios is that of the scenarios.
"""

from dataclasses import dataclass

from simulator.config import Scenario
from simulator.inputs import BASELINE, Inputs, Noise, make_noise, make_parts, make_workload, resolve
from simulator.metrics import Outcome, measure
from simulator.policies import run_cluster


@dataclass(frozen=True, slots=True)
class Trial:
    """What both did."""

    baseline: Outcome
    arm: Outcome

    @property
    def speedup(self) -> float:
        """End to end: step time of plain decoding over the arm's."""
        return self.baseline.step_s / self.arm.step_s


def run_trial(scenario: Scenario, arm: str, *, noise: Noise | None = None, replication: int = 0) -> Trial:
    """Run an arm and plain decoding.

    Args:
        scenario: What to run.
        arm: Name of the arm.
        noise: Errors of the inputs; None draws the replication's own.
        replication: Which random numbers.

    Raises:
        ScenarioError: The scenario cannot be run.
        TraceError: A trace it names is missing or broken.
    """
    inputs = resolve(scenario)
    return Trial(*(outcome_of(inputs, name, noise=noise, replication=replication) for name in (BASELINE, arm)))


def outcome_of(inputs: Inputs, name: str, *, noise: Noise | None = None, replication: int = 0) -> Outcome:
    """Return what one arm, or plain decoding, does in one replication."""
    workload = make_workload(inputs, replication)
    parts, _ = make_parts(inputs, name, workload, noise or make_noise(inputs, replication), replication)
    return measure(run_cluster(parts), parts, inputs.scenario.warmup_steps)
