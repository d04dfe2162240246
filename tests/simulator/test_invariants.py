"""A run whose books do not balance is not reported."""

import numpy as np
import pytest

from simulator.cluster import Run
from simulator.errors import InvariantError
from simulator.invariants import check_kv_cache, check_run
from simulator.kernels import advance, submit
from simulator.policies.fully_async import fully_async as life_of
from simulator.rollout_state import JUMP, PER_STEP
from tests.simulator.rollouts import Case, Play
from tests.simulator.small_parts import SPREAD, Small, fully_async


def finished(**policy: object) -> Run:
    small = Small(fully_async(1, "restart", **policy), SPREAD, train_s=0.1, sync_s=0.1)
    run = Run(small.parts())
    run.env.run(until=run.env.process(life_of(run)))
    return run


def check(run: Run) -> None:
    check_run(
        run.parts,
        run.side,
        run.log,
        num_published=run.num_published,
        num_taken=run.num_taken,
        num_dropped=run.num_dropped,
    )


def test_a_run_that_adds_up_passes() -> None:
    check(finished(overdue="drop"))


def test_a_lost_sample_is_found() -> None:
    run = finished()
    run.side.state.counters["started"] += 1
    with pytest.raises(InvariantError, match=r"^samples: \d+ started, but \d+ were trained on or dropped, "):
        check(run)


def test_a_lost_token_is_found() -> None:
    run = finished()
    run.side.state.counters["restarted_tokens"] -= 1
    with pytest.raises(InvariantError, match=r"^tokens: \d+ generated, but samples that have begun have \d+, of which"):
        check(run)


def test_a_token_that_was_never_drafted_is_found() -> None:
    run = finished()
    run.side.state.replicas["stretch_tokens"] += 1
    run.side.state.counters["restarted_tokens"] += len(run.side.state.replicas)
    with pytest.raises(
        InvariantError, match=r"^drafts: 0 drafted in \d+ steps, which emitted \d+ tokens, so 2 were acc"
    ):
        check(run)


def test_lost_time_is_found_on_either_side() -> None:
    run = finished()
    run.log.steps[0].train_s -= 0.05
    with pytest.raises(InvariantError, match=r"^time: the run takes .* its trainer side accounts for"):
        check(run)
    run = finished()
    run.side.state.replicas["sync_s"] = 0.0
    run.log.steps[-1].totals = run.side.totals(run.now_s)
    with pytest.raises(InvariantError, match=r"^time: the run takes .* its rollout side accounts for"):
        check(run)


@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
def test_kv_blocks_that_nobody_holds_or_that_are_not_there_are_found(mode: int) -> None:
    played = Play(Case(kv_tokens=1600.0, block_tokens=16), 0, mode)
    state = played.state
    submit(state, played.table, played.laws[0], 96, 0.0)
    advance(state, played.table, played.laws[0], 0.3, 1 << 40)
    assert np.all(state.replicas["num_running"] > 1)
    check_kv_cache(state)
    state.replicas["context_tokens"][1] += 1
    with pytest.raises(InvariantError, match=r"^KV cache: replica 1 accounts for \d+\.?\d* tokens, but its sequences "):
        check_kv_cache(state)
    state.replicas["context_tokens"][1] -= 1
    state.limits["kv_tokens"] = 800.0
    with pytest.raises(InvariantError, match=r"^KV cache: replica 0 holds \d+\.?\d* blocks of 50: "):
        check_kv_cache(state)


def test_versions_that_go_back_and_staleness_beyond_its_limit_are_found() -> None:
    run = finished(overdue="drop")
    run.side.state.counters["version"] -= 1
    with pytest.raises(InvariantError, match=r"^versions: 6 published, replicas hold 5"):
        check(run)
    run = finished(overdue="drop")
    run.log.steps[-1].staleness.resize(4, refcheck=False)
    run.log.steps[-1].staleness[3] = 1
    with pytest.raises(InvariantError, match=r"^staleness: 3 versions, above the 1 that the policy promises"):
        check(run)
