"""A scenario from what a log says of its own run, for a user who gives none; a calibration fits the rest of it."""

from typing import Any, Final

import numpy as np

from simulator.errors import ScenarioError
from simulator.forecast.steps import logged_steps
from traces.architecture import load_architecture
from traces.errors import TraceError
from traces.hardware import load_gpu
from traces.measured import MeasuredRun

_NEEDED: Final = ("model", "gpu")


def scenario_of(run: MeasuredRun) -> dict[str, Any]:
    """Return a scenario as tomllib would read it: model, GPUs and batch as logged, the rest usual.

    Raises:
        ScenarioError: The log does not say its model or GPUs, or they are not in the tables; one line.
    """
    setup = run.setup
    missing = [name for name in _NEEDED if getattr(setup, name) is None]
    num_rollout, num_train = setup.num_rollout_gpus or setup.num_gpus, setup.num_train_gpus or setup.num_gpus
    if num_rollout is None or num_train is None:
        missing.append("number of GPUs")
    if missing:
        raise ScenarioError(f"{run.name}: the log does not say its {', '.join(missing)}; state them in a --scenario")
    assert setup.model is not None
    assert setup.gpu is not None
    try:
        model, gpu = load_architecture(setup.model).name, load_gpu(setup.gpu).name
    except TraceError as error:
        raise ScenarioError(f"{run.name}: {error}; or state the run in a --scenario") from None
    count = float(np.median(logged_steps(run).num_sequences))
    groups = setup.groups_per_step or max(round(count / (setup.group_size or 1)), 1)
    group_size = setup.group_size or max(round(count / groups), 1)
    tp_size = setup.rollout_tp or 1
    replicas = max((num_rollout or 1) // tp_size, 1)
    prompts = [step.prompt_tokens_mean for step in run.steps if step.prompt_tokens_mean]
    return {
        "schema_version": 1,
        "name": "from-log",
        "question": f"What would drafts change in {run.name}?",
        "model": {"name": model},
        "cluster": {"gpu": gpu, "num_rollout_gpus": num_rollout, "num_train_gpus": num_train, "tp_size": tp_size},
        "policy": _policy(run),
        "engine": {"max_running_seqs": min(max(-(-groups * group_size // replicas), 1), 1024)},
        "workload": {
            "kind": "synthetic",
            "prompts_per_step": groups,
            "group_size": group_size,
            "prompt_tokens": {"kind": "constant", "value": float(np.mean(prompts)) if prompts else 256.0},
            "response_tokens": {"kind": "lognormal", "mean": 1000.0, "sigma": 0.8, "maximum": 100_000.0},
            "temperature": setup.temperature if setup.temperature is not None else 1.0,
        },
        "latency": {"kind": "roofline"},
        "trainer": {"kind": "mfu", "mfu": 0.35},
        "weight_sync": {"kind": "seconds", "seconds": 0.0},
        "arms": {"plain": {"k": 0}},
        "uncertainty": {"latency": 0.15, "draft_and_verify": 0.1, "accept_length": 0.05, "trainer": 0.1},
        "run": {"num_steps": 30, "replications": 4},
    }


def _policy(run: MeasuredRun) -> dict[str, Any]:
    if not run.setup.is_asynchronous:
        return {"kind": "synchronous"}
    staleness = run.setup.max_staleness_versions
    return {"kind": "fully_async", "max_staleness": round(staleness) if staleness is not None else 1}
