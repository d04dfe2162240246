"""Weight syncs that throw away what was running, and those that compute its KV cache again."""

from pathlib import Path

import numpy as np
import pytest

from simulator.config import LognormalLength
from simulator.kernels import advance, submit, weight_sync
from simulator.rollout_state import JUMP, PER_STEP, RECOMPUTE, RESTART
from simulator.run import simulate
from simulator.step_law import build_step_law
from tests.simulator import made_up
from tests.simulator.rollouts import ALL, Case, Play, flat_table, play, state_of, total, two_turns, workload_from
from tests.simulator.small_parts import Small, fully_async
from traces.report import LostWork

MODES = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
CASES = {
    "plain": Case(k=0, sync="restart"),
    "k = 3": Case(sync="restart"),
    "turns": Case(turns=True, sync="restart"),
    "turns, cache lost": Case(turns=True, keep_prefix=False, sync="restart"),
    "preemption": Case(kv_tokens=1500.0, sync="restart"),
    "chunked prefill": Case(chunk_tokens=64, sync="restart"),
    "everything": Case(k=7, turns=True, sync="restart", chunk_tokens=64, kv_tokens=2500.0, num_classes=3, pieces=4),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@MODES
@EVERY_CASE
def test_what_restarts_throw_away_is_generated_on_top(case: Case, mode: int) -> None:
    played = Play(case, 1, mode).run()
    counters, outputs = played.state.counters[0], played.workload.output_tokens.sum()
    assert counters["finished"] == played.workload.num_sequences
    assert counters["num_live"] == 0
    assert counters["restarts"] >= counters["max_restarts"] > 0
    assert counters["restarted_tokens"] > 0
    assert total(played.state, "stretch_tokens", "first_tokens") == outputs + counters["restarted_tokens"]
    assert sorted(played.state.ready_group) == list(range(played.workload.num_groups))
    if case.k == 0:
        assert total(played.state, "stretch_steps") == total(played.state, "stretch_tokens")


@MODES
@pytest.mark.parametrize("name", ["plain", "k = 3", "turns"])
def test_what_a_restarted_sequence_had_read_is_prefilled_again(name: str, mode: int) -> None:
    played = Play(CASES[name], 1, mode).run()
    recomputed = total(played.state, "recomputed_tokens")
    assert recomputed > 0
    assert total(played.state, "prefill_tokens") == played.workload.input_tokens.sum() + recomputed


@MODES
@EVERY_CASE
def test_restarts_do_not_depend_on_how_time_is_cut(case: Case, mode: int) -> None:
    once, often = play(case, 2, mode), play(case, 2, mode, cuts=23)
    assert np.array_equal(once.finish_s, often.finish_s)
    assert once.counters["restarted_tokens"][0] == often.counters["restarted_tokens"][0]


@MODES
def test_a_restarted_sequence_takes_its_whole_time_again(mode: int) -> None:
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    state = state_of(Case(k=0, num_replicas=1), workload_from([10], [41]), mode)
    submit(state, table, law, 1, 0.0)
    advance(state, table, law, 3.1, ALL)
    state.counters["version"] = 7
    weight_sync(state, table, law, law, 3.1, 3.1, 5.0, RESTART, False)
    assert total(state, "recomputed_tokens") == 10
    assert state.counters["restarted_tokens"][0] == 1 + 9  # steps end at 1.25, 1.5, ..., 3.25
    advance(state, table, law, np.inf, ALL)
    assert state.finish_s[0] == 5.0 + 1.0 + 0.25 * 40
    assert state.group_version[0] == 7


@MODES
def test_a_trajectory_at_a_tool_begins_again_at_once(mode: int) -> None:
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    workload = two_turns()
    state = state_of(Case(k=0, num_replicas=1), workload, mode)
    submit(state, table, law, 1, 0.0)
    advance(state, table, law, 50.0, ALL)
    weight_sync(state, table, law, law, 50.0, 50.0, 50.0, RESTART, False)
    assert (state.counters["restarted_tokens"][0], total(state, "recomputed_tokens")) == (5, 10)
    advance(state, table, law, np.inf, ALL)
    assert state.finish_s[0] == 50.0 + (1.0 + 4 * 0.25) + 100.0 + (1.0 + 9 * 0.25)


@MODES
def test_recomputing_costs_a_prefill_and_no_place_in_the_batch(mode: int) -> None:
    table, law = flat_table(0.25, 1.0), build_step_law(np.array([[1.0]]), 1000)
    state = state_of(Case(k=0, num_replicas=1, max_running=2, max_live=2), workload_from([10, 30], [41, 61]), mode)
    submit(state, table, law, 2, 0.0)
    advance(state, table, law, 3.1, ALL)
    weight_sync(state, table, law, law, 3.1, 3.1, 5.0, RECOMPUTE, False)
    assert total(state, "recomputed_tokens") == 10 + 9 + 30 + 9
    advance(state, table, law, np.inf, ALL)
    assert state.finish_s.tolist() == [5.0 + 1.0 + 0.25 * (40 - 9), 5.0 + 1.0 + 0.25 * (60 - 9)]
    assert total(state, "first_tokens") == 2


@MODES
def test_restarts_make_samples_younger_and_waste_tokens(mode: int) -> None:
    heavy = LognormalLength(mean=60, sigma=1.2, maximum=1000)
    small = Small(fully_async(2, "in_place"), heavy, num_steps=40, train_s=0.05, sync_s=0.1, prompts_per_step=8)
    small = small.but(group_size=1)
    stays, again = small.outcome(mode=mode), small.but(policy=fully_async(2, "restart")).outcome(mode=mode)
    assert len(stays.staleness) > 3
    assert len(again.staleness) <= 3
    assert (stays.lost, stays.wasted_fraction) == (LostWork(), 0.0)
    assert 0 < again.lost.restarts_per_sample <= again.lost.aborts_per_sample
    assert again.lost.max_restarts >= 1
    assert 0 < again.lost.useful_tokens_fraction < 1
    assert 0 < again.wasted_fraction < 1
    assert again.step_s > stays.step_s


def test_every_kind_of_lost_work_has_a_title_and_shows_only_where_it_happened() -> None:
    assert all(field.title for field in LostWork.model_fields.values())
    assert LostWork().cells() == {}
    assert LostWork(dropped_groups=1.5).cells() == {"dropped groups per step": "1.5"}


@pytest.mark.parametrize("in_flight", ["restart", "abort_resume"])
def test_a_live_lock_is_named(in_flight: str, tmp_path: Path) -> None:
    """A few responses take longer than a sync period, and there is always something shorter to train on."""
    report = simulate(
        made_up.scenario(
            tmp_path,
            f'policy={{kind="fully_async", max_staleness=8, in_flight="{in_flight}"}}',
            'workload.response_tokens={kind="lognormal", mean=300, sigma=1.8, maximum=3900}',
            "workload.group_size=1",
            "trainer.constant_s=0.1",
            "run.num_steps=60",
        )
    )
    said = [warning for warning in report.warnings if "live-lock" in warning]
    assert len(said) == (in_flight == "restart")
    if said:
        assert "policy: live-lock: baseline " in said[0]
        assert "of tokens useful, one sample restarted " in said[0]
