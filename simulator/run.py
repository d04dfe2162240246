"""Run: a scenario in, a report out. Same scenario, same seed: the same bytes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, Queue
from threading import Event

from simulator.config import Scenario
from simulator.explain import STAGES, Counterfactual
from simulator.inputs import BASELINE, Inputs, make_noise, make_parts, make_workload, resolve, unbounded_staleness
from simulator.metrics import Outcome, measure
from simulator.parts import Parts
from simulator.policies import run_cluster
from simulator.provenance import check_origins
from simulator.report import build_report
from simulator.results import Replication, gather
from simulator.run_warnings import workload_warnings
from simulator.setups import Setup, compared_setups, under_setup
from traces.report import RunReport

MAX_THREADS = 8
"""Replications run at a time; each holds the workload of a whole run."""


def simulate(
    scenario: Scenario,
    *,
    progress: Callable[[float], None] | None = None,
    answered: Callable[[RunReport], None] | None = None,
    with_waterfall: bool = True,
) -> RunReport:
    """Predict what the scenario asks.

    Replications run in threads, as many as there are cores (the kernels do not hold the interpreter's lock); the
    answer does not depend on how many.

    Args:
        scenario: The question.
        progress: Called with the share of the work that is done, 0..1, always from the calling thread.
        answered: Called from there too, with the report but for its waterfalls, which take most of the time.
        with_waterfall: Whether to run what explains a speedup: four more runs for each one. No other number changes.

    Raises:
        ScenarioError: The scenario cannot be run as written; one line.
        TraceError: A trace it names is missing or broken.
    """
    check_origins(scenario)
    inputs = resolve(scenario)
    setups = {setup: resolve(under_setup(scenario, setup)) for setup in compared_setups(scenario)}
    num_replications, num_arms = scenario.run.replications, 1 + len(scenario.arms)
    num_plain = num_replications * (num_arms + len(setups))
    num_staged = num_replications * num_arms * len(STAGES) if with_waterfall else 0
    ticks: Queue[None] = Queue()
    stop = Event()
    executor = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
    parts: dict[int, dict[str, Parts]] | None = {} if with_waterfall else None

    def wait_for(futures: "list[Future[Replication]]", num_before: int, num_after: int) -> list[Replication]:
        for num_done in range(num_before + 1, num_after + 1):
            if not _wait_for_tick(ticks, futures):
                break
            if progress is not None:
                progress(num_done / (num_plain + num_staged))
        return [future.result() for future in futures]

    try:
        futures = [executor.submit(_replicate, inputs, setups, i, parts, ticks, stop) for i in range(num_replications)]
        replications = wait_for(futures, 0, num_plain)
        if parts is not None:
            if answered is not None:
                answered(build_report(inputs, gather(replications)))
            futures = [
                executor.submit(_explain, inputs, i, found, parts, ticks, stop) for i, found in enumerate(replications)
            ]
            replications = wait_for(futures, num_plain, num_plain + num_staged)
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
    return build_report(inputs, gather(replications))


def _wait_for_tick(ticks: Queue[None], futures: Sequence[Future[Replication]]) -> bool:
    """Return True when one more run is done, False when nothing more will come because a replication failed."""
    while True:
        try:
            ticks.get(timeout=0.1)
            return True
        except Empty:
            if any(future.done() and future.exception() is not None for future in futures):
                return False


def _replicate(
    inputs: Inputs,
    setups: dict[Setup, Inputs],
    replication: int,
    kept: dict[int, dict[str, Parts]] | None,
    ticks: Queue[None],
    stop: Event,
) -> Replication:
    """Run every arm and every set-up once, and keep the parts of the first few; give up between two runs if told to."""
    result = Replication({}, {}, ())
    parts_of, warnings = _parts(inputs, replication)
    if kept is not None and replication < MAX_THREADS:
        kept[replication] = parts_of
    for name, parts in parts_of.items():
        if stop.is_set():
            raise CancelledError
        result.outcomes[name] = measure(run_cluster(parts), parts, inputs.scenario.warmup_steps)
        result.stages[name] = {}
        ticks.put(None)
    for setup, under in setups.items():
        if stop.is_set():
            raise CancelledError
        result.setups[setup], said = _plainly(under, replication)
        warnings.extend(said)
        ticks.put(None)
    return replace(result, warnings=tuple(warnings))


def _explain(
    inputs: Inputs,
    replication: int,
    found: Replication,
    kept: dict[int, dict[str, Parts]],
    ticks: Queue[None],
    stop: Event,
) -> Replication:
    """Run every arm's counterfactuals once, from the parts kept, if they are; give up between two runs if told to."""
    counterfactual = Counterfactual(found.outcomes[BASELINE].max_batch, unbounded_staleness(inputs))
    stages: dict[str, dict[str, float]] = {}
    for name, parts in (kept.pop(replication, None) or _parts(inputs, replication)[0]).items():
        stages[name] = {}
        for stage in STAGES:
            if stop.is_set():
                raise CancelledError
            staged = counterfactual.apply(stage, parts)
            stages[name][stage] = measure(run_cluster(staged), staged, inputs.scenario.warmup_steps).step_s
            ticks.put(None)
    return replace(found, stages=stages)


def _parts(inputs: Inputs, replication: int) -> tuple[dict[str, Parts], list[str]]:
    """Return the parts of every arm, and warnings: what one arm lacks is said before another is run."""
    workload, noise = make_workload(inputs, replication), make_noise(inputs, replication)
    warnings = list(workload_warnings(workload))
    parts_of: dict[str, Parts] = {}
    for name in (BASELINE, *inputs.scenario.arms):
        parts_of[name], said = make_parts(inputs, name, workload, noise, replication)
        warnings.extend(said)
    return parts_of, warnings


def _plainly(inputs: Inputs, replication: int) -> tuple[Outcome, tuple[str, ...]]:
    """Return what plain decoding does in one replication, and warnings about inputs used beyond their data."""
    workload, noise = make_workload(inputs, replication), make_noise(inputs, replication)
    parts, said = make_parts(inputs, BASELINE, workload, noise, replication)
    return measure(run_cluster(parts), parts, inputs.scenario.warmup_steps), said
