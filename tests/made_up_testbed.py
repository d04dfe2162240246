"""A testbed of which every number is made up: its config, the profile of its parts, and what runs of it log."""

from pathlib import Path
from typing import Any

from tests.simulator import made_up
from traces import testbed
from traces.acceptance import AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Provenance
from traces.measured import MeasuredRun, MeasuredStep, Setup, Speculation
from traces.store import save_trace

PROVENANCE = Provenance(source="made up for a test", created="2026-01-31")
RATES = (0.8, 0.5, 0.3)
TRAIN_S, SYNC_S, HAND_OVER_S = 0.5, 0.125, 0.0625
SLOWER = 1.5
"""Latency beside a trainer over that alone."""


def config(**changes: Any) -> "testbed.TestbedConfig":
    fields: dict[str, Any] = {
        "name": "made-up-k2",
        "model": {"hidden_size": 64, "num_layers": 2, "target_batches": 100},
        "policy": {"kind": "synchronous"},
        "k": 2,
        "head_batches": 50,
        "prompts_per_step": 4,
        "group_size": 2,
        "max_running_seqs": 8,
        "response_tokens": ((0.0, 40), (1.0, 40)),
        "max_response_tokens": 64,
        "learning_rate": 1e-4,
        "num_steps": 6,
        **changes,
    }
    return testbed.TestbedConfig.model_validate(fields)


def fully_async(max_staleness: int = 1, in_flight: str = "abort_resume") -> dict[str, Any]:
    return {"kind": "fully_async", "max_staleness": max_staleness, "in_flight": in_flight}


def write_profile(folder: Path, **changes: Any) -> "testbed.TestbedProfile":
    """Write a profile whose engine takes the same for every batch and context, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = made_up.rows(made_up.constant)
    save_trace(made_up.trace(rows), folder / "latency-alone.json")
    slower = [row.model_copy(update={"latency_s": SLOWER * row.latency_s}) for row in rows]
    save_trace(made_up.trace(slower), folder / "latency-beside.json")
    counted = AcceptanceRow(loss="e2e_tv", verify_rule=VerifyRule.REJECTION, cumulative=RATES, num_steps=10_000)
    acceptance = AcceptanceTrace(name="counted", provenance=PROVENANCE, model="testbed", rows=(counted,))
    save_trace(acceptance, folder / "acceptance.json")

    def cost(seconds: float) -> dict[str, Any]:
        return {"constant_s": seconds, "relative_error": 0.02, "num_calls": 5}

    fields: dict[str, Any] = {
        "name": "made-up",
        "provenance": PROVENANCE.model_dump(),
        "config": config(**changes).model_dump(),
        "latency_alone": "latency-alone.json",
        "latency_beside": "latency-beside.json",
        "acceptance": "acceptance.json",
        "train_alone": cost(TRAIN_S),
        "train_beside": cost(SLOWER * TRAIN_S),
        "sync": cost(SYNC_S),
        "hand_over": cost(HAND_OVER_S),
        "prompt_tokens": 24,
        "response_tokens": ((0.0, 40), (1.0, 40)),
        "entropy_nats": 0.3,
    }
    profile = testbed.TestbedProfile.model_validate(fields)
    save_trace(profile, folder / "profile.json")
    return profile


def measured(of: "testbed.TestbedConfig", step_s: float, *, accept_length: float = 2.0) -> MeasuredRun:
    """Return a run that takes so long for every RL step after the first, which takes ten times as long."""
    speculation = Speculation(num_drafts=100, num_draft_tokens=100 * of.k, accept_length=accept_length)
    return MeasuredRun(
        name=of.name,
        provenance=PROVENANCE,
        framework="bebop",
        setup=Setup(is_asynchronous=of.policy.kind != "synchronous", num_draft_tokens=of.k),
        steps=tuple(
            MeasuredStep(
                step=number,
                step_s=step_s * (10 if number == 1 else 1),
                generation_s=step_s / 2,
                generation_wait_s=step_s / 2,
                train_s=step_s / 4,
                sync_s=step_s / 8,
                num_sequences=8,
                response_tokens_mean=40.0,
                speculation=speculation if of.k else None,
                staleness_mean_versions=0.0,
            )
            for number in range(1, of.num_steps + 1)
        ),
    )
