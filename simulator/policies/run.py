"""One run under the policy its parts name."""

from simulator.cluster import Run
from simulator.invariants import check_run
from simulator.parts import Parts
from simulator.policies.fully_async import fully_async
from simulator.policies.one_step_off import one_step_off
from simulator.policies.synchronous import synchronous
from simulator.rollout_state import JUMP
from simulator.run_log import RunLog

TRAINER_LIFE = {"synchronous": synchronous, "one_step_off": one_step_off, "fully_async": fully_async}


def run_cluster(parts: Parts, *, mode: int = JUMP) -> RunLog:
    """Simulate one arm from the first to the last RL step."""
    run = Run(parts, mode=mode)
    run.env.run(until=run.env.process(TRAINER_LIFE[parts.policy.kind](run)))
    run.clock.stop()
    check_run(
        parts,
        run.side,
        run.log,
        num_published=run.num_published,
        num_taken=run.num_taken,
        num_dropped=run.num_dropped,
    )
    run.log.max_batch = int(run.side.state.replicas["max_batch"].max())
    return run.log
