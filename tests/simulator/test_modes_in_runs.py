"""Whole runs, trainer and all: the jump against the step-by-step reference."""

import numpy as np
import pytest
from scipy import stats

from simulator.inputs import BASELINE, Inputs, make_noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster
from simulator.rollout_state import JUMP, PER_STEP
from simulator.run_log import RunLog
from simulator.scenario_file import load_scenario

ALPHA = 1e-4
NUM_SEEDS = 16
SMALL = [
    "run.num_steps=6",
    "run.warmup_steps=0",
    "workload.prompts_per_step=16",
    "cluster.num_rollout_gpus=4",
    "cluster.num_train_gpus=4",
]
POLICIES = {
    "abort and resume": ['policy.in_flight="abort_resume"'],
    "in place": ['policy.in_flight="in_place"'],
    "wait": ['policy.in_flight="wait"'],
    "one step off": ['policy={kind="one_step_off"}'],
    "synchronous": ['policy={kind="synchronous"}'],
}
EVERY_POLICY = pytest.mark.parametrize("overrides", POLICIES.values(), ids=POLICIES)


def both_modes(inputs: Inputs, arm: str, seed: int) -> tuple[RunLog, RunLog]:
    parts, _ = make_parts(inputs, arm, make_workload(inputs, seed), make_noise(inputs, seed), seed)
    return run_cluster(parts, mode=JUMP), run_cluster(parts, mode=PER_STEP)


@EVERY_POLICY
def test_without_speculation_runs_are_equal(overrides: list[str]) -> None:
    inputs = resolve(load_scenario("bebop-reasoning", SMALL + overrides))
    for seed in range(3):
        jump, reference = both_modes(inputs, BASELINE, seed)
        assert [s.end_s for s in jump.steps] == pytest.approx([s.end_s for s in reference.steps], rel=1e-8)
        for a, b in zip(jump.steps, reference.steps, strict=True):
            assert (a.output_tokens, a.staleness.tolist()) == (b.output_tokens, b.staleness.tolist())
            assert a.totals.busy_s == pytest.approx(b.totals.busy_s, rel=1e-8)
            assert a.totals.recomputed_tokens == b.totals.recomputed_tokens


def _numbers(log: RunLog) -> tuple[float, float, float]:
    """Return the run's end, busy seconds and tokens per step.

    Not the number of steps: a new law settles the jump's stretches at a sync, the reference's when they end.
    """
    totals = log.steps[-1].totals
    return log.steps[-1].end_s, totals.busy_s, totals.stretch_tokens / totals.stretch_steps


@EVERY_POLICY
def test_with_speculation_runs_agree_in_law(overrides: list[str]) -> None:
    inputs = resolve(load_scenario("bebop-reasoning", SMALL + overrides))
    pairs = [both_modes(inputs, "rs_e2e_tv", seed) for seed in range(NUM_SEEDS)]
    numbers = np.array([[_numbers(log) for log in pair] for pair in pairs])
    jump, reference = numbers[:, 0], numbers[:, 1]
    difference = jump - reference
    t = difference.mean(axis=0) / (difference.std(axis=0, ddof=1) / np.sqrt(NUM_SEEDS))
    assert np.all(np.abs(t) < stats.t.isf(ALPHA / 2, NUM_SEEDS - 1)), t
    assert jump.mean(axis=0) == pytest.approx(reference.mean(axis=0), rel=0.01)
