"""The testbed's buffer admits what a scenario's rules admit, and gives every sample to the trainer once."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from profiler.errors import RunError
from profiler.testbed.buffer import AdmissionRule, Buffer, Group, Order, staleness
from profiler.testbed.engine import Finished, Request
from simulator.config import FullyAsyncPolicy
from simulator.parts import groups_ahead
from traces import testbed

SIZE = 3


def finished(order: Order, version: int = 0) -> Group:
    ids = range(order.first_sample_id, order.first_sample_id + SIZE)
    samples = [
        Finished(Request(each, order.group_id, (1,)), (2, 3), (version, version + 1), (0.0, 0.0), 0.0, 1.0)
        for each in ids
    ]
    return Group(order, tuple(samples))


def rule_of(kind: str, groups: int, max_staleness: int = 0) -> AdmissionRule:
    more = {"max_staleness": max_staleness, "in_flight": "in_place"} if kind == "fully_async" else {}
    return AdmissionRule.of(testbed.TestbedPolicy.model_validate({"kind": kind, **more}), groups)


@given(st.integers(0, 8), st.integers(1, 50))
def test_a_fully_asynchronous_run_admits_as_many_groups_as_the_simulator(max_staleness: int, groups: int) -> None:
    policy = FullyAsyncPolicy(max_staleness=max_staleness)
    rule = rule_of("fully_async", groups, max_staleness)
    assert rule.groups_ahead == groups_ahead(groups, policy)
    assert rule.opens == "sync"


def test_a_synchronous_run_admits_a_batch_after_every_sync_and_one_step_off_when_the_last_one_is_taken() -> None:
    synchronous, ahead = (Buffer(rule_of(kind, 4), 4, SIZE) for kind in ("synchronous", "one_step_off"))
    for buffer in (synchronous, ahead):
        first = buffer.admit()
        assert [order.group_id for order in first] == [0, 1, 2, 3]
        assert buffer.admit() == []
        for order in first:
            assert buffer.add(finished(order))
        buffer.take(1)
    assert synchronous.admit() == []
    assert [order.group_id for order in ahead.admit()] == [4, 5, 6, 7]
    for buffer in (synchronous, ahead):
        buffer.synced(1)
    assert [order.group_id for order in synchronous.admit()] == [4, 5, 6, 7]
    assert ahead.admit() == []


@given(
    st.sampled_from(["synchronous", "one_step_off", "fully_async"]),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 10**6),
)
def test_whatever_dies_every_sample_is_trained_on_once_and_none_is_too_far_ahead(
    kind: str, groups: int, max_staleness: int, seed: int
) -> None:
    draw = random.Random(seed)
    rule = rule_of(kind, groups, max_staleness)
    buffer = Buffer(rule, groups, SIZE)
    engine = {order.group_id: order for order in buffer.lose() + buffer.admit()}
    assert buffer.num_lost_samples == 0
    step, trained, trained_ids, num_lost, late = 0, [], set(), 0, []
    is_taken = False
    for _ in range(150):
        choice = draw.choice(["finish", "finish", "finish", "take", "sync", "kill rollout", "kill trainer"])
        if choice == "finish" and engine:
            assert buffer.add(finished(engine.pop(draw.choice(list(engine)))))
        elif choice == "take" and not is_taken and buffer.can_take(step + 1):
            taken = buffer.take(step + 1)
            is_taken = True
            for group in taken.groups:
                trained.append(group.order.group_id)
                ids = {sample.request.sample_id for sample in group.samples}
                assert not ids & trained_ids
                trained_ids |= ids
        elif choice == "sync" and is_taken:
            step, is_taken = step + 1, False
            buffer.synced(step)
            buffer.synced(step)  # a message may come twice
        elif choice == "kill trainer" and is_taken:
            before = buffer.num_given_samples
            assert buffer.take(step + 1) is taken
            assert buffer.num_given_samples == before
        elif choice == "kill rollout":
            num_lost += len(engine) * SIZE
            late += list(engine.values())
            engine = {order.group_id: order for order in buffer.lose()}
            if late:
                assert not buffer.add(finished(draw.choice(late)))
        engine |= {order.group_id: order for order in buffer.admit()}
        counted = (step + is_taken if rule.opens == "take" else step) * groups
        admitted = len(trained) + buffer.num_ready + buffer.num_under_way
        assert admitted == counted + rule.groups_ahead
        assert buffer.num_under_way == len(engine)
    assert len(trained) == len(set(trained))
    assert buffer.num_given_samples == len(trained_ids)
    assert buffer.num_lost_samples == num_lost


def test_steps_out_of_order_and_broken_groups_are_refused() -> None:
    buffer = Buffer(rule_of("synchronous", 1), 1, SIZE)
    (order,) = buffer.admit()
    whole = finished(order)
    with pytest.raises(RunError, match="its samples are not those ordered"):
        buffer.add(Group(order, whole.samples[1:]))
    buffer.add(whole)
    with pytest.raises(RunError, match="RL step 2 is asked for after step 0"):
        buffer.take(2)


def test_staleness_counts_the_oldest_token_of_a_group() -> None:
    groups = [finished(Order(0, 0, 0), version=1), finished(Order(1, 0, SIZE), version=3)]
    found = staleness(groups, 4)
    assert (found.mean, found.max, found.sample_mean, found.token_mean) == (2.0, 3, 2.0, 1.5)
    assert found.num_mixed == 2 * SIZE
