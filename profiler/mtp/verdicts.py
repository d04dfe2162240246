"""Verdicts of the study: each claim of the paper, reproduced or not by what was measured, with the numbers it rests on.

A claim is decided only where a 95 % interval decides it; else it stays open. Does not know how anything was measured.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

from profiler.mtp.estimates import (
    Outcome,
    bin_lines,
    cells_of,
    domains_of,
    estimate,
    gain,
    late,
    lead,
    rl_lines,
    temperature_lengths,
)
from profiler.mtp.laws import Line
from profiler.mtp.results import NARROW, Results

LEAST_REDUCTION = 5.0
"""The paper's claim under test: the slope of RS with a TV head is at most a fifth of that of greedy drafts."""
TEMPERATURE_RATIO = 3.0
"""Greedy drafts collapse with temperature if they lose this many times what rejection sampling loses; assumed."""
LASTING_GAIN = 0.05
"""Accept length by which an online head must be ahead for its gain to count; assumed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim, what came of it, and why."""

    claim: str
    outcome: Outcome
    why: str


def verdicts(results: Results) -> dict[str, Verdict]:
    """Return all verdicts by name."""
    found = {
        "e2e_tv_above_ce": _every_domain(results, "e2e_tv", "ce", "e2e TV accepts more than CE in every domain"),
        "e2e_tv_above_tv": _every_domain(results, "e2e_tv", "tv", "e2e TV accepts more than per-step TV everywhere"),
        "rejection_above_greedy": _rejection(results),
        "counts_agree": _counts_agree(results),
    }
    if any(cell.domain == "math" for cell in results.cells):
        found["greedy_collapses_with_temperature"] = _temperature(results)
        found["block_at_least_rejection"] = _block(results)
    if any(cell.entropy_bins for cell in results.cells):
        found["slope_within_a_policy"] = _slope_within_a_policy(results)
    if results.rl:
        found["slope_of_rs_tv_a_fifth"] = _slope_over_rl(results)
        found |= _online(results)
    found["throughput"] = Verdict(
        "RL steps get 1.5 to 1.8 times faster",
        Outcome.NOT_TESTED,
        "no engine and no cluster here; see `bebop simulate`",
    )
    return found


def _every_domain(results: Results, loss: str, over: str, claim: str) -> Verdict:
    gains = {domain: gain(results, domain, loss, over) for domain in domains_of(results)}
    outcome = _joint(one.above(0.0) for one in gains.values())
    return Verdict(claim, outcome, ", ".join(f"{domain} {one}" for domain, one in gains.items()))


def _rejection(results: Results) -> Verdict:
    leads = {domain: lead(results, domain, "ce", "rejection", "greedy_draft") for domain in domains_of(results)}
    claim = "rejection sampling accepts more than greedy drafts of the same head (CE, temperature 1) everywhere"
    why = ", ".join(f"{domain} {one}" for domain, one in leads.items())
    return Verdict(claim, _joint(one.above(0.0) for one in leads.values()), f"accept length by {why}")


def _counts_agree(results: Results) -> Verdict:
    cells = [cell.found for cell in results.cells] + [one for point in results.rl for one in point.found.values()]
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
    greedy, sampled = (_lost(results, rule) for rule in ("greedy_draft", "rejection"))
    excess = estimate(
        [one - TEMPERATURE_RATIO * other for (one, _), (other, _) in zip(greedy, sampled, strict=True)],
        [error + TEMPERATURE_RATIO * other for (_, error), (_, other) in zip(greedy, sampled, strict=True)],
    )
    lost = [estimate(*zip(*found, strict=True)) for found in (greedy, sampled)]
    return Verdict(
        "greedy drafts collapse with temperature, rejection sampling does not (CE head)",
        excess.above(0.0),
        f"accept length lost from the lowest temperature to the highest: greedy {lost[0]}, rejection {lost[1]}; greedy "
        f"less {TEMPERATURE_RATIO:g} times rejection {excess}",
    )


def _lost(results: Results, rule: str) -> list[tuple[float, float]]:
    """Return, per seed, what accept length loses from the lowest temperature to the highest, and its error."""
    curve = temperature_lengths(results, "ce", rule)
    cold, hot = curve[min(curve)], curve[max(curve)]
    return [
        (a.accept_length - b.accept_length, a.accept_length_sd + b.accept_length_sd)
        for a, b in zip(cold, hot, strict=True)
    ]


def _block(results: Results) -> Verdict:
    """Compare seed by seed, every seed by its mean over domains."""
    gains: dict[int, list[tuple[float, float]]] = {}
    for domain in domains_of(results):
        both = (cells_of(results, domain, "e2e_tv", rule) for rule in ("block", "rejection"))
        for block, token in zip(*both, strict=True):
            of_block, of_token = block.found, token.found
            error = of_block.accept_length_sd + of_token.accept_length_sd
            gains.setdefault(block.seed, []).append((of_block.accept_length - of_token.accept_length, error))
    means = [sum(one for one, _ in found) / len(found) for found in gains.values()]
    found = estimate(means, [max(error for _, error in found) for found in gains.values()])
    return Verdict("block verification accepts more than token by token", found.above(0.0), f"accept length by {found}")


def _slope_within_a_policy(results: Results) -> Verdict:
    """Compare slopes over bins of steps: one policy, its own head, entropies from token to token."""
    lines = {domain: bin_lines(results, domain) for domain in domains_of(results)}
    parts = {domain: _a_fifth(of["to"], of["rs_tv"]) for domain, of in lines.items()}
    claim = (
        "within one policy, accept length of RS+TV falls with entropy at most a fifth as fast as that of greedy drafts"
    )
    outcome = _joint(one for one, _ in parts.values())
    return Verdict(claim, outcome, "; ".join(f"{domain} {why}" for domain, (_, why) in parts.items()))


def _slope_over_rl(results: Results) -> Verdict:
    lines = rl_lines(results)
    outcome, why = _a_fifth(lines["to"], lines["rs_tv"])
    for name, what in (
        (NARROW, "frozen, trained at temperature 1 only"),
        ("start_tv_online_tv", "that follows the policy"),
    ):
        line = lines[name]
        why += f"; a TV head {what} {line.slope_per_nat:.2f} ({line.slope_low:.2f} to {line.slope_high:.2f})"
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


def _online(results: Results) -> dict[str, Verdict]:
    """Judge the three orderings of fig. 9a by the last third of RL, seed by seed."""
    of_tv = late(results, "start_tv_online_tv", over="rs_e2e_tv")
    of_ce = late(results, "rs_e2e_tv", over="start_tv_online_ce")
    of_greedy = late(results, "to", over="start_ce_online_ce")
    lengths = {
        name: str(late(results, name)) for name in ("rs_e2e_tv", "start_tv_online_tv", "start_tv_online_ce", "to")
    }
    return {
        "online_tv_no_lasting_gain": Verdict(
            f"fig. 9a: a TV head trained on gains less than {LASTING_GAIN:g} over the frozen one",
            _opposite(of_tv.above(LASTING_GAIN)),
            f"accept length by {of_tv}: {lengths['start_tv_online_tv']} against {lengths['rs_e2e_tv']}",
        ),
        "online_ce_below_frozen_tv": Verdict(
            "fig. 9a: a TV head trained on with CE falls below the frozen one",
            of_ce.above(0.0),
            f"frozen is ahead by {of_ce}; online CE {lengths['start_tv_online_ce']}",
        ),
        "greedy_online_below_frozen": Verdict(
            "fig. 9a: under greedy drafts, a CE head trained on falls below the frozen one",
            of_greedy.above(0.0),
            f"frozen is ahead by {of_greedy}; frozen {lengths['to']}",
        ),
    }


def _opposite(outcome: Outcome) -> Outcome:
    turned = {Outcome.REPRODUCED: Outcome.NOT_REPRODUCED, Outcome.NOT_REPRODUCED: Outcome.REPRODUCED}
    return turned.get(outcome, outcome)


def _joint(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of a claim about all: refuted where one is, open where one is."""
    found = set(outcomes)
    if Outcome.NOT_REPRODUCED in found:
        return Outcome.NOT_REPRODUCED
    return Outcome.OPEN if Outcome.OPEN in found else Outcome.REPRODUCED
