"""Results: what all arms did in all replications, and the means over them."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from simulator.metrics import Outcome
from simulator.setups import Setup


@dataclass(frozen=True, slots=True)
class Replication:
    """What all arms did with one draw of workload and input errors."""

    outcomes: dict[str, Outcome]
    stages: dict[str, dict[str, float]]
    """Arm -> counterfactual -> seconds per step; none where no waterfall was asked for."""
    warnings: tuple[str, ...]
    setups: dict[Setup, Outcome] = field(default_factory=dict)
    """Plain decoding under the set-ups that measured rows compare."""


@dataclass(frozen=True, slots=True)
class Results:
    """Outcomes of all replications, by arm."""

    outcomes: dict[str, list[Outcome]]
    stages: dict[str, dict[str, list[float]]]
    warnings: tuple[str, ...]
    setups: dict[Setup, list[Outcome]]

    def per_arm(self, number_of: Callable[[Outcome], float]) -> dict[str, float]:
        """Return the mean of a number over replications, for each arm."""
        return {name: mean(number_of(outcome) for outcome in outcomes) for name, outcomes in self.outcomes.items()}


def gather(done: Sequence[Replication]) -> Results:
    """Return the replications arm by arm, and each warning once."""
    names = list(done[0].outcomes)
    warnings: dict[str, str] = {}
    for warning in itertools.chain.from_iterable(replication.warnings for replication in done):
        warnings.setdefault(re.sub(r"\d+ %|\d{4,}", "#", warning), warning)  # the same fact about another draw
    return Results(
        {name: [replication.outcomes[name] for replication in done] for name in names},
        {name: {stage: [r.stages[name][stage] for r in done] for stage in done[0].stages[name]} for name in names},
        tuple(warnings.values()),
        {setup: [replication.setups[setup] for replication in done] for setup in done[0].setups},
    )


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean."""
    listed = list(values)
    return math.fsum(listed) / len(listed)
