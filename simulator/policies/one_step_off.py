"""One step off: the trainer works on one batch while the next is generated (verl's one_step_off_policy).

Weights are synced when both are done, so nothing is running at a sync unless leftovers are to go on.
"""

from simulator.cluster import Run
from simulator.config import OneStepOffPolicy
from simulator.policies.batch import Batches
from simulator.rollout_clock import Process


def one_step_off(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    policy = run.parts.policy
    assert isinstance(policy, OneStepOffPolicy)
    batches = Batches(run, policy)
    next_batch = run.env.process(batches.generate())

    def step() -> Process:
        nonlocal next_batch
        asked_s = run.now_s
        yield from run.wait_for(next_batch)  # from the beginning, or after a failure
        wait_s, generation_s = run.now_s - asked_s, batches.generation_s
        batch = run.take_batch()
        next_batch = run.env.process(batches.generate())
        yield from run.work(batch.train_s, batch.beside_s)
        trained_s = run.now_s
        yield from run.wait_for(next_batch)
        wait_s += run.now_s - trained_s
        yield from run.sync_weights("abort_resume" if policy.leftover == "resume" else "in_place")
        run.record(batch, wait_s=wait_s, generation_s=generation_s)

    yield from run.live(step)
