"""Seconds of one engine iteration as the kernels read it: a row per batch size, knots over the mean context.

Between knots the step time is linear in the context, so the time of many steps along a growing context is an
integral with a closed form. Does not know where the numbers come from (`latency`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import inlined

F64 = NDArray[np.float64]


class StepTable(NamedTuple):
    """Costs of one replica, for each number of draft tokens ("level") that its engine may choose."""

    knots: F64
    """[knots]: mean context per sequence, tokens, ascending."""
    step_s: F64
    """[levels x (max_batch + 1), knots]: seconds of one (speculative) step; the row of an empty batch is zero."""
    integral: F64
    """Shaped as step_s: its integral over context from the first knot, second tokens."""
    prefill_tokens: F64
    """[points]: new tokens in one pass, ascending, from 0."""
    prefill_s: F64
    """[points]: seconds of that pass without attention to a context; linear beyond the last point."""
    attention_s_per_token2: float
    """Seconds per (new token x context token) of prefill attention."""
    rows_per_level: int
    """max_batch + 1."""


def build_step_table(
    knots: F64,
    step_s: F64,
    prefill_tokens: F64,
    prefill_s: F64,
    attention_s_per_token2: float,
    *,
    num_levels: int = 1,
) -> StepTable:
    """Return a table with its integrals; `step_s` has one row per batch 0..max_batch, level after level."""
    pieces = (step_s[:, 1:] + step_s[:, :-1]) / 2 * np.diff(knots)
    integral = np.concatenate([np.zeros((len(step_s), 1)), np.cumsum(pieces, axis=1)], axis=1)
    return StepTable(
        np.ascontiguousarray(knots, np.float64),
        np.ascontiguousarray(step_s, np.float64),
        integral,
        np.ascontiguousarray(prefill_tokens, np.float64),
        np.ascontiguousarray(prefill_s, np.float64),
        float(attention_s_per_token2),
        len(step_s) // num_levels,
    )


def scaled(table: StepTable, everything: float, steps: Sequence[float]) -> StepTable:
    """Return a table whose decode steps cost `everything` x the level's own factor, and prefills `everything`."""
    factors = np.repeat(np.asarray(steps, np.float64) * everything, table.rows_per_level)
    return build_step_table(
        table.knots,
        table.step_s * factors[:, None],
        table.prefill_tokens,
        table.prefill_s * everything,
        table.attention_s_per_token2 * everything,
        num_levels=len(steps),
    )


@inlined
def find_segment(knots: F64, context: float, guess: int) -> int:
    """Return i with knots[i] <= context < knots[i + 1], the first or last interval outside."""
    last = knots.shape[0] - 2
    i = min(guess, last)
    while i < last and context >= knots[i + 1]:
        i += 1
    while i > 0 and context < knots[i]:
        i -= 1
    return i


@inlined
def step_seconds(table: StepTable, row: int, context: float, segment: int) -> float:
    """Return the time of one step; flat below the first knot, linear above the last."""
    x = max(context, table.knots[0])
    a, b = table.knots[segment], table.knots[segment + 1]
    low, high = table.step_s[row, segment], table.step_s[row, segment + 1]
    return low + (high - low) * ((x - a) / (b - a))


@inlined
def _antiderivative(table: StepTable, row: int, context: float, guess: int) -> float:
    if context <= table.knots[0]:
        return (context - table.knots[0]) * table.step_s[row, 0]
    i = find_segment(table.knots, context, guess)
    here = step_seconds(table, row, context, i)
    return table.integral[row, i] + (here + table.step_s[row, i]) / 2 * (context - table.knots[i])


@inlined
def span_seconds(
    table: StepTable, batch: int, total_context: float, growth: float, steps: int, segment: int, level: int = 0
) -> float:
    """Return the time of `steps` steps during which the batch's total context grows by `growth` tokens per step.

    The sum over steps is the integral from half a step before the first to half a step before the end (midpoint
    rule), exact where the step time is linear.
    """
    row = level * table.rows_per_level + batch
    if steps == 1 or growth <= 0.0:
        context = total_context / batch
        return steps * step_seconds(table, row, context, find_segment(table.knots, context, segment))
    per_step = growth / batch
    low = total_context / batch - 0.5 * per_step
    high = low + per_step * steps
    i = find_segment(table.knots, low, segment)
    if high < table.knots[i + 1] and low >= table.knots[0]:
        return steps * step_seconds(table, row, 0.5 * (low + high), i)
    area = _antiderivative(table, row, high, i) - _antiderivative(table, row, low, i)
    return area / per_step


@inlined
def steps_within(
    table: StepTable,
    batch: int,
    total_context: float,
    growth: float,
    extra_s: float,
    seconds: float,
    most: int,
    level: int = 0,
) -> int:
    """Return the fewest steps (at least 1, at most `most`) that take `seconds` or longer."""
    low, high = 1, most
    # Later steps take about as long as the first one, so a guess and its neighbour mostly leave nothing to halve.
    first_s = span_seconds(table, batch, total_context, growth, 1, 0, level) + extra_s
    guess = int(max(min(np.ceil(seconds / first_s), high), 1)) if first_s > 0.0 else high
    for probe in (guess, guess - 1):
        if low <= probe < high:
            if span_seconds(table, batch, total_context, growth, probe, 0, level) + probe * extra_s >= seconds:
                high = probe
            else:
                low = probe + 1
    while low < high:
        middle = (low + high) // 2
        if span_seconds(table, batch, total_context, growth, middle, 0, level) + middle * extra_s >= seconds:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def prefill_seconds(table: StepTable, tokens: float) -> float:
    """Return the time of one pass over `tokens` new tokens, attention to a context left out."""
    last = table.prefill_tokens.shape[0] - 1
    if tokens >= table.prefill_tokens[last]:
        return table.prefill_s[last] * (tokens / table.prefill_tokens[last])
    i = 0
    while tokens >= table.prefill_tokens[i + 1]:
        i += 1
    a, b = table.prefill_tokens[i], table.prefill_tokens[i + 1]
    return table.prefill_s[i] + (table.prefill_s[i + 1] - table.prefill_s[i]) * ((tokens - a) / (b - a))
