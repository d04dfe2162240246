"""RL rows scored: each is a measured row of a scenario, and its prediction is what `bebop simulate` says of it.

Which scenario answers for which published row is stated here; the inputs it assumes are those of its `[origins]`.
Scenarios run in processes of their own, two at a time. Does not know latencies or laws.
"""

import csv
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from simulator.config import Scenario
from simulator.errors import SimulatorError
from simulator.scenario_file import load_scenario
from simulator.scorecard.names import Assumption
from simulator.scorecard.rows import PUBLISHED
from simulator.scorecard.score import RL_SPEEDUP, SCENARIO_SECONDS, Entry, Scored, Unpredictable
from traces.base import Origin
from traces.errors import TraceError
from traces.report import MeasuredComparison, RunReport

RL_FILE = PUBLISHED / "published_rl_rows.csv"
SCENARIO_FOLDER = PUBLISHED / "scenarios"
MAX_PROCESSES = 2
MAX_SCENARIO_FILES = 200
PULSE_S = 0.3
"""Longest time between two calls of `progress`."""

SCENARIO_OF_ROW: dict[str, tuple[str, int]] = {
    "bebop-reasoning-to": ("bebop-reasoning", 0),
    "bebop-reasoning-rstv": ("bebop-reasoning", 1),
    "bebop-swe-rollout": ("bebop-swe", 0),
    "bebop-swe-step": ("bebop-swe", 1),
    "skyrl-rollout": ("skyrl-qwen3.5-9b", 0),
    "skyrl-step": ("skyrl-qwen3.5-9b", 1),
    "verl-h20-mtp": ("verl-mimo-h20", 0),
    "verl-1step-fsdp2": ("verl-one-step-off", 0),
    "verl-1step-megatron": ("verl-one-step-off", 5),
    "verl-require-batches": ("verl-require-batches", 2),
    "verl-require-batches-2": ("verl-require-batches", 3),
}
"""Published row -> scenario, and which of its measured rows."""
MISSING_FACT: dict[str, str] = {
    "skyrl-train": "nothing to predict: what online training of the head costs is an input of the scenario",
    "respec-b32": "acceptance: not stated, and the model only as 3B to 14B",
    "tlt-b1": "acceptance: not stated, for a tree whose shape is not stated either",
    "marin-async-ngram": "model: the shape of marin's 67B-A2B is not published in the row, nor is acceptance",
    "specroll-gen": "speedup: a range over models from 1.5B to 14B, no single run",
}
"""Published row -> why it has no scenario."""


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario to run: a bundled name or a file."""

    name: str
    path: str


def score_runs(progress: Callable[[float], None] | None = None) -> list[Entry]:
    """Return one entry per published RL row; `progress` is called with the share of the scenarios that are done."""
    names = dict.fromkeys(name for name, _ in SCENARIO_OF_ROW.values())
    reports = _run([Job(name, _where(name)) for name in names], progress)
    entries: list[Entry] = []
    with RL_FILE.open(newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            described = ", ".join(
                part for part in (cells["system"], cells["model"], cells["hardware"], cells["spec"]) if part
            )
            target = SCENARIO_OF_ROW.get(cells["id"])
            if target is None:
                reason = MISSING_FACT.get(cells["id"], "no scenario describes this run")
                entries.append(Unpredictable(cells["id"], described, reason, cells["source"]))
                continue
            name, index = target
            report = reports[name]
            if isinstance(report, str):
                entries.append(Unpredictable(cells["id"], described, report, cells["source"]))
                continue
            row = report.measured[index]
            source = f"{cells['source']}; scenario {name}"
            entries.append(_scored(cells["id"], described, row, float(cells["speedup"]), source, report))
    return entries


def score_scenarios(folder: Path) -> list[Entry]:
    """Return one entry per measured row of the scenarios in a folder (`*.toml`, not below it).

    Raises:
        TraceError: No such folder, or it holds no scenario or too many.
    """
    if not folder.is_dir():
        raise TraceError(f"{folder}: not a folder; give one that holds *.toml files with [[measured]] tables")
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise TraceError(f"{folder}: no scenario here; it must hold *.toml files with [[measured]] tables")
    if len(paths) > MAX_SCENARIO_FILES:
        raise TraceError(f"{folder}: {len(paths)} scenarios are above the limit of {MAX_SCENARIO_FILES}; split them")
    reports = _run([Job(path.name, str(path)) for path in paths])
    entries: list[Entry] = []
    for name, report in reports.items():
        if isinstance(report, str):
            entries.append(Unpredictable(name, "scenario", report, ""))
        elif not report.measured:
            entries.append(Unpredictable(name, "scenario", "measured: the scenario has no [[measured]] table", ""))
        else:
            for index, row in enumerate(report.measured):
                what = f"{report.scenario}, {row.arm}" + (
                    f" against {row.baseline_setup}" if row.baseline_setup else ""
                )
                entries.append(_scored(f"{name}#{index}", what, row, row.measured_speedup, row.source, report))
    return entries


def _scored(
    row_id: str, what: str, row: MeasuredComparison, speedup: float | None, source: str, report: RunReport
) -> Entry:
    assumptions = tuple(
        Assumption(entry.name, entry.value[:80], entry.source)
        for entry in report.provenance
        if entry.origin is Origin.ASSUMED
    )
    if speedup is not None and row.predicted_speedup is not None:
        of = row.predicted_speedup
        quantity = f"speedup of {row.quantity}"
        return Scored(row_id, RL_SPEEDUP, what, quantity, speedup, of.mean, of.low, of.high, source, assumptions)
    if row.measured_arm is None:
        return Unpredictable(row_id, what, "measured: the row states neither a speedup nor a value", source)
    value, share = row.predicted_arm, 0.5
    low, high = value * (1 - share), value * (1 + share)
    return Scored(row_id, SCENARIO_SECONDS, what, row.quantity, row.measured_arm, value, low, high, source, assumptions)


def _run(jobs: Sequence[Job], progress: Callable[[float], None] | None = None) -> dict[str, RunReport | str]:
    """Return each scenario's report, or in one line why there is none; what `progress` raises ends it."""
    if len(jobs) == 1:
        return {jobs[0].name: _report(jobs[0])}
    # Not forked: compiled kernels and threads do not survive a fork.
    workers = min(MAX_PROCESSES, os.cpu_count() or 1, len(jobs))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        futures = {job.name: pool.submit(_report, job) for job in jobs}
        waiting = set(futures.values())
        while waiting:
            _, waiting = wait(waiting, PULSE_S, FIRST_COMPLETED)
            if progress is not None:
                progress(1 - len(waiting) / len(futures))
        return {name: future.result() for name, future in futures.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a scenario under way is run to its end, and dropped


def _report(job: Job) -> RunReport | str:
    from simulator.run import simulate  # compiled kernels: slow to import, and only workers need them

    try:
        return simulate(compared_arms(load_scenario(job.path)), with_waterfall=False)
    except (SimulatorError, TraceError, OSError) as error:
        return str(error).splitlines()[0]


def compared_arms(scenario: Scenario) -> Scenario:
    """Return the scenario without arms that no measured row names; the others' numbers do not depend on them."""
    named = {row.arm for row in scenario.measured if row.arm is not None}
    arms = {name: arm for name, arm in scenario.arms.items() if name in named} or dict(
        [next(iter(scenario.arms.items()))]
    )
    dropped = [f"arms.{name}" for name in scenario.arms if name not in arms]
    origins = {
        path: origin
        for path, origin in scenario.origins.items()
        if not any(path == gone or path.startswith(f"{gone}.") for gone in dropped)
    }
    return scenario.model_copy(update={"arms": arms, "origins": origins})


def _where(name: str) -> str:
    path = SCENARIO_FOLDER / f"{name}.toml"
    return str(path) if path.is_file() else name
