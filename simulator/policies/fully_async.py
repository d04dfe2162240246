"""Fully asynchronous: generation goes on while the trainer trains; admission bounds how far it runs ahead.

A sync period is `fetches_per_sync` fetches of the trainer. At most (1 + staleness) sync periods of groups have been
admitted beyond those trained on at the last weight sync; with one fetch of a whole RL step per sync, at version v that
is (max_staleness + v + 1) x groups_per_step since the start of the run (AReaL, arXiv 2505.24298, sec. 5.1).
"""

from collections.abc import Callable

from simulator.cluster import Process, Run
from simulator.config import FullyAsyncPolicy
from simulator.parts import groups_ahead


def fully_async(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    parts, env = run.parts, run.env
    policy = parts.policy
    assert isinstance(policy, FullyAsyncPolicy)
    ahead = groups_ahead(parts.groups_per_step, policy)
    num_fetches, num_trained = 0, 0

    def admit() -> None:
        run.side.submit(num_trained + run.num_dropped + ahead, run.now_s)

    admit()
    for _ in range(parts.num_steps):
        batch = None
        wait_s, drain_s, num_syncs = 0.0, 0.0, 0
        for _ in range(parts.groups_per_step // parts.fetch_groups):
            asked_s = run.now_s
            if policy.overdue == "drop":
                yield from _drop_overdue(run, policy.versions_ahead, admit)
            yield run.batch_ready()
            wait_s += run.now_s - asked_s
            piece = run.take_batch()
            batch = batch + piece if batch else piece
            yield env.timeout(piece.train_s)
            num_fetches += 1
            if num_fetches % (policy.fetches_per_sync or 1):
                continue
            trained_s = run.now_s
            if policy.in_flight == "wait":
                run.side.close()
                yield run.clock.drained()
            drain_s += run.now_s - trained_s
            yield from run.sync_weights(policy.in_flight)
            num_syncs += 1
            num_trained = run.num_taken
            admit()
        assert batch is not None
        run.record(batch, wait_s=wait_s, generation_s=0.0, drain_s=drain_s, num_syncs=num_syncs)


def _drop_overdue(run: Run, max_staleness: int, admit: Callable[[], None]) -> Process:
    """Wait until the next fetch is ready without groups that are too old; each of them is replaced by a new one."""
    while True:
        if run.drop_overdue(max_staleness):
            admit()
        yield run.batch_ready()
        if not run.drop_overdue(max_staleness):
            return
        admit()
