"""The study of `bebop study mtp`: losses by domain, verify rules by temperature, acceptance along RL.

It is made of units, a part under one seed each (`units`), which run side by side, on one core each. Does not know what
a unit measures, nor how results are judged or printed.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial

import torch

from profiler.mtp.corpora import DOMAINS
from profiler.mtp.results import Results, Size, Unit
from profiler.mtp.units import SUMS, run_unit

QUICK = Size(
    name="quick",
    hidden_size=64,
    num_layers=2,
    stream_tokens=500_000,
    target_batches=250,
    start_batches=50,
    head_batches=30,
    num_rollouts=400,
    num_measured=64,
    response_tokens=96,
    policy_batches=400,
    largest_number=14,
    rl_steps=24,
    rl_measured_every=3,
    seeds=(0, 1, 2),
)
"""About five minutes on two cores."""
FULL = Size(
    name="full",
    hidden_size=128,
    num_layers=4,
    stream_tokens=2_000_000,
    target_batches=350,
    start_batches=180,
    head_batches=80,
    num_rollouts=1300,
    num_measured=224,
    response_tokens=96,
    policy_batches=500,
    largest_number=39,
    rl_steps=40,
    rl_measured_every=4,
    seeds=(0, 1, 2),
)
"""About half an hour on two free cores."""
LARGE = replace(
    FULL,
    name="large",
    hidden_size=768,
    num_layers=12,
    target_batches=3000,
    start_batches=600,
    head_batches=300,
    policy_batches=1500,
)
"""Targets of 85 million values, for a GPU. Its numbers of batches are assumed: no GPU has run it."""

Say = Callable[[str], None]


def run_study(
    size: Size,
    say: Say,
    domains: tuple[str, ...] = tuple(DOMAINS),
    *,
    num_workers: int = 1,
    device: str = "cpu",
    done: Iterable[Unit] = (),
    keep: Callable[[Unit], None] = lambda _: None,
) -> Results:
    """Run all units over all domains, or some; results do not depend on the number of workers.

    Args:
        size: How large it is.
        say: Hears of each unit as it ends.
        domains: Domains of text; RL goes with `math`, whose kind of text its sums are.
        num_workers: Processes, one core each; 1 works in this one.
        device: Where tensors lie, as torch names it; on a GPU, one worker.
        done: Units that need not run again.
        keep: Gets every unit as it ends.
    """
    found = {(unit.part, unit.seed): unit for unit in done}
    missing = [key for key in plan(size, domains) if key not in found]
    for unit in _units(partial(run_unit, size, device=device), missing, num_workers):
        found[unit.part, unit.seed] = unit
        keep(unit)
        say(f"{unit.part}, seed {unit.seed}: {unit.seconds:.0f} s, {len(missing)} units in all")
    return Results.of(size, found.values())


def plan(size: Size, domains: tuple[str, ...] = tuple(DOMAINS)) -> list[tuple[str, int]]:
    """Return parts and seeds, seed by seed: whatever has ended is a study of fewer seeds. The longest part first."""
    parts = [*((SUMS,) if size.rl_steps and "math" in domains else ()), *sorted(domains, key="math".__ne__)]
    return [(part, seed) for seed in size.seeds for part in parts]


def _units(work: Callable[[str, int], Unit], missing: list[tuple[str, int]], num_workers: int) -> Iterator[Unit]:
    if num_workers == 1:
        yield from (work(*key) for key in missing)
        return
    # A fork would copy torch's threads as they stand.
    pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
    try:
        for future in as_completed([pool.submit(work, *key) for key in missing]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
