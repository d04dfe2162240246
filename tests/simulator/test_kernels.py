"""Kernels: what is conserved, closed forms, and the jump against the step-by-step reference.

Statistical tests have fixed seeds and one level, chosen beforehand. Both modes get the same sequences and their own
random numbers, so differences are taken seed by seed.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.kernels import advance, busy_seconds, close, submit, weight_sync
from simulator.rollout_state import (
    ABORT,
    JUMP,
    KEEP,
    PER_STEP,
    ROUND_ROBIN,
    STATIC_SPLIT,
    STICKY,
    RolloutState,
)
from simulator.step_law import build_step_law
from tests.simulator.rollouts import (
    ALL,
    PMF,
    Case,
    Play,
    accounted_seconds,
    bytes_of,
    flat_table,
    play,
    state_of,
    total,
    workload_from,
    workload_of,
)

ALPHA = 1e-4
NUM_SEEDS = 60
MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])

CASES = {
    "plain": Case(k=0),
    "k = 1": Case(k=1),
    "k = 3": Case(),
    "k = 7": Case(k=7),
    "one replica": Case(num_replicas=1),
    "many replicas": Case(num_replicas=7, max_running=4, max_live=4),
    "one wave": Case(num_replicas=6, max_running=16, max_live=16),
    "no padding": Case(padding=1),
    "wide padding": Case(padding=8),
    "classes": Case(num_classes=4),
    "chunked prefill": Case(chunk_tokens=64),
    "preemption": Case(kv_tokens=1200.0),
    "preemption in blocks": Case(kv_tokens=1600.0, block_tokens=16),
    "shared prompts": Case(share_prompts=True, num_replicas=1),
    "shared prompts, preemption": Case(share_prompts=True, num_replicas=1, kv_tokens=1200.0),
    "shared prompts, chunked prefill": Case(share_prompts=True, chunk_tokens=64, block_tokens=16),
    "shared prompts, turns, abort": Case(share_prompts=True, num_replicas=1, turns=True, sync="abort", max_live=12),
    "round robin": Case(router=ROUND_ROBIN, num_replicas=3, pieces=4, max_live=12),
    "sticky": Case(router=STICKY, share_prompts=True, sync="abort", turns=True),
    "static split": Case(router=STATIC_SPLIT, num_replicas=5, pieces=3, sync="in_place"),
    "submitted in pieces": Case(num_replicas=4, pieces=6),
    "abort": Case(sync="abort"),
    "in place, new law": Case(sync="in_place"),
    "turns": Case(turns=True, max_live=12),
    "turns, cache lost": Case(turns=True, keep_prefix=False),
    "turns, abort": Case(turns=True, sync="abort"),
    "turns, in place": Case(turns=True, sync="in_place", num_classes=2),
    "everything": Case(
        k=7, turns=True, sync="abort", chunk_tokens=64, kv_tokens=1500.0, num_classes=3, pieces=4, max_live=12
    ),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# Conservation


@MODES
@EVERY_CASE
def test_what_goes_in_comes_out_once(case: Case, mode: int) -> None:
    played = Play(case, 1, mode).run()
    state, workload = played.state, played.workload
    counters, replicas = state.counters[0], state.replicas
    assert counters["finished"] == counters["next_sequence"] == workload.num_sequences
    assert total(state, "stretch_tokens", "first_tokens") == workload.output_tokens.sum()
    assert sorted(state.ready_group[: counters["num_ready"]]) == list(range(workload.num_groups))
    assert np.all(state.group_left == 0)
    assert np.all(state.group_version >= 0)
    assert counters["num_live"] == 0
    for name in ("num_live", "num_running", "num_joining", "queue_len", "num_returns", "context_tokens", "growth"):
        assert np.all(replicas[name] == 0), name
    assert np.all(replicas["num_free"] == case.max_live)
    assert all(sorted(free) == list(range(case.max_live)) for free in state.free)
    assert np.all(replicas["max_batch"] <= case.max_running)
    last = np.zeros(workload.num_groups)
    np.maximum.at(last, workload.group_of, state.finish_s)
    assert np.array_equal(state.ready_s, last[state.ready_group])
    if case.k == 0:
        assert total(state, "stretch_steps") == total(state, "stretch_tokens")


@MODES
@EVERY_CASE
def test_prefilled_tokens_are_the_inputs_and_what_was_lost(case: Case, mode: int) -> None:
    played = Play(case, 1, mode).run()
    inputs = played.workload.input_tokens.sum()
    prefilled = total(played.state, "prefill_tokens", "prefix_hit_tokens")
    recomputed = total(played.state, "recomputed_tokens")
    found_again = case.share_prompts and total(played.state, "preemptions", "aborts") > 0
    # Lost besides what was running: caches between turns, and chunks in progress.
    if case.turns or (case.sync == "abort" and case.chunk_tokens) or found_again:
        assert prefilled >= inputs + recomputed
    else:
        assert prefilled == inputs + recomputed
    if case.turns and case.keep_prefix and case.sync != "abort":
        assert prefilled == inputs
    interrupted = total(played.state, "preemptions", "aborts")
    if not (case.sync == "abort" and case.chunk_tokens):
        assert total(played.state, "first_tokens") == len(played.workload.input_tokens) + interrupted


class Watched(Play):
    """Checks at every checkpoint."""

    def checkpoint(self) -> None:
        clocks = self.state.replicas["time_s"].copy()
        assert np.all(clocks >= getattr(self, "clocks", 0.0))
        self.clocks = clocks
        np.testing.assert_allclose(accounted_seconds(self.state, self.now_s), self.now_s, rtol=1e-9, atol=1e-9)
        live = self.state.replicas["num_live"]
        assert np.all(live + self.state.replicas["num_free"] == self.case.max_live)
        assert self.state.counters["num_live"][0] == live.sum()
        started, finished = self.state.counters["started"][0], self.state.counters["finished"][0]
        assert started == finished + live.sum()


@MODES
@EVERY_CASE
def test_every_replica_second_is_busy_starved_at_a_tool_or_in_a_sync(case: Case, mode: int) -> None:
    Watched(case, 2, mode, cuts=1).run()


@MODES
@pytest.mark.parametrize("name", ["k = 3", "preemption", "turns", "everything"])
def test_nobodys_clock_goes_back_and_nobody_is_lost_on_the_way(name: str, mode: int) -> None:
    played = Play(CASES[name], 3, mode)
    state, law = played.state, played.laws[0]
    submit(state, played.table, law, played.workload.num_sequences, 0.0)
    clocks = state.replicas["time_s"].copy()
    for now_s in np.arange(0.0, 12.0, 0.01):
        advance(state, played.table, law, now_s, ALL)
        assert np.all(state.replicas["time_s"] >= clocks)
        clocks = state.replicas["time_s"].copy()
        np.testing.assert_allclose(accounted_seconds(state, now_s), now_s, rtol=1e-9, atol=1e-9)
        for r, replica in enumerate(state.replicas):
            status = state.slots[r * played.case.max_live : (r + 1) * played.case.max_live]["status"]
            counted = [int((status == s).sum()) for s in range(5)]
            assert counted == [
                replica["num_free"],
                replica["num_running"],
                replica["num_returns"],
                replica["queue_len"],
                replica["num_joining"],
            ]
    assert state.counters["num_live"][0] == 0


# Determinism


@MODES
@pytest.mark.parametrize("name", ["k = 3", "everything"])
def test_the_same_seed_gives_the_same_bytes(name: str, mode: int) -> None:
    assert bytes_of(play(CASES[name], 4, mode)) == bytes_of(play(CASES[name], 4, mode))
    assert bytes_of(play(CASES[name], 4, mode)) != bytes_of(play(CASES[name], 4, mode, draws="other"))


@MODES
@EVERY_CASE
def test_many_small_advances_are_bit_for_bit_one_large_one(case: Case, mode: int) -> None:
    assert bytes_of(play(case, 5, mode, cuts=37)) == bytes_of(play(case, 5, mode))


@MODES
@EVERY_CASE
def test_twice_every_latency_finishes_everything_at_exactly_twice_the_time(case: Case, mode: int) -> None:
    once, twice = play(case, 6, mode), play(replace(case, scale=2.0), 6, mode)
    assert np.array_equal(twice.finish_s, 2.0 * once.finish_s)
    assert np.array_equal(twice.ready_group, once.ready_group)
    assert np.array_equal(twice.replicas["busy_s"], 2.0 * once.replicas["busy_s"])


@MODES
def test_exchanging_replicas_exchanges_their_results(mode: int) -> None:
    case = Case(k=0, num_replicas=4, max_running=4, max_live=4)
    outputs = np.random.default_rng(0).integers(1, 300, (4, 4))
    finished = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        workload = workload_from([30] * 16, outputs[order].ravel().tolist())
        played = Play(case, 0, mode)
        state = state_of(case, workload, mode)
        submit(state, played.table, played.laws[0], 16, 0.0)
        advance(state, played.table, played.laws[0], np.inf, ALL)
        by_block = np.zeros((4, 4))
        by_block[order] = state.finish_s.reshape(4, 4)
        finished.append(by_block)
        assert total(state, "stretch_tokens", "first_tokens") == outputs.sum()
    assert np.array_equal(finished[0], finished[1])


def test_draws_belong_to_sequences_and_not_to_replicas() -> None:
    """The steps of a sequence that is never interrupted do not depend on where and when it runs."""
    steps = [total(play(Case(num_replicas=n), 7), "stretch_steps") for n in (1, 2, 5)]
    assert len(set(steps)) == 1


# Closed forms


def single(inputs: list[int], outputs: list[int], case: Case, mode: int, *, table_s: float = 0.25) -> RolloutState:
    """Every step takes `table_s`, every prefill a second."""
    state = state_of(case, workload_from(inputs, outputs), mode)
    table, law = flat_table(table_s, 1.0), build_step_law(np.array([PMF[case.k]]), 1000)
    submit(state, table, law, len(inputs), 0.0)
    advance(state, table, law, np.inf, ALL)
    return state


@MODES
@pytest.mark.parametrize("tokens", [1, 2, 17, 400])
def test_one_plain_sequence_takes_its_prefill_and_a_step_for_every_further_token(tokens: int, mode: int) -> None:
    state = single([100], [tokens], Case(k=0, num_replicas=1), mode)
    assert state.finish_s[0] == 1.0 + 0.25 * (tokens - 1)
    assert busy_seconds(state.replicas, 1000.0) == state.finish_s[0]


@MODES
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_of_equal_lengths_finishes_together(batch: int, mode: int) -> None:
    played = Play(Case(k=0, num_replicas=1, bend=1.0, padding=1), 0, mode)
    state = state_of(played.case, workload_from([100] * batch, [51] * batch), mode)
    submit(state, played.table, played.laws[0], batch, 0.0)
    advance(state, played.table, played.laws[0], np.inf, ALL)
    prefill_s = np.interp(100 * batch, [64, 1024], [2e-3, 1.5e-2]) + batch * 1e-8 * 100**2 / 2
    steps_s = sum(1e-3 + 2e-4 * batch + 1e-6 * batch * (100 + i) for i in range(50))
    assert state.finish_s == pytest.approx(prefill_s + steps_s, rel=1e-12)


@MODES
def test_sequences_that_must_wait_go_one_after_the_other(mode: int) -> None:
    outputs = [5, 1, 30, 2]
    state = single([10] * 4, outputs, Case(k=0, num_replicas=1, max_running=1, max_live=1), mode)
    assert state.finish_s == pytest.approx(np.cumsum([1.0 + 0.25 * (n - 1) for n in outputs]), rel=1e-15)


@MODES
@pytest.mark.parametrize("k", [1, 3, 7])
def test_sure_acceptance_takes_the_fewest_steps(k: int, mode: int) -> None:
    lengths = [1, 2, k + 1, k + 2, 2 * k + 3, 500]
    case = Case(k=k, num_replicas=1)
    state = state_of(case, workload_from([10] * 6, lengths), mode)
    always = np.zeros((1, k + 1))
    always[0, k] = 1.0
    law = build_step_law(always, 1000)
    submit(state, flat_table(0.25, 1.0), law, 6, 0.0)
    advance(state, flat_table(0.25, 1.0), law, np.inf, ALL)
    steps = [-(-(n - 1) // (k + 1)) for n in lengths]
    assert state.finish_s == pytest.approx([1.0 + 0.25 * s for s in steps], rel=1e-15)
    assert total(state, "stretch_steps") == sum(steps)


@MODES
def test_no_acceptance_costs_what_the_longer_steps_cost(mode: int) -> None:
    never = build_step_law(np.array([[1.0, 0.0, 0.0, 0.0]]), 1000)
    plain = Play(Case(k=0), 8, mode).run()
    drafted = Play(Case(k=3), 8, mode)
    drafted.laws = (never, never)
    assert np.allclose(drafted.run().state.finish_s, plain.state.finish_s, rtol=1e-9)


@MODES
def test_the_slowest_of_n_responses_takes_as_long_as_theory_says(mode: int) -> None:
    n, tokens, num_replicas = 8, 60, 1500
    case = Case(k=3, num_replicas=num_replicas)
    state = single([10] * (n * num_replicas), [tokens + 1] * (n * num_replicas), case, mode, table_s=1.0)
    slowest = state.finish_s.reshape(num_replicas, n).max(axis=1) - 1.0
    # E[max] = sum over j of P(max > j), with P(S <= j) = P(A_1 + ... + A_j >= tokens).
    expected, density = 0.0, np.array([1.0])
    for j in range(tokens):
        at_least = density[max(tokens - j, 0) :].sum()  # entry i: j + i tokens
        expected += 1.0 - at_least**n
        density = np.convolve(density, PMF[3])
    z = (slowest.mean() - expected) / (slowest.std() / np.sqrt(num_replicas))
    assert abs(z) < stats.norm.isf(ALPHA / 2)


# The jump against the reference

EXACT = {name: replace(case, k=0, num_classes=1, bend=1.0) for name, case in CASES.items() if name != "everything"}
del EXACT["preemption in blocks"]  # on average only: test_kvcache.py
# Two full replicas may see a fresh sequence that fits one step apart: see the head of kernels.py.
EXACT["preemption"] = replace(EXACT["preemption"], num_replicas=1)
EXACT["preemption and abort"] = replace(EXACT["preemption"], sync="abort")
EXACT["preemption and chunks"] = replace(EXACT["preemption"], chunk_tokens=64)
EXACT["preemption and turns"] = replace(EXACT["preemption"], turns=True)
# Answers that find no place are taken later by the jump, but before whatever else happens to the replica.
CROWDED = replace(EXACT["turns"], max_running=3, chunk_tokens=64)
EXACT["crowded turns, abort"] = replace(CROWDED, sync="abort", max_live=8)
EXACT["crowded turns, restart"] = replace(CROWDED, sync="restart", chunk_tokens=0)
EXACT["crowded turns, in pieces"] = replace(CROWDED, pieces=6, chunk_tokens=0)
EXACT["preemption, turns and abort"] = replace(EXACT["preemption and turns"], sync="abort", max_live=12)


@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
def test_without_speculation_jump_and_reference_are_equal(case: Case) -> None:
    for seed in range(8):
        jump, reference = play(case, seed, JUMP), play(case, seed, PER_STEP)
        assert np.allclose(jump.finish_s, reference.finish_s, rtol=1e-9)
        for name in ("busy_s", "starved_s", "tool_s", "sync_s", "prefill_s", "seq_steps", "recomputed_tokens"):
            assert np.allclose(jump.replicas[name], reference.replicas[name], rtol=1e-9, atol=1e-9), name
        for name in ("preemptions", "aborts", "max_batch", "admissions", "stretch_steps", "stretch_tokens"):
            assert np.array_equal(jump.replicas[name], reference.replicas[name]), name
        assert np.array_equal(jump.ready_group, reference.ready_group)
        assert total(jump, "preemptions") > 0 or case.kv_tokens > 1e6


def test_knots_in_the_context_cost_a_few_millionths_at_most() -> None:
    for seed in range(8):
        jump, reference = play(Case(k=0), seed, JUMP), play(Case(k=0), seed, PER_STEP)
        assert np.allclose(jump.finish_s, reference.finish_s, rtol=3e-6)


def numbers(state: RolloutState) -> list[float]:
    f = state.finish_s
    return [
        f.mean(),
        float(np.median(f)),
        float(np.quantile(f, 0.99)),
        f.max(),
        total(state, "busy_s"),
        total(state, "seq_steps"),
        total(state, "stretch_steps"),
        total(state, "preemptions"),
    ]


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.k > 0], ids=[n for n, c in CASES.items() if c.k > 0])
def test_jump_and_reference_agree_in_law(case: Case) -> None:
    jumps = [play(case, seed, JUMP, draws="jump") for seed in range(NUM_SEEDS)]
    references = [play(case, seed, PER_STEP, draws="reference") for seed in range(NUM_SEEDS)]
    a, b = np.array([numbers(s) for s in jumps]), np.array([numbers(s) for s in references])
    assert total(jumps[0], "stretch_tokens", "first_tokens") == total(references[0], "stretch_tokens", "first_tokens")
    differs = (a - b).std(axis=0, ddof=1) > 0
    z = (a - b).mean(axis=0)[differs] / ((a - b).std(axis=0, ddof=1)[differs] / np.sqrt(NUM_SEEDS))
    assert np.all(np.abs(z) < stats.t.isf(ALPHA / 2, NUM_SEEDS - 1)), z
    assert a.mean(axis=0)[:7] == pytest.approx(b.mean(axis=0)[:7], rel=0.02)
    pooled = [np.concatenate([s.finish_s for s in states]) for states in (jumps, references)]
    assert stats.ks_2samp(*pooled, method="asymp").pvalue > ALPHA
    if case.kv_tokens < 1e6:
        assert b[:, 7].mean() > 5
        assert a[:, 7].mean() == pytest.approx(b[:, 7].mean(), rel=0.2)


# Interruptions


@MODES
@pytest.mark.parametrize("now_s", [3.0, 3.1, 3.25, 7.4])
def test_a_weight_sync_stops_at_the_first_step_boundary_at_or_after_its_time(now_s: float, mode: int) -> None:
    case = Case(k=0, num_replicas=1)
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    for lasts_s in (0.0, 2.0):
        state = state_of(case, workload_from([10], [41]), mode)
        submit(state, table, law, 1, 0.0)
        advance(state, table, law, now_s, ALL)
        weight_sync(state, table, law, law, now_s, now_s, now_s + lasts_s, KEEP, False)
        boundary_s = 1.0 + 0.25 * np.ceil((now_s - 1.0) / 0.25)
        assert state.replicas["time_s"][0] == pytest.approx(max(boundary_s, now_s + lasts_s), rel=1e-15)
        assert state.replicas["step"][0] == round((boundary_s - 1.0) / 0.25)
        advance(state, table, law, np.inf, ALL)
        assert state.finish_s[0] == pytest.approx(11.0 + max(now_s + lasts_s - boundary_s, 0.0), rel=1e-15)
        assert state.replicas["sync_s"][0] == pytest.approx(max(now_s + lasts_s - boundary_s, 0.0), abs=1e-12)


@MODES
def test_an_aborted_sequence_is_prefilled_again_with_all_it_had(mode: int) -> None:
    case = Case(k=0, num_replicas=1)
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    state = state_of(case, workload_from([10], [41]), mode)
    submit(state, table, law, 1, 0.0)
    advance(state, table, law, 3.1, ALL)
    weight_sync(state, table, law, law, 3.1, 3.1, 5.0, ABORT, False)
    assert total(state, "recomputed_tokens") == 10 + 9  # steps end at 1.25, 1.5, ..., 3.25
    advance(state, table, law, np.inf, ALL)
    assert state.finish_s[0] == 5.0 + 1.0 + 0.25 * (40 - 9 - 1)  # the prefill emits a token too


def test_what_was_emitted_before_a_sync_follows_the_old_law_and_the_rest_the_new_one() -> None:
    num, tokens = 3000, 200
    case = Case(k=3, num_replicas=num, max_running=1, max_live=1)
    old, new = build_step_law(np.array([PMF[3]]), 1000), build_step_law(np.array([[0.9, 0.1, 0.0, 0.0]]), 1000)
    finished = []
    for mode in (JUMP, PER_STEP):
        state = state_of(case, workload_from([10] * num, [tokens + 1] * num), mode, mode)
        table = flat_table(1.0, 0.5)
        submit(state, table, old, num, 0.0)
        advance(state, table, old, 50.0, ALL)
        assert state.counters["finished"][0] == 0
        weight_sync(state, table, old, new, 50.0, 50.0, 50.0, KEEP, True)  # after 50 of about 60 steps
        advance(state, table, new, np.inf, ALL)
        finished.append(state.finish_s.copy())
    jump, reference = finished
    z = (jump.mean() - reference.mean()) / np.sqrt((jump.var() + reference.var()) / num)
    assert abs(z) < stats.norm.isf(ALPHA / 2)
    assert jump.std() == pytest.approx(reference.std(), rel=0.1)


@MODES
def test_nothing_fresh_starts_while_closed(mode: int) -> None:
    case = Case(k=0, num_replicas=2, max_running=2, max_live=2)
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    state = state_of(case, workload_from([10] * 8, [5] * 8), mode)
    submit(state, table, law, 8, 0.0)
    close(state)
    advance(state, table, law, np.inf, ALL)
    assert state.counters["finished"][0] == 4
    submit(state, table, law, 8, 50.0)
    advance(state, table, law, np.inf, ALL)
    assert state.counters["finished"][0] == 8
    assert state.finish_s[4:] == pytest.approx(52.0)


@MODES
def test_advance_stops_when_enough_groups_are_ready(mode: int) -> None:
    played = Play(Case(), 9, mode)
    submit(played.state, played.table, played.laws[0], played.workload.num_sequences, 0.0)
    for wanted in (1, 5, 24):
        advance(played.state, played.table, played.laws[0], np.inf, wanted)
        assert played.state.counters["num_ready"][0] >= wanted
        assert played.state.counters["num_ready"][0] < wanted + 4


# Admission


@MODES
def test_submitted_sequences_go_to_the_least_loaded_replicas(mode: int) -> None:
    case = Case(num_replicas=4, max_running=8, max_live=8)
    played = Play(case, 0, mode)
    state = state_of(case, workload_from([10] * 30, [800] * 30), mode)
    for count, now_s, live in [
        (2, 0.0, [1, 1, 0, 0]),
        (4, 0.1, [1, 1, 1, 1]),
        (14, 0.2, [4, 4, 3, 3]),
        (15, 0.3, [4, 4, 4, 3]),
        (30, 0.35, [8, 8, 7, 7]),
    ]:
        advance(state, played.table, played.laws[0], now_s, ALL)
        submit(state, played.table, played.laws[0], count, now_s)
        assert state.replicas["num_live"].tolist() == live


@MODES
def test_a_sequence_waits_at_the_replica_it_was_dealt_to_until_its_context_fits(mode: int) -> None:
    case = Case(k=0, num_replicas=2, kv_tokens=1000.0)
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    state = state_of(case, workload_from([100, 900, 100, 200], [60] * 4), mode)
    submit(state, table, law, 3, 0.0)
    assert state.replicas["num_live"].tolist() == [2, 1]
    advance(state, table, law, 3.0, ALL)
    submit(state, table, law, 4, 3.0)
    assert state.replicas["num_live"].tolist() == [2, 2]
    assert state.replicas["num_running"].tolist() == [2, 1]
    advance(state, table, law, np.inf, ALL)
    assert state.counters["finished"] == 4


@MODES
def test_responses_of_one_token_end_with_their_prefill_and_leave_room_for_the_next(mode: int) -> None:
    case = Case(k=0, num_replicas=2, max_running=2, max_live=2)
    state = single([10] * 8, [1] * 8, case, mode)
    assert sorted(state.finish_s) == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    assert state.replicas["first_tokens"].tolist() == [4, 4]


@MODES
def test_an_empty_prompt_is_no_obstacle_to_chunked_prefill(mode: int) -> None:
    case = Case(k=0, num_replicas=1, max_running=2, max_live=2, chunk_tokens=16)
    state = single([10, 10, 0], [20, 5, 5], case, mode)
    assert state.counters["finished"][0] == 3


@MODES
def test_sequences_that_share_a_full_cache_are_all_finished_in_the_end(mode: int) -> None:
    case = Case(num_replicas=1, kv_tokens=300.0)
    state = play(case, 10, mode)
    assert state.counters["finished"][0] == workload_of(case, 10).num_sequences
    assert total(state, "preemptions") > 20


@MODES
def test_a_lost_prefix_is_prefilled_again_at_every_turn(mode: int) -> None:
    kept, lost = Play(Case(turns=True), 11, mode).run(), Play(Case(turns=True, keep_prefix=False), 11, mode).run()
    inputs, outputs = kept.workload.input_tokens, kept.workload.output_tokens
    again = 0
    for begin, end in zip(kept.workload.first_turn[:-1], kept.workload.first_turn[1:], strict=True):
        context = np.cumsum(inputs[begin:end] + outputs[begin:end] - 1)[:-1]  # the last token's KV does not exist yet
        again += int(context.sum())
    assert total(lost.state, "prefill_tokens") - total(kept.state, "prefill_tokens") == again


def test_classes_are_equally_likely_and_stay_with_their_sequence() -> None:
    jump, reference = (
        Play(Case(num_classes=4, max_live=96, max_running=8), 12, mode).run() for mode in (JUMP, PER_STEP)
    )
    for played in (jump, reference):
        assert set(played.state.slots["cls"][played.state.slots["key"] > 0]) == {0, 1, 2, 3}
