"""What agentic trajectories cost: a run of 20 turns per sequence against one of a single turn.

    python benchmarks/turns.py [--json]

Both: 100 RL steps of the 8,192 sequences of benchmarks/rollout.py (mean 4k response tokens), fully asynchronous, plain
decoding and k = 3, one replication, workload and tables included, on one thread after compilation. The agentic run
splits each response into 20 turns, reads about 128 tokens after each, waits for a tool in between (log-normal, median
2 s, sigma 1.5, at most 10 minutes), holds 256 trajectories per replica of 128 places, and has a KV cache of 80,000
tokens, so that sequences are preempted. Runs alternate; a time is the least of several.
"""

import argparse
import json
import time

from rollout import SCENARIO, peak_rss_mb, run_both_arms, with_steps

from simulator.config import Scenario
from simulator.inputs import BASELINE, make_noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster
from simulator.scenario_file import parse_scenario

NUM_STEPS, NUM_RUNS = 100, 3
TARGET_RATIO = 10.0
ENGINE = "engine = { max_running_seqs = 128"
AGENTIC = SCENARIO.replace(ENGINE, ENGINE + ", max_live_trajectories = 256, kv_cache_tokens = 80000").replace(
    "[arms.speculative]",
    """
[workload.turns]
num_turns = { kind = "constant", value = 20 }
observation_tokens = { kind = "lognormal", mean = 128, sigma = 0.5, maximum = 2048 }
delay_s = { kind = "lognormal", median = 2.0, sigma = 1.5, minimum = 0.1, maximum = 600 }
max_context_tokens = 65536

[arms.speculative]""",
)


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    as_json = parser.parse_args().json
    single_turn = with_steps(parse_scenario(SCENARIO, "benchmark"), NUM_STEPS)
    agentic = with_steps(parse_scenario(AGENTIC, "benchmark"), NUM_STEPS)
    turns, preemptions = _turns_and_preemptions(with_steps(agentic, 10))  # loads the machine code
    _seconds(with_steps(single_turn, 2))
    rounds = [(_seconds(single_turn), _seconds(agentic)) for _ in range(NUM_RUNS)]
    single_turn_s, agentic_s = (min(column) for column in zip(*rounds, strict=True))
    result = {
        "single_turn_s": round(single_turn_s, 3),
        "agentic_s": round(agentic_s, 3),
        "ratio": round(agentic_s / single_turn_s, 1),
        "turns_per_sequence": round(turns, 2),
        "preemptions_per_sequence": round(preemptions, 4),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26}{value:>10}" + (f"   target {TARGET_RATIO:.0f}" if name == "ratio" else ""))


def _seconds(scenario: Scenario) -> float:
    begin_s = time.perf_counter()
    run_both_arms(scenario)
    return time.perf_counter() - begin_s


def _turns_and_preemptions(scenario: Scenario) -> tuple[float, float]:
    """Return turns, and preemptions under plain decoding, per sequence."""
    inputs = resolve(scenario)
    workload, noise = make_workload(inputs, 0), make_noise(inputs, 0)
    parts, _ = make_parts(inputs, BASELINE, workload, noise, 0)
    totals = run_cluster(parts).steps[-1].totals
    return len(workload.input_tokens) / workload.num_sequences, totals.preemptions / totals.finished


if __name__ == "__main__":
    main()
