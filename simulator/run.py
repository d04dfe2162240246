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
    scenario: Scenario, *, progress: Callable[[float], None] | None = None, with_waterfall: bool = True
) -> RunReport:
    """Predict what the scenario asks.

    Replications run in threads, as many as there are cores (the kernels do not hold the interpreter's lock); the
    answer does not depend on how many.

    Args:
        scenario: The question.
        progress: Called with the share of the work that is done, 0..1, always from the calling thread.
        with_waterfall: Whether to run what explains a speedup: four more runs for each one. No other number changes.

    Raises:
        ScenarioError: The scenario cannot be run as written; one line.
        TraceError: A trace it names is missing or broken.
    """
    check_origins(scenario)
    inputs = resolve(scenario)
    setups = {setup: resolve(under_setup(scenario, setup)) for setup in compared_setups(scenario)}
    total = scenario.run.replications * (1 + len(scenario.arms) + len(setups))
    ticks: Queue[None] = Queue()
    stop = Event()
    executor = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
    try:
        futures = [
            executor.submit(_replicate, inputs, setups, i, ticks, stop, STAGES if with_waterfall else ())
            for i in range(scenario.run.replications)
        ]
        for done in range(1, total + 1):
            if not _wait_for_tick(ticks, futures):
                break
            if progress is not None:
                progress(done / total)
        replications = [future.result() for future in futures]
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
    return build_report(inputs, gather(replications))


def _wait_for_tick(ticks: Queue[None], futures: Sequence[Future[Replication]]) -> bool:
    """Return True when one more arm is done, False when nothing more will come because a replication failed."""
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
    ticks: Queue[None],
    stop: Event,
    stages: Sequence[str],
) -> Replication:
    """Run every arm and its counterfactuals, and every set-up, once; give up between two runs when told to stop."""
    scenario = inputs.scenario
    workload, noise = make_workload(inputs, replication), make_noise(inputs, replication)
    result = Replication({}, {}, ())
    warnings = workload_warnings(workload)
    parts_of: dict[str, Parts] = {}
    for name in (BASELINE, *scenario.arms):  # all of them first: what one arm lacks is said before another is run
        parts_of[name], said = make_parts(inputs, name, workload, noise, replication)
        warnings.extend(said)
    for name, parts in parts_of.items():
        result.outcomes[name] = measure(run_cluster(parts), parts, scenario.warmup_steps)
        counterfactual = Counterfactual(result.outcomes[BASELINE].max_batch, unbounded_staleness(inputs))
        result.stages[name] = {}
        for stage in stages:
            if stop.is_set():
                raise CancelledError
            staged = counterfactual.apply(stage, parts)
            result.stages[name][stage] = measure(run_cluster(staged), staged, scenario.warmup_steps).step_s
        ticks.put(None)
    for setup, under in setups.items():
        if stop.is_set():
            raise CancelledError
        result.setups[setup], said = _plainly(under, replication)
        warnings.extend(said)
        ticks.put(None)
    return replace(result, warnings=tuple(warnings))


def _plainly(inputs: Inputs, replication: int) -> tuple[Outcome, tuple[str, ...]]:
    """Return what plain decoding does in one replication, and warnings about inputs used beyond their data."""
    workload, noise = make_workload(inputs, replication), make_noise(inputs, replication)
    parts, said = make_parts(inputs, BASELINE, workload, noise, replication)
    return measure(run_cluster(parts), parts, inputs.scenario.warmup_steps), said
