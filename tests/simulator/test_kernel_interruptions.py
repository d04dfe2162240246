"""Kernels interrupted: weight syncs, aborts and closing, and whom they let in when."""

import numpy as np
import pytest
from scipy import stats

from simulator.kernels import advance, close, submit, weight_sync
from simulator.rollout_state import (
    ABORT,
    JUMP,
    KEEP,
    PER_STEP,
)
from simulator.step_law import build_step_law
from tests.simulator.rollouts import (
    ALL,
    ALPHA,
    MODES,
    PMF,
    Case,
    Play,
    flat_table,
    play,
    single,
    state_of,
    total,
    workload_from,
    workload_of,
)


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
