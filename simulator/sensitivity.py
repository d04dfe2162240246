"""Sensitivity: which unknown input the answer depends on most, so that a user knows what to measure first.

Two views of the same factors: one at a time to the ends of its range (tornado), and all together with the share of the
answer's variance that each explains (Sobol indices, Saltelli's estimators as SALib has them: Saltelli et al., Comput.
Phys. Commun. 181 (2010) 259). Every trial draws the same random numbers, so only the inputs make a difference.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.factors import Z90, Factor, factors_of, with_values
from simulator.trial import run_trial

MAX_TRIALS = 100_000


@dataclass(frozen=True, slots=True)
class FactorResult:
    """One input and what the speedup owes to it."""

    name: str
    meaning: str
    low: float
    high: float
    source: str
    """Why the range is what it is."""
    speedup_at_low: float
    speedup_at_high: float
    first_order: float | None = None
    """Share of the speedup's variance that knowing this input alone would take away; None: not estimated."""
    first_order_error: float | None = None
    """Half width of its 95 % interval."""
    total: float | None = None
    """Share of the variance that stays as long as only this input is unknown."""
    total_error: float | None = None

    @property
    def swing(self) -> float:
        """Largest change of the speedup inside the range."""
        return abs(self.speedup_at_high - self.speedup_at_low)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All inputs of an arm's speedup, the most important first."""

    scenario: str
    arm: str
    speedup: float
    """With every input as stated, in one replication."""
    low: float | None
    high: float | None
    """Range that holds 90 % of the speedups when all inputs vary; None: not estimated."""
    num_trials: int
    factors: tuple[FactorResult, ...]

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))


def analyse(
    scenario: Scenario,
    arm: str | None = None,
    *,
    ranges: Sequence[str] = (),
    num_samples: int = 64,
    progress: Callable[[float], None] | None = None,
) -> Sensitivity:
    """Return how the end-to-end speedup of an arm depends on its inputs.

    Args:
        scenario: What to run; `uncertainty` gives the ranges of its inputs.
        arm: Name of the arm; None takes the first.
        ranges: More inputs, or other ranges, as `path.to.field=low..high`.
        num_samples: Base samples N of Saltelli's design, a power of two: N x (factors + 2) trials; 0 leaves it out.
        progress: Called with the share of the trials that are done.

    Raises:
        ScenarioError: No such arm, no factors, or a combination inside the ranges that cannot run.
    """
    arm = arm or next(iter(scenario.arms))
    if arm not in scenario.arms:
        raise ScenarioError(f"no arm {arm!r}; the arms are {', '.join(scenario.arms)}")
    factors = factors_of(scenario, ranges)
    if not factors:
        raise ScenarioError("uncertainty: nothing is uncertain and nothing is assumed; name ranges with --vary")
    centre = np.array([factor.centre for factor in factors])
    ends = []
    for index, factor in enumerate(factors):
        for value in (factor.low, factor.high):
            point = centre.copy()
            point[index] = value
            ends.append(point)
    points = [centre, *ends]
    if num_samples:
        points += list(_design(factors, num_samples))
    if len(points) > MAX_TRIALS:
        raise ScenarioError(
            f"--samples {num_samples}: {len(points)} trials are above the limit of {MAX_TRIALS}; lower it"
        )
    speedups = _run(scenario, arm, factors, points, progress or (lambda _: None))
    num_ends = 1 + len(ends)
    shares = _indices(factors, speedups[num_ends:]) if num_samples else None
    results = [
        FactorResult(
            name=factor.name,
            meaning=factor.meaning,
            low=factor.shown(factor.low),
            high=factor.shown(factor.high),
            source=factor.source,
            speedup_at_low=float(speedups[1 + 2 * i]),
            speedup_at_high=float(speedups[2 + 2 * i]),
            **(shares[i] if shares else {}),
        )
        for i, factor in enumerate(factors)
    ]
    spread = np.quantile(_base_samples(factors, speedups[num_ends:]), [0.05, 0.95]) if num_samples else None
    return Sensitivity(
        scenario=scenario.name,
        arm=arm,
        speedup=float(speedups[0]),
        low=None if spread is None else float(spread[0]),
        high=None if spread is None else float(spread[1]),
        num_trials=len(points),
        factors=tuple(sorted(results, key=lambda r: -(r.total if r.total is not None else r.swing))),
    )


def _run(
    scenario: Scenario,
    arm: str,
    factors: Sequence[Factor],
    points: Sequence[np.ndarray],
    progress: Callable[[float], None],
) -> np.ndarray:
    """Return the speedup at every point; threads, as the kernels do not hold the interpreter's lock."""

    def speedup(point: np.ndarray) -> float:
        values = dict(zip((factor.name for factor in factors), point.tolist(), strict=True))
        try:
            varied, noise = with_values(scenario, factors, values)
            return run_trial(varied, arm, noise=noise).speedup
        except ScenarioError as error:
            said = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
            raise ScenarioError(f"{error} (at {said}); narrow a range with --vary") from None

    found = np.empty(len(points))
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as executor:
        for index, value in enumerate(executor.map(speedup, points)):
            found[index] = value
            progress((index + 1) / len(points))
    return found


def _problem(factors: Sequence[Factor]) -> dict[str, object]:
    """Return the factors as SALib takes them; a factor is uniform, or normal with its ends at 5 % and 95 %."""
    bounds, kinds = [], []
    for factor in factors:
        if factor.is_normal:
            bounds.append([factor.centre, (factor.high - factor.low) / (2 * Z90)])
            kinds.append("norm")
        else:
            bounds.append([factor.low, factor.high])
            kinds.append("unif")
    return {"num_vars": len(factors), "names": [factor.name for factor in factors], "bounds": bounds, "dists": kinds}


def _design(factors: Sequence[Factor], num_samples: int) -> np.ndarray:
    from SALib.sample import sobol

    if num_samples < 2 or num_samples & (num_samples - 1):
        raise ScenarioError(
            f"--samples {num_samples} is not a power of two; e.g. {1 << round(math.log2(max(num_samples, 2)))}"
        )
    design: np.ndarray = sobol.sample(_problem(factors), num_samples, calc_second_order=False, seed=0)
    return design


def _indices(factors: Sequence[Factor], speedups: np.ndarray) -> list[dict[str, float]]:
    from SALib.analyze import sobol

    if np.ptp(speedups) == 0:  # nothing matters
        return [{"first_order": 0.0, "first_order_error": 0.0, "total": 0.0, "total_error": 0.0} for _ in factors]
    found = sobol.analyze(_problem(factors), speedups, calc_second_order=False, seed=0)
    return [
        {
            "first_order": float(found["S1"][i]),
            "first_order_error": float(found["S1_conf"][i]),
            "total": float(found["ST"][i]),
            "total_error": float(found["ST_conf"][i]),
        }
        for i in range(len(factors))
    ]


def _base_samples(factors: Sequence[Factor], speedups: np.ndarray) -> np.ndarray:
    """Return the speedups of Saltelli's two independent samples: the first and the last of every block."""
    blocks = speedups.reshape(-1, len(factors) + 2)
    return np.concatenate([blocks[:, 0], blocks[:, -1]])
