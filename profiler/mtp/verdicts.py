"""Verdicts of the study: each claim of the paper, reproduced or not by what was measured, with the numbers it rests on.

A claim is decided only where a 95 % interval decides it; else it stays open. Does not know how anything was measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from profiler.mtp.laws import Line, fit_line
from profiler.mtp.study import ONLINE, RECIPES, Cell, Results

LEAST_REDUCTION = 5.0
"""The paper's claim under test: the slope of RS with a TV head is at most a fifth of that of greedy drafts."""
TEMPERATURE_RATIO = 3.0
"""Greedy drafts collapse with temperature if they lose this many times what rejection sampling loses; assumed."""


class Outcome(StrEnum):
    """What a study says of a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    OPEN = "open"
    """The interval holds both answers: the study is too small for it."""
    NOT_TESTED = "not testable here"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, what came of it, and why."""

    claim: str
    outcome: Outcome
    why: str


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
    found = [cell.found for cell in _at_one(results, domain, loss, "rejection")]
    return estimate([one.rate for one in found], [one.accept_length_sd / len(one.cumulative) for one in found])


def gain(results: Results, domain: str, loss: str, over: str) -> Estimate:
    """Return how much the acceptance rate of one loss is above another's, seed by seed."""
    pairs = list(zip(*(_at_one(results, domain, name, "rejection") for name in (loss, over)), strict=True))
    k = len(pairs[0][0].found.cumulative)
    # Both count on the same prompts; taking them as independent makes the interval too wide, if anything.
    errors = [math.hypot(a.found.accept_length_sd, b.found.accept_length_sd) / k for a, b in pairs]
    return estimate([a.found.rate - b.found.rate for a, b in pairs], errors)


def temperature_curve(results: Results, loss: str, rule: str) -> dict[float, Estimate]:
    """Return accept length by temperature, on arithmetic."""
    cells = [cell for cell in results.cells if (cell.domain, cell.loss, cell.verify_rule) == ("math", loss, rule)]
    curve = {}
    for temperature in sorted({cell.temperature for cell in cells}):
        found = [cell.found for cell in cells if cell.temperature == temperature]
        curve[temperature] = estimate([one.accept_length for one in found], [one.accept_length_sd for one in found])
    return curve


def rl_lines(results: Results) -> dict[str, Line]:
    """Return accept length as a line in policy entropy over RL, by recipe and online strategy; all seeds together."""
    entropies = [point.entropy_nats for point in results.rl]
    names = (*RECIPES, *ONLINE)
    return {name: fit_line(entropies, [point.found[name].accept_length for point in results.rl]) for name in names}


def bin_lines(results: Results, domain: str) -> dict[str, Line]:
    """Return accept length as a line in the entropy at the first draft, over bins of steps, by recipe."""
    lines = {}
    for name, (loss, rule) in RECIPES.items():
        bins = [one for cell in _at_one(results, domain, loss, rule) for one in cell.entropy_bins]
        lines[name] = fit_line([one.entropy_nats for one in bins], [one.accept_length for one in bins])
    return lines


def verdicts(results: Results) -> dict[str, Verdict]:
    """Return all verdicts by name."""
    found = {
        "e2e_tv_above_ce": _every_domain(results, "e2e_tv", "ce", "e2e TV accepts more than CE in every domain"),
        "e2e_tv_above_tv": _every_domain(results, "e2e_tv", "tv", "e2e TV accepts more than per-step TV everywhere"),
        "counts_agree": _counts_agree(results),
    }
    if any(cell.domain == "math" for cell in results.cells):
        found["greedy_collapses_with_temperature"] = _temperature(results)
        found["block_at_least_rejection"] = _block(results)
    if any(cell.entropy_bins for cell in results.cells):
        found["slope_within_a_policy"] = _slope_within_a_policy(results)
    if results.rl:
        found["slope_of_rs_tv_a_fifth"] = _slope_over_rl(results)
        found["online_orderings"] = _online(results)
    found["throughput"] = Verdict(
        "RL steps get 1.5 to 1.8 times faster",
        Outcome.NOT_TESTED,
        "no engine and no cluster here; see `bebop simulate`",
    )
    return found


def _at_one(results: Results, domain: str, loss: str, rule: str) -> list[Cell]:
    return [
        cell
        for cell in results.cells
        if (cell.domain, cell.loss, cell.verify_rule, cell.temperature) == (domain, loss, rule, 1.0)
    ]


def domains_of(results: Results) -> list[str]:
    """Return the domains that were measured, in their order."""
    return list(dict.fromkeys(cell.domain for cell in results.cells))


def _every_domain(results: Results, loss: str, over: str, claim: str) -> Verdict:
    gains = {domain: gain(results, domain, loss, over) for domain in domains_of(results)}
    outcomes = {one.above(0.0) for one in gains.values()}
    outcome = outcomes.pop() if len(outcomes) == 1 else Outcome.OPEN
    if Outcome.NOT_REPRODUCED in outcomes:
        outcome = Outcome.NOT_REPRODUCED
    return Verdict(claim, outcome, ", ".join(f"{domain} {one}" for domain, one in gains.items()))


def _counts_agree(results: Results) -> Verdict:
    cells = [cell.found for cell in results.cells]
    # Some thousand tests at 3 sigma: a few outside are chance.
    sigmas = [abs(sigma) for one in cells for sigma in one.sigma]
    outside = sum(sigma > 3.0 for sigma in sigmas)
    expected = len(sigmas) * 2 * stats.norm.sf(3.0)
    is_fine = stats.poisson.sf(outside - 1, expected) > 0.001
    return Verdict(
        "counted acceptance is sum min(p, q)",
        Outcome.REPRODUCED if is_fine else Outcome.NOT_REPRODUCED,
        f"{outside} of {len(sigmas)} counts beyond 3 sigma, {expected:.1f} expected by chance; most {max(sigmas):.1f}",
    )


def _temperature(results: Results) -> Verdict:
    greedy, sampled = (temperature_curve(results, "ce", rule) for rule in ("greedy_draft", "rejection"))
    coldest, hottest = min(greedy), max(greedy)
    lost = [curve[coldest].mean - curve[hottest].mean for curve in (greedy, sampled)]
    collapses = lost[0] > max(0.1, TEMPERATURE_RATIO * lost[1])
    return Verdict(
        "greedy drafts collapse with temperature, rejection sampling does not (CE head)",
        Outcome.REPRODUCED if collapses else Outcome.NOT_REPRODUCED,
        f"accept length lost from T {coldest:g} to {hottest:g}: greedy {lost[0]:.2f}, rejection {lost[1]:.2f}",
    )


def _block(results: Results) -> Verdict:
    pairs = [
        (block.found, token.found)
        for domain in domains_of(results)
        for block, token in zip(
            _at_one(results, domain, "e2e_tv", "block"), _at_one(results, domain, "e2e_tv", "rejection"), strict=True
        )
    ]
    gains = [block.accept_length - token.accept_length for block, token in pairs]
    errors = [math.hypot(block.accept_length_sd, token.accept_length_sd) for block, token in pairs]
    found = Estimate(*_mean_of(gains, errors))
    return Verdict("block verification accepts more than token by token", found.above(0.0), f"accept length by {found}")


def _mean_of(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float, float]:
    mean, half = sum(values) / len(values), 1.96 * math.sqrt(sum(error**2 for error in errors)) / len(errors)
    return mean, mean - half, mean + half


def _slope_within_a_policy(results: Results) -> Verdict:
    """Compare slopes over bins of steps: one policy, its own head, entropies from token to token."""
    parts = {domain: _a_fifth(lines["to"], lines["rs_tv"]) for domain, lines in _bin_lines(results).items()}
    outcomes = {outcome for outcome, _ in parts.values()}
    outcome = outcomes.pop() if len(outcomes) == 1 else Outcome.OPEN
    claim = (
        "within one policy, accept length of RS+TV falls with entropy at most a fifth as fast as that of greedy drafts"
    )
    return Verdict(claim, outcome, "; ".join(f"{domain} {why}" for domain, (_, why) in parts.items()))


def _bin_lines(results: Results) -> dict[str, dict[str, Line]]:
    return {domain: bin_lines(results, domain) for domain in domains_of(results)}


def _slope_over_rl(results: Results) -> Verdict:
    lines = rl_lines(results)
    outcome, why = _a_fifth(lines["to"], lines["rs_tv"])
    matched = lines["start_tv_online_tv"]
    why += (
        f"; with a TV head that follows the policy {matched.slope_per_nat:.2f} ({matched.slope_low:.2f} to "
        f"{matched.slope_high:.2f}): the rest is mismatch"
    )
    claim = (
        "over RL, accept length of RS+TV (frozen) falls with entropy at most a fifth as fast as that of greedy drafts"
    )
    return Verdict(claim, outcome, why)


def _a_fifth(greedy: Line, sampled: Line) -> tuple[Outcome, str]:
    """Return whether one line is at most a fifth as steep as another, as far as both intervals tell."""
    why = (
        f"TO {greedy.slope_per_nat:.2f} ({greedy.slope_low:.2f} to {greedy.slope_high:.2f}), RS+TV "
        f"{sampled.slope_per_nat:.2f} ({sampled.slope_low:.2f} to {sampled.slope_high:.2f}) per nat, entropy "
        f"{greedy.entropy_low_nats:.2f} to {greedy.entropy_high_nats:.2f}"
    )
    if greedy.slope_high >= 0:
        return Outcome.OPEN, f"{why}; greedy drafts do not fall with entropy here"
    limit_low, limit_high = (abs(slope) / LEAST_REDUCTION for slope in (greedy.slope_high, greedy.slope_low))
    largest = max(abs(sampled.slope_low), abs(sampled.slope_high))
    inside = sampled.slope_low < 0 < sampled.slope_high
    smallest = 0.0 if inside else min(abs(sampled.slope_low), abs(sampled.slope_high))
    if largest <= limit_low:
        return Outcome.REPRODUCED, why
    return (Outcome.NOT_REPRODUCED if smallest > limit_high else Outcome.OPEN), why


def late(results: Results, name: str) -> Estimate:
    """Return accept length of a recipe or strategy over the last third of RL."""
    last = max(point.step for point in results.rl)
    points = [point for point in results.rl if point.step > last - (last + 1) / 3]
    by_seed = {
        seed: [point.found[name] for point in points if point.seed == seed] for seed in {point.seed for point in points}
    }
    means = [sum(one.accept_length for one in found) / len(found) for found in by_seed.values()]
    # The same prompts at every step: more steps do not make counting more exact.
    return estimate(means, [found[0].accept_length_sd for found in by_seed.values()])


def _online(results: Results) -> Verdict:
    frozen, with_ce, with_tv = (
        late(results, name) for name in ("rs_e2e_tv", "start_tv_online_ce", "start_tv_online_tv")
    )
    greedy, greedy_online = late(results, "to"), late(results, "start_ce_online_ce")
    orderings = (
        ("TV online no lasting gain", frozen.high >= with_tv.low),
        ("CE online below frozen TV", with_ce.mean < frozen.mean),
        ("greedy, CE online below frozen", greedy_online.mean < greedy.mean),
    )
    holds = [name for name, is_so in orderings if is_so]
    rates = f"frozen TV {frozen}, TV online {with_tv}, CE online {with_ce}; TO frozen {greedy}, online {greedy_online}"
    outcome = {0: Outcome.NOT_REPRODUCED, len(orderings): Outcome.REPRODUCED}.get(len(holds), Outcome.OPEN)
    return Verdict(
        "fig. 9a: a frozen TV head is as good as any online one",
        outcome,
        f"holds: {'; '.join(holds) or 'nothing'}; {rates}",
    )
