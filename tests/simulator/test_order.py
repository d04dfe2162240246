"""Fetching in the order of admission: which groups are taken, when, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.config import FullyAsyncPolicy, LognormalLength
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP, PER_STEP
from tests.simulator.small_parts import Small, fully_async

HEAVY = LognormalLength(mean=60, sigma=1.4, maximum=2000)
each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
each_rule = pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "restart", "in_place", "in_place_recompute"])


def finished(small: Small, mode: int) -> Run:
    run = Run(small.parts(), mode=mode, record_finish=True)
    run.env.run(until=run.env.process(TRAINER_LIFE["fully_async"](run)))
    return run


@each_mode
@each_rule
def test_the_nth_fetch_takes_the_nth_groups_and_waits_for_them(in_flight: str, mode: int) -> None:
    small = Small(fully_async(2, in_flight, order="in_order", fetch_groups=2), HEAVY, num_steps=12, train_s=0.1)
    run = finished(small, mode)
    assert run.side.ready_groups(0, run.num_taken).tolist() == list(range(run.num_taken))
    finish_s = run.side.state.finish_s.reshape(-1, small.group_size).max(axis=1)
    for last, step in zip(range(4, run.num_taken + 1, 4), run.log.steps, strict=True):
        assert step.end_s >= finish_s[:last].max() + small.train_s / 2
        assert run.side.ready_s(last) == finish_s[:last].max()


@each_mode
def test_waiting_for_stragglers_is_slower_and_trains_on_fewer_short_responses_first(mode: int) -> None:
    small = Small(fully_async(2, "in_place"), HEAVY, num_steps=40, train_s=0.05, sync_s=0.1)
    as_ready = run_cluster(small.parts(), mode=mode)
    in_order = run_cluster(small.but(policy=fully_async(2, "in_place", order="in_order")).parts(), mode=mode)
    assert in_order.steps[-1].end_s > as_ready.steps[-1].end_s
    assert sum(s.wait_s for s in in_order.steps) > sum(s.wait_s for s in as_ready.steps)
    # Admission counts the groups that the trainer has, so nothing it takes in order can be older than the rule.
    assert max(int(np.flatnonzero(step.staleness).max()) for step in in_order.steps) <= 2
    assert max(int(np.flatnonzero(step.staleness).max()) for step in as_ready.steps) > 2


@each_mode
def test_equal_responses_finish_in_order_anyway(mode: int) -> None:
    small = Small(fully_async(1), num_steps=10)
    ordered = small.but(policy=fully_async(1, order="in_order"))
    plain, same = run_cluster(small.parts(), mode=mode), run_cluster(ordered.parts(), mode=mode)
    assert [step.end_s for step in plain.steps] == [step.end_s for step in same.steps]


def test_stating_as_ready_changes_nothing() -> None:
    small = Small(fully_async(2), HEAVY, num_steps=10)
    plain, said = (run_cluster(small.but(policy=fully_async(2, **f)).parts()) for f in ({}, {"order": "as_ready"}))
    assert [step.end_s for step in plain.steps] == [step.end_s for step in said.steps]


@each_rule
def test_both_ways_of_advancing_make_the_same_plain_run(in_flight: str) -> None:
    small = Small(fully_async(1, in_flight, order="in_order"), HEAVY, num_steps=15, train_s=0.30317, sync_s=0.50173)
    parts = replace(small.parts(), slowness=(1.0, 1.00137))  # no two replicas ever reach a boundary together
    jump, steps = run_cluster(parts, mode=JUMP), run_cluster(parts, mode=PER_STEP)
    assert [s.end_s for s in jump.steps] == pytest.approx([s.end_s for s in steps.steps], rel=1e-9)


def test_a_group_cannot_be_both_waited_for_and_dropped() -> None:
    with pytest.raises(ValueError, match="in_order waits for every group, but overdue = drop drops some"):
        FullyAsyncPolicy(max_staleness=1, order="in_order", overdue="drop")
