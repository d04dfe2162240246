"""Groups that are generated and not trained on: filtered, more than a step needs, dropped while they run."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.config import LognormalLength, OneStepOffPolicy, PolicyConfig, Router, SynchronousPolicy
from simulator.metrics import measure
from simulator.parts import groups_needed
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import DISCARDED, JUMP, PER_STEP
from tests.simulator.small_parts import PREFILL_S, RESPONSE, SPREAD, STEP_S, Small, finished, fully_async

each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
GENERATION_S = PREFILL_S + (RESPONSE - 1) * STEP_S
ACCEPTS = (0.2, 0.2, 0.2, 0.4)
TAIL = LognormalLength(mean=80, sigma=1.2, maximum=3000)


def with_useful(small: Small, useful: list[bool], mode: int = JUMP) -> Run:
    """Run with the filter's verdicts on the first groups as given; the rest pass."""
    parts = small.parts()
    verdicts = np.ones(parts.workload.num_groups, np.bool_)
    verdicts[: len(useful)] = useful
    run = Run(replace(parts, workload=replace(parts.workload, is_useful=verdicts)), mode=mode)
    run.env.run(until=run.env.process(TRAINER_LIFE[small.policy.kind](run)))
    return run


# ---------------------------------------------------------------- filters


@each_mode
@pytest.mark.parametrize(
    "policy",
    [
        SynchronousPolicy(),
        SynchronousPolicy(oversampling=1.5),
        SynchronousPolicy(oversampling=1.5, leftover="resume"),
        SynchronousPolicy(oversampling=1.5, refill="by_round"),
        OneStepOffPolicy(refill="by_round"),
        OneStepOffPolicy(oversampling=1.5),
        fully_async(1, "abort_resume"),
        fully_async(2, "wait"),
        fully_async(1, "in_place", overdue="drop"),
        fully_async(1, "in_place", overdue="drop_running"),
    ],
    ids=lambda policy: "-".join(str(value) for value in policy.model_dump(exclude_none=True).values()),
)
def test_the_trainer_gets_whole_batches_of_useful_groups_only(policy: PolicyConfig, mode: int) -> None:
    small = Small(policy, SPREAD, pmf=ACCEPTS, num_steps=8, train_s=0.3, useful_fraction=0.6)
    run = finished(small, mode)
    ready = run.side.ready_groups(0, run.next_ready)
    assert run.num_taken == 8 * small.prompts_per_step
    assert run.parts.workload.is_useful[ready].all()
    assert run.side.num_filtered > 0
    assert not run.parts.workload.is_useful[run.side.state.filtered_group[: run.side.num_filtered]].any()
    assert [int(step.staleness.sum()) for step in run.log.steps] == [small.prompts_per_step] * 8
    totals = run.log.steps[-1].totals
    assert (
        totals.filtered_tokens
        == run.parts.workload.group_tokens[run.side.state.filtered_group[: totals.filtered_groups]].sum()
    )


@each_mode
def test_a_refill_by_round_costs_a_whole_generation_phase(mode: int) -> None:
    """DAPO in verl: four groups, one of them of no use, so another round of four."""
    small = Small(SynchronousPolicy(refill="by_round"))
    run = with_useful(small, [True, True, False, True], mode)
    assert run.log.steps[0].generation_s == pytest.approx(2 * GENERATION_S, rel=1e-12)
    assert all(step.generation_s == pytest.approx(GENERATION_S, rel=1e-12) for step in run.log.steps[1:])
    assert run.num_dropped == 3  # of the second round only one was needed, and all four were generated
    assert run.side.num_filtered == 1


def test_a_refill_at_once_starts_while_the_rest_is_generated() -> None:
    """Groups of one response; the second is filtered early, and its place is taken at once."""
    small = Small(SynchronousPolicy(), TAIL, group_size=1, num_replicas=1, num_steps=40, seed=3)
    useful = [i % 4 != 1 for i in range(360)]
    at_once, by_round = (
        with_useful(small.but(policy=SynchronousPolicy(refill=rule)), useful) for rule in ("at_once", "by_round")
    )
    assert at_once.log.steps[-1].end_s < 0.95 * by_round.log.steps[-1].end_s
    assert at_once.side.num_filtered >= 20


def test_generation_grows_as_the_useful_fraction_falls() -> None:
    small = Small(fully_async(1, "in_place"), SPREAD, train_s=0.0, sync_s=0.0, num_steps=60, prompts_per_step=16)
    whole = small.outcome(warmup_steps=10)
    half = small.but(useful_fraction=0.5).outcome(warmup_steps=10)
    assert half.step_s == pytest.approx(2 * whole.step_s, rel=0.1)
    assert half.wasted_fraction == pytest.approx(0.5, abs=0.05)
    assert whole.wasted_fraction == 0.0


@pytest.mark.parametrize("policy", [SynchronousPolicy(oversampling=1.3), OneStepOffPolicy(), fully_async(2)])
def test_enough_groups_are_drawn_and_not_many_more(policy: PolicyConfig) -> None:
    small = Small(policy, SPREAD, num_steps=12, useful_fraction=0.4)
    parts = small.parts()
    needed = groups_needed(12, 4, policy, useful=parts.workload.is_useful)
    run = finished(small)
    assert run.side.num_submitted <= needed <= parts.workload.num_groups
    assert run.side.num_submitted > needed - 4 * (3 + 6)
    assert groups_needed(12, 4, policy, useful=parts.workload.is_useful[:20]) == 21


# ---------------------------------------------------------------- more groups than a step needs


@each_mode
@pytest.mark.parametrize("policy", [SynchronousPolicy, OneStepOffPolicy])
def test_redundant_groups_cut_the_tail(policy: type[SynchronousPolicy | OneStepOffPolicy], mode: int) -> None:
    """RollPacker: launch more prompts than needed, keep the first to finish."""
    small = Small(policy(), TAIL, num_steps=12, prompts_per_step=8, max_running=16, train_s=0.1)
    plain, redundant = small.outcome(mode=mode), small.but(policy=policy(oversampling=1.5)).outcome(mode=mode)
    assert redundant.rollout_s < 0.7 * plain.rollout_s
    assert plain.wasted_fraction == 0.0 < redundant.wasted_fraction


@each_mode
@pytest.mark.parametrize(("kv_tokens", "share_prompts"), [(1e9, False), (3200.0, False), (3200.0, True)])
def test_what_is_thrown_away_is_counted_to_the_token(mode: int, kv_tokens: float, share_prompts: bool) -> None:
    """`check_run` holds the books; here is what they hold."""
    policy = SynchronousPolicy(oversampling=2.0)
    small = Small(policy, TAIL, pmf=ACCEPTS, num_steps=6, kv_tokens=kv_tokens, train_s=0.1)
    small = small.but(kv_block_tokens=16, share_prompts=share_prompts)
    run_cluster(small.parts(), mode=mode)
    run = finished(small, mode)
    counters, workload = run.side.state.counters[0], run.parts.workload
    gone = np.flatnonzero(run.side.state.group_left == DISCARDED)
    assert len(gone) == counters["discarded_groups"] == run.side.num_discarded > 0
    assert counters["discarded_tokens"] + counters["abandoned_tokens"] <= workload.group_output_tokens[gone].sum()
    assert 0 < counters["discarded_tokens"] < workload.group_output_tokens[gone].sum()
    assert run.num_taken + run.num_gone == run.side.num_submitted == 6 * 8


@each_mode
@pytest.mark.parametrize("router", ["round_robin", "sticky", "static_split"])
@pytest.mark.parametrize(
    "policy",
    [SynchronousPolicy(oversampling=2.0), fully_async(1, "in_place", overdue="drop_running")],
    ids=["leftovers", "overdue"],
)
def test_what_stands_in_a_replicas_line_is_dropped_with_its_group(
    policy: PolicyConfig, router: Router, mode: int
) -> None:
    small = Small(policy, TAIL, pmf=ACCEPTS, num_steps=12, prompts_per_step=8, max_running=3, router=router)
    run = finished(small.but(useful_fraction=0.8, train_s=0.2), mode)
    state = run.side.state
    assert run.side.num_discarded > 0
    lines = []
    for replica in state.replicas:
        sequence = replica["line_head"]
        for _ in range(replica["line_len"]):
            lines.append(sequence)
            sequence = state.next_in_line[sequence]
    assert (state.group_left[state.group_of[lines]] != DISCARDED).all()
    assert run.num_taken == 12 * 8


def test_both_modes_throw_away_as_much() -> None:
    ratios = []
    for seed in range(6):
        small = Small(SynchronousPolicy(oversampling=2.0), TAIL, pmf=ACCEPTS, num_steps=100, train_s=0.1, seed=seed)
        jump, per_step = (finished(small, mode).log.steps[-1] for mode in (JUMP, PER_STEP))
        ratios.append((jump.totals.discarded_tokens / per_step.totals.discarded_tokens, jump.end_s / per_step.end_s))
    tokens, seconds = np.mean(ratios, axis=0)
    assert tokens == pytest.approx(1.0, abs=0.05)  # 0.987 +- 0.008 over twelve longer runs
    assert seconds == pytest.approx(1.0, abs=0.01)


@each_mode
def test_leftovers_that_go_on_waste_nothing_they_had_emitted(mode: int) -> None:
    """Partial rollout in a colocated run: what is under way stands still while the trainer trains."""
    policy = SynchronousPolicy(oversampling=1.5, leftover="resume")
    small = Small(policy, TAIL, pmf=ACCEPTS, num_steps=12, prompts_per_step=8, max_running=16)
    run = finished(small, mode)
    outcome = measure(run.log, run.parts, 2)
    assert run.side.num_discarded == run.num_dropped == 0
    assert run.log.steps[-1].totals.recomputed_tokens > 0
    assert max(len(step.staleness) for step in run.log.steps) > 1
    assert outcome.weight_sync_s == pytest.approx(0.5)
    generated = run.side.state.counters["started_tokens"][0]
    assert generated < 1.5 * run.parts.workload.group_output_tokens[: 12 * 8].sum()
    for step in run.log.steps:
        assert step.train_s == pytest.approx(2.0)


# ---------------------------------------------------------------- dropped while they run


@each_mode
def test_running_groups_that_would_be_too_old_are_dropped_before_the_sync(mode: int) -> None:
    """prime-rl's max_off_policy_steps."""
    small = Small(fully_async(1, "in_place", overdue="drop_running"), TAIL, pmf=ACCEPTS, num_steps=30, train_s=0.2)
    run = finished(small, mode)
    assert run.side.num_discarded > 0
    assert all(len(step.staleness) <= 2 for step in run.log.steps)
    live = run.side.state.slots[run.side.state.slots["status"] != 0]
    assert (live["version"] >= run.version - 1).all()
    kept = finished(small.but(policy=fully_async(1, "in_place", overdue="drop")), mode)
    assert run.side.num_discarded + run.num_dropped > 0
    assert kept.side.num_discarded == 0 < kept.num_dropped


@each_mode
def test_a_group_that_finishes_in_the_step_that_is_cut_short_is_a_leftover_too(mode: int) -> None:
    """Replicas stop at their step boundaries, after the moment at which the batch was complete."""
    small = Small(SynchronousPolicy(oversampling=1.5), SPREAD, group_size=1, num_replicas=3, max_running=16, step_s=5.0)
    run = finished(small.but(prompts_per_step=24, num_steps=10, train_s=0.1), mode)
    assert run.num_dropped > 0 < run.side.num_discarded
    assert all(len(step.staleness) == 1 for step in run.log.steps)
