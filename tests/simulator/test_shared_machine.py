"""Trainer and engines on one machine: each goes slower while the other computes."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.cluster import Run
from simulator.config import OneStepOffPolicy
from simulator.errors import ScenarioError
from simulator.metrics import measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.policies.run import TRAINER_LIFE
from simulator.rollout_state import JUMP, PER_STEP
from simulator.trainer import TrainerCost
from tests.simulator import made_up
from tests.simulator.small_parts import RESPONSE, SPREAD, STEP_S, Small, flat_table, fully_async

each_mode = pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
PHASE_S = (RESPONSE - 1) * STEP_S
"""A generation phase of `Small` without its prefill: all sequences fit, and are equally long."""


def shared(small: Small, *, engines: float = 1.0, trainer: float = 1.0) -> Parts:
    """Return parts in which the other side's work costs each so many times as much."""
    parts = small.parts()
    return replace(
        parts,
        table_while_training=flat_table(small.step_s * engines, small.prefill_s * engines, small.max_running),
        trainer=replace(
            parts.trainer,
            while_generating=TrainerCost(small.train_s * trainer, small.train_s_per_token * trainer),
        ),
    )


def step_seconds(parts: Parts, mode: int) -> list[float]:
    run = Run(parts, mode=mode)
    run.env.run(until=run.env.process(TRAINER_LIFE[parts.policy.kind](run)))
    return [after.end_s - before.end_s for before, after in itertools.pairwise(run.log.steps)]


@each_mode
@pytest.mark.parametrize("train_s", [0.1, 0.4])
def test_generation_is_slow_for_as_long_as_training_lasts(train_s: float, mode: int) -> None:
    """Of a phase of G seconds, training leaves G - T / 2 undone in T seconds where it halves the engines' pace."""
    parts = shared(Small(OneStepOffPolicy(), prefill_s=0.0, train_s=train_s), engines=2.0)
    for seconds in step_seconds(parts, mode):
        assert seconds == pytest.approx(PHASE_S + train_s / 2 + 0.5, abs=2 * STEP_S)


@each_mode
def test_training_is_slow_for_as_long_as_generation_lasts(mode: int) -> None:
    """Of T seconds of training, a phase of G seconds at two thirds of its pace leaves T - 2 G / 3."""
    parts = shared(Small(OneStepOffPolicy(), prefill_s=0.0, train_s=3.0), trainer=1.5)
    for seconds in step_seconds(parts, mode):
        assert seconds == pytest.approx(3.0 + PHASE_S / 3 + 0.5, rel=1e-9)


@each_mode
def test_both_slow_each_other_down(mode: int) -> None:
    """The phase takes 2 G while training lasts; training at half its pace meanwhile takes T + G."""
    parts = shared(Small(OneStepOffPolicy(), prefill_s=0.0, train_s=3.0), engines=2.0, trainer=2.0)
    for seconds in step_seconds(parts, mode):
        assert seconds == pytest.approx(3.0 + PHASE_S + 0.5, rel=1e-9)


@each_mode
@pytest.mark.parametrize("in_flight", ["wait", "abort_resume", "in_place"])
def test_nothing_changes_where_the_other_side_costs_nothing(in_flight: str, mode: int) -> None:
    # One replica: of two, who takes the next sequence may change where both stop at a boundary of their own.
    small = Small(fully_async(2, in_flight), SPREAD, pmf=(0.3, 0.7), train_s=0.8, num_replicas=1, max_running=8)
    assert step_seconds(shared(small), mode) == pytest.approx(step_seconds(small.parts(), mode), rel=1e-9)


@each_mode
def test_an_engine_that_never_stops_is_slow_for_the_trainers_share_of_time(mode: int) -> None:
    """Generation decides: seconds for a step's work are (1 - u) of them at full pace, u at half of it."""
    small = Small(fully_async(4, "in_place"), SPREAD, train_s=0.5, sync_s=0.0, prefill_s=0.0, num_steps=40)
    outcomes = []
    for parts in (small.parts(), shared(small, engines=2.0)):
        outcomes.append(measure(run_cluster(parts, mode=mode), parts, 6))
    alone, beside = outcomes
    assert beside.step_s == pytest.approx(alone.step_s + small.train_s / 2, rel=0.03)


def test_both_modes_agree_on_engines_that_are_slowed_down() -> None:
    small = Small(fully_async(1, "abort_resume"), SPREAD, pmf=(0.2, 0.2, 0.6), train_s=0.9, num_steps=60)
    outcomes = []
    for mode in (JUMP, PER_STEP):
        parts = shared(small, engines=1.4, trainer=1.2)
        outcomes.append(measure(run_cluster(parts, mode=mode), parts, 4))
    jump, reference = outcomes
    assert jump.step_s == pytest.approx(reference.step_s, rel=0.02)
    assert jump.train_s == pytest.approx(reference.train_s, rel=0.02)
    assert jump.accept_length == pytest.approx(reference.accept_length, rel=0.02)


def test_a_scenario_states_both_sides_and_only_where_they_overlap(tmp_path: Path) -> None:
    beside = 'latency.while_training="beside.json"'
    with pytest.raises(
        ScenarioError, match=r"latency\.while_training: given, but a synchronous policy never generates"
    ):
        made_up.scenario(tmp_path, 'policy={kind="synchronous"}', beside)
    with pytest.raises(ScenarioError, match=r"latency\.while_training: .* beside failures"):
        made_up.scenario(
            tmp_path,
            'policy={kind="one_step_off"}',
            beside,
            "failures={trainer_mtbf_s=100.0, trainer_restart_s=1.0, checkpoint_every_steps=1}",
        )
