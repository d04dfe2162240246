"""The largest cluster that a scenario may describe in earnest: how long one run of both arms takes on one core.

    python benchmarks/scale.py [--json]

10,000 GPUs (8,192 of them roll out, one replica each), 65,536 sequences per RL step, 100 RL steps, fully asynchronous.
"""

import argparse
import json
import time

from rollout import peak_rss_mb, run_both_arms, with_steps

from simulator.config import Scenario
from simulator.scenario_file import load_scenario

TARGET_WALL_S = 60.0
OVERRIDES = (
    "cluster.num_rollout_gpus=8192",
    "cluster.num_train_gpus=1808",
    "workload.prompts_per_step=8192",
    "workload.group_size=8",
    "run.num_steps=100",
    "run.replications=1",
)


def main() -> None:
    """Print the size, the wall time and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    as_json = parser.parse_args().json
    scenario = load_scenario("bebop-reasoning", OVERRIDES)
    one_arm = scenario.model_copy(update={"arms": {"rs_e2e_tv": scenario.arms["rs_e2e_tv"]}, "measured": ()})
    run_both_arms(with_steps(one_arm, 1))  # loads the machine code
    begin_s = time.perf_counter()
    run_both_arms(one_arm)
    wall_s = time.perf_counter() - begin_s
    result = {
        "gpus": one_arm.cluster.num_rollout_gpus + one_arm.cluster.num_train_gpus,
        "sequences_per_step": _sequences_per_step(one_arm),
        "num_steps": one_arm.run.num_steps,
        "wall_s": round(wall_s, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        target = f"   target {TARGET_WALL_S:.0f}" if name == "wall_s" else ""
        print(f"{name:20}{value:>10}{target}")


def _sequences_per_step(scenario: Scenario) -> int:
    workload = scenario.workload
    assert workload.kind == "synthetic"
    return workload.prompts_per_step * workload.group_size


if __name__ == "__main__":
    main()
