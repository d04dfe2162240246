"""Synchronous, colocated: generate a whole batch, train on it, sync, on the same GPUs (verl's hybrid engine)."""

import simpy

from simulator.cluster import Run
from simulator.config import SynchronousPolicy
from simulator.policies.batch import Batches
from simulator.rollout_clock import Process


def synchronous(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    policy = run.parts.policy
    assert isinstance(policy, SynchronousPolicy)
    batches = Batches(run, policy)
    generation: simpy.Process | None = None

    def step() -> Process:
        nonlocal generation
        asked_s = run.now_s
        generation = generation or run.env.process(batches.generate())  # it goes on while a failed trainer restarts
        yield from run.wait_for(generation)
        generation, generation_s = None, run.now_s - asked_s
        batch = run.take_batch()
        training_s = batch.train_s + policy.switch_s
        if run.side.num_live > 0:
            run.pause(training_s)
        yield from run.work(training_s)
        yield from run.sync_weights()
        run.record(batch, wait_s=0.0, generation_s=generation_s)

    yield from run.live(step)
