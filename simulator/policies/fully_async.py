"""Fully asynchronous: generation goes on while the trainer trains; admission bounds how far it runs ahead.

A sync period is `fetches_per_sync` fetches of the trainer. At most (1 + staleness) sync periods of groups have been
admitted beyond those trained on at the last weight sync; with one fetch of a whole RL step per sync, at version v that
is (max_staleness + v + 1) x groups_per_step since the start of the run (AReaL, arXiv 2505.24298, sec. 5.1). Groups that
a filter takes out or that are dropped for their age give their place to new ones.
"""

from simulator.cluster import Run
from simulator.config import FullyAsyncPolicy
from simulator.parts import groups_ahead
from simulator.rollout_clock import Process


class _Admission:
    """Lets groups begin as far as the staleness rule allows."""

    def __init__(self, run: Run, ahead: int) -> None:
        self._run, self._ahead = run, ahead
        self._num_trained = 0
        if run.parts.workload.has_filter:
            run.clock.refill_with(self.admit)

    def admit(self) -> None:
        if not self._run.is_closed:
            self._run.side.submit(self._num_trained + self._run.num_gone + self._ahead, self._run.now_s)

    def open_after(self, num_trained: int) -> None:
        """Replicas have a policy trained on so many groups."""
        self._num_trained, self._run.is_closed = num_trained, False
        self.admit()


def fully_async(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    parts = run.parts
    policy = parts.policy
    assert isinstance(policy, FullyAsyncPolicy)
    admission = _Admission(run, groups_ahead(parts.groups_per_step, policy))
    num_fetches = 0

    def come_back() -> None:
        """Count again from the checkpoint, and replace what was lost."""
        nonlocal num_fetches
        num_fetches = (run.num_taken - run.log.num_lost_groups) // parts.fetch_groups
        admission.open_after(run.num_taken)

    def step() -> Process:
        nonlocal num_fetches
        batch = None
        wait_s = 0.0
        for _ in range(parts.groups_per_step // parts.fetch_groups):
            asked_s = run.now_s
            if policy.overdue in ("drop", "drop_running"):
                yield from _drop_overdue(run, policy.versions_ahead, admission)
            yield from _await_batch(run)
            wait_s += run.now_s - asked_s
            piece = run.take_batch()
            batch = batch + piece if batch else piece
            yield from run.work(piece.train_s, piece.beside_s)
            num_fetches += 1
            if num_fetches % (policy.fetches_per_sync or 1) == 0:
                yield from _sync(run, policy, admission)
        assert batch is not None
        run.record(batch, wait_s=wait_s, generation_s=0.0)

    admission.admit()
    yield from run.live(step, come_back)


def _sync(run: Run, policy: FullyAsyncPolicy, admission: _Admission) -> Process:
    """Publish the weights, without what they make too old; admit more when replicas have them."""
    num_trained = run.num_taken
    if policy.overdue == "drop_running":
        run.side.discard(run.now_s, run.version + 1 - policy.versions_ahead)
    yield from run.sync_weights(policy.in_flight, then=lambda: admission.open_after(num_trained))


def _drop_overdue(run: Run, max_staleness: int, admission: _Admission) -> Process:
    """Wait until the next fetch is ready without groups that are too old; each of them is replaced by a new one."""
    while True:
        if run.drop_overdue(max_staleness):
            admission.admit()
        yield from _await_batch(run)
        if not run.drop_overdue(max_staleness):
            return
        admission.admit()


def _await_batch(run: Run) -> Process:
    """Wait until the next fetch is ready; in an elastic cluster the trainer's GPUs generate meanwhile.

    They do so only if something waits for a place: what runs already is not moved to them.
    """
    ready, parts = run.batch_ready(), run.parts
    if parts.num_helpers and not ready.triggered and run.side.num_waiting > 0:
        yield from run.wait_for(ready | run.env.timeout(parts.switch_s))
        if not ready.triggered:
            helpers = (parts.num_replicas, parts.num_replicas + parts.num_helpers)
            run.side.bring_up(*helpers, run.now_s)
            try:
                yield from run.wait_for(ready)
            finally:
                run.side.take_down(*helpers, run.now_s, restart=False)
            yield run.env.timeout(parts.switch_s)
    yield from run.wait_for(ready)
