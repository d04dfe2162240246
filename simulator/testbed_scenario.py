"""Scenario of a testbed: its config and what was measured of its parts become a question to the simulator.

Knows no run: a prediction is made of a config and a profile alone. Does not simulate anything.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import parse_fields
from traces.acceptance import AcceptanceRow, AcceptanceTrace
from traces.latency import LatencyRow, LatencyTrace, Operation
from traces.store import load_trace
from traces.testbed import PhaseCost, TestbedConfig, TestbedProfile

ARM: Final = "mtp"
"""Name of the arm that drafts; plain decoding is every scenario's baseline."""

REPLICATIONS: Final = 24

_STAND_IN: Final = {"model": {"name": "Qwen3.5-0.8B"}, "cluster": {"gpu": "H200"}}
"""Nothing of them is used: memory, training and weight sync are all stated."""

_SD_OF_IQR: Final = 1 / 1.349
"""Standard deviation over interquartile range, of normal errors."""


def scenario_of(config: TestbedConfig, profile: TestbedProfile, folder: Path) -> Scenario:
    """Return the question: how much faster is `config` than its own plain decoding.

    Args:
        config: The run; without drafts the arm repeats the baseline.
        profile: What was measured of its parts, for a config with the same `profile_key`.
        folder: Where the profile's latency and acceptance files lie.

    Raises:
        ScenarioError: The profile is of another testbed, or lacks what this config needs.
        TraceError: One of its files is missing or broken.
    """
    _check_profile(config, profile)
    alone = load_trace(folder / profile.latency_alone, LatencyTrace)
    content: dict[str, Any] = {
        "schema_version": 1,
        "name": config.name,
        "question": f"How much faster is testbed {config.name} with {config.k} draft tokens than without?",
        "model": _STAND_IN["model"],
        "cluster": {**_STAND_IN["cluster"], "num_rollout_gpus": 1, "num_train_gpus": 1},
        "policy": config.policy.model_dump(exclude_none=True),
        "engine": {
            "max_running_seqs": config.max_running_seqs,
            "kv_cache_tokens": _kv_tokens(config, profile),
            "kv_block_tokens": 1,
        },
        "workload": _workload(config, profile),
        "entropy": {"kind": "constant", "entropy_nats": profile.entropy_nats},
        "latency": {"kind": "trace", "trace": str(folder / profile.latency_alone), "allow_mismatch": True},
        "trainer": {"kind": "linear", **_training(profile.train_alone, profile.hand_over)},
        "weight_sync": {"kind": "seconds", "seconds": profile.sync.constant_s},
        "arms": {ARM: _arm(config, profile, folder)},
        "uncertainty": uncertainty(config, profile, alone, _acceptance_rows(config, profile, folder)),
        "run": {
            "num_steps": config.num_steps,
            "first_step": 1,  # as a testbed counts
            "warmup_steps": config.num_warmup_steps,
            "replications": REPLICATIONS,
            "seed": config.seed,
        },
    }
    if config.policy.kind != "synchronous":
        _let_trainer_and_engine_meet(content, config, profile, folder)
    content["origins"] = _origins(profile)
    return parse_fields(content, config.name)


def _check_profile(config: TestbedConfig, profile: TestbedProfile) -> None:
    """Raise ScenarioError unless the profile is of this testbed: everything agrees that `profile_key` has."""
    ours, theirs = profile_key(config), profile_key(profile.config)
    different = sorted(name for name in ours if ours[name] != theirs.get(name))
    if config.k == 0:
        different = [name for name in different if name not in _OF_DRAFTS]
    if different:
        name = different[0]
        raise ScenarioError(
            f"{config.name}: {name} is {ours[name]}, but profile {profile.name} was measured with {theirs[name]}; "
            "measure one with `bebop testbed profile`"
        )


def profile_key(config: TestbedConfig) -> dict[str, Any]:
    """Return what of a config its profile depends on; llama.cpp is timed as it drafts and accepts, at one k."""
    return config.model_dump(mode="json", exclude={*_NOT_OF_PROFILE, *(("k",) if config.engine == "torch" else ())})


_NOT_OF_PROFILE: Final = ("schema_version", "name", "policy", "num_steps", "num_warmup_steps")
_OF_DRAFTS: Final = ("k", "verify_rule", "head_batches", "head_update", "forced_acceptance")


def _kv_tokens(config: TestbedConfig, profile: TestbedProfile) -> int:
    """Return a KV cache that never overflows: every slot of a testbed's engine holds the longest response."""
    longest = profile.prompt_tokens + config.max_response_tokens + config.k + 1
    return 2 * (config.max_running_seqs + 1) * longest


def _workload(config: TestbedConfig, profile: TestbedProfile) -> dict[str, Any]:
    points = profile.response_tokens
    lengths: dict[str, Any] = {"kind": "quantiles", "points": points}
    if points[0][1] == points[-1][1]:
        lengths = {"kind": "constant", "value": points[0][1]}
    return {
        "kind": "synthetic",
        "prompts_per_step": config.prompts_per_step,
        "group_size": config.group_size,
        "prompt_tokens": {"kind": "constant", "value": profile.prompt_tokens},
        "response_tokens": lengths,
        "group_correlation": profile.group_correlation,
        "temperature": config.temperature,
    }


def _training(cost: PhaseCost, hand_over: PhaseCost) -> dict[str, float]:
    """Return what the trainer is busy with in an RL step, what it is handed and hands over included."""
    return {
        "constant_s": cost.constant_s + hand_over.constant_s,
        "s_per_token": cost.s_per_token + hand_over.s_per_token,
    }


def _arm(config: TestbedConfig, profile: TestbedProfile, folder: Path) -> dict[str, Any]:
    if config.k == 0:
        return {"k": 0}
    if config.forced_acceptance is not None:
        return {"k": config.k, "acceptance": {"kind": "fixed", "cumulative": config.forced_acceptance}}
    rows = _acceptance_rows(config, profile, folder)
    assert profile.acceptance is not None
    return {
        "k": config.k,
        "acceptance": {
            "kind": "trace",
            "trace": str(folder / profile.acceptance),
            "loss": rows[0].loss,
            "verify_rule": config.verify_rule,
        },
    }


def _acceptance_rows(config: TestbedConfig, profile: TestbedProfile, folder: Path) -> Sequence[AcceptanceRow]:
    """Return the rows that the arm uses; empty where acceptance is forced, or nothing is drafted.

    Raises:
        ScenarioError: There are none.
    """
    if config.k == 0 or config.forced_acceptance is not None:
        return ()
    if profile.acceptance is None:
        raise ScenarioError(f"{config.name}: profile {profile.name} counted no acceptance; profile it with k above 0")
    trace = load_trace(folder / profile.acceptance, AcceptanceTrace)
    rows = [
        row for row in trace.rows if row.verify_rule.value == config.verify_rule and len(row.cumulative) >= config.k
    ]
    if not rows:
        raise ScenarioError(
            f"{config.name}: acceptance trace {trace.name} has no rows of {config.verify_rule} with {config.k} "
            "positions; profile it again with this k"
        )
    return rows


def _let_trainer_and_engine_meet(
    content: dict[str, Any], config: TestbedConfig, profile: TestbedProfile, folder: Path
) -> None:
    """State what engine and trainer cost while the other one computes beside them."""
    if profile.latency_beside is None or profile.train_beside is None:
        raise ScenarioError(
            f"{config.name}: {config.policy.kind} generates while it trains, but profile {profile.name} was measured "
            "of parts alone; profile it with this policy"
        )
    content["latency"]["while_training"] = str(folder / profile.latency_beside)
    content["trainer"]["while_generating"] = _training(profile.train_beside, profile.hand_over)


def uncertainty(
    config: TestbedConfig, profile: TestbedProfile, latency: LatencyTrace, rows: Sequence[AcceptanceRow]
) -> dict[str, float]:
    """Return how wrong the profile says its own numbers may be, as relative standard deviations."""
    decode = [row for row in latency.rows if row.operation is Operation.DECODE]
    drafting = [row for row in latency.rows if row.operation in (Operation.VERIFY, Operation.DRAFT)]
    plain, spec = _spread(decode), _spread(drafting)
    between = 0.0
    if latency.measurement is not None and latency.measurement.held_out is not None:
        between = latency.measurement.held_out.median
    return {
        "latency": min(math.hypot(plain, between), 1.0),
        "draft_and_verify": min(math.hypot(plain, spec), 1.0) if config.k else 0.0,
        "accept_length": _accept_length_sd(rows, config.k),
        # What one call in twenty exceeds is about two standard deviations.
        "trainer": min(profile.train_alone.relative_error / 2, 1.0),
        "weight_sync": min(profile.sync.relative_error / 2, 1.0),
    }


def _spread(rows: Sequence[LatencyRow]) -> float:
    """Return the typical error of a row: of its samples, as standard deviation."""
    spreads = [row.relative_spread for row in rows if row.relative_spread is not None]
    return median(spreads) * _SD_OF_IQR if spreads else 0.0


def _accept_length_sd(rows: Sequence[AcceptanceRow], k: int) -> float:
    """Return the standard error of the accept length, verify steps taken as independent."""
    counted = [(row.cumulative[:k], row.num_steps) for row in rows if row.num_steps]
    if not counted:
        return 0.0
    num = sum(steps for _, steps in counted)
    mean = [sum(rates[j] * steps for rates, steps in counted) / num for j in range(k)]
    # E[A] = sum c_j and E[A^2] = sum (2 j - 1) c_j for the number A of accepted drafts.
    first = math.fsum(mean)
    second = math.fsum((2 * j + 1) * rate for j, rate in enumerate(mean))
    return math.sqrt(max(second - first**2, 0.0) / num)


def _origins(profile: TestbedProfile) -> dict[str, dict[str, str]]:
    """Return where each number comes from: of the config as stated, of the profile as measured."""
    measured = {"origin": "measured", "source": f"testbed profile {profile.name}: {profile.provenance.source}"[:1000]}
    stated = {"origin": "stated", "source": "the testbed's config"}
    unused = {"origin": "assumed", "source": "nothing of it is used: memory, training and weight sync are stated"}
    of_config = ("policy", "engine", "workload.prompts_per_step", "workload.group_size", "workload.temperature")
    of_profile = ("workload.prompt_tokens", "workload.response_tokens", "workload.group_correlation")
    return {
        "model": unused,
        "cluster": unused,
        **dict.fromkeys(of_config, stated),
        **dict.fromkeys((*of_profile, "trainer", "weight_sync", "uncertainty"), measured),
    }
