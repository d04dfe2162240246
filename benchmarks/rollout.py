"""How fast the simulator is: one large rollout by jump and step by step, and a long asynchronous run of both arms.

    python benchmarks/rollout.py [--json]

One rollout: 8,192 sequences (lognormal, mean 4k, at most 32k tokens) on 64 replicas of 128 places, k = 3, step
latencies of Qwen3-8B on H200 with padded CUDA graphs. The run: 1,000 RL steps of that size, fully asynchronous, one
replication of plain decoding and of k = 3 with an acceptance that moves with the entropy, workload and tables included.
Everything on one thread, after compilation; a time is the least of several. `--json` prints one line.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from simulator.config import Scenario
from simulator.inputs import BASELINE, make_noise, make_parts, make_workload, resolve
from simulator.metrics import measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.rollout import RolloutSide
from simulator.rollout_state import JUMP, PER_STEP
from simulator.scenario_file import parse_scenario
from simulator.step_law import build_step_law

SCENARIO = """
schema_version = 1
name = "benchmark"
question = "How fast is the simulator?"
model = { name = "Qwen3-8B" }
cluster = { gpu = "H200", num_rollout_gpus = 64, num_train_gpus = 64 }
policy = { kind = "fully_async", max_staleness = 1 }
engine = { max_running_seqs = 128 }
entropy = { kind = "piecewise", points = [[0, 0.3], [500, 0.6], [1000, 0.4]] }
latency = { kind = "trace", trace = "qwen3-8b-h200-tp1" }
trainer = { kind = "mfu", mfu = 0.4 }
weight_sync = { kind = "seconds", seconds = 3.0 }
run = { num_steps = 1000, replications = 1 }

[workload]
kind = "synthetic"
prompts_per_step = 1024
group_size = 8
prompt_tokens = { kind = "constant", value = 512 }
response_tokens = { kind = "lognormal", mean = 4096, sigma = 0.8, maximum = 32768 }

[arms.speculative]
k = 3
acceptance = { kind = "law", recipe = "rs_e2e_tv", fit = "reasoning" }
"""
ARM = "speculative"
NUM_JUMPS, NUM_PER_STEP, NUM_RUNS = 20, 5, 2
TARGET_JUMP_MS, TARGET_PER_STEP_MS, TARGET_RUN_S, TARGET_RSS_MB = 5.0, 100.0, 10.0, 1000.0


@dataclass(frozen=True)
class Timing:
    """Seconds of several repetitions."""

    seconds: list[float]

    @property
    def least_s(self) -> float:
        """The least disturbed one."""
        return min(self.seconds)

    @property
    def median_s(self) -> float:
        """The usual one."""
        return statistics.median(self.seconds)


def main() -> None:
    """Print the numbers of the rollout, then those of the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    as_json = parser.parse_args().json
    scenario = parse_scenario(SCENARIO, "benchmark")
    parts = rollout_parts(scenario)
    jump, per_step = time_rollout(parts, JUMP, NUM_JUMPS), time_rollout(parts, PER_STEP, NUM_PER_STEP)
    growth = {} if as_json else measure_growth(scenario, parts, jump, per_step)
    run = time_run(scenario)
    rss_mb = peak_rss_mb()
    if as_json:
        report = {
            "jump_ms": round(1e3 * jump.least_s, 3),
            "per_step_ms": round(1e3 * per_step.least_s, 2),
            "run_1000_steps_s": round(run.least_s, 3),
            "peak_rss_mb": round(rss_mb, 1),
        }
        print(json.dumps(report))
        return
    print(f"{'':36}{'least':>10}{'median':>10}{'target':>10}")
    _print_timing("one rollout, jump, ms", jump, 1e3, TARGET_JUMP_MS)
    _print_timing("one rollout, per step, ms", per_step, 1e3, TARGET_PER_STEP_MS)
    _print_timing("1,000 RL steps, both arms, s", run, 1.0, TARGET_RUN_S)
    print(f"{'peak memory of the process, MB':36}{rss_mb:10.0f}{'':10}{TARGET_RSS_MB:10.0f}")
    for what, factors in growth.items():
        print(f"{what + ', cost x':36}{factors[0]:10.2f} (jump){factors[1]:10.2f} (per step)")


def rollout_parts(scenario: Scenario) -> Parts:
    """Return the parts of the speculative arm with the workload of one RL step."""
    inputs = resolve(scenario)
    step = scenario.workload
    assert step.kind == "synthetic"
    workload = make_workload(replace(inputs, scenario=with_steps(scenario, 1)), 0)
    parts, _ = make_parts(inputs, ARM, workload, make_noise(inputs, 0), 0)
    return _with_sequences(parts, step.prompts_per_step)


def time_rollout(parts: Parts, mode: int, repetitions: int) -> Timing:
    """Return the time to generate every sequence, from an idle rollout side to an idle one."""
    seconds = []
    for repetition in range(repetitions + 1):
        begin_s = time.perf_counter()
        side = RolloutSide(replace(parts, stream=np.uint64(repetition)), mode=mode)
        side.submit(parts.workload.num_groups, 0.0)
        side.advance(np.inf)
        seconds.append(time.perf_counter() - begin_s)
        assert side.num_ready == parts.workload.num_groups
    return Timing(seconds[1:])  # the first loads the machine code


def measure_growth(scenario: Scenario, parts: Parts, jump: Timing, per_step: Timing) -> dict[str, tuple[float, float]]:
    """Return by what factor a rollout costs more with twice the sequences, and with four times the length."""
    workload = parts.workload
    doubled = scenario.workload.model_copy(update={"prompts_per_step": 2 * workload.num_groups})
    twice = rollout_parts(scenario.model_copy(update={"workload": doubled}))
    longer = replace(workload, output_tokens=4 * workload.output_tokens)
    law = parts.law_of(0)
    long_law = build_step_law(law.pmf, longer.max_output_tokens)
    # The step table goes on in a straight line beyond its last context; enough room, so that nothing is preempted.
    long_parts = replace(parts, workload=longer, law_of=lambda _: long_law, kv_tokens=1e9)
    return {
        what: (
            time_rollout(grown, JUMP, NUM_JUMPS).least_s / jump.least_s,
            time_rollout(grown, PER_STEP, 2).least_s / per_step.least_s,
        )
        for what, grown in (("twice the sequences", twice), ("four times the length", long_parts))
    }


def time_run(scenario: Scenario) -> Timing:
    """Return the time of a whole run of both arms."""
    seconds = []
    run_both_arms(with_steps(scenario, 3))  # loads the machine code
    for _ in range(NUM_RUNS):
        begin_s = time.perf_counter()
        run_both_arms(scenario)
        seconds.append(time.perf_counter() - begin_s)
    return Timing(seconds)


def peak_rss_mb() -> float:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def run_both_arms(scenario: Scenario) -> None:
    inputs = resolve(scenario)
    workload, noise = make_workload(inputs, 0), make_noise(inputs, 0)
    for name in (BASELINE, *scenario.arms):
        parts, _ = make_parts(inputs, name, workload, noise, 0)
        measure(run_cluster(parts), parts, scenario.warmup_steps)


def with_steps(scenario: Scenario, num_steps: int) -> Scenario:
    run = scenario.run.model_copy(update={"num_steps": num_steps, "warmup_steps": 0})
    return scenario.model_copy(update={"run": run})


def _with_sequences(parts: Parts, num_groups: int) -> Parts:
    """Return the parts with the first groups of their workload only."""
    w = parts.workload
    sequences = int(w.group_size[:num_groups].sum())
    turns = int(w.first_turn[sequences])
    return replace(
        parts,
        workload=replace(
            w,
            first_turn=w.first_turn[: sequences + 1],
            input_tokens=w.input_tokens[:turns],
            output_tokens=w.output_tokens[:turns],
            delay_s=w.delay_s[:turns],
            group_of=w.group_of[:sequences],
            group_size=w.group_size[:num_groups],
            group_tokens=w.group_tokens[:num_groups],
            group_output_tokens=w.group_output_tokens[:num_groups],
        ),
    )


def _print_timing(what: str, timing: Timing, factor: float, target: float) -> None:
    print(f"{what:36}{factor * timing.least_s:10.2f}{factor * timing.median_s:10.2f}{target:10.0f}")


if __name__ == "__main__":
    main()
