"""Work: what a worker process does with one job. Imported by workers alone, because the kernels are slow to import.

A worker's working directory is the folder of uploaded traces: their names are then files, and no path of the server
gets into a scenario, nor into its hash.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from simulator.config import Scenario, UncertaintyConfig
from simulator.service.requests import Kind, PlanRequest, SweepRequest, design_of
from simulator.service.settings import Settings
from traces.base import Strict

if TYPE_CHECKING:
    from simulator.sweep.executor import Executor

Progress = Callable[[float], None]

MAX_REASONS: Final = 5


class SweepReport(Strict):
    """What became of a sweep; its numbers are in the Parquet file."""

    points: int
    failed: int
    digest: str
    """The same for the same points, wherever they were run."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Of failed points, the most frequent ones: reason -> how often."""
    notes: tuple[str, ...] = ()


def work_out(settings: Settings, kind: Kind, job_id: str, body: str, progress: Progress) -> str:
    """Return the answer of a job as JSON.

    Raises:
        ScenarioError: It cannot be run as written; one line.
        TraceError: A trace it names is missing or broken.
        SweepError: The Ray cluster is not there.
    """
    return {"run": _run, "sweep": _sweep, "plan": _plan}[kind](settings, job_id, body, progress)


def evaluate_in(folder: str, text: str) -> str:
    """Return the result of a sweep's point whose uploaded traces lie in `folder`."""
    from simulator.sweep.point import evaluate

    os.chdir(folder)
    return evaluate(text)


def _run(_settings: Settings, _job_id: str, body: str, progress: Progress) -> str:
    from simulator.run import simulate

    return simulate(Scenario.model_validate_json(body, strict=True), progress=progress).to_json()


def _plan(_settings: Settings, _job_id: str, body: str, progress: Progress) -> str:
    from simulator.optimize import optimize
    from traces.prices import load_prices

    asked = PlanRequest.model_validate_json(body, strict=True)
    return optimize(
        asked.scenario,
        asked.arm,
        max_gpus=asked.max_gpus,
        max_staleness=asked.max_staleness,
        max_draft_tokens=asked.max_draft_tokens,
        num_plans=asked.num_plans,
        price=load_prices().get(asked.scenario.cluster.gpu),
        progress=progress,
    ).to_json()


def _sweep(settings: Settings, job_id: str, body: str, progress: Progress) -> str:
    from simulator.sweep.driver import run_sweep
    from simulator.sweep.point import Base

    asked = SweepRequest.model_validate_json(body, strict=True)
    fixed = [f"run.replications={asked.replications or 1}"]
    if asked.replications is None:
        fixed += [f"uncertainty.{name}=0.0" for name in UncertaintyConfig.model_fields]
    base = Base(_toml_of(asked.scenario), asked.scenario.name, tuple(fixed), asked.arms)
    folder = settings.sweep_folder / job_id
    folder.parent.mkdir(exist_ok=True)
    sweep = run_sweep(
        base,
        design_of(asked),
        _executor(settings),
        folder,
        resume=True,
        progress=lambda done, total: progress(done / max(total, 1)),
    )
    reasons = Counter(outcome.reason or "" for outcome in sweep.outcomes if outcome.status == "failed")
    return SweepReport(
        points=len(sweep.outcomes),
        failed=sweep.num_failed,
        digest=sweep.digest,
        reasons=dict(reasons.most_common(MAX_REASONS)),
        notes=sweep.notes,
    ).model_dump_json()


def _executor(settings: Settings) -> "Executor":
    function = partial(evaluate_in, str(settings.trace_folder))
    if settings.ray_address is not None:
        from simulator.sweep.on_ray import RayExecutor

        return RayExecutor(settings.ray_address, function=function)
    from simulator.sweep.local import LocalExecutor

    return LocalExecutor(os.cpu_count() or 1, memory_bytes=settings.limits.worker_bytes, function=function)


def _toml_of(scenario: Scenario) -> str:
    """Return what a point of a sweep needs of a scenario as TOML, which has no null: where None is, the default is."""
    from simulator.sweep.design import toml_value

    content = scenario.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, exclude={"measured", "setups", "origins"}
    )
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in content.items())


def prepare(folder: Path) -> None:
    """Make a process a worker's: where uploaded traces are files by their names, and the kernels are loaded."""
    import simulator.run  # noqa: F401

    os.chdir(folder)
