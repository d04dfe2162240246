"""Estimates of a study: every number with an interval that includes what differs between seeds.

Does not know which claims rest on them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from profiler.mtp.acceptance import Acceptance
from profiler.mtp.laws import Line, drift_parts, fit_line
from profiler.mtp.results import NARROW, ONLINE, RECIPES, Cell, Results, RlPoint

STRATEGIES = (*RECIPES, NARROW, *ONLINE)
"""All that drafts along RL: frozen heads by recipe, and those of the online strategies."""


class Outcome(StrEnum):
    """What a study says of a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    OPEN = "open"
    """The interval holds both answers: the study is too small for it."""
    NOT_TESTED = "not testable here"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def above(self, value: float) -> Outcome:
        """Return whether it lies above a value."""
        if self.low > value:
            return Outcome.REPRODUCED
        return Outcome.NOT_REPRODUCED if self.high < value else Outcome.OPEN

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class Drift:
    """A change of accept length since the first step of RL, and its parts (eq. 16)."""

    change: Estimate
    entropy: Estimate
    """By the slope in entropy of all seeds, taken as exact."""
    mismatch: Estimate
    """What is left: the policy has moved from what the head knows."""


def estimate(values: Sequence[float], errors: Sequence[float]) -> Estimate:
    """Return mean and interval of one value per seed: over seeds from three on, else from the errors of counting."""
    mean = sum(values) / len(values)
    if len(values) >= 3:
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * spread
    else:
        half = 1.96 * math.sqrt(sum(error**2 for error in errors)) / len(errors)
    return Estimate(mean, mean - half, mean + half)


def accept_rate(results: Results, domain: str, loss: str) -> Estimate:
    """Return the acceptance rate (AL - 1) / k of a loss under rejection sampling at temperature 1."""
    found = [cell.found for cell in cells_of(results, domain, loss, "rejection")]
    return estimate([one.rate for one in found], [one.accept_length_sd / len(one.cumulative) for one in found])


def gain(results: Results, domain: str, loss: str, over: str) -> Estimate:
    """Return how much the acceptance rate of one loss is above another's, seed by seed."""
    pairs = list(zip(*(cells_of(results, domain, name, "rejection") for name in (loss, over)), strict=True))
    k = len(pairs[0][0].found.cumulative)
    # Both count on the same prompts; taking them as independent makes the interval too wide, if anything.
    errors = [math.hypot(a.found.accept_length_sd, b.found.accept_length_sd) / k for a, b in pairs]
    return estimate([a.found.rate - b.found.rate for a, b in pairs], errors)


def lead(results: Results, domain: str, loss: str, rule: str, over: str) -> Estimate:
    """Return by how much the accept length under one verify rule is above another's, same heads, seed by seed."""
    both = zip(*(cells_of(results, domain, loss, name) for name in (rule, over)), strict=True)
    pairs = [(a.found, b.found) for a, b in both]
    return estimate(
        [a.accept_length - b.accept_length for a, b in pairs],
        [math.hypot(a.accept_length_sd, b.accept_length_sd) for a, b in pairs],
    )


def temperature_lengths(results: Results, loss: str, rule: str) -> dict[float, list[Acceptance]]:
    """Return acceptance of every seed by temperature, on arithmetic."""
    curve: dict[float, list[Acceptance]] = {}
    for cell in results.cells:
        if (cell.domain, cell.loss, cell.verify_rule) == ("math", loss, rule):
            curve.setdefault(cell.temperature, []).append(cell.found)
    return dict(sorted(curve.items()))


def temperature_curve(results: Results, loss: str, rule: str) -> dict[float, Estimate]:
    """Return accept length by temperature, on arithmetic."""
    return {
        temperature: estimate([one.accept_length for one in found], [one.accept_length_sd for one in found])
        for temperature, found in temperature_lengths(results, loss, rule).items()
    }


def position_shifts(results: Results, domain: str, loss: str, rule: str) -> dict[int, Estimate]:
    """Return, by the token of the response from which on it holds, the shift of the log-odds of acceptance.

    Against the whole response, mean over positions of a draft: rows of a scenario's `acceptance_by_position`.
    """
    by_place: dict[int, list[float]] = {}
    for cell in cells_of(results, domain, loss, rule):
        whole = _log_odds(cell.found)
        for place, found in cell.place_bins:
            shifts = [here - there for here, there in zip(_log_odds(found), whole, strict=True)]
            by_place.setdefault(place, []).append(sum(shifts) / len(shifts))
    return {place: estimate(shifts, [0.0] * len(shifts)) for place, shifts in sorted(by_place.items())}


def _log_odds(found: Acceptance) -> list[float]:
    """Return ln(a / (1 - a)) of the conditional rates, those of 0 and 1 as if half a step were otherwise."""
    reached = (1.0, *found.cumulative[:-1])
    rates = [now / before if before > 0 else 0.0 for now, before in zip(found.cumulative, reached, strict=True)]
    least = 0.5 / found.num_steps
    return [math.log(rate / (1.0 - rate)) for rate in (min(max(rate, least), 1.0 - least) for rate in rates)]


def rl_lines(results: Results, *, at_one_step: bool = True) -> dict[str, Line]:
    """Return accept length as a line in policy entropy over RL, by recipe and strategy.

    Args:
        results: Of a study with RL.
        at_one_step: Whether the slope is that at one and the same step, what drifts with the steps being a slope of
            its own; else it holds both.
    """
    entropies = [point.entropy_nats for point in results.rl]
    seeds, steps = [point.seed for point in results.rl], [float(point.step) for point in results.rl]
    return {
        name: fit_line(entropies, _lengths(results.rl, name), seeds, steps if at_one_step else None)
        for name in STRATEGIES
    }


def bin_lines(results: Results, domain: str) -> dict[str, Line]:
    """Return accept length as a line in the entropy at the first draft, over bins of steps, by recipe."""
    lines = {}
    for name, (loss, rule) in RECIPES.items():
        bins = [(one, cell.seed) for cell in cells_of(results, domain, loss, rule) for one in cell.entropy_bins]
        entropies, lengths = [one.entropy_nats for one, _ in bins], [one.accept_length for one, _ in bins]
        lines[name] = fit_line(entropies, lengths, [seed for _, seed in bins])
    return lines


def late(results: Results, name: str, over: str | None = None) -> Estimate:
    """Return accept length over the last third of RL, or how much more it is than another's, seed by seed."""
    last = max(point.step for point in results.rl)
    means, errors = [], []
    for points in _by_seed(results):
        kept = [point for point in points if point.step > 2 * last / 3]
        lengths = [_lengths(kept, one) for one in (name, over) if one is not None]
        means.append(sum(lengths[0]) / len(kept) - (sum(lengths[1]) / len(kept) if over else 0.0))
        # The same prompts at every step: more steps do not make counting more exact.
        errors.append(math.hypot(*(kept[0].found[one].accept_length_sd for one in (name, over) if one is not None)))
    return estimate(means, errors)


def drifts(results: Results, name: str, line: Line) -> dict[str, Drift]:
    """Return the parts of a drift at the step of the highest entropy, and at the last one."""
    found = {}
    for end in ("peak", "end"):
        parts = []
        for points in _by_seed(results):
            first, now = points[0], points[-1] if end == "end" else max(points, key=lambda point: point.entropy_nats)
            lengths = (first.found[name].accept_length, now.found[name].accept_length)
            parts.append((lengths, (first.entropy_nats, now.entropy_nats), now.found[name].accept_length_sd))
        split = [drift_parts(line.slope_per_nat, lengths, entropies) for lengths, entropies, _ in parts]
        errors = [math.sqrt(2) * sd for _, _, sd in parts]
        found[end] = Drift(
            estimate([now - first for (first, now), _, _ in parts], errors),
            estimate([entropy for entropy, _ in split], [0.0] * len(split)),
            estimate([rest for _, rest in split], errors),
        )
    return found


def cells_of(results: Results, domain: str, loss: str, rule: str) -> list[Cell]:
    """Return the measurements at temperature 1 under these conditions, one per seed."""
    wanted = (domain, loss, rule, 1.0)
    return [cell for cell in results.cells if (cell.domain, cell.loss, cell.verify_rule, cell.temperature) == wanted]


def domains_of(results: Results) -> list[str]:
    """Return the domains that were measured, in their order."""
    return list(dict.fromkeys(cell.domain for cell in results.cells))


def _by_seed(results: Results) -> list[list[RlPoint]]:
    seeds = dict.fromkeys(point.seed for point in results.rl)
    return [[point for point in results.rl if point.seed == seed] for seed in seeds]


def _lengths(points: Sequence[RlPoint], name: str) -> list[float]:
    return [point.found[name].accept_length for point in points]
