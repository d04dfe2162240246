"""Logs written by the simulator itself, from scenarios whose parameters are therefore known."""

import tomllib
from typing import Any

import numpy as np

from simulator.calibration.toml import to_toml
from simulator.config import Scenario
from simulator.inputs import Noise, make_parts, make_workload, resolve
from simulator.policies import run_cluster
from simulator.scenario_file import load_scenario, parse_scenario, read_scenario
from tests.simulator.forecast.logs import run_of
from traces.measured import MeasuredRun, MeasuredStep, Setup

SMALL = (
    "cluster.num_rollout_gpus=2",
    "cluster.num_train_gpus=2",
    "workload.prompts_per_step=16",
    "workload.response_tokens={kind='lognormal', median=700, sigma=0.9, maximum=8000}",
    "workload.length_drift=[[0, 0.7], [24, 1.6]]",
    "engine.max_running_seqs=128",
    "policy.switch_s=0",
    "trainer={kind='linear', constant_s=3.0, s_per_token=40e-6, log_prob_s_per_token=12e-6}",
    "weight_sync.seconds=2.5",
    "run.num_steps=25",
    "run.replications=2",
)
TRUE = {
    "engine.efficiency": 0.6,
    "trainer.s_per_token": 40e-6,
    "trainer.log_prob_s_per_token": 12e-6,
    "weight_sync.seconds": 2.5,
}


def truth(*overrides: str, name: str = "verl-sync") -> Scenario:
    """Return the scenario that a log is written from."""
    return load_scenario(name, [*SMALL, *overrides])


def believed(*overrides: str, name: str = "verl-sync") -> dict[str, Any]:
    """Return the same scenario without what a calibration is to find, as tomllib reads it."""
    text, path = read_scenario(name)
    scenario = parse_scenario(text, path.name, [*SMALL, *overrides])
    content = scenario.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    content |= {"schema_version": 1, "question": "?"}
    content["trainer"] = {"kind": "mfu", "mfu": 0.4, "log_prob_pass": True}
    content["weight_sync"] = {"kind": "seconds", "seconds": 30.0}
    content["workload"].pop("length_drift", None)
    content["workload"]["response_tokens"] = {"kind": "lognormal", "median": 2000, "sigma": 0.5, "maximum": 8000}
    content["engine"].pop("efficiency", None)
    content["origins"] = {}
    return tomllib.loads(to_toml(_with_kinds(content, scenario)))


def _with_kinds(content: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    """Put back the tags of unions, which are defaults of their own tables."""
    for part in ("policy", "latency"):
        content[part]["kind"] = getattr(scenario, part).kind
    content["workload"]["kind"] = "synthetic"
    content["workload"]["prompt_tokens"]["kind"] = "lognormal"
    for arm in content["arms"].values():
        arm["acceptance"]["kind"] = "fixed"
    return content


def log_of(scenario: Scenario, *, arm: str = "baseline", noise: float = 0.02, seed: int = 0) -> MeasuredRun:
    """Run one arm of a scenario and write down what a framework would log."""
    inputs, source = resolve(scenario), np.random.default_rng(seed)
    workload = make_workload(inputs, seed)
    parts, _ = make_parts(inputs, arm, workload, Noise(accept_length=0.0), seed)
    done = run_cluster(parts)
    trainer, config = scenario.trainer, scenario.workload
    assert trainer.kind == "linear"
    assert config.kind == "synthetic"
    size = config.prompts_per_step * config.group_size
    ends, steps = [0.0] + [step.end_s for step in done.steps], []
    for i, step in enumerate(done.steps):
        some = slice(i * size, (i + 1) * size)
        lengths, prompts = workload.output_tokens[some], workload.input_tokens[some]
        tokens = float(lengths.sum() + prompts.sum())
        blur = np.exp(noise * source.standard_normal(5))
        steps.append(
            MeasuredStep(
                step=i,
                step_s=(ends[i + 1] - ends[i]) * blur[0],
                generation_s=step.generation_s * blur[1] if step.generation_s else None,
                generation_wait_s=step.wait_s * blur[1] if scenario.policy.kind == "fully_async" else None,
                train_s=trainer.s_per_token * tokens * blur[2],
                log_prob_s=trainer.log_prob_s_per_token * tokens * blur[3],
                sync_s=step.sync_s * blur[4],
                num_sequences=size,
                response_tokens_mean=float(lengths.mean()),
                response_tokens_max=float(lengths.max()),
                prompt_tokens_mean=float(prompts.mean()),
                clipped_fraction=float((lengths >= 8000).mean()),
                entropy_nats=0.3 + 0.01 * i,
            )
        )
    return run_of(steps, Setup(is_asynchronous=scenario.policy.kind == "fully_async", max_response_tokens=8000))
