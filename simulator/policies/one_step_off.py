"""One step off: the trainer works on one batch while the next is generated (verl's one_step_off_policy).

Weights are synced when both are done, so nothing is running at a sync unless leftovers are to go on.
"""

from simulator.cluster import Run
from simulator.config import OneStepOffPolicy
from simulator.policies.batch import Batches
from simulator.rollout_clock import Process


def one_step_off(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    policy, env = run.parts.policy, run.env
    assert isinstance(policy, OneStepOffPolicy)
    batches = Batches(run, policy)
    yield from batches.generate()
    wait_s, generation_s = run.now_s, batches.generation_s
    for _ in range(run.parts.num_steps):
        batch = run.take_batch()
        next_batch = env.process(batches.generate())
        yield env.timeout(batch.train_s)
        trained_s = run.now_s
        yield next_batch
        wait_s += run.now_s - trained_s
        yield from run.sync_weights("abort_resume" if policy.leftover == "resume" else "in_place")
        run.record(batch, wait_s=wait_s, generation_s=generation_s)
        wait_s, generation_s = 0.0, batches.generation_s
