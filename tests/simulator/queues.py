"""Queueing theory for the tests: stations made of our replicas, and what books and recursions say of them.

The theory at the end uses nothing of ours. A station is one replica as the kernels know it: an open arrival is a
trajectory whose first turn ends at once and whose tool answers at the arrival's time; a closed customer is a
trajectory of many turns.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.kernels import advance, submit
from simulator.rollout_state import JUMP, RolloutState
from simulator.step_law import StepLaw, build_step_law
from simulator.step_table import StepTable, build_step_table
from simulator.workload import Workload
from tests.simulator.rollouts import ALL, PMF, Case, state_of, workload_from

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

PLAIN = build_step_law(np.array([[1.0]]), 1000)
SPEC = build_step_law(np.array([PMF[3]]), 100_000)
STEP_S = 2.0**-10

# Stations


def table_by_batch(step_s: F64) -> StepTable:
    """Return a table whose steps take step_s[batch] at every context, and whose prefills take no time."""
    steps = np.repeat(np.asarray(step_s, np.float64)[:, None], 2, axis=1)
    return build_step_table(np.array([1.0, 1e6]), steps, np.array([0.0, 1e9]), np.zeros(2), 0.0)


def turns_of(steps: I64, delay_s: F64) -> Workload:
    """Return trajectories with empty prompts; turn j of i decodes steps[i, j] tokens, after delay_s[i, j]."""
    count, turns = steps.shape
    base = workload_from([0] * count, [1] * count)
    return replace(
        base,
        first_turn=np.arange(count + 1, dtype=np.int64) * turns,
        input_tokens=np.zeros(count * turns, np.int32),
        output_tokens=(steps.ravel() + 1).astype(np.int32),  # the prefill emits the first token
        delay_s=delay_s.ravel().astype(np.float32),
    )


def station(
    workload: Workload, *, num_servers: int, k: int = 0, num_replicas: int = 1, mode: int = JUMP
) -> RolloutState:
    """Return replicas with `num_servers` places each, and room for all to wait in."""
    live = workload.num_sequences
    case = Case(k=k, num_replicas=num_replicas, max_running=num_servers, max_live=live, kv_tokens=1e15)
    return state_of(case, workload, mode)


def arrivals_of(steps: I64, arrival_s: F64) -> Workload:
    """Return customers that arrive at `arrival_s`, each to be served for so many steps."""
    nothing = np.zeros_like(steps)
    return turns_of(np.stack([nothing, steps], axis=1), np.stack([nothing, arrival_s], axis=1))


def geometric(rng: np.random.Generator, mean: float, size: object) -> I64:
    return rng.geometric(1.0 / mean, size).astype(np.int64)  # type: ignore[call-overload,no-any-return]


def lognormal(rng: np.random.Generator, mean: float, size: object, sigma: float = 1.0) -> I64:
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, size)  # type: ignore[call-overload]
    return np.maximum(np.rint(drawn), 1).astype(np.int64)  # type: ignore[no-any-return]


def play(state: RolloutState, table: StepTable, law: StepLaw = PLAIN, until_s: float = np.inf) -> RolloutState:
    submit(state, table, law, len(state.first_turn) - 1, 0.0)
    advance(state, table, law, until_s, ALL)
    return state


def census(state: RolloutState, now_s: float) -> tuple[int, int, int]:
    """Return how many run, wait for a place, and are at a tool; the jump queues an answer without a place late."""
    replica = state.replicas[0]
    answered = int((state.returns_s[0, : replica["num_returns"]] <= now_s).sum())
    return int(replica["num_running"]), int(replica["queue_len"]) + answered, int(replica["num_returns"]) - answered


def waits_of(steps: I64, arrival_s: F64, num_servers: int, mode: int = JUMP) -> tuple[F64, F64]:
    """Return (waits, arrival times as the replica knows them)."""
    workload = arrivals_of(steps, arrival_s)
    known_s = workload.delay_s[1::2].astype(np.float64)
    state = play(
        station(workload, num_servers=num_servers, mode=mode), table_by_batch(np.full(num_servers + 1, STEP_S))
    )
    return state.finish_s - known_s - steps * STEP_S, known_s


# Theory


def lindley_waits(arrival_s: F64, service_s: F64, num_servers: int = 1) -> F64:
    """Return waiting times first come first served: the workload recursion of Kiefer and Wolfowitz (1955)."""
    free_s = np.zeros(num_servers)
    waits = np.empty(len(arrival_s))
    for i in range(len(arrival_s)):
        first = int(np.argmin(free_s))
        start_s = max(arrival_s[i], free_s[first])
        waits[i] = start_s - arrival_s[i]
        free_s[first] = start_s + service_s[i]
    return waits


def pollaczek_khinchine_wait(arrivals_per_s: float, mean_s: float, second_moment_s2: float) -> float:
    """Return the mean wait of M/G/1."""
    return arrivals_per_s * second_moment_s2 / (2.0 * (1.0 - arrivals_per_s * mean_s))


def erlang_c_wait(arrivals_per_s: float, mean_s: float, num_servers: int) -> float:
    """Return the mean wait of M/M/c."""
    load = arrivals_per_s * mean_s
    blocking = 1.0  # Erlang B by its recursion over servers
    for c in range(1, num_servers + 1):
        blocking = load * blocking / (c + load * blocking)
    share = load / num_servers
    waits = blocking / (1.0 - share * (1.0 - blocking))
    return waits * mean_s / (num_servers - load)


def mean_value_analysis(num_customers: int, think_s: float, rates_per_s: F64) -> tuple[float, F64]:
    """Return (customers per second, P(j at the station)) of a delay and one station that serves j at rates[j].

    Exact MVA with a load-dependent station (Reiser and Lavenberg 1980).
    """
    shares, throughput = np.array([1.0]), 0.0
    for n in range(1, num_customers + 1):
        j = np.arange(1, n + 1)
        throughput = n / (think_s + float((j / rates_per_s[j] * shares).sum()))
        above = throughput / rates_per_s[j] * shares
        shares = np.concatenate([[1.0 - above.sum()], above])
    return throughput, shares


def cyclic_chain_throughput(rates_per_s: F64, trainer_per_s: float) -> float:
    """Return jobs per second of two exponential stages that share K places: a birth-death chain on 0..K at the first.

    rates_per_s[n]: of the first stage with n jobs; a job that leaves the second lets the next one begin.
    """
    weights = np.cumprod(np.concatenate([[1.0], trainer_per_s / rates_per_s[1:]]))
    return float((rates_per_s * weights).sum() / weights.sum())


def tandem_ends(
    steps: I64, step_s: float, train_s: F64, sync_s: float, max_staleness: int, *, drains: bool = False
) -> tuple[list[float], list[float]]:
    """Return (when each RL step ends, when each response is finished): one server, one response per RL step.

    The k-th response may begin when step k - max_staleness - 1 has ended; a sync stops the server at its first step
    boundary, and lets it go on when it is over. drains: it waits for the response under way instead.
    """
    ends: list[float] = []
    finishes: list[float] = []
    clock, left = 0.0, 0
    for j in range(len(train_s)):
        admitted = min(max_staleness + 1 + j, len(steps))
        done_s = np.inf  # when RL step j has been trained: not known before its response is finished
        while True:
            if done_s == np.inf and len(finishes) > j:
                done_s = max(ends[-1] if ends else 0.0, finishes[j]) + train_s[j]
            if left == 0 and len(finishes) < admitted and clock <= done_s:
                left = int(steps[len(finishes)])
            if left == 0 or clock + left * step_s > done_s:
                break
            clock, left = clock + left * step_s, 0
            finishes.append(clock)
        if drains and left > 0:
            clock, left = clock + left * step_s, 0
            finishes.append(clock)
            done_s = max(done_s, clock)
        if left > 0 and clock < done_s:
            part = min(int(np.ceil((done_s - clock) / step_s)), left)
            clock, left = clock + part * step_s, left - part
            if left == 0:
                finishes.append(clock)
        clock = max(clock, done_s + sync_s)
        ends.append(float(done_s + sync_s))
    return ends, finishes


def expected_slowest_geometric(survives: float, n: int) -> float:
    """Return E[max of n] geometric counts, P(count > j) = survives ** j."""
    j = np.arange(int(np.ceil(-60.0 / np.log(survives))))
    return float((1.0 - (1.0 - survives**j) ** n).sum())


def expected_slowest_empirical(values: F64, n: int) -> float:
    """Return E[max of n] independent draws from a list of values."""
    cdf = (np.arange(len(values) + 1) / len(values)) ** n
    return float((np.sort(values) * np.diff(cdf)).sum())
