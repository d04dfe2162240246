"""Our replica beside simulators that are not ours: the same serving workload, k = 0, through each.

    python benchmarks/peer.py [--quick] [--json]

Ciw is a simulator of queueing networks; it gets the stations that it can express exactly. `peer_batching.py` makes one
engine iteration at a time from the engines' rules alone, and gets everything else: CUDA-graph steps over a growing
context, prefills, waves of admission, a KV cache that is too small, agents. Throughput is tokens per second until the
last response; a latency is a trajectory's, from its arrival to its last token. Errors are relative to the peer, the
worst over all workloads; `speed_ratio` is the peers' wall time over ours. `--json` prints one line. Exit code 1: an
error above 2 %.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import peer_batching
import peer_ciw
from numpy.typing import NDArray
from peer_batching import BLOCK_TOKENS, Engine, Latency, Trajectory

from simulator.kernels import advance, submit
from simulator.latency import Need, TraceLatency
from simulator.rollout_state import new_state
from simulator.step_law import build_step_law
from simulator.step_table import StepTable, build_step_table
from simulator.workload import Workload
from traces.base import Origin, Provenance
from traces.latency import LatencyRow, LatencyTrace, Operation

F64 = NDArray[np.float64]

TARGET = 0.02
SEED = 20260601
GRAPHS = (1, 2, 4, *range(8, 65, 8))
CONTEXTS = (256, 1024, 4096, 16384)
PREFILLS = (16, 64, 256, 1024, 4096, 16384, 65536)
ATTENTION_S_PER_TOKEN2 = 2e-10
"""Of the table below, which is made up in the manner of an 8B model on one H200: what counts is that all read it."""


@dataclass(frozen=True)
class Comparison:
    """One workload through a peer and through our replica."""

    name: str
    peer: str
    trajectories: list[Trajectory]
    engine: Engine
    table: StepTable
    ask_peer: Callable[[], tuple[list[float], int]]
    """Returns finishing times and preemptions."""


@dataclass(frozen=True)
class Result:
    """What both said."""

    name: str
    peer: str
    throughput: tuple[float, float]
    """Tokens per second: ours, the peer's."""
    p50_s: tuple[float, float]
    p99_s: tuple[float, float]
    preemptions: tuple[int, int]
    wall_s: tuple[float, float]


def main() -> int:
    """Print what each said of each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half of the trajectories")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    results = [compare(comparison) for comparison in comparisons(0.5 if arguments.quick else 1.0)]
    errors = {
        "throughput_error": max(_error(result.throughput) for result in results),
        "p50_error": max(_error(result.p50_s) for result in results),
        "p99_error": max(_error(result.p99_s) for result in results),
    }
    ours_s, peers_s = (sum(result.wall_s[i] for result in results) for i in (0, 1))
    if arguments.json:
        rounded = {name: round(error, 6) for name, error in errors.items()}
        print(json.dumps({**rounded, "speed_ratio": round(peers_s / ours_s, 1)}))
    else:
        print_table(results)
        print(f"worst: {', '.join(f'{name} {error:.2%}' for name, error in errors.items())} (target {TARGET:.0%})")
        print(f"wall time: {ours_s:.3f} s ours, {peers_s:.2f} s theirs, {peers_s / ours_s:.0f} times as long")
    return int(max(errors.values()) > TARGET)


def comparisons(size: float) -> list[Comparison]:
    """Return every workload, with `size` times as many trajectories as usual."""
    return [*_queueing(size), *_batching(size)]


def compare(comparison: Comparison) -> Result:
    """Return what our replica and the peer say, and how long each took."""
    serve(comparison)  # loads the machine code
    begin_s = time.perf_counter()
    finish_s, preemptions = serve(comparison)
    middle_s = time.perf_counter()
    peers, peers_preemptions = comparison.ask_peer()
    end_s = time.perf_counter()
    arrival_s = np.array([trajectory.arrival_s for trajectory in comparison.trajectories])
    tokens = sum(sum(trajectory.outputs) for trajectory in comparison.trajectories)
    both = (finish_s, np.array(peers))
    latencies = [done_s - arrival_s for done_s in both]
    return Result(
        name=comparison.name,
        peer=comparison.peer,
        throughput=(tokens / both[0].max(), tokens / both[1].max()),
        p50_s=(float(np.quantile(latencies[0], 0.5)), float(np.quantile(latencies[1], 0.5))),
        p99_s=(float(np.quantile(latencies[0], 0.99)), float(np.quantile(latencies[1], 0.99))),
        preemptions=(preemptions, peers_preemptions),
        wall_s=(middle_s - begin_s, end_s - middle_s),
    )


# ---------------------------------------------------------------- ours


def serve(comparison: Comparison) -> tuple[F64, int]:
    """Return when each trajectory ends in our replicas, and how often a sequence was preempted."""
    engine, table = comparison.engine, comparison.table
    state = new_state(
        _workload(comparison.trajectories),
        num_replicas=engine.num_replicas,
        max_running=engine.max_num_seqs,
        max_live=engine.max_live,
        kv_tokens=float(engine.kv_blocks * BLOCK_TOKENS),
        block_tokens=BLOCK_TOKENS,
        num_draft_tokens=0,
        num_classes=1,
        stream=np.uint64(0),
        record_finish=True,
    )
    law = build_step_law(np.array([[1.0]]), 1 << 20)
    everything = 1 << 60
    arrivals = [trajectory.arrival_s for trajectory in comparison.trajectories]
    if arrivals[-1] == 0.0:
        submit(state, table, law, len(arrivals), 0.0)
    else:
        for i, arrival_s in enumerate(arrivals):
            advance(state, table, law, arrival_s, everything)
            submit(state, table, law, i + 1, arrival_s)
    advance(state, table, law, np.inf, everything)
    return state.finish_s, int(state.replicas["preemptions"].sum())


def _workload(trajectories: list[Trajectory]) -> Workload:
    count = len(trajectories)
    outputs = [sum(trajectory.outputs) for trajectory in trajectories]
    inputs = [sum(trajectory.inputs) for trajectory in trajectories]
    return Workload(
        first_turn=np.cumsum([0, *(len(trajectory.outputs) for trajectory in trajectories)]).astype(np.int64),
        input_tokens=np.array([tokens for t in trajectories for tokens in t.inputs], np.int32),
        output_tokens=np.array([tokens for t in trajectories for tokens in t.outputs], np.int32),
        delay_s=np.array([seconds for t in trajectories for seconds in t.delays_s], np.float32),
        group_of=np.arange(count, dtype=np.int32),
        group_size=np.ones(count, np.int32),
        group_tokens=np.array(inputs, np.int64) + np.array(outputs, np.int64),
        group_output_tokens=np.array(outputs, np.int64),
    )


# ---------------------------------------------------------------- Ciw: stations


def _queueing(size: float) -> list[Comparison]:
    rng = np.random.default_rng(SEED)
    step_s, forever = 0.01, 1 << 40
    waves = _trajectories(rng, int(4000 * size), prompt=0, response=400)
    arriving = _trajectories(rng, int(3000 * size), prompt=0, response=400, every_s=0.32)
    agents = _trajectories(rng, int(800 * size), prompt=0, response=100, turns=8, delay_s=20.0)
    return [
        _ciw("4 replicas of 32 places, in waves", waves, Engine(4, 32, 32, forever), step_s, None),
        _ciw("arrivals, a shared batch of at most 32", arriving, Engine(1, 32, len(arriving), forever), step_s, 16),
        _ciw("agents, a shared batch of at most 48", agents, Engine(1, 48, len(agents), forever), step_s, 24),
    ]


def _ciw(
    name: str, trajectories: list[Trajectory], engine: Engine, step_s: float, sharing_above: int | None
) -> Comparison:
    batches = np.arange(engine.max_num_seqs + 1)
    seconds = step_s * np.maximum(batches / (sharing_above or engine.max_num_seqs), 1.0)
    table = build_step_table(
        np.array([1.0, 2.0]), np.stack([seconds, seconds], axis=1), np.array([0.0, 1.0]), np.zeros(2), 0.0
    )
    servers = engine.num_replicas * engine.max_num_seqs
    return Comparison(
        name,
        "Ciw",
        trajectories,
        engine,
        table,
        lambda: (peer_ciw.serve(trajectories, step_s, servers, sharing_above), 0),
    )


# ---------------------------------------------------------------- iteration by iteration: engines


def _batching(size: float) -> list[Comparison]:
    rng = np.random.default_rng(SEED + 1)
    plenty = 10**7
    waves = _trajectories(rng, int(1500 * size), prompt=500, response=600)
    short = _trajectories(rng, int(1000 * size), prompt=500, response=600)
    alone = _trajectories(rng, int(1000 * size), prompt=500, response=300, every_s=0.09)
    # Not fewer of them: one arrival routed to the other replica, and the worst percentile of few moves by itself.
    arriving = _trajectories(rng, 2000, prompt=500, response=300, every_s=0.045)
    agents = _trajectories(rng, int(500 * size), prompt=300, response=100, turns=6, delay_s=4.0)
    return [
        _iterated("a rollout in waves, 4 replicas of 48", waves, Engine(4, 48, 48, plenty)),
        _iterated("a KV cache of 24,000 tokens", short, Engine(2, 48, 48, 1500)),
        _iterated("Poisson arrivals, 1 replica of 64", alone, Engine(1, 64, 64, plenty)),
        _iterated("Poisson arrivals, 2 replicas of 64", arriving, Engine(2, 64, 64, plenty)),
        _iterated("agents of 6 turns, 32 of 64 run", agents, Engine(2, 32, 64, plenty)),
    ]


def _iterated(name: str, trajectories: list[Trajectory], engine: Engine) -> Comparison:
    need = Need("baseline", 0, engine.max_num_seqs, CONTEXTS[-1], float(engine.kv_blocks * BLOCK_TOKENS))
    table, _ = TraceLatency(_trace(), allow_extrapolation=True).step_table(need)
    latency = Latency(
        graph_batches=list(GRAPHS),
        contexts=list(CONTEXTS),
        decode_s=[[_decode_s(batch, context) for context in CONTEXTS] for batch in GRAPHS],
        prefill_tokens=[0, *PREFILLS],
        prefill_s=[_prefill_s(PREFILLS[0]), *map(_prefill_s, PREFILLS)],
        attention_s_per_token2=ATTENTION_S_PER_TOKEN2,
    )
    return Comparison(
        name, "iterations", trajectories, engine, table, lambda: peer_batching.serve(trajectories, engine, latency)
    )


def _decode_s(batch: int, context: int) -> float:
    return 5e-3 + 6e-5 * batch + 3e-8 * batch * context


def _prefill_s(tokens: int) -> float:
    return max(6e-3, 4e-5 * tokens)


def _trace() -> LatencyTrace:
    """Return the table as our inputs want it."""
    points = [
        (Operation.DECODE, batch, context, 1, _decode_s(batch, context)) for batch in GRAPHS for context in CONTEXTS
    ]
    for tokens in PREFILLS:
        for context in (0, 4096):
            attention_s = ATTENTION_S_PER_TOKEN2 * tokens * (context + tokens / 2)
            points.append((Operation.PREFILL, 1, context, tokens, _prefill_s(tokens) + attention_s))
    return LatencyTrace(
        name="peer",
        provenance=Provenance(source="benchmarks/peer.py", created="2026-06-01"),
        gpu="H200",
        model="Qwen3-8B",
        precision="bf16",
        engine="none",
        graph_batch_sizes=GRAPHS,
        rows=tuple(
            LatencyRow(
                operation=operation,
                batch=batch,
                context_tokens=context,
                tokens_per_seq=tokens,
                latency_s=seconds,
                origin=Origin.ASSUMED,
            )
            for operation, batch, context, tokens, seconds in points
        ),
    )


# ---------------------------------------------------------------- workloads and the table of results


def _trajectories(
    rng: np.random.Generator,
    count: int,
    *,
    prompt: float,
    response: float,
    every_s: float = 0.0,
    turns: int = 1,
    delay_s: float = 0.0,
) -> list[Trajectory]:
    """Return trajectories with lognormal lengths and delays of these means; `every_s` 0: all arrive at once."""
    arrivals = np.cumsum(rng.exponential(every_s, count)) if every_s else np.zeros(count)
    inputs = np.rint(_lognormal(rng, prompt, 0.5, (count, turns))).astype(int)
    outputs = np.maximum(np.rint(_lognormal(rng, response, 0.7, (count, turns))), 1).astype(int)
    delays = _lognormal(rng, delay_s, 0.8, (count, turns))
    return [
        Trajectory(float(arrivals[i]), inputs[i].tolist(), outputs[i].tolist(), delays[i].tolist())
        for i in range(count)
    ]


def _lognormal(rng: np.random.Generator, mean: float, sigma: float, size: tuple[int, int]) -> F64:
    return mean * rng.lognormal(-(sigma**2) / 2, sigma, size)


def _error(pair: tuple[float, float]) -> float:
    return abs(pair[0] / pair[1] - 1.0)


def print_table(results: list[Result]) -> None:
    print(f"{'workload':42}{'peer':12}{'tokens/s':>20}{'p50, s':>18}{'p99, s':>18}{'preempted':>12}{'wall, s':>16}")
    for r in results:
        print(
            f"{r.name:42}{r.peer:12}{_pair(r.throughput, '.0f', 20)}{_pair(r.p50_s, '.2f', 18)}"
            f"{_pair(r.p99_s, '.2f', 18)}{_pair(r.preemptions, 'd', 12)}{_pair(r.wall_s, '.3f', 16)}"
        )
    print("Pairs: ours, the peer's.")


def _pair(pair: tuple[float, float] | tuple[int, int], form: str, width: int) -> str:
    return f"{pair[0]:{form}} {pair[1]:{form}}".rjust(width)


if __name__ == "__main__":
    sys.exit(main())
