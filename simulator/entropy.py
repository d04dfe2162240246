"""Entropy: the policy's mean entropy at each RL step: straight lines between points, flat beyond the ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.config import ConstantEntropy, EntropyConfig, PiecewiseEntropy
from simulator.errors import ScenarioError
from simulator.evidence import Evidence, excess
from traces.base import Origin
from traces.report import InputOrigin
from traces.store import load_named
from traces.workload import WorkloadTrace


@dataclass(frozen=True, slots=True)
class Entropy:
    """A trajectory of policy entropy, or none."""

    points: tuple[tuple[int, float], ...] = ()
    """(rl_step, nats), ascending; a single point holds at every step; none means unknown."""
    source: str = "not given"
    origin: Origin = Origin.ASSUMED

    def at(self, rl_step: int) -> float | None:
        """Return nats at this RL step, None when the scenario gives no entropy."""
        if not self.points:
            return None
        steps, nats = zip(*self.points, strict=True)
        return float(np.interp(rl_step, steps, nats))

    def evidence(self, rl_steps: Sequence[int]) -> Evidence:
        """Return the origin, and a warning for RL steps beyond the trajectory's ends."""
        if not self.points:
            return Evidence()
        first, last = self.points[0], self.points[-1]
        if len(self.points) == 1:
            value = f"{first[1]:g} nats at every step"
            return Evidence((InputOrigin(name="entropy", value=value, origin=self.origin, source=self.source),))
        outside = excess(rl_steps, first[0], last[0])
        value = f"{first[1]:.4g} nats at step {first[0]} to {last[1]:.4g} at step {last[0]}"
        origin = Origin.EXTRAPOLATED if outside else self.origin
        warnings: tuple[str, ...] = ()
        if outside:
            warnings = (
                f"entropy: the trajectory covers RL steps {first[0]}..{last[0]}, the run reaches {outside.reaches}; "
                f"held at its end at {outside.num_outside} of {outside.num_steps} steps",
            )
        return Evidence((InputOrigin(name="entropy", value=value, origin=origin, source=self.source),), warnings)


def build_entropy(config: EntropyConfig | None) -> Entropy:
    """Return the trajectory that the scenario asks for.

    Raises:
        ScenarioError: The trace holds no entropy.
        TraceError: There is no such trace, or it is broken.
    """
    if config is None:
        return Entropy()
    if isinstance(config, ConstantEntropy):
        return Entropy(((0, config.entropy_nats),), "the scenario")
    if isinstance(config, PiecewiseEntropy):
        return Entropy(config.points, "the scenario")
    trace = load_named(config.trace, WorkloadTrace)
    if not trace.entropy:
        raise ScenarioError(f"entropy.trace: {trace.name} holds no entropy; give a workload trace with entropy points")
    points = tuple((point.rl_step, point.entropy_nats) for point in trace.entropy)
    # A workload trace does not say whether its points were logged or inferred; its provenance does, in words.
    return Entropy(points, f"workload trace {trace.name}: {trace.provenance.source}", Origin.MODELLED)
