"""Waterfall: the difference of two step times as effects in a stated order. Seconds add up, factors multiply, exactly.

What the logs do not tell apart stays together and says so; nothing is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.compare.result import Effect
from simulator.compare.steps import REST, TERMS, TINY

F64 = NDArray[np.float64]
Added = tuple[str, float, str]
"""Name of an effect, seconds that it adds, meaning."""
Columns = Mapping[str, F64]
"""Of the RL steps compared; NaN where a side does not say."""

GENERATION = {
    "response_tokens": "more or fewer response tokens, at the same seconds per token",
    "response_length": "longer or shorter responses, at the same seconds per token",
    "tail": "the longest response over the mean one: a phase that nothing overlaps ends with its longest response",
    "accept_length": "tokens per verify step",
    "verify_step": "the same tokens and accept length, other seconds per step of the engine: draft and verify cost, "
    "batch, engine, GPU; these logs do not tell them apart",
}
"""Parts of exposed generation, in the order of the waterfall, and what they are."""

UNSPLIT = "generation that the step waits for; tokens, accept length and cost are not identified by these logs"
REST_MEANS = "not identified by these logs: the step less what is named above, overlaps included"


def step_waterfall(a: Columns, b: Columns) -> tuple[Effect, ...]:
    """Return the waterfall from A's mean step time to B's: the terms in the order of `TERMS`, then the rest."""
    added: list[Added] = []
    for name, meaning in TERMS.items():
        if name not in a:
            continue
        before, after = _means(a, b, name)
        if name == "exposed_s":
            added += _exposed(a, b, before, after)
        else:
            added.append((name, after - before, meaning))
    a_s, b_s = _means(a, b, "step_s")
    added.append((REST, (b_s - a_s) - sum(seconds for _, seconds, _ in added), REST_MEANS))
    return effects(added, a_s, b_s)


def rollout_waterfall(a: Columns, b: Columns) -> tuple[Effect, ...]:
    """Return the waterfall of the engines' busy time; empty where the step's own has it, or the facts are missing."""
    if not (overlaps(a) or overlaps(b)) or "generation_s" not in a or "generation_s" not in b:
        return ()
    before, after = _means(a, b, "generation_s")
    parts = generation_parts(a, b, before, after)
    return effects(parts, before, after) if len(parts) > 1 else ()


def effects(added: Sequence[Added], a_s: float, b_s: float) -> tuple[Effect, ...]:
    """Return (name, seconds added, meaning) as effects; the last of them ends at `b_s`."""
    levels = [a_s]
    for _, seconds, _ in added[:-1]:
        levels.append(levels[-1] + seconds)
    levels.append(b_s)
    has_factors = min(levels) > TINY
    return tuple(
        Effect(
            name=name,
            seconds=after - before,
            step_s_after=after,
            factor=before / after if has_factors else None,
            speedup_after=a_s / after if has_factors else None,
            meaning=meaning,
        )
        for (name, _, meaning), (before, after) in zip(added, pairwise(levels), strict=True)
    )


def generation_parts(a: Columns, b: Columns, before: float, after: float) -> list[Added]:
    """Return what makes generation take `after` instead of `before`; one part where facts are missing."""
    ratios = generation_ratios(a, b) if min(before, after) > TINY else {}
    if not ratios:
        return [("exposed_s", after - before, UNSPLIT)]
    added = []
    level = before
    for name, ratio in ratios.items():
        added.append((name, level * ratio - level, GENERATION[name]))
        level *= ratio
    meaning = GENERATION["verify_step"]
    if not {"response_tokens", "response_length"} & set(ratios):
        meaning = "what is left of generation: response lengths are not logged by both, so not identified"
    return [*added, ("verify_step", after - level, meaning)]


def generation_ratios(a: Columns, b: Columns) -> dict[str, float]:
    """Return by what each effect multiplies the generation time from A to B, without the cost of a step; may be empty.

    With the mean response l and the longest one m, and accept length L, a phase that nothing overlaps is written as
    l * (m / l) * (1 / L) * seconds per step of its longest response; others as tokens / L * seconds per verify step.
    """
    ratios: dict[str, float] = {}
    longest = _both(a, b, "response_tokens_max") and _both(a, b, "response_tokens_mean")
    lengths = next((name for name in ("response_tokens", "response_tokens_mean") if _both(a, b, name)), None)
    if longest and not (overlaps(a) or overlaps(b)):
        lengths = "response_tokens_max"
        ratios["response_length"] = _ratio(a, b, lambda side: side["response_tokens_mean"].sum())
        ratios["tail"] = _ratio(a, b, lambda side: side["response_tokens_max"].sum()) / ratios["response_length"]
    elif lengths is not None:
        name = "response_tokens" if lengths == "response_tokens" else "response_length"
        ratios[name] = _ratio(a, b, lambda side: side[lengths].sum())
    if _both(a, b, "accept_length"):
        ratios["accept_length"] = _ratio(a, b, lambda side: _verify_steps_per_token(side, lengths))
    return ratios


def overlaps(side: Columns) -> bool:
    """Return whether the step waits for less than all of its generation, as far as the columns say."""
    busy, exposed = side.get("generation_s"), side.get("exposed_s")
    if busy is None or exposed is None or np.isnan(busy).any():
        return False
    return bool(abs(busy.mean() - exposed.mean()) > 1e-6 * abs(busy.mean()) + 1e-9)


def _exposed(a: Columns, b: Columns, before: float, after: float) -> list[Added]:
    """Return the effects on exposed generation; one, where it overlaps with training."""
    if overlaps(a) or overlaps(b):
        return [("exposed_s", after - before, TERMS["exposed_s"])]
    return generation_parts(a, b, before, after)


def _means(a: Columns, b: Columns, name: str) -> tuple[float, float]:
    return float(a[name].mean()), float(b[name].mean())


def _verify_steps_per_token(side: Columns, lengths: str | None) -> float:
    """Return the mean of 1 / L, RL steps weighted by their tokens where these are known."""
    weights = None if lengths is None else side[lengths]
    return float(np.average(1 / side["accept_length"], weights=weights))


def _ratio(a: Columns, b: Columns, of: Callable[[Columns], float]) -> float:
    return float(of(b)) / float(of(a))


def _both(a: Columns, b: Columns, name: str) -> bool:
    return all(name in side and bool((side[name] > TINY).all()) for side in (a, b))
