"""Synchronous, colocated: generate a whole batch, train on it, sync, on the same GPUs (verl's hybrid engine)."""

from simulator.cluster import Run
from simulator.config import SynchronousPolicy
from simulator.policies.batch import Batches
from simulator.rollout_clock import Process


def synchronous(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    policy = run.parts.policy
    assert isinstance(policy, SynchronousPolicy)
    batches = Batches(run, policy)
    for _ in range(run.parts.num_steps):
        yield from batches.generate()
        batch = run.take_batch()
        training_s = batch.train_s + policy.switch_s
        if run.side.num_live > 0:
            run.pause(training_s)
        yield run.env.timeout(training_s)
        yield from run.sync_weights()
        run.record(batch, wait_s=0.0, generation_s=batches.generation_s)
