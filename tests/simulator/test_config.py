"""Scenario fields that follow from others, and the limits of a whole scenario."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from simulator.config import (
    MAX_DRAFT_TOKENS,
    MAX_SEQUENCES_PER_RUN,
    MAX_SEQUENCES_PER_STEP,
    MAX_TURNS_PER_RUN,
    ArmConfig,
    ClusterConfig,
    FixedAcceptance,
    FullyAsyncPolicy,
    LognormalLength,
    MeasuredConfig,
    PiecewiseEntropy,
    RunConfig,
    Scenario,
)
from simulator.errors import ScenarioError
from tests.simulator import made_up

ASYNC = 'policy={kind="fully_async", max_staleness=3}'


@pytest.mark.parametrize(
    ("policy", "max_staleness", "warmup"),
    [
        ('policy={kind="synchronous"}', 0, 1),
        ('policy={kind="one_step_off"}', 1, 2),
        (ASYNC, 3, 4),
        ('policy={kind="fully_async", max_staleness=0}', 0, 1),
    ],
)
def test_warm_up_is_the_filling_of_the_pipeline(policy: str, max_staleness: int, warmup: int, tmp_path: Path) -> None:
    scenario = made_up.scenario(tmp_path, policy)
    assert (scenario.max_staleness, scenario.warmup_steps) == (max_staleness, warmup)
    assert made_up.scenario(tmp_path, policy, "run.warmup_steps=0").warmup_steps == 0


def test_a_replica_is_tp_size_gpus() -> None:
    cluster = ClusterConfig(gpu="H200", num_rollout_gpus=12, num_train_gpus=1, tp_size=4, ep_size=2)
    assert cluster.num_replicas == 3


def test_a_replica_holds_at_least_what_it_runs(tmp_path: Path) -> None:
    assert made_up.scenario(tmp_path).max_live_per_replica == 16
    assert made_up.scenario(tmp_path, "engine.max_live_trajectories=99").max_live_per_replica == 99
    assert made_up.scenario(tmp_path, "engine.max_live_trajectories=3").max_live_per_replica == 16


def test_limits_are_inclusive(tmp_path: Path) -> None:
    most = f"workload.prompts_per_step={MAX_SEQUENCES_PER_STEP // 2}"
    steps = f"run.num_steps={MAX_SEQUENCES_PER_RUN // MAX_SEQUENCES_PER_STEP}"
    assert made_up.scenario(tmp_path, most, steps).workload.kind == "synthetic"
    rates = tuple(0.9**j for j in range(1, MAX_DRAFT_TOKENS + 1))
    assert ArmConfig(k=MAX_DRAFT_TOKENS, acceptance=FixedAcceptance(cumulative=rates)).k == 16


def test_a_run_is_limited_by_its_turns_too(tmp_path: Path) -> None:
    turns = (
        'workload.turns={num_turns={kind="constant", value=250}, observation_tokens={kind="constant", value=9}, '
        'delay_s={kind="constant", value=1}, max_context_tokens=40000}'
    )
    assert made_up.scenario(tmp_path, turns, f"workload.prompts_per_step={MAX_TURNS_PER_RUN // (250 * 2 * 5)}")
    with pytest.raises(ScenarioError) as raised:
        made_up.scenario(tmp_path, turns, "workload.prompts_per_step=100000")
    assert str(raised.value).endswith(
        ": workload.turns.num_turns: 250 on average x 1000000 sequences = 250000000 turns, above the limit 200000000; "
        "simulate fewer steps or fewer turns"
    )


def test_one_step_after_the_warm_up_is_enough(tmp_path: Path) -> None:
    assert made_up.scenario(tmp_path, ASYNC).run.num_steps == 5
    with pytest.raises(
        ScenarioError, match=r"run.num_steps: 4 leaves nothing after 4 warm-up steps; raise it or set run"
    ):
        made_up.scenario(tmp_path, ASYNC, "run.num_steps=4")


def test_asynchronous_sides_may_differ_in_size(tmp_path: Path) -> None:
    assert made_up.scenario(tmp_path, ASYNC, "cluster.num_train_gpus=7").cluster.num_train_gpus == 7


def test_plain_arms_need_no_acceptance_and_flat_rates_are_allowed() -> None:
    assert ArmConfig(k=0).acceptance is None
    assert FixedAcceptance(cumulative=(0.5, 0.5, 0.0, 0.0)).cumulative[1] == 0.5
    assert LognormalLength(mean=5, sigma=0, minimum=5, maximum=5).mean == 5
    assert PiecewiseEntropy(points=((0, 0.4),)).points == ((0, 0.4),)


def test_values_never_change_after_load(tmp_path: Path) -> None:
    scenario = made_up.scenario(tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        scenario.name = "other"  # type: ignore[misc]


def test_defaults_are_the_usual_ones() -> None:
    assert RunConfig() == RunConfig(num_steps=100, first_step=0, warmup_steps=None, replications=8, seed=0)
    assert FullyAsyncPolicy(max_staleness=1).in_flight == "abort_resume"


@pytest.mark.parametrize("stated", [{"speedup": 1.4}, {"with_spec": 9.0}, {"with_spec": 9.0, "baseline": 12.0}])
def test_a_measured_row_states_a_speedup_or_the_arm(stated: dict[str, float]) -> None:
    assert MeasuredConfig(arm="a", quantity="step_s", source="a log", **stated).arm == "a"  # type: ignore[arg-type]


def test_every_field_says_what_it_is_in_the_schema() -> None:
    schema = Scenario.model_json_schema()
    for name, model in schema["$defs"].items():
        assert model.get("description"), name
