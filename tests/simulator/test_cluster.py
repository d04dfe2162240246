"""A run of one arm: what every policy keeps, and the step time that each has in closed form."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.config import InFlightRule, OneStepOffPolicy, PolicyConfig, SynchronousPolicy
from simulator.metrics import Outcome, measure
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP, PER_STEP
from tests.simulator.small_parts import PREFILL_S, RESPONSE, SPREAD, STEP_S, Small, fully_async

SYNCHRONOUS, ONE_STEP_OFF = SynchronousPolicy(switch_s=0.75), OneStepOffPolicy()
RULES = get_args(InFlightRule)
POLICIES: dict[str, PolicyConfig] = {
    "synchronous": SYNCHRONOUS,
    "one_step_off": ONE_STEP_OFF,
    **{f"{rule}-{staleness}": fully_async(staleness, rule) for rule in RULES for staleness in (0, 1, 4)},
}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])

ACCEPTS = (0.2, 0.2, 0.2, 0.4)
"""Emits 2.8 tokens per step at k = 3."""
GENERATION_S = PREFILL_S + (RESPONSE - 1) * STEP_S
"""Of four sequences that start together: the prefill emits the first token, every other one takes a step."""


def live(small: Small, mode: int = JUMP) -> Iterator[Run]:
    """Run, and stop after every event of the trainer's side."""
    run = Run(small.parts(), mode=mode)
    life = run.env.process(TRAINER_LIFE[small.policy.kind](run))
    while not life.triggered:
        run.env.step()
        yield run


# ---------------------------------------------------------------- what every policy keeps


@each_policy
@each_mode
def test_batches_are_whole_and_every_group_is_trained_once(policy: PolicyConfig, mode: int) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=8, train_s=0.3)
    *_, run = live(small, mode)
    trained = run.side.ready_groups(0, small.num_steps * small.prompts_per_step)
    assert len(set(trained.tolist())) == small.num_steps * small.prompts_per_step
    assert [int(step.staleness.sum()) for step in run.log.steps] == [small.prompts_per_step] * small.num_steps
    tokens = [int(run.parts.workload.group_output_tokens[trained[4 * i : 4 * i + 4]].sum()) for i in range(8)]
    assert [step.output_tokens for step in run.log.steps] == tokens


@each_policy
@each_mode
def test_admission_never_runs_ahead_of_the_staleness_rule(policy: PolicyConfig, mode: int) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=8, train_s=0.3, max_running=16)
    ahead = {"synchronous": 0, "one_step_off": 1}.get(policy.kind, getattr(policy, "max_staleness", 0))
    clock_s = 0.0
    for run in live(small, mode):
        counters = run.side.state.counters[0]
        allowed = (ahead + run.version + 1) * small.prompts_per_step * small.group_size
        assert counters["next_sequence"] <= counters["submitted"] <= allowed
        assert counters["num_ready"] * small.group_size <= counters["finished"]
        assert counters["finished"] + counters["num_live"] == counters["next_sequence"]
        assert run.now_s >= clock_s
        clock_s = run.now_s
    assert run.version == small.num_steps


@each_policy
@each_mode
def test_the_time_of_both_sides_is_spent_exactly_once(policy: PolicyConfig, mode: int) -> None:
    for train_s, max_running in ((0.05, 2), (0.4, 8), (3.0, 4)):
        small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=9, train_s=train_s, max_running=max_running)
        outcome = small.outcome(warmup_steps=2, mode=mode)
        for shares in (outcome.rollout_shares, outcome.trainer_shares):
            assert math.fsum(shares) == pytest.approx(1.0, abs=1e-9)
            assert all(0 <= share <= 1 for share in shares)
        assert outcome.staleness.sum() == pytest.approx(1.0)
        assert outcome.train_s == pytest.approx(train_s)
        assert outcome.weight_sync_s == pytest.approx(0.5)
        assert 0 <= outcome.rollout_share <= 1


@each_policy
def test_the_same_parts_give_the_same_run(policy: PolicyConfig) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS)
    one, two = run_cluster(small.parts()), run_cluster(small.parts())
    assert [step.totals for step in one.steps] == [step.totals for step in two.steps]
    assert [step.end_s for step in one.steps] == [step.end_s for step in two.steps]


@each_policy
def test_a_longer_run_begins_like_a_shorter_one(policy: PolicyConfig) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS)
    long, short = run_cluster(small.but(num_steps=9).parts()), run_cluster(small.parts())
    assert [step.end_s for step in long.steps[:6]] == [step.end_s for step in short.steps]


@each_policy
@each_mode
def test_twice_every_latency_is_twice_every_time(policy: PolicyConfig, mode: int) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS)
    if policy.kind == "synchronous":
        small = small.but(policy=SynchronousPolicy(switch_s=0.375))
    twice = small.but(step_s=2 * STEP_S, prefill_s=2 * PREFILL_S, train_s=4.0, sync_s=1.0, policy=policy)
    one, two = run_cluster(small.parts(), mode=mode), run_cluster(twice.parts(), mode=mode)
    assert [2 * step.end_s for step in one.steps] == [step.end_s for step in two.steps]


@each_policy
def test_more_acceptance_is_never_slower(policy: PolicyConfig) -> None:
    """Common random numbers: the same uniforms, so a step emits at least as much."""
    seconds = [
        Small(policy, SPREAD, pmf=pmf, num_steps=12, train_s=0.1).outcome().step_s
        for pmf in ((1.0, 0, 0, 0), (0.5, 0.2, 0.2, 0.1), (0.2, 0.2, 0.2, 0.4), (0, 0, 0, 1.0))
    ]
    assert all(faster <= slower for slower, faster in itertools.pairwise(seconds))
    assert seconds[-1] < seconds[0]


@pytest.mark.parametrize("policy", [SYNCHRONOUS, ONE_STEP_OFF, *(POLICIES[f"{rule}-1"] for rule in RULES)])
def test_both_ways_of_advancing_give_the_same_run_in_law(policy: PolicyConfig) -> None:
    def differences(value: Callable[[Outcome], float]) -> np.ndarray:
        return np.array([math.log(value(jump) / value(steps)) for jump, steps in pairs])

    pairs = []
    for seed in range(30):
        small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=12, train_s=0.3, seed=seed, max_running=6)
        pairs.append((small.outcome(), small.outcome(mode=PER_STEP)))
    for value in (
        lambda outcome: outcome.step_s,
        lambda outcome: outcome.rollout_s,
        lambda outcome: outcome.accept_length,
        lambda outcome: outcome.trajectory_s,
    ):
        logs = differences(value)
        assert abs(logs.mean()) < 4 * logs.std(ddof=1) / math.sqrt(len(logs)) + 1e-12


# ---------------------------------------------------------------- staleness


@each_mode
def test_synchronous_samples_are_never_stale(mode: int) -> None:
    assert Small(SYNCHRONOUS, SPREAD, pmf=ACCEPTS).outcome(warmup_steps=0, mode=mode).staleness.tolist() == [1.0]


@each_mode
def test_one_step_off_samples_are_one_version_behind_after_the_first(mode: int) -> None:
    log = run_cluster(Small(ONE_STEP_OFF, SPREAD, pmf=ACCEPTS).parts(), mode=mode)
    assert [step.staleness.tolist() for step in log.steps] == [[4], *[[0, 4]] * 5]


def test_staleness_0_still_overlaps_nothing_but_the_last_batch() -> None:
    """Admission of the next batch waits for the version, so the trainer waits for a whole generation."""
    outcome = Small(fully_async(0, "wait"), num_steps=8).outcome()
    assert outcome.staleness.tolist() == [1.0]
    assert outcome.step_s == pytest.approx(GENERATION_S + 2.0 + 0.5)
    assert outcome.exposed_generation_s == pytest.approx(GENERATION_S)


@pytest.mark.parametrize("max_staleness", [1, 2, 4])
def test_a_slow_trainer_finds_samples_as_old_as_the_rule_allows(max_staleness: int) -> None:
    outcome = Small(fully_async(max_staleness, "in_place"), num_steps=12, train_s=30.0).outcome(warmup_steps=6)
    assert outcome.staleness.tolist() == [*[0.0] * max_staleness, 1.0]
    assert outcome.rollout_shares[2] > 0.9


# ---------------------------------------------------------------- closed forms


@each_mode
@pytest.mark.parametrize("train_s", [0.0, 0.5, 2.0])
def test_a_synchronous_step_is_the_sum_of_its_phases(train_s: float, mode: int) -> None:
    outcome = Small(SYNCHRONOUS, train_s=train_s).outcome(warmup_steps=0, mode=mode)
    assert outcome.step_series_s == pytest.approx([GENERATION_S + train_s + 0.75 + 0.5] * 6, rel=1e-12)
    assert outcome.rollout_s == outcome.exposed_generation_s == pytest.approx(GENERATION_S, rel=1e-12)
    whole = GENERATION_S + train_s + 1.25
    assert outcome.rollout_shares[:4] == pytest.approx([GENERATION_S / whole, 0.5 / whole, 0, (train_s + 0.75) / whole])
    assert outcome.trainer_shares == pytest.approx([train_s / whole, 0.5 / whole, 0, (GENERATION_S + 0.75) / whole])
    assert outcome.rollout_share == pytest.approx(GENERATION_S / whole)


@each_mode
@pytest.mark.parametrize("train_s", [0.0, 0.5, 2.0])
def test_a_one_step_off_step_is_the_longer_side_and_the_sync(train_s: float, mode: int) -> None:
    outcome = Small(ONE_STEP_OFF, train_s=train_s).outcome(warmup_steps=0, mode=mode)
    step = max(GENERATION_S, train_s) + 0.5
    assert outcome.step_series_s == pytest.approx([GENERATION_S + step, *[step] * 5], rel=1e-12)
    later = Small(ONE_STEP_OFF, train_s=train_s).outcome(warmup_steps=1, mode=mode)
    assert later.exposed_generation_s == pytest.approx(max(GENERATION_S - train_s, 0.0), abs=1e-12)
    assert later.rollout_s == pytest.approx(GENERATION_S, rel=1e-12)
    assert later.trainer_shares[2] == pytest.approx(max(GENERATION_S - train_s, 0.0) / step, abs=1e-12)


@each_mode
def test_a_slow_trainer_sets_the_pace_of_an_asynchronous_run(mode: int) -> None:
    for rule in ("abort_resume", "in_place"):
        outcome = Small(fully_async(2, rule), SPREAD, pmf=ACCEPTS, train_s=20.0).outcome(warmup_steps=3, mode=mode)
        assert outcome.step_s == pytest.approx(20.5, rel=1e-12)
        assert outcome.exposed_generation_s == 0.0
        assert outcome.trainer_shares == pytest.approx([20 / 20.5, 0.5 / 20.5, 0.0, 0.0], abs=1e-9)


def test_a_trainer_that_takes_no_time_leaves_the_pace_to_generation() -> None:
    """Two replicas of 8 sequences make 1600 tokens per second, and never stop."""
    small = Small(fully_async(10, "in_place"), SPREAD, num_steps=60, train_s=0.0, sync_s=0.0, prefill_s=0.0)
    small = small.but(max_running=8)
    parts = small.parts()
    outcome = measure(run_cluster(parts), parts, 10)
    decoded = outcome.tokens_per_s * outcome.step_s - small.prompts_per_step * small.group_size
    assert outcome.step_s == pytest.approx(decoded / (2 * 8 / STEP_S), rel=0.05)
    assert outcome.rollout_shares[0] == pytest.approx(1.0, abs=1e-9)
    assert outcome.rollout_s == pytest.approx(outcome.step_s, rel=0.05)


@each_mode
def test_waves_of_equal_sequences_make_one_batch_per_wave(mode: int) -> None:
    small = Small(fully_async(6, "in_place"), num_steps=12, train_s=0.0, sync_s=0.0)
    outcome = small.outcome(warmup_steps=4, mode=mode)
    assert outcome.step_s == pytest.approx(GENERATION_S, rel=1e-12)
    assert small.but(prompts_per_step=2).outcome(warmup_steps=4, mode=mode).step_s == pytest.approx(GENERATION_S / 2)


# ---------------------------------------------------------------- weight sync in flight


@each_mode
def test_wait_lets_every_sequence_finish_first(mode: int) -> None:
    synced = 0
    for run in live(Small(fully_async(2, "wait"), SPREAD, pmf=ACCEPTS, num_steps=8, train_s=0.3), mode):
        if run.side.state.counters[0]["version"] > run.version:  # between the start of a sync and its end
            synced += 1
            assert run.side.num_live == 0
    assert synced > 0
    assert run.side.totals(run.now_s).recomputed_tokens == 0
    assert sum(step.drain_s for step in run.log.steps) > 0


@each_mode
def test_abort_resume_prefills_again_what_was_running(mode: int) -> None:
    small = Small(fully_async(2, "abort_resume"), SPREAD, pmf=ACCEPTS, num_steps=10, train_s=0.3)
    totals = run_cluster(small.parts(), mode=mode).steps[-1].totals
    assert totals.recomputed_tokens > 0
    assert small.outcome(mode=mode).wasted_fraction > 0
    kept = run_cluster(small.but(policy=fully_async(2, "in_place")).parts(), mode=mode).steps[-1].totals
    assert kept.recomputed_tokens == 0
    assert kept.prefill_tokens < totals.prefill_tokens


@each_mode
def test_a_sequence_aborted_once_is_prefilled_with_all_it_had(mode: int) -> None:
    """One replica, one sequence at a time, 100 tokens of prompt; the second one starts when training does."""
    small = Small(
        fully_async(1, "abort_resume"),
        prompts_per_step=1,
        group_size=1,
        num_replicas=1,
        max_running=1,
        num_steps=2,
        train_s=1.0,
        sync_s=0.5,
    )
    first, second = run_cluster(small.parts(), mode=mode).steps
    assert first.end_s == pytest.approx(GENERATION_S + 1.0 + 0.5)
    # At the sync the second has finished (after 0.85 s), and a third may not start.
    assert first.totals.recomputed_tokens == 0
    small = small.but(train_s=0.5)
    first, second = run_cluster(small.parts(), mode=mode).steps
    # After 0.5 s: a token from its prefill, whose KV the first step adds, and 25 from its steps.
    assert first.totals.recomputed_tokens == 100 + 25
    left = RESPONSE - 1 - 25 - 1  # the prefill emits the next token
    assert second.end_s == pytest.approx(GENERATION_S + 0.5 + 0.5 + PREFILL_S + left * STEP_S + 0.5 + 0.5)


# ---------------------------------------------------------------- speculation


def speedups(plain: Small, spec: Small) -> tuple[float, float]:
    """Return (end-to-end, rollout) speedups."""
    base, mine = plain.outcome(), spec.outcome()
    return base.step_s / mine.step_s, base.rollout_s / mine.rollout_s


@pytest.mark.parametrize("policy", [SynchronousPolicy(), ONE_STEP_OFF, fully_async(4, "in_place")])
def test_acceptance_0_slows_down_by_exactly_the_extra_cost(policy: PolicyConfig) -> None:
    plain = Small(policy, train_s=0.0, sync_s=0.0, num_steps=10)
    spec = plain.but(pmf=(1.0, 0.0, 0.0, 0.0), step_s=1.3 * STEP_S)
    end_to_end, rollout = speedups(plain, spec)
    slower = GENERATION_S / (PREFILL_S + 1.3 * (RESPONSE - 1) * STEP_S)
    assert end_to_end == pytest.approx(slower, rel=1e-12)
    assert rollout == pytest.approx(slower, rel=1e-9)
    free = speedups(plain.but(prefill_s=0.0), spec.but(prefill_s=0.0))
    assert free[0] == pytest.approx(1 / 1.3, rel=1e-12)


@pytest.mark.parametrize("policy", [SynchronousPolicy(), ONE_STEP_OFF, fully_async(4, "in_place")])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_acceptance_1_with_free_drafts_is_k_plus_1_times_as_fast(policy: PolicyConfig, k: int) -> None:
    """60 decoded tokens in steps of k + 1: 30, 20 and 12 steps."""
    plain = Small(policy, train_s=0.0, sync_s=0.0, prefill_s=0.0, num_steps=10)
    end_to_end, rollout = speedups(plain, plain.but(pmf=(*[0.0] * k, 1.0)))
    assert end_to_end == pytest.approx(k + 1, rel=1e-12)
    assert rollout == pytest.approx(k + 1, rel=1e-9)


@pytest.mark.parametrize("train_s", [0.0, 0.1, 1.0, 10.0, 1e6])
def test_a_colocated_run_obeys_amdahl(train_s: float) -> None:
    plain = Small(SynchronousPolicy(), SPREAD, train_s=train_s, sync_s=0.0)
    end_to_end, rollout = speedups(plain, plain.but(pmf=ACCEPTS))
    base = plain.outcome()
    share = base.rollout_s / base.step_s
    assert end_to_end == pytest.approx(1 / (share / rollout + 1 - share), rel=1e-9)
    assert base.rollout_share == pytest.approx(share, rel=1e-9)
    if train_s == 0.0:
        assert end_to_end == pytest.approx(rollout, rel=1e-12)
    if train_s == 1e6:
        assert end_to_end == pytest.approx(1.0, abs=1e-5)


def test_an_asynchronous_run_gains_nothing_once_the_trainer_is_the_bound() -> None:
    plain = Small(fully_async(2, "in_place"), SPREAD, train_s=20.0)
    end_to_end, rollout = speedups(plain, plain.but(pmf=ACCEPTS))
    assert end_to_end == pytest.approx(1.0, rel=1e-12)
    assert rollout > 1.5


def test_accept_length_is_what_the_law_says() -> None:
    outcome = Small(SYNCHRONOUS, SPREAD, pmf=ACCEPTS, prompts_per_step=64, max_running=64).outcome()
    assert outcome.accept_length == pytest.approx(2.8, abs=0.06)  # the last step of a response is cut short
    assert Small(SYNCHRONOUS, SPREAD).outcome().accept_length == 1.0
