"""Stragglers: replicas that take longer for everything."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.errors import ScenarioError
from simulator.inputs import Noise, make_parts, make_workload, resolve, unbounded_staleness
from simulator.metrics import measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.rollout import RolloutSide
from simulator.rollout_state import JUMP, PER_STEP
from simulator.scenario_file import load_scenario

SMALL = (
    "cluster.num_rollout_gpus=4",
    "cluster.num_train_gpus=4",
    "workload.prompts_per_step=8",
    "workload.response_tokens={kind='lognormal', mean=400, sigma=0.8, maximum=2000}",
    "engine.max_running_seqs=16",
    "run.num_steps=5",
)


def parts_of(*overrides: str, replication: int = 0) -> Parts:
    inputs = resolve(load_scenario("bebop-reasoning", [*SMALL, *overrides]))
    assert unbounded_staleness(inputs) > 0
    return make_parts(inputs, "to", make_workload(inputs, replication), Noise(), replication)[0]


def makespan_s(parts: Parts, mode: int = JUMP) -> float:
    side = RolloutSide(parts, mode=mode)
    side.submit(parts.workload.num_groups, 0.0)
    side.advance(np.inf)
    return side.clock_s


@pytest.mark.parametrize("mode", [JUMP, PER_STEP])
def test_when_all_replicas_take_twice_as_long_so_does_the_rollout_exactly(mode: int) -> None:
    alike = parts_of()
    assert makespan_s(replace(alike, slowness=(2.0,) * 4), mode) == 2 * makespan_s(alike, mode)


def test_one_straggler_costs_less_than_a_slow_cluster_because_others_take_its_work() -> None:
    alike, one, all_slow = (
        makespan_s(parts_of(*overrides))
        for overrides in ((), ("cluster.stragglers=[[1, 2.0]]",), ("cluster.stragglers=[[4, 2.0]]",))
    )
    assert alike < one < all_slow


def test_jump_and_reference_agree_with_stragglers_in_the_cluster() -> None:
    ratios = []
    for replication in range(16):
        parts = parts_of("cluster.stragglers=[[1, 1.5], [1, 3]]", replication=replication)
        jump, steps = (measure(run_cluster(parts, mode=mode), parts, 1).step_s for mode in (JUMP, PER_STEP))
        ratios.append(jump / steps - 1)
    assert abs(np.mean(ratios)) < 3.9 * np.std(ratios, ddof=1) / np.sqrt(len(ratios)) + 1e-12


def test_more_stragglers_than_replicas_are_refused() -> None:
    with pytest.raises(ScenarioError, match="stragglers: 5 replicas, but there are only 4; name fewer"):
        parts_of("cluster.stragglers=[[5, 2.0]]")
