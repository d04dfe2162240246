"""Fully asynchronous: generation goes on while the trainer trains; admission bounds how far it runs ahead.

At version v at most (max_staleness + v + 1) x groups_per_step groups have been admitted since the start of the run
(AReaL, arXiv 2505.24298, sec. 5.1).
"""

from simulator.cluster import Process, Run
from simulator.config import FullyAsyncPolicy


def fully_async(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    parts, env = run.parts, run.env
    policy = parts.policy
    assert isinstance(policy, FullyAsyncPolicy)

    def admit() -> None:
        run.side.submit((policy.max_staleness + run.version + 1) * parts.groups_per_step, run.now_s)

    admit()
    for _ in range(parts.num_steps):
        asked_s = run.now_s
        yield run.batch_ready()
        wait_s = run.now_s - asked_s
        batch = run.take_batch()
        yield env.timeout(batch.train_s)
        trained_s = run.now_s
        if policy.in_flight == "wait":
            run.side.close()
            yield run.clock.drained()
        drain_s = run.now_s - trained_s
        abort = policy.in_flight == "abort_resume"
        run.side.sync_weights(run.version + 1, run.now_s, run.now_s + parts.sync_s, abort=abort)
        yield env.timeout(parts.sync_s)
        run.record(batch, wait_s=wait_s, generation_s=0.0, drain_s=drain_s)
        admit()
