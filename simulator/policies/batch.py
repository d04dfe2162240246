"""Batch: the generation phase of an RL step, with its refills and leftovers. Does not know when weights are synced."""

from simulator.cluster import Run
from simulator.config import BatchPolicy
from simulator.rollout_clock import Process


class Batches:
    """Generates one batch after the other, in rounds of groups, as a batch policy says."""

    def __init__(self, run: Run, policy: BatchPolicy) -> None:
        """Refill a round when a filter leaves too few groups."""
        self._run, self._policy = run, policy
        self._round_groups = policy.round_groups(run.parts.groups_per_step)
        self._is_generating = False
        self.generation_s = 0.0
        """Duration of the last generation phase."""
        if run.parts.workload.has_filter and policy.refill != "by_round":
            run.clock.refill_with(self._refill)

    def generate(self) -> Process:
        """Submit a round of groups, and go on until as many as an RL step needs are ready."""
        run, begin_s = self._run, self._run.now_s
        self._is_generating = True
        self._submit(self._round_groups - self._outstanding())
        if self._policy.refill == "by_round":
            yield from self._finish_rounds()
        yield run.batch_ready()
        self._is_generating = False
        self.generation_s = run.now_s - begin_s
        if self._policy.leftover != "resume":
            run.drop_leftovers()

    def _finish_rounds(self) -> Process:
        """Let whole rounds end until enough of their groups have passed the filter."""
        run = self._run
        yield run.clock.finished()
        while run.side.num_ready < run.next_ready + run.parts.fetch_groups:
            if run.side.num_submitted == run.parts.workload.num_groups:
                return  # used up by a trainer that fails too often; `batch_ready` says so
            self._submit(self._round_groups)
            yield run.clock.finished()

    def _outstanding(self) -> int:
        """Return the groups that are ready, under way or waiting to begin."""
        return self._run.side.num_submitted - self._run.num_taken - self._run.num_gone

    def _submit(self, num_groups: int) -> None:
        self._run.side.submit(self._run.side.num_submitted + max(num_groups, 0), self._run.now_s)

    def _refill(self) -> None:
        if self._is_generating and self._outstanding() < self._run.parts.groups_per_step:
            self._submit(self._round_groups)
