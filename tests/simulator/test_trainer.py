"""Trainer cost: linear in tokens, stated or from FLOPs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import ClusterConfig, LinearTrainer, MfuTrainer, TrainerConfig, TrainerStall
from simulator.run import simulate
from simulator.scenario_file import load_scenario
from simulator.trainer import TrainerCost, trainer_cost
from traces.architecture import load_architecture
from traces.hardware import load_gpu

DENSE, SPARSE = load_architecture("Qwen3-8B"), load_architecture("Qwen3-30B-A3B")


def cost(config: TrainerConfig, *, num_gpus: int = 8, architecture=DENSE) -> TrainerCost:  # type: ignore[no-untyped-def]
    cluster = ClusterConfig(gpu="H200", num_rollout_gpus=8, num_train_gpus=num_gpus)
    return trainer_cost(config, cluster, architecture, load_gpu("H200"))


def test_a_linear_trainer_is_what_it_says() -> None:
    config = LinearTrainer(constant_s=10.0, s_per_token=3e-6, log_prob_s_per_token=1e-6, reference_s_per_token=2e-6)
    assert cost(config).step_s(0) == 10.0
    assert cost(config).step_s(1e6) == pytest.approx(16.0)
    assert cost(config, num_gpus=800) == cost(config)


@pytest.mark.parametrize(("log_prob", "reference", "passes"), [(0, 0, 6), (1, 0, 8), (0, 1, 8), (1, 1, 10)])
def test_flops_per_token_are_six_n_and_two_n_per_forward_pass(log_prob: int, reference: int, passes: int) -> None:
    config = MfuTrainer(mfu=0.25, constant_s=2.0, log_prob_pass=bool(log_prob), reference_pass=bool(reference))
    seconds = passes * DENSE.active_params * 1e6 / (8 * load_gpu("H200").bf16_flops * 0.25)
    assert cost(config).step_s(1e6) == pytest.approx(2.0 + seconds)


@pytest.mark.parametrize(("size", "passes"), [(1.0, 14), (0.5, 10), (2.0, 22)])
def test_a_critic_costs_two_n_for_values_and_six_n_for_its_update(size: float, passes: int) -> None:
    policy_alone, both = cost(MfuTrainer(mfu=0.25)), cost(MfuTrainer(mfu=0.25, critic_size=size))
    assert both.s_per_token / policy_alone.s_per_token == pytest.approx(passes / 6)


def test_a_linear_trainer_has_its_critic_stated_in_seconds() -> None:
    config = LinearTrainer(s_per_token=3e-6, critic_s_per_token=4e-6)
    assert cost(config).step_s(1e6) == pytest.approx(7.0)


def test_a_trainer_by_hand() -> None:
    """6 x 8.19e9 x 1e6 FLOPs on 8 x 989e12 at 40 % take 15.5 s."""
    assert cost(MfuTrainer(mfu=0.4)).step_s(1e6) == pytest.approx(15.5, rel=0.01)


def test_a_mixture_of_experts_trains_its_active_parameters() -> None:
    sparse, dense = cost(MfuTrainer(mfu=0.4), architecture=SPARSE), cost(MfuTrainer(mfu=0.4))
    assert sparse.s_per_token / dense.s_per_token == pytest.approx(SPARSE.active_params / DENSE.active_params)
    assert SPARSE.active_params < DENSE.active_params < SPARSE.num_params


@given(st.floats(0.01, 1.0), st.integers(1, 1000), st.floats(0, 1e9))
def test_twice_the_gpus_or_twice_the_mfu_take_half_the_time(mfu: float, num_gpus: int, tokens: float) -> None:
    seconds = cost(MfuTrainer(mfu=mfu / 2), num_gpus=num_gpus).step_s(tokens)
    assert cost(MfuTrainer(mfu=mfu), num_gpus=num_gpus).step_s(tokens) == pytest.approx(seconds / 2)
    assert cost(MfuTrainer(mfu=mfu / 2), num_gpus=2 * num_gpus).step_s(tokens) == pytest.approx(seconds / 2)


def test_scaling_scales_constant_and_slope() -> None:
    assert TrainerCost(10.0, 3e-6).scaled(1.5) == TrainerCost(15.0, 4.5e-6)


def test_a_stall_follows_every_nth_step_and_no_other() -> None:
    stalls = (TrainerStall(every_steps=3, seconds=10.0), TrainerStall(every_steps=2, seconds=0.5))
    trainer = TrainerCost(1.0, 0.0, stalls)
    assert [trainer.stall_s(step) for step in range(1, 7)] == [0.0, 0.5, 10.0, 0.5, 0.0, 10.5]
    assert trainer.scaled(2.0).stall_s(3) == 10.0
    assert TrainerCost(1.0, 0.0).stall_s(3) == 0.0


def test_a_validation_every_other_step_makes_a_synchronous_run_longer_by_just_that() -> None:
    overrides = ("policy={kind='synchronous'}", "run.num_steps=4", "run.replications=1", "run.warmup_steps=0")
    small = ("workload.prompts_per_step=4", "cluster.num_rollout_gpus=2", "cluster.num_train_gpus=2")
    plain = simulate(load_scenario("bebop-reasoning", [*overrides, *small])).baseline
    stall = "trainer.stalls=[{every_steps=2, seconds=100}]"
    validated = simulate(load_scenario("bebop-reasoning", [*overrides, *small, stall])).baseline
    assert validated.step_s == pytest.approx(plain.step_s + 50.0)
    assert validated.train_s == pytest.approx(plain.train_s + 50.0)
