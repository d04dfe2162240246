"""Kernels: what is conserved, what does not depend on how they are driven, and the jump against the reference.

Statistical tests have fixed seeds and one level, chosen beforehand. Both modes get the same sequences and their own
random numbers, so differences are taken seed by seed.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.kernels import advance, submit
from simulator.rollout_state import (
    JUMP,
    PER_STEP,
    ROUND_ROBIN,
    STATIC_SPLIT,
    STICKY,
    RolloutState,
)
from tests.simulator.rollouts import (
    ALL,
    ALPHA,
    MODES,
    Case,
    Play,
    accounted_seconds,
    bytes_of,
    play,
    state_of,
    total,
    workload_from,
)

NUM_SEEDS = 60

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
