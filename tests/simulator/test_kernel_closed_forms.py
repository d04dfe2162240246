"""Kernels against closed forms: what a table of times and a law of acceptance come to by hand."""

import numpy as np
import pytest
from scipy import stats

from simulator.kernels import advance, busy_seconds, submit
from simulator.step_law import build_step_law
from tests.simulator.rollouts import (
    ALL,
    ALPHA,
    MODES,
    PMF,
    Case,
    Play,
    flat_table,
    single,
    state_of,
    total,
    workload_from,
)


@MODES
@pytest.mark.parametrize("tokens", [1, 2, 17, 400])
def test_one_plain_sequence_takes_its_prefill_and_a_step_for_every_further_token(tokens: int, mode: int) -> None:
    state = single([100], [tokens], Case(k=0, num_replicas=1), mode)
    assert state.finish_s[0] == 1.0 + 0.25 * (tokens - 1)
    assert busy_seconds(state.replicas, 1000.0) == state.finish_s[0]


@MODES
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_of_equal_lengths_finishes_together(batch: int, mode: int) -> None:
    played = Play(Case(k=0, num_replicas=1, bend=1.0, padding=1), 0, mode)
    state = state_of(played.case, workload_from([100] * batch, [51] * batch), mode)
    submit(state, played.table, played.laws[0], batch, 0.0)
    advance(state, played.table, played.laws[0], np.inf, ALL)
    prefill_s = np.interp(100 * batch, [64, 1024], [2e-3, 1.5e-2]) + batch * 1e-8 * 100**2 / 2
    steps_s = sum(1e-3 + 2e-4 * batch + 1e-6 * batch * (100 + i) for i in range(50))
    assert state.finish_s == pytest.approx(prefill_s + steps_s, rel=1e-12)


@MODES
def test_sequences_that_must_wait_go_one_after_the_other(mode: int) -> None:
    outputs = [5, 1, 30, 2]
    state = single([10] * 4, outputs, Case(k=0, num_replicas=1, max_running=1, max_live=1), mode)
    assert state.finish_s == pytest.approx(np.cumsum([1.0 + 0.25 * (n - 1) for n in outputs]), rel=1e-15)


@MODES
@pytest.mark.parametrize("k", [1, 3, 7])
def test_sure_acceptance_takes_the_fewest_steps(k: int, mode: int) -> None:
    lengths = [1, 2, k + 1, k + 2, 2 * k + 3, 500]
    case = Case(k=k, num_replicas=1)
    state = state_of(case, workload_from([10] * 6, lengths), mode)
    always = np.zeros((1, k + 1))
    always[0, k] = 1.0
    law = build_step_law(always, 1000)
    submit(state, flat_table(0.25, 1.0), law, 6, 0.0)
    advance(state, flat_table(0.25, 1.0), law, np.inf, ALL)
    steps = [-(-(n - 1) // (k + 1)) for n in lengths]
    assert state.finish_s == pytest.approx([1.0 + 0.25 * s for s in steps], rel=1e-15)
    assert total(state, "stretch_steps") == sum(steps)


@MODES
def test_no_acceptance_costs_what_the_longer_steps_cost(mode: int) -> None:
    never = build_step_law(np.array([[1.0, 0.0, 0.0, 0.0]]), 1000)
    plain = Play(Case(k=0), 8, mode).run()
    drafted = Play(Case(k=3), 8, mode)
    drafted.laws = (never, never)
    assert np.allclose(drafted.run().state.finish_s, plain.state.finish_s, rtol=1e-9)


@MODES
def test_the_slowest_of_n_responses_takes_as_long_as_theory_says(mode: int) -> None:
    n, tokens, num_replicas = 8, 60, 1500
    case = Case(k=3, num_replicas=num_replicas)
    state = single([10] * (n * num_replicas), [tokens + 1] * (n * num_replicas), case, mode, table_s=1.0)
    slowest = state.finish_s.reshape(num_replicas, n).max(axis=1) - 1.0
    # E[max] = sum over j of P(max > j), with P(S <= j) = P(A_1 + ... + A_j >= tokens).
    expected, density = 0.0, np.array([1.0])
    for j in range(tokens):
        at_least = density[max(tokens - j, 0) :].sum()  # entry i: j + i tokens
        expected += 1.0 - at_least**n
        density = np.convolve(density, PMF[3])
    z = (slowest.mean() - expected) / (slowest.std() / np.sqrt(num_replicas))
    assert abs(z) < stats.norm.isf(ALPHA / 2)
