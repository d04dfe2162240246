"""Routers: who runs where, what that costs, and what it may never change."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.config import PolicyConfig, Router, SynchronousPolicy
from simulator.kernels import advance, close, submit
from simulator.policies import run_cluster
from simulator.rollout_state import (
    JUMP,
    LEAST_IN_FLIGHT,
    PER_STEP,
    ROUND_ROBIN,
    STATIC_SPLIT,
    STICKY,
    RolloutState,
)
from simulator.step_law import build_step_law
from simulator.workload import Workload
from tests.simulator.rollouts import ALL, Case, Play, flat_table, play, state_of, total, workload_from
from tests.simulator.small_parts import SPREAD, Small, fully_async

MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
WITH_LINES = pytest.mark.parametrize("router", [ROUND_ROBIN, STICKY, STATIC_SPLIT], ids=["turns", "sticky", "split"])
TABLE, PLAIN = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)


def in_groups(workload: Workload, size: int) -> Workload:
    groups = workload.num_sequences // size
    of = np.arange(groups, dtype=np.int32).repeat(size)
    return replace(workload, group_of=of, group_size=np.full(groups, size, np.int32))


def generated(case: Case, outputs: list[int], submissions: list[int], mode: int) -> RolloutState:
    """Generate groups of 3, submitted at once in pieces: steps of a quarter of a second, prefills of a second."""
    state = state_of(case, in_groups(workload_from([10] * len(outputs), outputs), 3), mode)
    for submitted in submissions:
        submit(state, TABLE, PLAIN, submitted, 0.0)
    advance(state, TABLE, PLAIN, np.inf, ALL)
    return state


@MODES
@pytest.mark.parametrize(
    ("router", "submissions", "lines"),
    [
        (ROUND_ROBIN, [12], [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]),
        (ROUND_ROBIN, [6, 9, 12], [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]),
        (STICKY, [12], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        (STICKY, [3, 12], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        (STATIC_SPLIT, [12], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        (STATIC_SPLIT, [6, 12], [[0, 1, 6], [2, 3, 7], [4, 8, 9], [5, 10, 11]]),  # the longer parts go round
        (STATIC_SPLIT, [3, 6, 9, 12], [[0, 3, 6], [1, 4, 9], [2, 7, 10], [5, 8, 11]]),
    ],
)
def test_every_replica_works_through_its_own_line_and_nobody_takes_from_it(
    router: int, submissions: list[int], lines: list[list[int]], mode: int
) -> None:
    outputs = [40, 3, 90, 7, 25, 1, 60, 33, 12, 5, 80, 2]
    case = Case(k=0, num_replicas=4, max_running=1, max_live=1, router=router)
    state = generated(case, outputs, submissions, mode)
    for line in lines:
        assert state.finish_s[line] == pytest.approx(np.cumsum([1.0 + 0.25 * (outputs[s] - 1) for s in line]))


@MODES
def test_whoever_has_room_takes_the_next_from_the_one_queue(mode: int) -> None:
    case = Case(k=0, num_replicas=2, max_running=1, max_live=1, router=LEAST_IN_FLIGHT)
    assert generated(case, [41, 5, 5, 5, 5, 5], [6], mode).finish_s.tolist() == [11.0, 2.0, 4.0, 6.0, 8.0, 10.0]


@MODES
def test_a_group_goes_where_fewest_are_unfinished(mode: int) -> None:
    case = Case(k=0, num_replicas=3, max_running=2, max_live=2, router=STICKY)
    state = state_of(case, in_groups(workload_from([10] * 15, [400] * 9 + [5] * 6), 3), mode)
    submit(state, TABLE, PLAIN, 6, 0.0)
    assert (state.replicas["num_live"] + state.replicas["line_len"]).tolist() == [3, 3, 0]
    submit(state, TABLE, PLAIN, 12, 0.0)  # one group there, then ties: the first
    assert (state.replicas["num_live"] + state.replicas["line_len"]).tolist() == [6, 3, 3]
    assert state.replicas["num_live"].tolist() == [2, 2, 2]


@MODES
@pytest.mark.parametrize("pieces", [1, 4])
def test_in_turn_is_as_good_as_one_queue_for_equal_lengths(pieces: int, mode: int) -> None:
    outputs, submissions = [80] * 48, [48 * (i + 1) // pieces for i in range(pieces)]
    finished = [
        np.sort(
            generated(
                Case(k=0, num_replicas=4, max_running=3, max_live=3, router=r), outputs, submissions, mode
            ).finish_s
        )
        for r in (LEAST_IN_FLIGHT, ROUND_ROBIN, STICKY, STATIC_SPLIT)
    ]
    assert np.array_equal(finished[0], finished[1])
    assert np.array_equal(finished[0], finished[2])
    assert np.array_equal(finished[0], finished[3])


@pytest.mark.parametrize(("num_replicas", "places"), [(6, 2), (8, 1)])
def test_with_heavy_tails_whoever_is_stuck_is_slower_than_one_queue(num_replicas: int, places: int) -> None:
    """Common random numbers: the same lengths, and the same steps for each sequence. verl issues 658, 2686 and 3432."""
    case = Case(num_replicas=num_replicas, max_running=places, max_live=places)
    ends = {
        router: np.array([play(replace(case, router=router), seed).finish_s.max() for seed in range(100)])
        for router in (LEAST_IN_FLIGHT, ROUND_ROBIN, STICKY, STATIC_SPLIT)
    }
    for router in (ROUND_ROBIN, STICKY, STATIC_SPLIT):
        ratio = ends[router] / ends[LEAST_IN_FLIGHT]
        assert stats.ttest_1samp(np.log(ratio), 0.0, alternative="greater").pvalue < 1e-4
        assert ratio.mean() > 1.05
        assert np.mean(ratio >= 1 - 1e-12) > 0.6  # list scheduling has its anomalies (Graham 1969)


@MODES
def test_stuck_to_a_replica_every_member_after_the_first_finds_the_prompt(mode: int) -> None:
    for pieces in (1, 6):
        case = Case(num_replicas=3, share_prompts=True, router=STICKY, pieces=pieces)
        played = Play(case, 1, mode).run()
        prompts = played.workload.input_tokens.reshape(-1, 4)
        assert total(played.state, "prefix_hit_tokens") == 3 * (prompts[:, 0] - 1).sum()
        spread = play(replace(case, router=ROUND_ROBIN), 1, mode)
        assert total(spread, "prefix_hit_tokens") < total(played.state, "prefix_hit_tokens") / 2


@MODES
@WITH_LINES
def test_nobody_idles_while_somebody_stands_in_its_line(router: int, mode: int) -> None:
    class Watched(Play):
        def checkpoint(self) -> None:
            replicas, counters = self.state.replicas, self.state.counters[0]
            waiting = replicas["line_len"] > 0
            full = replicas["num_live"] == self.case.max_live
            assert np.all(full[waiting])
            assert not np.any(replicas["idle"][waiting])
            assert counters["submitted"] == counters["started"] + replicas["line_len"].sum()
            lines.append(int(replicas["line_len"].sum()))

    lines: list[int] = []
    played = Watched(Case(router=router, num_replicas=3, pieces=4, sync="abort"), 1, mode, cuts=40).run()
    assert max(lines) > 10
    assert lines[-1] == 0
    assert played.state.counters["started_tokens"][0] == played.workload.output_tokens.sum()


@MODES
@WITH_LINES
def test_nothing_leaves_a_line_while_closed(router: int, mode: int) -> None:
    case = Case(k=0, num_replicas=2, max_running=2, max_live=2, router=router)
    state = state_of(case, in_groups(workload_from([10] * 12, [5] * 12), 3), mode)
    submit(state, TABLE, PLAIN, 12, 0.0)
    close(state)
    advance(state, TABLE, PLAIN, np.inf, ALL)
    assert state.counters["finished"][0] == 4
    submit(state, TABLE, PLAIN, 12, 50.0)
    advance(state, TABLE, PLAIN, np.inf, ALL)
    assert state.counters["finished"][0] == 12


@MODES
@WITH_LINES
def test_exchanging_replicas_exchanges_their_results(router: int, mode: int) -> None:
    """What one replica gets goes to another: its sequences end when they ended there."""
    case = Case(k=0, num_replicas=4, max_running=2, max_live=2, router=router)
    parts = np.random.default_rng(0).integers(1, 300, (4, 6))
    finished = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        lines = parts[order]
        if router == STICKY:
            lines = np.concatenate([lines[:, :3], lines[:, 3:]])  # a group each, then another each
        outputs = (lines.T if router == ROUND_ROBIN else lines).ravel().tolist()
        ends = generated(case, outputs, [12, 24] if router == STICKY else [24], mode).finish_s
        by_replica = np.zeros((4, 6))
        if router == ROUND_ROBIN:
            by_replica[order] = ends.reshape(6, 4).T
        elif router == STICKY:
            by_replica[order] = np.concatenate([ends[:12].reshape(4, 3), ends[12:].reshape(4, 3)], axis=1)
        else:
            by_replica[order] = ends.reshape(4, 6)
        finished.append(by_replica)
    assert np.array_equal(*finished)


@pytest.mark.parametrize("router", ["least_in_flight", "round_robin", "sticky", "static_split"])
@pytest.mark.parametrize(
    "policy",
    [SynchronousPolicy(), fully_async(1, "restart", overdue="drop"), fully_async(2, "in_place")],
    ids=["synchronous", "restart", "in_place"],
)
def test_runs_add_up_under_every_router(policy: PolicyConfig, router: Router) -> None:
    """`run_cluster` checks what must add up, lines included."""
    small = Small(policy, SPREAD, num_replicas=3, train_s=0.1, sync_s=0.1)
    steps = run_cluster(replace(small.parts(), router=router), mode=JUMP).steps
    assert len(steps) == small.num_steps
    assert steps[-1].totals.finished >= small.num_steps * small.prompts_per_step * small.group_size
