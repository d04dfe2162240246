"""Weight syncs for which not everybody waits: overlapped with training, or pulled by each replica."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.cluster import Run
from simulator.config import ConstantLength, SecondsWeightSync
from simulator.errors import ScenarioError
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP, PER_STEP
from tests.simulator import made_up
from tests.simulator.small_parts import SPREAD, Small, finished, fully_async

each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
each_rule = pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "restart", "in_place", "in_place_recompute"])
ACCEPTS = (0.2, 0.2, 0.2, 0.4)


@each_mode
@each_rule
@pytest.mark.parametrize("sync_mode", ["overlapped", "pull"])
def test_a_trainer_that_is_the_bottleneck_never_waits(sync_mode: str, in_flight: str, mode: int) -> None:
    """Training takes longer than generation and transfer together, so an RL step is a training step."""
    small = Small(fully_async(2, in_flight), train_s=20.0, sync_s=3.0, sync_mode=sync_mode)
    log = finished(small, mode).log
    begin_s = log.steps[0].end_s
    assert [step.end_s - begin_s for step in log.steps] == pytest.approx([20.0 * i for i in range(6)], rel=1e-12)
    assert sum(step.sync_s + step.drain_s for step in log.steps) == 0.0
    blocking = finished(small.but(sync_mode="blocking"), mode).log
    assert blocking.steps[-1].end_s - blocking.steps[0].end_s >= 5 * 23.0 - 1e-9


@each_mode
def test_a_transfer_longer_than_training_is_waited_for(mode: int) -> None:
    """Generation is fast: each RL step lasts as long as the transfer of the version before it."""
    small = Small(fully_async(4, "in_place"), ConstantLength(value=2), train_s=1.0, sync_s=7.0, sync_mode="overlapped")
    log = finished(small, mode).log
    ends = [step.end_s for step in log.steps]
    assert [b - a for a, b in itertools.pairwise(ends[1:])] == pytest.approx([7.0] * 4)
    assert [step.sync_s for step in log.steps[2:]] == pytest.approx([6.0] * 4)


@each_mode
def test_replicas_stand_still_for_the_swap_only(mode: int) -> None:
    small = Small(fully_async(1, "in_place"), SPREAD, sync_s=3.0, swap_s=0.25, sync_mode="overlapped", num_steps=12)
    run = finished(small, mode)
    published = run.num_published
    assert run.version - 1 <= published <= run.version == 12
    assert run.side.totals(run.now_s).sync_s <= published * 0.25 * small.num_replicas + 1e-9
    assert run.side.totals(run.now_s).sync_s > (published - 1) * (0.25 - 0.02) * small.num_replicas


@each_mode
@each_rule
@pytest.mark.parametrize("sync_mode", ["overlapped", "pull"])
def test_samples_may_be_a_version_older_while_weights_are_on_their_way(
    sync_mode: str, in_flight: str, mode: int
) -> None:
    """Books balance (`check_run` is always on), and nothing is trained on before it is made."""
    small = Small(fully_async(1, in_flight), SPREAD, pmf=ACCEPTS, num_steps=10, train_s=0.5, sync_mode=sync_mode)
    outcome = small.outcome(mode=mode)
    assert outcome.staleness.sum() == pytest.approx(1.0)
    assert sum(outcome.rollout_shares) == pytest.approx(1.0)
    assert sum(outcome.trainer_shares) == pytest.approx(1.0)
    assert outcome.weight_sync_s <= 0.5


@each_mode
def test_a_replica_that_pulls_finishes_what_it_has_and_no_other_waits_for_it(mode: int) -> None:
    """Laminar: under `wait` each replica gets the weights when its own last response has ended."""
    small = Small(fully_async(1, "wait"), SPREAD, pmf=ACCEPTS, num_steps=20, train_s=0.3, max_running=8)
    pull, blocking = (finished(small.but(sync_mode=sync), mode) for sync in ("pull", "blocking"))
    assert pull.now_s < blocking.now_s
    assert sum(step.drain_s for step in pull.log.steps) == 0.0 < sum(step.drain_s for step in blocking.log.steps)
    sync_s = pull.side.state.replicas["sync_s"]
    assert (sync_s > 0).all()
    assert sync_s / 0.5 == pytest.approx([round(s / 0.5) for s in sync_s])
    assert pull.log.steps[-1].totals.recomputed_tokens == 0


def test_only_replicas_that_never_stop_can_sync_while_the_trainer_trains(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"weight_sync\.mode: pull needs replicas that generate while"):
        made_up.scenario(tmp_path, 'policy={kind="synchronous"}', 'weight_sync.mode="pull"')
    with pytest.raises(ValidationError, match="swap_s: 2 has a meaning only when overlapped"):
        SecondsWeightSync(seconds=1.0, swap_s=2.0)


@each_mode
def test_a_replica_whose_last_response_ends_with_its_prefill_pulls_too(mode: int) -> None:
    """Responses of one token never decode, so the last one of a draining replica ends where it is admitted."""
    small = Small(fully_async(1, "wait"), ConstantLength(value=1), num_steps=12, train_s=0.1, sync_mode="pull")
    run = Run(replace(small.but(max_running=1).parts(), max_live=8), mode=mode)
    run.env.run(until=run.env.process(TRAINER_LIFE["fully_async"](run)))
    assert run.num_taken == 12 * 4
    assert (run.side.state.replicas["sync_s"] > 0).all()
