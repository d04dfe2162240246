"""Runs beside changed runs: faster parts, other units, other numbers for the same things."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from simulator.policies import run_cluster
from simulator.rollout_state import JUMP, PER_STEP
from simulator.step_law import StepLaw, build_step_law
from simulator.step_table import StepTable
from simulator.workload import Workload
from tests.simulator.queues import (
    F64,
    PLAIN,
    SPEC,
    STEP_S,
    lognormal,
    play,
    station,
    table_by_batch,
    turns_of,
    waits_of,
)
from tests.simulator.rollouts import PMF, workload_from
from tests.simulator.small_parts import Small, fully_async

ALPHA = 1e-4

# ---------------------------------------------------------------- monotone, under common random numbers


def makespan(
    workload: Workload, table: StepTable, *, places: int = 4, num_replicas: int = 2, law: StepLaw = PLAIN
) -> float:
    state = station(workload, num_servers=places, k=law.num_draft_tokens, num_replicas=num_replicas)
    state.limits["max_live"] = places
    return float(play(state, table, law).finish_s.max())


def some_lengths(seed: int, count: int = 48) -> Workload:
    return workload_from([0] * count, lognormal(np.random.default_rng([13, seed]), 150, count).tolist())


@pytest.mark.parametrize("law", [PLAIN, SPEC], ids=["plain", "speculative"])
def test_more_replicas_or_places_of_the_same_speed_never_take_longer(law: StepLaw) -> None:
    """First come first served on equal servers has no anomalies without precedence (Kiefer and Wolfowitz 1955)."""
    table = table_by_batch(np.full(50, STEP_S))
    for seed in range(40):
        workload = some_lengths(seed)
        by_replicas = [makespan(workload, table, num_replicas=n, law=law) for n in (1, 2, 3, 5, 8, 12)]
        by_places = [makespan(workload, table, places=n, law=law) for n in (1, 2, 3, 5, 8, 24)]
        for spans in (by_replicas, by_places):
            assert spans == sorted(spans, reverse=True)
            assert spans[-1] < spans[0]


@pytest.mark.parametrize("law", [PLAIN, SPEC], ids=["plain", "speculative"])
def test_steps_that_cost_less_never_take_longer_in_one_wave(law: StepLaw) -> None:
    """In one wave nothing is admitted later, so no anomaly is possible, whatever a batch costs."""
    rising = STEP_S * (1.0 + 0.1 * np.arange(25))
    for seed in range(40):
        workload = some_lengths(seed)
        spans = [
            makespan(workload, table_by_batch(step_s), places=24, law=law)
            for step_s in (rising, np.minimum(rising, 2 * STEP_S), np.minimum(rising, STEP_S), rising / 8)
        ]
        assert spans == sorted(spans, reverse=True)


def test_anomalies_of_several_waves_are_rare_and_small() -> None:
    """The exception: cheaper large batches reorder who is served beside whom (Graham 1969), which may cost a little."""
    rising = STEP_S * (1.0 + 0.3 * np.arange(9))
    cheaper = np.where(np.arange(9) >= 7, 0.98 * rising, rising)
    ratios = []
    for seed in range(200):
        workload = some_lengths(seed)
        slow, fast = (makespan(workload, table_by_batch(step_s), places=8) for step_s in (rising, cheaper))
        ratios.append(fast / slow)
    assert np.mean(ratios) < 1.0
    assert np.mean(np.array(ratios) > 1.0) < 0.1
    assert max(ratios) < 1.1


def test_higher_acceptance_is_never_slower() -> None:
    laws = [
        build_step_law(np.array([pmf]), 10_000)
        for pmf in ([1.0, 0, 0, 0], [0.7, 0.1, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2], [0.1, 0.2, 0.2, 0.5], [0, 0, 0, 1.0])
    ]
    table = table_by_batch(STEP_S * (1.0 + 0.1 * np.arange(9)))
    for seed in range(40):
        workload = some_lengths(seed)
        spans = [makespan(workload, table, places=8, law=law) for law in laws]
        assert spans == sorted(spans, reverse=True)


# ---------------------------------------------------------------- metamorphic


def agentic(seed: int, factor: float = 1.0) -> Workload:
    rng = np.random.default_rng([14, seed])
    workload = turns_of(lognormal(rng, 60, (120, 4)), factor * rng.lognormal(-1.0, 1.0, (120, 4)).astype(np.float32))
    return replace(workload, input_tokens=rng.integers(1, 60, 480).astype(np.int32))


@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
@pytest.mark.parametrize("rule", ["wait", "abort_resume", "in_place"])
def test_an_agentic_run_with_a_full_cache_takes_exactly_twice_as_long_at_half_the_speed(rule: str, mode: int) -> None:
    ends = []
    for factor in (1.0, 2.0):
        small = Small(
            fully_async(1, rule),
            step_s=0.01 * factor,
            prefill_s=0.1 * factor,
            train_s=0.5 * factor,
            sync_s=0.25 * factor,
            pmf=tuple(PMF[3]),
            prompts_per_step=10,
            group_size=1,
            kv_tokens=1000.0,
            num_steps=8,
        )
        parts = replace(small.parts(), workload=agentic(0, factor), max_live=12)
        steps = run_cluster(parts, mode=mode).steps
        assert steps[-1].totals.preemptions > 0
        ends.append([step.end_s for step in steps])
    assert [2.0 * end_s for end_s in ends[0]] == ends[1]


def test_numbering_customers_differently_changes_nobodys_wait() -> None:
    rng = np.random.default_rng(15)
    steps, arrival_s = lognormal(rng, 1000, 400), np.cumsum(rng.exponential(0.3, 400))
    order = rng.permutation(400)
    waits, _ = waits_of(steps, arrival_s, 4)
    permuted, _ = waits_of(steps[order], arrival_s[order], 4)
    assert np.array_equal(permuted, waits[order])


def test_numbering_responses_differently_changes_nothing_in_law() -> None:
    table = table_by_batch(STEP_S * (1.0 + 0.1 * np.arange(9)))
    spans: tuple[list[float], list[float]] = ([], [])
    for seed in range(300):
        tokens = some_lengths(seed).output_tokens
        for i, made in enumerate((tokens, tokens[::-1])):
            spans[i].append(makespan(workload_from([0] * len(tokens), made.tolist()), table, places=8, law=SPEC))
    assert stats.ks_2samp(*spans, method="asymp").pvalue > ALPHA
    differences = np.subtract(*spans)
    assert abs(differences.mean()) < stats.t.isf(ALPHA / 2, 299) * differences.std(ddof=1) / np.sqrt(300)


def test_a_class_of_replicas_is_two_classes_of_half_as_many() -> None:
    def finish(workload: Workload, num_replicas: int) -> F64:
        state = station(workload, num_servers=30, num_replicas=num_replicas)
        return play(state, table_by_batch(STEP_S * (1.0 + 0.1 * np.arange(31)))).finish_s

    def part(workload: Workload, chosen: NDArray[np.bool_]) -> Workload:
        turns = chosen.repeat(4)
        made = turns_of(workload.output_tokens[turns].reshape(-1, 4) - 1, workload.delay_s[turns].reshape(-1, 4))
        return replace(made, input_tokens=workload.input_tokens[turns])

    for seed in range(10):
        whole = agentic(seed)
        first = np.arange(120) % 4 < 2  # what is dealt to the first two of four replicas
        both = finish(whole, 4)
        assert np.array_equal(both[first], finish(part(whole, first), 2))
        assert np.array_equal(both[~first], finish(part(whole, ~first), 2))
