"""The rollout side and the cluster as queues, against theory.

Statistical tests have fixed seeds, at least 30 replications, a warm-up that is thrown away, and one level chosen
beforehand; each also demands that its interval be narrow enough to have noticed an error of a few percent.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.cluster import Run
from simulator.kernels import advance, submit
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP, PER_STEP
from simulator.step_law import StepLaw
from simulator.trainer import TrainerCost
from simulator.workload import Workload
from tests.simulator.queues import (
    F64,
    I64,
    PLAIN,
    SPEC,
    STEP_S,
    arrivals_of,
    census,
    cyclic_chain_throughput,
    erlang_c_wait,
    expected_slowest_empirical,
    expected_slowest_geometric,
    geometric,
    lindley_waits,
    lognormal,
    mean_value_analysis,
    play,
    pollaczek_khinchine_wait,
    station,
    table_by_batch,
    tandem_ends,
    turns_of,
    waits_of,
)
from tests.simulator.rollouts import ALL, PMF, workload_from
from tests.simulator.small_parts import Small, fully_async

ALPHA = 1e-4
NUM_SEEDS = 40
MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])


def assert_mean(values: list[float] | F64, expected: float, *, within: float) -> None:
    """Accept the theory at level ALPHA, with an interval no wider than `within` of it."""
    assert len(values) >= 30
    half = stats.t.isf(ALPHA / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    assert half < within * expected, (half, expected)
    assert abs(np.mean(values) - expected) <= half, (np.mean(values), expected, half)


# ---------------------------------------------------------------- open queues: M/M/c, M/D/1, M/G/1

SERVICES = {
    "M/D/1": lambda rng, n: np.full(n, 1000, np.int64),
    "M/M/1": lambda rng, n: geometric(rng, 1000, n),
    "M/G/1": lambda rng, n: lognormal(rng, 1000, n, 0.8),
}
SECOND_MOMENT = {"M/D/1": 1.0, "M/M/1": 2.0, "M/G/1": np.exp(0.8**2)}
"""E[S^2] / E[S]^2."""


@MODES
@pytest.mark.parametrize("name", SERVICES)
def test_a_place_is_a_single_server_queue_customer_by_customer(name: str, mode: int) -> None:
    rng = np.random.default_rng(1)
    steps, arrival_s = SERVICES[name](rng, 300), np.cumsum(rng.exponential(1.2, 300))
    waits, known_s = waits_of(steps, arrival_s, 1, mode)
    np.testing.assert_allclose(waits, lindley_waits(known_s, steps * STEP_S), atol=1e-9)


@pytest.mark.parametrize("name", SERVICES)
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(name: str) -> None:
    means, mean_s = [], 1000 * STEP_S
    for seed in range(NUM_SEEDS):
        rng = np.random.default_rng([2, seed])
        steps = SERVICES[name](rng, 8000)
        waits, _ = waits_of(steps, np.cumsum(rng.exponential(mean_s / 0.6, 8000)), 1)
        means.append(waits[500:].mean())
    assert_mean(means, pollaczek_khinchine_wait(0.6 / mean_s, mean_s, SECOND_MOMENT[name] * mean_s**2), within=0.08)


@pytest.mark.parametrize("num_servers", [2, 4, 16])
def test_the_mean_wait_for_one_of_several_places_is_that_of_erlang(num_servers: int) -> None:
    means, mean_s = [], 2000 * STEP_S
    for seed in range(NUM_SEEDS):
        rng = np.random.default_rng([3, seed])
        steps = geometric(rng, 2000, 48000)
        arrival_s = np.cumsum(rng.exponential(mean_s / (0.8 * num_servers), 48000))
        waits, _ = waits_of(steps, arrival_s, num_servers)
        means.append(waits[1000:].mean())
    assert_mean(means, erlang_c_wait(0.8 * num_servers / mean_s, mean_s, num_servers), within=0.12)


def test_replicas_of_one_place_are_the_servers_of_one_queue_customer_by_customer() -> None:
    rng = np.random.default_rng(4)
    steps, arrival_s = lognormal(rng, 1000, 300), np.cumsum(rng.exponential(0.4, 300))
    workload = workload_from([0] * 300, (steps + 1).tolist())
    state, table = station(workload, num_servers=1, num_replicas=3), table_by_batch(np.full(2, STEP_S))
    state.limits["max_live"] = 1  # a fresh sequence waits in the common queue, not in a replica's own
    for i, now_s in enumerate(arrival_s):
        advance(state, table, PLAIN, now_s, ALL)
        submit(state, table, PLAIN, i + 1, now_s)
    advance(state, table, PLAIN, np.inf, ALL)
    waits = state.finish_s - arrival_s - steps * STEP_S
    np.testing.assert_allclose(waits, lindley_waits(arrival_s, steps * STEP_S, 3), atol=1e-9)


@pytest.mark.parametrize("num_servers", [1, 5])
def test_littles_law_holds_for_the_queue_the_batch_and_the_tools(num_servers: int) -> None:
    rng = np.random.default_rng(5)
    steps = lognormal(rng, 1000, 3000)
    workload = arrivals_of(steps, np.cumsum(rng.exponential(1000 * STEP_S / (0.85 * num_servers), 3000)))
    state, table = station(workload, num_servers=num_servers), table_by_batch(np.full(num_servers + 1, STEP_S))
    arrival_s = workload.delay_s[1::2].astype(np.float64)
    submit(state, table, PLAIN, 3000, 0.0)
    end_s, seen = 1.5 * arrival_s[-1], []
    for now_s in np.linspace(0.0, end_s, 4000):
        advance(state, table, PLAIN, now_s, ALL)
        seen.append(census(state, now_s))
    assert state.counters["finished"][0] == 3000
    batch, queue, tools = np.mean(seen, axis=0)
    waits = state.finish_s - arrival_s - steps * STEP_S
    assert queue == pytest.approx(waits.sum() / end_s, rel=0.02)
    assert batch == pytest.approx(steps.sum() * STEP_S / end_s, rel=0.02)
    assert tools == pytest.approx(arrival_s.sum() / end_s, rel=0.02)


# ---------------------------------------------------------------- closed: the machine-repair model

NUM_CUSTOMERS, NUM_TURNS, PLACES = 12, 250, 4
THINK_S, SERVICE_STEPS = 6.0, 2000
CONSTANT = np.full(NUM_CUSTOMERS + 1, STEP_S)
RISING = STEP_S * (0.5 + 0.2 * np.arange(NUM_CUSTOMERS + 1))


def closed(
    step_s: F64, places: int, draw: object, delays: str, law: StepLaw = PLAIN, steps_per_draw: float = 1.0
) -> None:
    """Compare a closed loop of N customers with MVA: throughput, batch, queue, tools, utilisation."""
    n = np.arange(NUM_CUSTOMERS + 1)
    batch = np.minimum(n, places)
    rates = batch / (SERVICE_STEPS * steps_per_draw * step_s[batch])
    throughput, shares = mean_value_analysis(NUM_CUSTOMERS, THINK_S, rates)
    rows = []
    for seed in range(NUM_SEEDS):
        rng = np.random.default_rng([6, seed])
        size = (NUM_CUSTOMERS, NUM_TURNS)
        wait_s = rng.exponential(THINK_S, size) if delays == "exponential" else np.full(size, THINK_S)
        if delays == "lognormal":
            wait_s = rng.lognormal(np.log(THINK_S) - 0.5, 1.0, size)
        rows.append(_watch_closed(turns_of(draw(rng, SERVICE_STEPS, size), wait_s), step_s, places, law, throughput))  # type: ignore[operator]
    seen = np.array(rows)
    assert_mean(seen[:, 0], throughput, within=0.02)
    assert_mean(seen[:, 1], float(shares @ batch), within=0.03)
    assert_mean(seen[:, 2] + 1.0, float(shares @ (n - batch)) + 1.0, within=0.06)  # the queue may be empty
    assert_mean(seen[:, 3], throughput * THINK_S, within=0.03)
    if np.ptp(step_s) == 0:  # utilisation law: U = X S
        assert_mean(seen[:, 4], throughput * SERVICE_STEPS * steps_per_draw * STEP_S, within=0.03)


def _watch_closed(workload: Workload, step_s: F64, places: int, law: StepLaw, throughput: float) -> list[float]:
    state, table = station(workload, num_servers=places, k=law.num_draft_tokens), table_by_batch(step_s[: places + 1])
    cycle_s = NUM_CUSTOMERS / throughput
    begin_s, end_s = 20 * cycle_s, 0.7 * NUM_TURNS * cycle_s  # nobody has run out of turns by then
    play(state, table, law, begin_s)
    before = state.replicas[0].copy()
    seen = []
    for now_s in np.linspace(begin_s, end_s, 400):
        advance(state, table, law, now_s, ALL)
        seen.append(census(state, now_s))
    assert state.counters["finished"][0] == 0
    after, span_s = state.replicas[0], end_s - begin_s
    turns = (after["first_tokens"] - before["first_tokens"]) / span_s
    used = (after["seq_steps"] - before["seq_steps"]) * step_s[1] / span_s
    return [float(turns), *np.mean(seen, axis=0).tolist(), float(used)]


def test_a_closed_loop_with_few_places_is_the_machine_repair_model() -> None:
    closed(CONSTANT, PLACES, geometric, "exponential")


@pytest.mark.parametrize("delays", ["constant", "lognormal"])
def test_only_the_mean_of_the_tool_delays_counts(delays: str) -> None:
    closed(CONSTANT, PLACES, geometric, delays)


def test_steps_that_cost_more_in_larger_batches_are_a_load_dependent_station() -> None:
    closed(RISING, PLACES, geometric, "exponential")


def test_a_batch_with_room_for_all_is_processor_sharing_and_only_mean_lengths_count() -> None:
    closed(RISING, NUM_CUSTOMERS, lognormal, "exponential")


def test_speculation_divides_the_service_by_the_tokens_per_step() -> None:
    """Geometric tokens take geometric steps: P(S > n) = E[q^A]^n, because the response forgets how long it is."""
    q = 1.0 - 1.0 / SERVICE_STEPS
    survives = float(np.array(PMF[3]) @ q ** np.arange(1, 5))
    closed(CONSTANT, PLACES, geometric, "exponential", SPEC, 1.0 / (1.0 - survives) / SERVICE_STEPS)


# ---------------------------------------------------------------- the slowest of n, and tokens per step


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("n", [1, 8, 32])
def test_a_batch_of_geometric_lengths_takes_as_long_as_the_slowest_should(n: int, k: int) -> None:
    num_replicas, mean = 1200, 300
    tokens = geometric(np.random.default_rng([7, n, k]), mean, n * num_replicas)
    workload = workload_from([0] * len(tokens), (tokens + 1).tolist())
    state = station(workload, num_servers=n, k=k, num_replicas=num_replicas)
    state.limits["max_live"] = n
    law = SPEC if k else PLAIN
    play(state, table_by_batch(np.ones(n + 1)), law)
    slowest = state.replicas["busy_s"]
    survives = float(np.array(PMF[k]) @ (1.0 - 1.0 / mean) ** np.arange(1, k + 2))
    assert_mean(slowest, expected_slowest_geometric(survives, n), within=0.13)
    harmonic = (1.0 / np.arange(1, n + 1)).sum() / -np.log(survives)  # of exponential lengths
    assert expected_slowest_geometric(survives, n) == pytest.approx(harmonic, rel=0.01)


def test_a_synchronous_step_generates_as_long_as_the_slowest_of_the_table_should() -> None:
    lengths = np.random.default_rng(8).lognormal(6.0, 0.9, 1000).astype(np.int64) + 2
    small = Small(prompts_per_step=16, group_size=1, num_replicas=1, max_running=16, prefill_s=0.0, num_steps=600)
    parts = small.parts()
    rng = np.random.default_rng(9)
    drawn = rng.choice(lengths, parts.workload.num_sequences)
    parts = replace(parts, workload=workload_from([0] * len(drawn), drawn.tolist()))
    generation_s = [step.generation_s for step in run_cluster(parts).steps]
    expected = expected_slowest_empirical((lengths - 1) * small.step_s, 16)
    assert_mean(generation_s, expected, within=0.1)


@MODES
def test_tokens_per_step_are_one_plus_the_sum_of_c(mode: int) -> None:
    cumulative = np.cumsum(PMF[3][::-1])[::-1][1:]  # c_j = P(at least j drafts accepted)
    ratios = []
    for seed in range(30):
        workload = workload_from([0] * 40, [4000] * 40)
        state = station(workload, num_servers=40, k=3, mode=mode)
        state.stream[0] = seed
        replica = play(state, table_by_batch(np.ones(41)), SPEC).replicas[0]
        ratios.append(float(replica["stretch_tokens"] / replica["stretch_steps"]))
    assert_mean(ratios, 1.0 + float(cumulative.sum()), within=0.002)


# ---------------------------------------------------------------- a tandem with a finite buffer


TRAIN_UNIT_S = STEP_S / 8
"""So that a sync falls between step boundaries; a power of two, so that no sum is rounded."""


def tandem(
    steps: I64,
    train_tokens: I64,
    *,
    staleness: int,
    sync_s: float = 0.0,
    num_replicas: int = 1,
    rule: str = "in_place",
    mode: int = JUMP,
) -> Run:
    """Return a finished run: one response per RL step, the trainer's time in units of `TRAIN_UNIT_S`."""
    small = Small(
        fully_async(staleness, rule),
        prompts_per_step=1,
        group_size=1,
        num_replicas=num_replicas,
        max_running=1,
        num_steps=len(steps) - staleness - 12,
        prefill_s=0.0,
        sync_s=sync_s,
        step_s=STEP_S,
    )
    workload = replace(workload_from([0] * len(steps), (steps + 1).tolist()), group_tokens=train_tokens)
    parts = replace(small.parts(), workload=workload, trainer=TrainerCost(0.0, TRAIN_UNIT_S))
    run = Run(parts, mode=mode, record_finish=True)
    run.env.run(until=run.env.process(TRAINER_LIFE["fully_async"](run)))
    return run


def ends_of(run: Run) -> list[float]:
    return [step.end_s for step in run.log.steps]


@MODES
@pytest.mark.parametrize("rule", ["in_place", "wait"])
@pytest.mark.parametrize("sync_s", [0.0, 0.125])
@pytest.mark.parametrize("staleness", [0, 1, 3])
@pytest.mark.parametrize("train_mean", [60, 200, 600])
def test_rollout_and_trainer_are_a_tandem_with_a_finite_buffer_bit_for_bit(
    train_mean: int, staleness: int, sync_s: float, rule: str, mode: int
) -> None:
    rng = np.random.default_rng([10, train_mean, staleness])
    steps, train = lognormal(rng, 200, 150), geometric(rng, 8 * train_mean, 150)
    run = tandem(steps, train, staleness=staleness, sync_s=sync_s, rule=rule, mode=mode)
    num_steps = len(run.log.steps)
    ends, finishes = tandem_ends(
        steps, STEP_S, train[:num_steps] * TRAIN_UNIT_S, sync_s, staleness, drains=rule == "wait"
    )
    assert ends_of(run) == ends
    assert run.side.state.finish_s[:num_steps].tolist() == finishes[:num_steps]
    waits = [max(finish - begin, 0.0) for finish, begin in zip(finishes, [0.0, *ends], strict=False)]
    assert [step.wait_s for step in run.log.steps] == waits[:num_steps]


@pytest.mark.parametrize("num_replicas", [1, 3])
@pytest.mark.parametrize("staleness", [0, 2, 5])
def test_the_tandem_of_exponential_stages_is_its_markov_chain(staleness: int, num_replicas: int) -> None:
    mean, rates = 4000, np.minimum(np.arange(staleness + 2), num_replicas) / (4000 * STEP_S)
    train_mean = 3000 // num_replicas
    per_s = []
    for seed in range(NUM_SEEDS):
        rng = np.random.default_rng([11, seed])
        steps, train = geometric(rng, mean, 400), geometric(rng, 8 * train_mean, 400)
        ends = ends_of(tandem(steps, train, staleness=staleness, num_replicas=num_replicas))
        per_s.append((len(ends) - 51) / (ends[-1] - ends[50]))
    assert_mean(1.0 / np.array(per_s), 1.0 / cyclic_chain_throughput(rates, 1.0 / (train_mean * STEP_S)), within=0.04)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_more_staleness_and_a_faster_trainer_end_no_rl_step_later(staleness: int) -> None:
    rng = np.random.default_rng(12)
    steps, train = lognormal(rng, 200, 300), geometric(rng, 8 * 200, 300)
    ends = ends_of(tandem(steps, train, staleness=staleness))
    for other in (
        tandem(steps, train, staleness=staleness + 1),
        tandem(steps, train * 9 // 10, staleness=staleness),
        tandem(steps * 9 // 10, train, staleness=staleness),
    ):
        assert all(end_s <= later_s for end_s, later_s in zip(ends_of(other), ends, strict=False))
        assert ends_of(other)[200] < ends[200]


# ---------------------------------------------------------------- Amdahl


@pytest.mark.parametrize("train_s", [1e-4, 0.03, 0.6, 30.0, 1e5])
def test_speculation_speeds_up_a_synchronous_step_by_amdahls_law(train_s: float) -> None:
    plain = Small(train_s=train_s, sync_s=0.0, prefill_s=0.0, num_steps=3)
    faster = plain.but(pmf=(0.0, 0.0, 0.0, 1.0))  # 60 tokens after the first take 15 steps
    one, two = (run_cluster(small.parts()).steps[-1].end_s / 3 for small in (plain, faster))
    share = 60 * plain.step_s / (60 * plain.step_s + train_s)
    assert one / two == pytest.approx(1.0 / (1.0 - share + share / 4.0), rel=1e-12)
    if share < 1e-5:
        assert one / two == pytest.approx(1.0, abs=1e-5)
    if share > 0.999:
        assert one / two == pytest.approx(4.0, rel=1e-2)


def test_speculation_gains_nothing_where_an_asynchronous_trainer_is_never_kept_waiting() -> None:
    plain = Small(fully_async(1, "in_place"), train_s=5.0, sync_s=0.0, prefill_s=0.0, num_steps=20)
    faster = plain.but(pmf=(0.0, 0.0, 0.0, 1.0))
    one, two = (run_cluster(small.parts()).steps for small in (plain, faster))
    assert one[-1].end_s - one[0].end_s == pytest.approx(two[-1].end_s - two[0].end_s, rel=1e-12)
