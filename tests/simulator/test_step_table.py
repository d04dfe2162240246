"""Step times: a span is the sum of its steps, and the steps within a time are its inverse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.step_table import (
    StepTable,
    build_step_table,
    find_segment,
    prefill_seconds,
    span_seconds,
    step_seconds,
    steps_within,
)

KNOTS = np.array([128.0, 512.0, 2048.0, 8192.0, 32768.0])
MAX_BATCH = 8


def table(scale: float = 1.0, bend: float = 0.8) -> StepTable:
    """Padded batches, and a cost that bends at every knot unless `bend` is 1."""
    padded = np.ceil(np.arange(MAX_BATCH + 1)[:, None] / 4) * 4
    step_s = 1e-3 + 1e-4 * padded + 1e-7 * padded * KNOTS**bend
    step_s[0] = 0.0
    prefill = np.array([0.0, 256.0, 1024.0, 8192.0])
    return build_step_table(KNOTS, scale * step_s, prefill, scale * np.array([1e-3, 1e-3, 4e-3, 5e-2]), scale * 1e-9)


BENT = table()
BATCH = st.integers(1, MAX_BATCH)
CONTEXT = st.floats(1.0, 60_000.0)
GROWTH = st.floats(1.0, 9.0)
STEPS = st.integers(1, 3000)


def one_by_one(costs: StepTable, batch: int, context: float, growth: float, steps: int) -> list[float]:
    """Return the time of each step; context and growth per sequence."""
    contexts = context + growth * np.arange(steps)
    return [step_seconds(costs, batch, c, find_segment(costs.knots, c, 0)) for c in contexts]


@given(BATCH, CONTEXT, GROWTH, STEPS)
def test_a_span_is_the_sum_of_its_steps(batch: int, context: float, growth: float, steps: int) -> None:
    each = one_by_one(BENT, batch, context, growth, steps)
    span = span_seconds(BENT, batch, batch * context, batch * growth, steps, 0)
    # Where a step's cell holds a knot, the midpoint rule is off by at most a quarter cell times the change of slope.
    slopes = np.diff(BENT.step_s[batch]) / np.diff(KNOTS)
    bends = np.abs(np.diff(slopes, prepend=0.0)).sum() * growth / 8
    assert span == pytest.approx(math.fsum(each), rel=1e-9, abs=bends + 1e-12)
    assert bends < 2e-4 * each[0]


@given(BATCH, st.floats(140.0, 500.0), GROWTH, st.integers(1, 40))
def test_a_span_inside_one_piece_is_exact(batch: int, context: float, growth: float, steps: int) -> None:
    each = one_by_one(BENT, batch, context, growth, steps)
    if context + growth * steps < KNOTS[1]:
        assert span_seconds(BENT, batch, batch * context, batch * growth, steps, 0) == pytest.approx(
            math.fsum(each), rel=1e-12
        )


@given(BATCH, CONTEXT, GROWTH, STEPS)
def test_a_span_over_a_straight_line_is_exact_across_knots(
    batch: int, context: float, growth: float, steps: int
) -> None:
    straight = table(bend=1.0)
    context += KNOTS[0] + growth  # below the first knot the line is flat
    each = one_by_one(straight, batch, context, growth, steps)
    span = span_seconds(straight, batch, batch * context, batch * growth, steps, 0)
    assert span == pytest.approx(math.fsum(each), rel=1e-10)


@given(BATCH, CONTEXT, GROWTH, st.integers(2, 1000), st.data())
def test_a_span_is_the_sum_of_its_parts(
    batch: int, context: float, growth: float, steps: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, steps - 1))
    whole = span_seconds(BENT, batch, batch * context, batch * growth, steps, 0)
    a = span_seconds(BENT, batch, batch * context, batch * growth, first, 0)
    b = span_seconds(BENT, batch, batch * (context + growth * first), batch * growth, steps - first, 0)
    slopes = np.diff(BENT.step_s[batch]) / np.diff(KNOTS)
    assert a + b == pytest.approx(whole, rel=1e-9, abs=np.abs(np.diff(slopes, prepend=0.0)).sum() * growth / 8)


@given(BATCH, CONTEXT, GROWTH, STEPS, st.integers(0, 3))
def test_the_guess_of_a_segment_changes_nothing(
    batch: int, context: float, growth: float, steps: int, guess: int
) -> None:
    spans = {span_seconds(BENT, batch, batch * context, batch * growth, steps, g) for g in (0, guess, 99)}
    assert len(spans) == 1
    i = find_segment(KNOTS, context, guess)
    assert i in (0, len(KNOTS) - 2) or KNOTS[i] <= context < KNOTS[i + 1]


@given(BATCH, CONTEXT, GROWTH, STEPS, st.floats(0, 1e-3), st.floats(-0.1, 1.2))
def test_steps_within_a_time_are_the_fewest_that_fill_it(
    batch: int, context: float, growth: float, most: int, extra_s: float, share: float
) -> None:
    total, rate = batch * context, batch * growth

    def until(steps: int) -> float:
        return span_seconds(BENT, batch, total, rate, steps, 0) + steps * extra_s

    seconds = share * until(most)
    steps = steps_within(BENT, batch, total, rate, extra_s, seconds, most)
    assert 1 <= steps <= most
    assert steps == most or until(steps) >= seconds
    assert steps == 1 or until(steps - 1) < seconds


@given(BATCH, CONTEXT, GROWTH, STEPS, st.floats(0, 20_000))
def test_twice_the_latencies_give_exactly_twice_the_time(
    batch: int, context: float, growth: float, steps: int, tokens: float
) -> None:
    double = table(2.0)
    once = span_seconds(BENT, batch, batch * context, batch * growth, steps, 0)
    assert span_seconds(double, batch, batch * context, batch * growth, steps, 0) == 2.0 * once
    assert prefill_seconds(double, tokens) == 2.0 * prefill_seconds(BENT, tokens)
    assert steps_within(double, batch, batch * context, batch * growth, 0.0, once, steps) == steps_within(
        BENT, batch, batch * context, batch * growth, 0.0, once / 2.0, steps
    )


def test_a_step_is_exact_at_knots_linear_between_flat_below_and_on_the_last_line_above() -> None:
    for i, knot in enumerate(KNOTS):
        assert step_seconds(BENT, 3, knot, find_segment(KNOTS, knot, 0)) == pytest.approx(BENT.step_s[3, i], rel=1e-15)
    half = (KNOTS[1] + KNOTS[2]) / 2
    assert step_seconds(BENT, 3, half, 1) == pytest.approx((BENT.step_s[3, 1] + BENT.step_s[3, 2]) / 2)
    assert step_seconds(BENT, 3, 1.0, 0) == BENT.step_s[3, 0]
    slope = (BENT.step_s[3, -1] - BENT.step_s[3, -2]) / (KNOTS[-1] - KNOTS[-2])
    assert step_seconds(BENT, 3, KNOTS[-1] + 1000, 3) == pytest.approx(BENT.step_s[3, -1] + 1000 * slope)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_padded_batches_cost_the_same(batch: int) -> None:
    assert span_seconds(BENT, batch, batch * 700.0, batch * 2.0, 50, 0) == pytest.approx(
        span_seconds(BENT, 4, 4 * 700.0, 8.0, 50, 0), rel=1e-12
    )


def test_prefill_is_exact_at_its_points_linear_between_and_proportional_beyond() -> None:
    assert [prefill_seconds(BENT, n) for n in (0.0, 256.0, 1024.0, 8192.0)] == [1e-3, 1e-3, 4e-3, 5e-2]
    assert prefill_seconds(BENT, 640.0) == pytest.approx(2.5e-3)
    assert prefill_seconds(BENT, 16_384.0) == pytest.approx(0.1)


@given(st.floats(0, 50_000), st.floats(0, 50_000))
def test_more_tokens_never_prefill_faster(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert prefill_seconds(BENT, low) <= prefill_seconds(BENT, high) * (1 + 1e-12)
