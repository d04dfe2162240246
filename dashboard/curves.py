"""Curves: acceptance of every recipe over entropy, position, temperature and RL steps, by the simulator's own rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator import temperature as temperature_effect
from simulator.acceptance import build_acceptance
from simulator.arm_rates import build_arm_rates
from simulator.config import ArmConfig, FrozenHead, LawAcceptance
from simulator.speculation import accept_length
from traces.acceptance import AcceptanceLaw, AcceptanceTrace, VerifyRule
from traces.base import Origin
from traces.store import list_traces, load_named

NUM_POINTS = 81
DRIFT_STEPS = 200
"""RL steps over which the drift of a head is drawn: about as far as anybody has shown it."""

RECIPE_OF_ROW = {
    (VerifyRule.GREEDY_DRAFT, "ce"): "to",
    (VerifyRule.REJECTION, "ce"): "rs_ce",
    (VerifyRule.REJECTION, "tv"): "rs_tv",
    (VerifyRule.REJECTION, "e2e_tv"): "rs_e2e_tv",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One recipe's line."""

    recipe: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: float
    """Lower end of the range in which data stand under it."""
    high: float
    source: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Dots:
    """Counted rows of one recipe."""

    recipe: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    about: tuple[str, ...]
    origin: Origin


def traces_with_laws() -> list[str]:
    """Return the names of the shipped acceptance traces that hold laws, the default's first."""
    names = [entry.name for entry in list_traces("acceptance") if load_trace(entry.name).laws]
    return sorted(names, key=lambda name: (name != "bebop-paper", name))


def load_trace(name: str) -> AcceptanceTrace:
    """Return a shipped acceptance trace."""
    return load_named(name, AcceptanceTrace)


def fits(trace: AcceptanceTrace) -> list[str]:
    """Return the fits of a trace in the order of the file."""
    return list(dict.fromkeys(law.fit for law in trace.laws))


def laws_of(trace: AcceptanceTrace, fit: str) -> list[AcceptanceLaw]:
    """Return the laws of a fit, one per recipe."""
    return [law for law in trace.laws if law.fit == fit]


def over_entropy(laws: Sequence[AcceptanceLaw], highest: float) -> list[Curve]:
    """Return accept length over entropy, 0 to `highest` nats, at the laws' own k."""
    grid = np.linspace(0.0, highest, NUM_POINTS).tolist()
    return [_curve(law, grid, [law.accept_length(nats) for nats in grid]) for law in laws]


def first_draft(trace: str, laws: Sequence[AcceptanceLaw], highest: float) -> list[Curve]:
    """Return the chance that the first draft is accepted over entropy, as the laws are split into positions."""
    grid = np.linspace(0.0, highest, NUM_POINTS).tolist()
    return [
        _curve(law, grid, [float(_rates(trace, law, law.num_draft_tokens, nats)[0]) for nats in grid]) for law in laws
    ]


def over_positions(trace: str, laws: Sequence[AcceptanceLaw], num_draft_tokens: int, nats: float) -> list[Curve]:
    """Return P(the first j drafts are all accepted) over j at one entropy."""
    positions = [float(j) for j in range(1, num_draft_tokens + 1)]
    return [
        _curve(law, positions, _rates(trace, law, num_draft_tokens, nats).tolist(), (1.0, law.num_draft_tokens))
        for law in laws
    ]


def over_temperature(trace: str, laws: Sequence[AcceptanceLaw], num_draft_tokens: int, nats: float) -> list[Curve]:
    """Return accept length over the sampling temperature, for a policy of this entropy at temperature 1."""
    grid = list(temperature_effect.TEMPERATURES)
    return [
        _curve(
            law,
            grid,
            [accept_length(_rates(trace, law, num_draft_tokens, nats, temperature)) for temperature in grid],
            (grid[0], grid[-1]),
        )
        for law in laws
    ]


def over_rl_steps(trace: str, laws: Sequence[AcceptanceLaw], num_draft_tokens: int, nats: float) -> list[Curve]:
    """Return accept length of heads that are frozen at RL step 0, at an entropy that stays."""
    steps = [float(step) for step in range(0, DRIFT_STEPS + 1, 5)]
    curves = []
    for law in laws:
        arm = ArmConfig(k=num_draft_tokens, acceptance=_config(trace, law), head=FrozenHead())
        rates = build_arm_rates(arm, name=law.recipe, temperature=1.0, first_step=0)
        assert rates is not None
        lengths = [accept_length(rates.cumulative(num_draft_tokens, int(step), nats)) for step in steps]
        shown = rates.head.drift.num_steps_shown if rates.head is not None else None
        curves.append(_curve(law, steps, lengths, (0.0, float(shown or 0))))
    return curves


def rows_over_entropy(trace: AcceptanceTrace, *, first_only: bool = False) -> list[Dots]:
    """Return the counted rows that name their entropy: accept length, or the share of first drafts accepted."""
    found: dict[str, list[tuple[float, float, str, Origin]]] = {}
    for row in trace.rows:
        recipe = RECIPE_OF_ROW.get((row.verify_rule, row.loss))
        if row.entropy_nats is None or recipe is None:
            continue
        value = row.cumulative[0] if first_only else row.accept_length()
        about = f"{row.task or 'all tasks'}, {row.num_steps or 'unknown'} steps counted"
        found.setdefault(recipe, []).append((row.entropy_nats, value, about, row.origin))
    return [
        Dots(
            recipe,
            tuple(row[0] for row in rows),
            tuple(row[1] for row in rows),
            tuple(row[2] for row in rows),
            rows[0][3],
        )
        for recipe, rows in found.items()
    ]


def _config(trace: str, law: AcceptanceLaw) -> LawAcceptance:
    return LawAcceptance.model_validate({"recipe": law.recipe, "fit": law.fit, "trace": trace})


def _rates(
    trace: str, law: AcceptanceLaw, num_draft_tokens: int, nats: float, temperature: float = 1.0
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    source = build_acceptance(_config(trace, law), arm=law.recipe, temperature=temperature)
    return source.cumulative(num_draft_tokens, nats)


def _curve(
    law: AcceptanceLaw, x: Sequence[float], y: Sequence[float], covered: tuple[float, float] | None = None
) -> Curve:
    low, high = covered or (law.entropy_low_nats, law.entropy_high_nats)
    return Curve(law.recipe, tuple(x), tuple(y), low, high, law.source, law.origin)
