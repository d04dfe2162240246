"""Replicas that come and go: crashes, and trainer's GPUs that generate while it waits; their sequences move."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.config import Router
from simulator.errors import ScenarioError
from simulator.failures import ReplicaFailures
from simulator.inputs import resolve
from simulator.kernels import advance, bring_up, submit, take_down
from simulator.metrics import measure
from simulator.policies import run_cluster
from simulator.rng import stream_key
from simulator.rollout_state import ABORT, JUMP, PER_STEP, RESTART
from simulator.run import simulate
from simulator.step_law import build_step_law
from tests.simulator import made_up
from tests.simulator.rollouts import ALL, Case, Play, flat_table, state_of, total, two_turns, workload_from
from tests.simulator.small_parts import PREFILL_S, RESPONSE, SPREAD, STEP_S, Small, finished, fully_async

each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
ACCEPTS = (0.2, 0.2, 0.2, 0.4)
PLAIN = build_step_law(np.array([[1.0]]), 1000)
TABLE = flat_table(0.25, 1.0)


@each_mode
@pytest.mark.parametrize(("rule", "tokens_left"), [(ABORT, 41 - 10), (RESTART, 41)], ids=["abort", "restart"])
def test_a_sequence_goes_on_elsewhere_with_what_is_left_of_it(rule: int, tokens_left: int, mode: int) -> None:
    state = state_of(Case(k=0, num_replicas=2), workload_from([10, 10], [41, 2]), mode)
    submit(state, TABLE, PLAIN, 2, 0.0)
    advance(state, TABLE, PLAIN, 3.1, ALL)
    take_down(state, TABLE, PLAIN, 0, 1, 3.1, rule)  # at its step boundary at 3.25, with 1 + 9 tokens emitted
    assert state.replicas["num_live"].tolist() == [0, 1]
    advance(state, TABLE, PLAIN, np.inf, ALL)
    assert state.finish_s.tolist() == [3.1 + 1.0 + 0.25 * (tokens_left - 1), 1.25]
    assert state.replicas["prefill_tokens"].tolist() == [10, 10 + (19 if rule == ABORT else 10)]
    assert state.counters["restarted_tokens"][0] == (0 if rule == ABORT else 10)


@each_mode
@pytest.mark.parametrize(("rule", "again"), [(ABORT, 14), (RESTART, 10)], ids=["abort", "restart"])
def test_a_trajectory_at_a_tool_comes_back_to_another_replica(rule: int, again: int, mode: int) -> None:
    """Nothing of it is cached there: 14 tokens of its first turn, or its prompt of 10, and then 20 observed ones."""
    workload = two_turns()
    state = state_of(Case(k=0, num_replicas=2), workload, mode)
    submit(state, TABLE, PLAIN, 1, 0.0)
    advance(state, TABLE, PLAIN, 50.0, ALL)
    take_down(state, TABLE, PLAIN, 0, 1, 50.0, rule)
    advance(state, TABLE, PLAIN, np.inf, ALL)
    first_s = 1.0 + 4 * 0.25
    begun_s = first_s + 100.0 if rule == ABORT else 50.0 + first_s + 100.0
    assert state.finish_s[0] == begun_s + 1.0 + 9 * 0.25
    assert state.replicas["prefill_tokens"].tolist() == [10, again + 20]


@each_mode
@pytest.mark.parametrize("back_s", [5.0, 20.0])
def test_what_finds_no_place_waits_for_one_or_for_its_replica(back_s: float, mode: int) -> None:
    state = state_of(Case(k=0, num_replicas=2, max_running=1, max_live=1), workload_from([10, 10], [41, 41]), mode)
    submit(state, TABLE, PLAIN, 2, 0.0)
    advance(state, TABLE, PLAIN, 3.1, ALL)
    take_down(state, TABLE, PLAIN, 0, 1, 3.1, ABORT)
    assert state.replicas["num_live"].tolist() == [1, 1]
    advance(state, TABLE, PLAIN, back_s, ALL)
    bring_up(state, TABLE, PLAIN, 0, 1, back_s)
    advance(state, TABLE, PLAIN, np.inf, ALL)
    other_s = 1.0 + 0.25 * 40
    assert state.finish_s.tolist() == [min(back_s, other_s) + 1.0 + 0.25 * 30, other_s]
    assert state.replicas["down_s"][0] == back_s - 3.25
    assert state.counters["num_orphans"][0] == 0


@each_mode
@pytest.mark.parametrize("rule", [ABORT, RESTART], ids=["abort", "restart"])
@pytest.mark.parametrize(
    "case",
    [
        Case(num_replicas=3, num_classes=3),
        Case(num_replicas=3, turns=True, max_live=12),
        Case(num_replicas=3, chunk_tokens=64, kv_tokens=1500.0),
    ],
    ids=["classes", "turns", "chunked prefill, preemption"],
)
def test_every_sequence_is_finished_whatever_goes_down(case: Case, rule: int, mode: int) -> None:
    played = Play(case, 3, mode)
    state, workload = played.state, played.workload
    table, law = played.table, played.laws[0]
    submit(state, table, law, workload.num_sequences, 0.0)
    for i in range(12):
        now_s = 0.3 * (i + 1)
        advance(state, table, law, now_s, ALL)
        if i % 2 == 0:
            take_down(state, table, law, i // 2 % 3, i // 2 % 3 + 1, now_s, rule)
        else:
            bring_up(state, table, law, i // 2 % 3, i // 2 % 3 + 1, now_s)
    advance(state, table, law, np.inf, ALL)
    counters = state.counters[0]
    assert counters["finished"] == workload.num_sequences
    assert counters["num_live"] == 0
    assert sorted(state.ready_group) == list(range(workload.num_groups))
    emitted = workload.output_tokens.sum() + counters["restarted_tokens"]
    assert total(state, "stretch_tokens", "first_tokens") == emitted
    assert (state.replicas["down_s"] > 0).all()


@each_mode
def test_the_trainers_gpus_halve_a_generation_that_has_no_places(mode: int) -> None:
    """4 groups of 2 in 2 places: four waves; with as many helpers two, and a prefill for what helpers leave behind."""
    small = Small(fully_async(0, "in_place"), max_running=1, num_steps=10)
    wave_s = PREFILL_S + (RESPONSE - 1) * STEP_S
    alone = small.outcome(mode=mode)
    helped = small.but(num_helpers=2).outcome(mode=mode)
    assert alone.step_s == pytest.approx(4 * wave_s + 2.5, rel=1e-9)
    assert helped.step_s == pytest.approx(2 * wave_s + 2.5, rel=1e-9)
    slow = small.but(num_helpers=2, switch_s=0.1).outcome(mode=mode)
    assert helped.step_s < slow.step_s < alone.step_s
    assert slow.exposed_generation_s == pytest.approx(slow.step_s - 2.5, rel=1e-9)


@each_mode
@pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "restart", "in_place", "in_place_recompute"])
def test_time_and_samples_add_up_in_an_elastic_cluster(in_flight: str, mode: int) -> None:
    small = Small(fully_async(1, in_flight), SPREAD, pmf=ACCEPTS, num_steps=12, train_s=0.1, max_running=2)
    small = small.but(kv_block_tokens=16, share_prompts=True)
    run = finished(small.but(num_helpers=2, switch_s=0.05), mode)
    totals = run.log.steps[-1].totals
    assert totals.away_s > 0.0 == totals.down_s
    assert run.side.state.replicas["busy_s"][2:].sum() > 0
    assert run.log.steps[-1].end_s < finished(small, mode).log.steps[-1].end_s


def test_helpers_that_are_never_needed_change_nothing() -> None:
    small = Small(fully_async(4, "in_place"), train_s=50.0)
    alone, helped = (finished(small.but(num_helpers=count)).log for count in (0, 3))
    assert [step.end_s for step in alone.steps[1:]] == [step.end_s for step in helped.steps[1:]]


@each_mode
@pytest.mark.parametrize("loses_tokens", [False, True], ids=["resume", "restart"])
@pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "in_place"])
def test_replicas_are_down_as_long_as_mtbf_and_restart_say(in_flight: str, loses_tokens: bool, mode: int) -> None:
    """A renewal process: up for 40 s on average, down for 5."""
    crashes = ReplicaFailures(40.0, 5.0, loses_tokens, stream_key("crash"))
    small = Small(fully_async(1, in_flight), SPREAD, pmf=ACCEPTS, num_steps=400, train_s=0.2, num_replicas=3)
    parts = replace(small.parts(), crashes=crashes)
    log = run_cluster(parts, mode=mode)
    totals, end_s = log.steps[-1].totals, log.steps[-1].end_s
    # A crash that strikes a replica that is down is none, so up times are exponential with mean mtbf.
    expected = 3 * end_s / (40.0 + 5.0)
    assert abs(log.num_crashes - expected) < 3 * expected**0.5
    assert totals.down_s == pytest.approx(5.0 * log.num_crashes, rel=0.1)
    assert (totals.restarts > 0) == loses_tokens
    calm = run_cluster(small.parts(), mode=mode)
    assert end_s > calm.steps[-1].end_s
    measured = measure(log, parts, 2)
    assert sum(measured.rollout_shares) == pytest.approx(1.0)
    assert measured.rollout_shares[4] == pytest.approx(totals.down_s / (3 * end_s), rel=0.05)


@each_mode
@pytest.mark.parametrize("router", ["round_robin", "sticky", "static_split"])
def test_a_crashed_replicas_line_goes_to_others(router: Router, mode: int) -> None:
    crashes = ReplicaFailures(15.0, 6.0, True, stream_key("crash"))
    small = Small(fully_async(2, "in_place"), SPREAD, pmf=ACCEPTS, num_steps=40, train_s=0.1, max_running=2)
    parts = replace(small.but(router=router, num_replicas=3).parts(), crashes=crashes)
    log = run_cluster(parts, mode=mode)
    assert log.num_crashes > 0
    assert len(log.steps) == 40


def test_a_router_that_fixes_replicas_needs_them_to_stay(tmp_path: Path) -> None:
    policy = 'policy={kind="fully_async", max_staleness=1, elastic_switch_s=1.0}'
    with pytest.raises(ScenarioError, match=r"cluster\.router: sticky fixes replicas in advance"):
        made_up.scenario(tmp_path, policy, 'cluster.router="sticky"')


def test_all_arms_meet_the_same_crashes(tmp_path: Path) -> None:
    failures = "failures={replica_mtbf_s=20.0, replica_restart_s=4.0}"
    report = simulate(made_up.scenario(tmp_path, 'policy={kind="fully_async", max_staleness=1}', failures))
    assert report.baseline.lost.replica_crashes > 0
    assert report.baseline.rollout_time.down > 0
    with pytest.raises(ScenarioError, match=r"replica_restart_s: missing, though a replica crashes every 20 s"):
        made_up.scenario(tmp_path, "failures={replica_mtbf_s=20.0}")


def test_a_scenario_asks_for_an_elastic_cluster(tmp_path: Path) -> None:
    policy = 'policy={kind="fully_async", max_staleness=1, elastic_switch_s=0.05}'
    scenario = made_up.scenario(tmp_path, policy, "engine.max_running_seqs=2")
    assert resolve(scenario).scenario.policy.kind == "fully_async"
    alone = made_up.scenario(tmp_path, 'policy={kind="fully_async", max_staleness=1}', "engine.max_running_seqs=2")
    assert simulate(scenario).baseline.step_s < simulate(alone).baseline.step_s
