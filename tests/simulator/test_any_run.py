"""Whatever is combined with whatever: the run ends, and its books balance (`check_run` is always on)."""

import random
from dataclasses import replace

import pytest

from simulator.config import (
    ConstantLength,
    Length,
    LognormalLength,
    OneStepOffPolicy,
    PolicyConfig,
    SynchronousPolicy,
    SyntheticWorkload,
    TurnsConfig,
)
from simulator.errors import ScenarioError
from simulator.failures import ReplicaFailures, TrainerFailures
from simulator.metrics import measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.rng import stream_key
from simulator.rollout_state import JUMP, PER_STEP
from simulator.workload import draw_workload
from tests.simulator.small_parts import PROMPT, Small, fully_async

RULES = ["wait", "abort_resume", "restart", "in_place", "in_place_recompute"]
ROUTERS = ["least_in_flight", "round_robin", "sticky", "static_split"]
LENGTHS: list[Length] = [
    ConstantLength(value=61),
    LognormalLength(mean=80, sigma=0.7, maximum=600),
    LognormalLength(mean=80, sigma=1.3, maximum=3000),
]


def any_policy(pick: random.Random) -> PolicyConfig:
    kind = pick.choice([SynchronousPolicy, OneStepOffPolicy, None, None, None])
    if kind is not None:
        refill, leftover = pick.choice([None, "by_round"]), pick.choice([None, "resume"])
        return kind(oversampling=pick.choice([None, 1.3, 2.0]), refill=refill, leftover=leftover)
    fields: dict[str, object] = {"overdue": pick.choice([None, "keep", "drop", "drop_running"])}
    if pick.random() < 0.3:
        fields |= {"fetch_groups": pick.choice([1, 2, 4]), "fetches_per_sync": pick.choice([1, 2, 3])}
    if fields["overdue"] in (None, "keep") and pick.random() < 0.3:
        fields["order"] = "in_order"
    return fully_async(pick.choice([0, 1, 2, 4]), pick.choice(RULES), **fields)


def any_small(pick: random.Random, seed: int) -> Small:
    policy = any_policy(pick)
    small = Small(
        policy,
        pick.choice(LENGTHS),
        num_steps=pick.choice([4, 8]),
        group_size=pick.choice([1, 2, 4]),
        num_replicas=pick.choice([1, 2, 3]),
        max_running=pick.choice([1, 3, 8]),
        train_s=pick.choice([0.1, 1.0, 20.0]),
        sync_s=pick.choice([0.0, 0.5, 5.0]),
        pmf=pick.choice([(1.0,), (0.2, 0.2, 0.2, 0.4)]),
        kv_tokens=pick.choice([1e9, 4800.0]),
        kv_block_tokens=pick.choice([1, 16]),
        share_prompts=pick.random() < 0.4,
        router=pick.choice(ROUTERS),
        useful_fraction=None if getattr(policy, "order", None) else pick.choice([None, 0.3, 0.7]),
        seed=seed,
    )
    if policy.kind == "fully_async":
        small = small.but(sync_mode=pick.choice(["blocking", "overlapped", "pull"]))
        small = small.but(swap_s=0.3 if small.sync_mode == "overlapped" else 0.0)
        if small.router == "least_in_flight":
            small = small.but(num_helpers=pick.choice([0, 2]), switch_s=pick.choice([0.0, 0.2]))
    return small


def any_parts(pick: random.Random, seed: int) -> Parts:
    small = any_small(pick, seed)
    parts = small.parts()
    if pick.random() < 0.4:
        turns = TurnsConfig(
            num_turns=ConstantLength(value=4),
            observation_tokens=ConstantLength(value=20),
            delay_s=LognormalLength(mean=0.5, sigma=1.0, minimum=0.01, maximum=20.0),
            max_context_tokens=4000,
        )
        config = SyntheticWorkload(
            prompts_per_step=4,
            group_size=small.group_size,
            prompt_tokens=ConstantLength(value=PROMPT),
            response_tokens=small.response,
            useful_fraction=small.useful_fraction,
            turns=turns,
        )
        workload = draw_workload(config, parts.workload.num_groups, "any", seed)
        parts = replace(parts, workload=workload, max_live=parts.max_running * pick.choice([1, 3]))
    crashes = ReplicaFailures(pick.choice([5.0, 30.0]), 4.0, pick.random() < 0.5, stream_key("crashes", seed))
    failures = TrainerFailures(pick.choice([20.0, 100.0]), 3.0, pick.choice([1, 2]), stream_key("failures", seed))
    return replace(
        parts,
        kv_tokens=max(parts.kv_tokens, float(parts.workload.max_context_tokens + 64)),
        chunk_tokens=pick.choice([0, 0, 64]),
        crashes=crashes if pick.random() < 0.3 else None,
        failures=failures if pick.random() < 0.25 else None,
    )


@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
@pytest.mark.parametrize("first_seed", range(0, 160, 20))
def test_any_run_ends_and_adds_up(first_seed: int, mode: int) -> None:
    num_refused = 0
    for seed in range(first_seed, first_seed + 20):
        parts = any_parts(random.Random(seed), seed)
        try:
            log = run_cluster(parts, mode=mode)
        except ScenarioError:
            assert parts.failures is not None  # a trainer that fails faster than it trains
            num_refused += 1
            continue
        outcome = measure(log, parts, 2)
        assert len(log.steps) == parts.num_steps
        assert sum(outcome.rollout_shares) == pytest.approx(1.0)
        assert sum(outcome.trainer_shares) + sum(outcome.failure_shares) == pytest.approx(1.0)
    assert num_refused <= 3
