"""Break-even: the acceptance below which drafting does not pay, and the batch above which it should be off."""

from dataclasses import dataclass

import numpy as np

from simulator.config import Scenario
from simulator.inputs import BASELINE, Inputs, Noise, make_parts, make_workload, resolve
from simulator.scenario_file import parse_fields
from simulator.trial import outcome_of

TOLERANCE = 0.002
"""Of the acceptance per draft, and of a speedup of 1."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """For one arm, everything else as its scenario has it."""

    acceptance: float | None
    """Chance that a draft is accepted if those before it were, the same at every position, at which the run is as fast
    as with plain decoding; None: `pays_at_any`, or it never pays."""
    accept_length: float | None
    """Tokens per verify step that this means."""
    pays_at_any: bool
    """Even if nothing is accepted the run is no slower: generation is not what it waits for."""
    off_above_batch: int | None
    """Smallest batch from which on a speculative step emits fewer tokens per second than plain ones; None: none."""
    context_tokens: float
    """Mean context at which that batch was looked for."""
    accept_length_now: float


def break_even(scenario: Scenario, arm: str) -> BreakEven:
    """Return where an arm stops paying, in one replication with inputs as stated."""
    exact = Noise(accept_length=0.0)
    inputs = resolve(scenario)
    plain_s = outcome_of(inputs, BASELINE, noise=exact).step_s
    now = outcome_of(inputs, arm, noise=exact)
    k = scenario.arms[arm].k

    def gain(acceptance: float) -> float:
        varied = resolve(_with_acceptance(scenario, arm, acceptance))
        return plain_s / outcome_of(varied, arm, noise=exact).step_s

    pays_at_any = gain(0.0) >= 1.0 - TOLERANCE
    found = None
    if not pays_at_any and gain(1.0) > 1.0:
        low, high = 0.0, 1.0
        while high - low > TOLERANCE:
            middle = (low + high) / 2
            low, high = (low, middle) if gain(middle) >= 1.0 else (middle, high)
        found = (low + high) / 2
    batch, context = _off_above(inputs, arm, now.accept_length)
    return BreakEven(
        acceptance=found,
        accept_length=None if found is None else 1.0 + sum(found**position for position in range(1, k + 1)),
        pays_at_any=pays_at_any,
        off_above_batch=batch,
        context_tokens=context,
        accept_length_now=now.accept_length,
    )


def _with_acceptance(scenario: Scenario, arm: str, acceptance: float) -> Scenario:
    content = scenario.model_dump(mode="json")
    k = scenario.arms[arm].k
    rates = [acceptance**position for position in range(1, k + 1)]
    content["arms"][arm]["acceptance"] = {"kind": "fixed", "cumulative": rates}
    content["arms"][arm] |= {"head": None, "verify_rule": None, "acceptance_by_position": None}
    return parse_fields(content, scenario.name)


def _off_above(inputs: Inputs, arm: str, accept_length: float) -> tuple[int | None, float]:
    """Return the smallest batch from which on drafting loses, and the mean context of a running sequence."""
    workload, exact = make_workload(inputs, 0), Noise(accept_length=0.0)
    # A sequence spends its steps evenly over its response: half of it is there on average, weighted by length.
    prompt, response = workload.input_tokens.astype(float), workload.output_tokens.astype(float)
    context = float((response * (prompt + response / 2)).sum() / response.sum())
    plain, drafting = (make_parts(inputs, name, workload, exact, 0)[0].table for name in (BASELINE, arm))
    top = drafting.rows_per_level - 1  # the last level of a schedule is the one that drafts most
    costs = [np.array([np.interp(context, t.knots, row) for row in t.step_s[-top:]]) for t in (plain, drafting)]
    loses = accept_length * costs[0] / costs[1] < 1.0
    last_win = int(np.flatnonzero(~loses)[-1]) if (~loses).any() else -1
    return (last_win + 2 if last_win + 2 <= len(loses) else None), context
