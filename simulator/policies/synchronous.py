"""Synchronous, colocated: generate a whole batch, train on it, sync, on the same GPUs (verl's hybrid engine)."""

from simulator.cluster import Process, Run
from simulator.config import SynchronousPolicy


def synchronous(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    parts, env = run.parts, run.env
    policy = parts.policy
    assert isinstance(policy, SynchronousPolicy)
    for step in range(parts.num_steps):
        begin_s = run.now_s
        run.side.submit((step + 1) * parts.groups_per_step, begin_s)
        yield run.batch_ready()
        generation_s = run.now_s - begin_s
        batch = run.take_batch()
        yield env.timeout(batch.train_s + policy.switch_s)
        yield from run.sync_weights()
        run.record(batch, wait_s=0.0, generation_s=generation_s)
