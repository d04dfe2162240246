"""One step off: the trainer works on one batch while the next is generated (verl's one_step_off_policy).

Weights are synced when both are done, so nothing is ever running at a sync.
"""

from simulator.cluster import Process, Run


def one_step_off(run: Run) -> Process:
    """Live the trainer's life for the whole run."""
    parts, env = run.parts, run.env
    begin_s = run.now_s
    run.side.submit(parts.groups_per_step, begin_s)
    yield run.batch_ready()
    generation_s = run.now_s
    first_wait_s = generation_s
    for step in range(parts.num_steps):
        batch = run.take_batch()
        begin_s = run.now_s
        run.side.submit((step + 2) * parts.groups_per_step, begin_s)
        yield env.timeout(batch.train_s)
        trained_s = run.now_s
        yield run.batch_ready()
        wait_s = first_wait_s + run.now_s - trained_s
        next_generation_s = run.side.ready_s((step + 2) * parts.groups_per_step) - begin_s
        yield from run.sync_weights()
        run.record(batch, wait_s=wait_s, generation_s=generation_s)
        first_wait_s, generation_s = 0.0, next_generation_s
