"""A finished run leaves nothing behind: its workload, the largest thing there is, is freed with it."""

import gc
import weakref

import pytest

from simulator.inputs import make_noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster
from simulator.scenario_file import load_scenario

SMALL = ["run.num_steps=2", "run.warmup_steps=0", "workload.prompts_per_step=4", "engine.max_running_seqs=8"]
POLICIES = {
    "fully_async": [],
    "wait": ['policy.in_flight="wait"'],
    "one_step_off": ['policy={kind="one_step_off"}'],
    "synchronous": ['policy={kind="synchronous"}'],
}


@pytest.mark.parametrize("overrides", POLICIES.values(), ids=POLICIES)
def test_a_run_is_freed_without_waiting_for_the_garbage_collector(overrides: list[str]) -> None:
    inputs = resolve(load_scenario("bebop-reasoning", SMALL + overrides))
    workload = make_workload(inputs, 0)
    parts, _ = make_parts(inputs, "rs_ce", workload, make_noise(inputs, 0), 0)
    alive = weakref.ref(workload.output_tokens)
    gc.collect()
    gc.disable()
    try:
        log = run_cluster(parts)
        del workload, parts
        assert len(log.steps) == 2
        assert alive() is None
    finally:
        gc.enable()
