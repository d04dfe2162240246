"""Bebop's prediction of rollouts beside the rollouts themselves, in llama.cpp: a serving engine that none of us wrote.

    python benchmarks/engine_check.py [--rounds N] [--model CONFIG] [--json]

A tiny model of Qwen3.5's kind is profiled as `bebop profile` does it, whole steps with no draft accepted and with
all of them. From that trace alone the simulator's replica predicts how long 32 requests of heavy-tailed lengths take
on 4 and on 8 slots, plain and at acceptances in between that were never profiled; then llama.cpp generates them, its
drafts accepted with those probabilities. Samples of the profile and rollouts are taken in turns, in shuffled order, so
that a machine that others use too is as slow for the one as for the other; medians over the rounds. The engine is
pinned to one core, with real-time priority where the system allows that; the time for which it had the core counts.
Exit code 1: an error beyond the target, 5 % median and 12 % worst. `--json` prints one line.
"""

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from profiler.cpu import cores
from profiler.grid import GridRequest
from profiler.ledger import Ledger
from profiler.models.hf_config import BUNDLED, find_architecture
from profiler.point import Point
from profiler.progress import Progress
from profiler.request import ProfileRequest
from profiler.sources.llamacpp.profile import EngineProfile, settings_of, this_machine
from profiler.sources.llamacpp.session import FIRST_WORD, Call
from profiler.sources.llamacpp.trace import compose_trace
from profiler.sources.llamacpp.worker import EngineWorker
from simulator.kernels import advance, submit
from simulator.latency import Need, TraceLatency
from simulator.rollout_state import new_state
from simulator.speculation import emitted_pmf
from simulator.step_law import build_step_law
from simulator.workload import Workload
from traces.architecture import Architecture

TARGET_MEDIAN, TARGET_WORST = 0.05, 0.12
NUM_REQUESTS = 32
PROMPT_TOKENS = 24
MEAN_TOKENS, SIGMA, LEAST_TOKENS, MOST_TOKENS = 96, 1.0, 8, 448
"""Of the lognormal response lengths before they are cut off: a third is below 40, one in twenty above 300."""
BATCHES = {4: (1, 2, 3, 4), 8: (1, 2, 3, 4, 6, 8)}
"""Slots, and the batches that are profiled on them."""
CONTEXTS = (64, 192, 448)
ACCEPTANCES: tuple[tuple[float, ...], ...] = ((), (0.95, 0.9, 0.8), (0.7, 0.4), (0.3,))
"""P(first j drafts accepted); k is their number. Where a model fits a CPU's cache, speculation loses."""
ROLLOUTS_PER_ROUND = 4
NUM_DRAWS = 40
"""Draws of the accepted tokens that a prediction is the mean of."""
SEED = 20261122


@dataclass(slots=True)
class Setup:
    """One number of slots: its profile, and the measured rollouts by acceptance."""

    num_slots: int
    profile: EngineProfile
    makespans_s: dict[tuple[float, ...], list[float]] = field(default_factory=dict)
    on_core_shares: list[float] = field(default_factory=list)


def main() -> int:
    """Profile, predict, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="samples of every point, and rollouts")
    parser.add_argument("--model", default=BUNDLED, metavar="CONFIG", help="a config.json (default: the bundled model)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    lengths = response_lengths()
    load = os.getloadavg()[0]
    with EngineWorker(cores(1)) as engine:
        setups = [prepare(find_architecture(arguments.model), slots, engine) for slots in BATCHES]
        take_turns(setups, lengths, arguments.rounds)
    rows = [row for setup in setups for row in compare(setup, lengths)]
    errors = [abs(row["error"]) for row in rows]
    report = {
        "rows": rows,
        "median_error": round(statistics.median(errors), 4),
        "worst_error": round(max(errors), 4),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "least_on_core_share": round(min(share for setup in setups for share in setup.on_core_shares), 3),
    }
    if arguments.json:
        print(json.dumps(report))
    else:
        print_report(report)
    return int(report["median_error"] > TARGET_MEDIAN or report["worst_error"] > TARGET_WORST)


def response_lengths() -> list[int]:
    """Return the tokens of each response, in the order of arrival."""
    rng = np.random.default_rng(SEED)
    drawn = MEAN_TOKENS * rng.lognormal(-(SIGMA**2) / 2, SIGMA, NUM_REQUESTS)
    return [int(tokens) for tokens in np.clip(np.rint(drawn), LEAST_TOKENS, MOST_TOKENS)]


# ---------------------------------------------------------------- the engine


def prepare(model: Architecture, num_slots: int, engine: EngineWorker) -> Setup:
    """Return a profile that has measured nothing yet."""
    most = max(map(len, ACCEPTANCES))
    request = ProfileRequest(
        name=f"engine-check-{num_slots}",
        model=model,
        device="cpu",
        precision="fp32",
        grid=GridRequest(BATCHES[num_slots], CONTEXTS, most, (PROMPT_TOKENS, num_slots * PROMPT_TOKENS), (0,)),
        num_threads=1,
    )
    ledger = Ledger(Path("engine-check.samples.jsonl"))  # in memory: nothing is added through it
    return Setup(num_slots, EngineProfile(request, engine, settings_of(request), ledger))


def take_turns(setups: list[Setup], lengths: list[int], num_rounds: int) -> None:
    """Take every sample of every profile and every rollout once a round, in shuffled order."""
    order = random.Random(SEED)
    progress = Progress()
    for number in range(num_rounds):
        tasks: list[Callable[[], None]] = []
        for setup in setups:
            tasks += [_sampling(setup, purpose, point, number) for purpose, point in setup.profile.grid_items()]
            tasks += [
                _rolling_out(setup, lengths, acceptance, f"{number} {again}")
                for acceptance in ACCEPTANCES
                for again in range(ROLLOUTS_PER_ROUND)
            ]
        order.shuffle(tasks)
        progress.begin(f"round {number + 1} of {num_rounds}", len(tasks))
        for task in tasks:
            task()
            progress.advance()


def _sampling(setup: Setup, purpose: str, point: Point, number: int) -> Callable[[], None]:
    return lambda: setup.profile.ledger.samples.append(setup.profile.take(purpose, point, number))


def _rolling_out(setup: Setup, lengths: list[int], acceptance: tuple[float, ...], name: str) -> Callable[[], None]:
    def roll_out() -> None:
        words = random.Random(f"{SEED} {name} {acceptance}")
        vocab_size = setup.profile.request.model.vocab_size
        calls = [
            Call(
                prompt=tuple(words.randrange(FIRST_WORD, vocab_size) for _ in range(PROMPT_TOKENS)),
                num_tokens=tokens,
                seed=words.randrange(1 << 31),
            )
            for tokens in lengths
        ]
        settings = replace(
            setup.profile.settings, num_draft_tokens=len(acceptance), acceptance=acceptance if acceptance else None
        )
        if acceptance not in setup.makespans_s:  # the first one touches memory for the first time
            setup.profile.engine.complete(settings, calls)
        batch = setup.profile.engine.complete(settings, calls)
        share = batch.on_core_share(1)
        setup.on_core_shares.append(share)
        setup.makespans_s.setdefault(acceptance, []).append(batch.wall_s * share)

    return roll_out


# ---------------------------------------------------------------- the prediction


def compare(setup: Setup, lengths: list[int]) -> list[dict[str, object]]:
    """Return predicted and measured figures of each acceptance."""
    tokens = sum(lengths)
    rows: list[dict[str, object]] = []
    for acceptance in ACCEPTANCES:
        predicted_s = predict_s(setup, lengths, acceptance)
        measured = setup.makespans_s[acceptance]
        measured_s = statistics.median(measured)
        rows.append(
            {
                "slots": setup.num_slots,
                "acceptance": list(acceptance),
                "predicted_s": round(predicted_s, 4),
                "measured_s": round(measured_s, 4),
                "measured_range_s": [round(min(measured), 4), round(max(measured), 4)],
                "predicted_tokens_per_s": round(tokens / predicted_s, 1),
                "measured_tokens_per_s": round(tokens / measured_s, 1),
                "error": round(predicted_s / measured_s - 1, 4),
            }
        )
    return rows


def predict_s(setup: Setup, lengths: list[int], acceptance: tuple[float, ...]) -> float:
    """Return the makespan that the simulator's replica predicts from the profile alone."""
    profile, k = setup.profile, len(acceptance)
    trace = compose_trace(
        profile.request, this_machine(1), profile.ledger, sum(acceptance) / max(k, 1), plain_prefill=k == 0
    )
    need = Need("check", k, setup.num_slots, PROMPT_TOKENS + max(lengths), 1e9)
    table, _ = TraceLatency(trace, allow_extrapolation=True).step_table(need)
    law = build_step_law(emitted_pmf(np.array(acceptance))[None, :], max(lengths))
    makespans_s = []
    for draw in range(NUM_DRAWS if k else 1):
        state = new_state(
            _workload(lengths),
            num_replicas=1,
            max_running=setup.num_slots,
            max_live=setup.num_slots,
            kv_tokens=1e9,
            num_draft_tokens=k,
            num_classes=1,
            stream=np.uint64(draw),
            record_finish=True,
        )
        submit(state, table, law, len(lengths), 0.0)
        advance(state, table, law, np.inf, 1 << 60)
        makespans_s.append(float(state.finish_s.max()))
    return statistics.fmean(makespans_s)


def _workload(lengths: list[int]) -> Workload:
    count = len(lengths)
    outputs = np.array(lengths, np.int64)
    return Workload(
        first_turn=np.arange(count + 1, dtype=np.int64),
        input_tokens=np.full(count, PROMPT_TOKENS, np.int32),
        output_tokens=outputs.astype(np.int32),
        delay_s=np.zeros(count, np.float32),
        group_of=np.arange(count, dtype=np.int32),
        group_size=np.ones(count, np.int32),
        group_tokens=outputs + PROMPT_TOKENS,
        group_output_tokens=outputs,
    )


def print_report(report: dict[str, object]) -> None:
    """Print one line per rollout."""
    print(
        f"{'slots':>5}  {'P(first j accepted)':22}{'makespan, s':>20}{'tokens/s':>18}{'error':>9}   range measured, s"
    )
    for row in report["rows"]:
        acceptance = ", ".join(f"{rate:g}" for rate in row["acceptance"]) or "no drafts"
        low, high = row["measured_range_s"]
        print(
            f"{row['slots']:5}  {acceptance:22}{row['predicted_s']:10.3f}{row['measured_s']:10.3f}"
            f"{row['predicted_tokens_per_s']:9.0f}{row['measured_tokens_per_s']:9.0f}{row['error']:+9.1%}"
            f"   {low:.3f} .. {high:.3f}"
        )
    print("Pairs: predicted, measured.")
    print(
        f"median error {report['median_error']:.1%} (target {TARGET_MEDIAN:.0%}), worst {report['worst_error']:.1%} "
        f"(target {TARGET_WORST:.0%}); load {report['load'][0]} before, {report['load'][1]} after; the engine had its "
        f"core for {report['least_on_core_share']:.1%} of a rollout at least"
    )


if __name__ == "__main__":
    sys.exit(main())
