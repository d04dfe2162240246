"""Prompts shared by a group: what is prefilled, what is held, when it is lost, and what it may never change."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.invariants import check_kv_cache
from simulator.kernels import advance, submit, weight_sync
from simulator.rollout_state import ABORT, JUMP, KEEP, PER_STEP, RECOMPUTE, RESTART, RolloutState
from simulator.step_law import build_step_law
from simulator.workload import Workload
from tests.simulator.rollouts import (
    ALL,
    Case,
    Play,
    bytes_of,
    flat_table,
    play,
    state_of,
    table_of,
    total,
    workload_from,
)

MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
PLAIN = build_step_law(np.array([[1.0]]), 1000)
FOUND = ("prefix_hit_tokens",)


def groups_of(size: int, prompts: list[int], response: int) -> Workload:
    """Return groups of equal responses to these prompts."""
    count = size * len(prompts)
    made = workload_from(np.repeat(prompts, size).tolist(), [response] * count)
    return replace(
        made,
        group_of=np.arange(len(prompts), dtype=np.int32).repeat(size),
        group_size=np.full(len(prompts), size, np.int32),
    )


def started(case: Case, workload: Workload, mode: int, until_s: float = 0.0) -> RolloutState:
    """Every step takes a quarter of a second, every prefill a second."""
    state = state_of(case, workload, mode)
    submit(state, flat_table(0.25, 1.0), PLAIN, workload.num_sequences, 0.0)
    advance(state, flat_table(0.25, 1.0), PLAIN, until_s, ALL)
    return state


@MODES
@pytest.mark.parametrize(
    ("prompt", "block_tokens", "common"), [(100, 1, 99), (100, 16, 96), (96, 16, 80), (97, 16, 96), (16, 16, 0)]
)
def test_a_group_prefills_the_whole_blocks_of_its_prompt_once(
    prompt: int, block_tokens: int, common: int, mode: int
) -> None:
    case = Case(k=0, num_replicas=1, share_prompts=True, block_tokens=block_tokens)
    state = state_of(case, groups_of(5, [prompt], 1), mode)
    submit(state, table_of(case), PLAIN, 5, 0.0)
    new = prompt - common
    assert total(state, "prefill_tokens") == prompt + 4 * new
    assert total(state, *FOUND) == 4 * common
    # New tokens attend to the cached ones before them and, on average, to half of the new ones.
    attention_s = 1e-8 * (prompt**2 / 2 + 4 * new * (common + new / 2))
    assert state.finish_s == pytest.approx(
        np.interp(prompt + 4 * new, [0, 64, 1024], [1e-3, 2e-3, 1.5e-2]) + attention_s
    )


@MODES
def test_a_group_holds_its_prompt_once(mode: int) -> None:
    """32 blocks, of them 31 above the watermark: 6 prompts of 5 blocks, or one and 26 last blocks of 33."""
    case = Case(k=0, num_replicas=1, max_running=64, max_live=64, kv_tokens=512.0, block_tokens=16)
    state = started(replace(case, share_prompts=True), groups_of(40, [70], 5), mode)
    assert state.replicas["num_running"][0] == 27
    check_kv_cache(state)
    assert started(case, groups_of(40, [70], 5), mode).replicas["num_running"][0] == 6


@MODES
def test_a_replica_computes_only_the_prompts_that_it_has_not(mode: int) -> None:
    """Eight responses go round three replicas: each computes the prompt for itself."""
    state = started(Case(k=0, num_replicas=3, share_prompts=True), groups_of(8, [50], 5), mode)
    assert state.replicas["prefix_hit_tokens"].tolist() == [2 * 49, 2 * 49, 1 * 49]


@MODES
def test_a_prompt_is_found_by_those_who_come_after_the_group_s_first_responses_ended(mode: int) -> None:
    case = Case(k=0, num_replicas=1, max_running=1, max_live=1, share_prompts=True)
    state = started(case, groups_of(4, [50, 60, 70], 3), mode, np.inf)
    assert total(state, "prefill_tokens") == 50 + 60 + 70 + 9
    assert total(state, *FOUND) == 3 * (49 + 59 + 69)


@MODES
@pytest.mark.parametrize(
    ("rule", "found", "recomputed"),
    [
        (KEEP, 3 * 49, 0),
        (ABORT, 3 * 49 + 3 * 49, 4 * 55 - 3 * 49),  # computed once more, found by the three others
        (RESTART, 3 * 49 + 3 * 49, 4 * 50 - 3 * 49),
        (RECOMPUTE, 3 * 49, 4 * 55 - 3 * 49),
    ],
    ids=["in_place", "abort_resume", "restart", "in_place_recompute"],
)
def test_a_weight_sync_that_empties_the_cache_costs_a_group_its_prompt_once(
    rule: int, found: int, recomputed: int, mode: int
) -> None:
    case = Case(k=0, num_replicas=1, share_prompts=True)
    state = started(case, groups_of(4, [50], 41), mode, 2.25)  # five steps: 55 tokens each
    weight_sync(state, flat_table(0.25, 1.0), PLAIN, PLAIN, 2.25, 2.25, 3.0, rule, False)
    advance(state, flat_table(0.25, 1.0), PLAIN, np.inf, ALL)
    assert total(state, *FOUND) == found
    assert total(state, "recomputed_tokens") == recomputed
    assert total(state, "prefill_tokens") == 53 + recomputed


@MODES
def test_a_prompt_that_nobody_holds_does_not_outlive_a_weight_sync_that_empties_the_cache(mode: int) -> None:
    for rule, found in [(KEEP, 2 * 49), (ABORT, 0), (RECOMPUTE, 0)]:
        case = Case(k=0, num_replicas=1, max_running=2, max_live=2, share_prompts=True)
        state = state_of(case, groups_of(4, [50], 3), mode)
        submit(state, flat_table(0.25, 1.0), PLAIN, 2, 0.0)
        advance(state, flat_table(0.25, 1.0), PLAIN, 5.0, ALL)
        before = total(state, *FOUND)
        weight_sync(state, flat_table(0.25, 1.0), PLAIN, PLAIN, 5.0, 5.0, 6.0, rule, False)
        submit(state, flat_table(0.25, 1.0), PLAIN, 4, 6.0)
        assert total(state, *FOUND) - before == (found or 49)  # the second of the two finds what the first computed


@MODES
def test_groups_of_one_share_nothing(mode: int) -> None:
    case = Case(kv_tokens=1600.0, block_tokens=16, num_replicas=1)
    workload = workload_from([40] * 60, [120] * 60)
    finished = []
    for shared in (False, True):
        played = Play(replace(case, share_prompts=shared), 0, mode)
        played.state = state_of(played.case, workload, mode)
        submit(played.state, played.table, played.laws[0], 60, 0.0)
        advance(played.state, played.table, played.laws[0], np.inf, ALL)
        assert total(played.state, *FOUND) == 0
        finished.append(played.state.finish_s)
    assert np.array_equal(*finished)


@MODES
def test_every_sequence_still_reads_its_whole_context_in_every_step(mode: int) -> None:
    """Where a prefill costs the same whatever it reads, and memory is plenty, sharing changes nothing."""
    for k in (0, 3):
        case = Case(k=k, turns=True, max_live=12)
        finished = []
        for shared in (False, True):
            played = Play(replace(case, share_prompts=shared), 2, mode)
            played.table = played.table._replace(
                prefill_s=np.full_like(played.table.prefill_s, 0.01), attention_s_per_token2=0.0
            )
            finished.append(played.run().state.finish_s)
        assert np.array_equal(*finished)


@MODES
def test_numbers_of_groups_do_not_matter(mode: int) -> None:
    case = Case(share_prompts=True, num_replicas=2, max_running=16, max_live=16)
    states = []
    for first in (0, 1_000_000):
        played = Play(case, 3, mode)
        of, size = played.workload.group_of, played.workload.group_size
        moved = replace(played.workload, group_of=of + np.int32(first), group_size=np.pad(size, (first, 0)))
        played.state = state_of(case, moved, mode)
        states.append(played.run().state)
    assert np.array_equal(states[0].finish_s, states[1].finish_s)
    assert total(states[0], *FOUND) == total(states[1], *FOUND) > 0


@MODES
@pytest.mark.parametrize(
    "case",
    [
        Case(kv_tokens=1200.0, block_tokens=16),
        Case(kv_tokens=1600.0, chunk_tokens=64, sync="abort"),
        Case(kv_tokens=1600.0, turns=True, max_live=12, sync="restart", block_tokens=16),
        Case(kv_tokens=1600.0, turns=True, keep_prefix=False, sync="recompute", num_classes=2),
    ],
    ids=["blocks", "chunked prefill, abort", "turns, restart", "turns, recompute"],
)
def test_what_is_shared_is_counted_once_at_every_moment(case: Case, mode: int) -> None:
    shared = []

    class Watched(Play):
        def checkpoint(self) -> None:
            check_kv_cache(self.state)
            shared.append(self.state.replicas["shared_tokens"].max())

    played = Watched(replace(case, share_prompts=True, num_replicas=1), 1, mode, cuts=150).run()
    state = played.state
    assert max(shared) > 50
    assert np.all(state.prefixes["holders"] == 0)
    assert np.all(state.slots["prefix"] == -1)
    assert state.counters["finished"][0] == played.workload.num_sequences
    assert total(state, "recomputed_tokens") >= 0
    unshared = replace(case, num_replicas=1)
    assert state.finish_s.max() < play(unshared, 1, mode).finish_s.max()


def test_groups_that_do_not_share_leave_no_trace() -> None:
    assert bytes_of(play(Case(), 0)) == bytes_of(play(Case(share_prompts=False), 0))
    assert len(play(Case(), 0).prefixes) == 0


def test_sharing_and_the_reference_agree_in_law_where_the_cache_is_full() -> None:
    case = Case(share_prompts=True, kv_tokens=1200.0, block_tokens=16, num_replicas=1, k=3)
    jump, reference = (
        np.array(
            [
                [state.finish_s.max(), total(state, *FOUND)]
                for state in (play(case, seed, mode, draws=mode) for seed in range(60))
            ]
        )
        for mode in (JUMP, PER_STEP)
    )
    difference = (jump - reference) / reference.mean(axis=0)
    noise = 4.4 * difference.std(axis=0, ddof=1) / np.sqrt(60)
    assert np.all(np.abs(difference.mean(axis=0)) < 0.01 + noise)
    assert np.all(noise < 0.05)
