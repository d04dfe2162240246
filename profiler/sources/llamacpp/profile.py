"""Profile: from the options of `bebop profile --source llamacpp` to a LatencyTrace in a file, resumable by its ledger.

Plain steps, and speculative ones at every k with all drafts rejected and with all accepted, by batch and context; steps
whose drafts are made and thrown away, which tells drafting from verifying; prompts. Does not know torch, nor how a
trace is put together from it (`trace`).
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from profiler.cpu import cores, cpu_name
from profiler.errors import DeviceError, UsageError
from profiler.grid import GridRequest, coarse_grid, held_out, is_fine, leave_one_out, refinement, surfaces
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger, Sample
from profiler.models.hf_config import BUNDLED, find_architecture
from profiler.point import Point
from profiler.request import ProfileRequest, check_range
from profiler.sources.llamacpp.session import EngineSettings
from profiler.sources.llamacpp.steps import LEAD_STEPS, NUM_STEPS, StepShape, StepTime, time_prefill, time_step
from profiler.sources.llamacpp.trace import ACCEPTED, DROPPED, PLAIN, Machine, compose_trace
from profiler.sources.llamacpp.weights_file import WeightsRequest, check_shape, weights_file
from profiler.sources.llamacpp.worker import Engine, EngineWorker
from profiler.statistics import collect
from profiler.sweeps import Item, OneByOne, Sweeps
from traces.architecture import BYTES_PER_VALUE
from traces.latency import LatencyTrace, Operation
from traces.store import save_trace

GRID_PURPOSES = (GRID, ACCEPTED, DROPPED, PLAIN)
MAX_DRAFT_TOKENS = 15
MAX_BATCH = 256
"""llama.cpp holds at most so many sequences (LLAMA_MAX_SEQ)."""
MEMORY_SHARE = 0.5
"""Share of a machine's memory that weights and caches may take; the rest is other people's. An assumption."""
MAX_FAILURES = 5
"""An engine that fails so often without an answer in between is given up."""


@dataclass(frozen=True, slots=True)
class EngineProfileRequest:
    """What is measured, and for which acceptance the trace is written."""

    profile: ProfileRequest
    accepted_share: float
    """Of the drafts, 0..1. Handling an accepted token costs the engine something: between no draft accepted and all of
    them, a step's time is interpolated here. It can be changed without measuring again."""


def request_of(arguments: argparse.Namespace, argv: Sequence[str]) -> EngineProfileRequest:
    """Return the request that the parsed options make, with what is not said.

    Raises:
        UsageError: A value outside its range, or an option that llama.cpp has no use for.
        UnsupportedModelError: A configuration that llama.cpp cannot be given.
        TraceFormatError: A name that nobody knows.
    """
    foreign = {
        "--url": arguments.url,
        "--gpu": arguments.gpu,
        "--all": arguments.all,
        "--train-tokens": arguments.train_tokens,
        "--eager": arguments.eager,
        "--fleet": arguments.fleet or arguments.fleet_workers is not None,
        "--routing": arguments.routing is not None,
        "--shared": arguments.shared,
        "--tp, --ep": arguments.tp > 1 or arguments.ep > 1,
    }
    for flag, value in foreign.items():
        if value:
            raise UsageError(
                f"{flag}: llama.cpp in our own process has no use for it; drop it, or take another --source"
            )
    most = 3 if arguments.max_draft_tokens is None else arguments.max_draft_tokens
    budget_s = 120.0 if arguments.budget_s is None else arguments.budget_s
    num_held_out = 8 if arguments.held_out is None else arguments.held_out
    check_range("--max-draft-tokens", most, 0, MAX_DRAFT_TOKENS)
    check_range("--budget-s", budget_s, 0, 86_400)
    check_range("--held-out", num_held_out, 0, 10_000)
    check_range("--sweeps", arguments.sweeps, 1, 100)
    check_range("--threads", arguments.threads or 1, 1, 4096)
    check_range("--accepted-share", arguments.accepted_share, 0, 1)
    batches = arguments.batches or (1, 2, 4, 8)
    check_range("--batches", batches[-1], 1, MAX_BATCH)
    model = find_architecture(arguments.model or BUNDLED)
    profile = ProfileRequest(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model.name}-llamacpp-measured").lower(),
        model=model,
        device="cpu",
        precision=arguments.precision or "fp32",
        grid=GridRequest(
            batches=batches,
            contexts_tokens=arguments.contexts or (64, 256, 512),
            max_draft_tokens=most,
            prefill_tokens=arguments.prefills or (16, 64, 256),
            prefill_cached_tokens=(0,),
        ),
        num_threads=arguments.threads or 1,
        num_sweeps=arguments.sweeps,
        num_held_out=num_held_out,
        budget_s=budget_s,
        seed=arguments.seed,
        command=shlex.join(["bebop", "profile", *argv])[:2000],
    )
    return EngineProfileRequest(profile, arguments.accepted_share)


def measure_engine(request: EngineProfileRequest, output: Path | None) -> tuple[LatencyTrace, Path]:
    """Measure what the ledger beside the output does not hold yet; return the trace and where it was written.

    Raises:
        DeviceError: llama.cpp does not load the model, dies on everything, or needs more memory than there is.
        UsageError: The ledger belongs to another request.
    """
    profile = request.profile
    path = output or Path(f"{profile.name}.parquet")
    machine = this_machine(profile.num_threads or 1)
    settings = settings_of(profile)
    # What was measured elsewhere, or by other versions, is not continued here.
    identity = {**profile.identity(), "engine": "llama.cpp", "cpu": machine.cpu, "versions": machine.versions}
    ledger = Ledger.open(path.with_name(f"{path.stem}.samples.jsonl"), identity)
    if ledger.samples:
        print(f"continuing {ledger.path} after {len(ledger.samples)} samples", file=sys.stderr)
    try:
        with EngineWorker(cores(profile.num_threads)) as engine:
            EngineProfile(profile, engine, settings, ledger).run()
    except (KeyboardInterrupt, DeviceError):
        print(f"{len(ledger.samples)} samples are kept in {ledger.path}; repeat the command to go on", file=sys.stderr)
        raise
    trace = compose_trace(profile, machine, ledger, request.accepted_share)
    save_trace(trace, path)
    return trace, path


def this_machine(num_threads: int) -> Machine:
    """Return what the trace says about where it was measured."""
    versions = {name: importlib.metadata.version(name) for name in ("xllamacpp", "gguf")}
    return Machine(cpu_name(num_threads), {**versions, "python": platform.python_version()})


def settings_of(profile: ProfileRequest) -> EngineSettings:
    """Return the server that all points of a profile are measured with, its weights written.

    Raises:
        DeviceError: It needs more memory than there is.
    """
    grid, model = profile.grid, profile.model
    weights = WeightsRequest(model, profile.precision, profile.seed)
    check_shape(weights)
    num_slots, most = max(grid.batches), grid.max_draft_tokens
    longest = (most + 1) * (NUM_STEPS + LEAD_STEPS + 1) + most + 1
    slot_tokens = -(-(max(*grid.contexts_tokens, *grid.prefill_tokens) + longest) // 256) * 256
    cache_layers = model.num_full_attention_layers + 1
    needed = (
        (model.num_params + model.mtp_layer_params) * BYTES_PER_VALUE[profile.precision]
        + num_slots * slot_tokens * cache_layers * model.kv_bytes_per_token_per_layer("fp16")
        + num_slots * (2 + most) * model.state_bytes_per_seq
    )
    usable = MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > usable:
        raise DeviceError(
            f"{model.name}: {num_slots} slots of {slot_tokens} tokens need {needed / 1e9:.1f} GB, of which "
            f"{usable / 1e9:.1f} GB may be used; lower --batches or --contexts, or choose a smaller model"
        )
    return EngineSettings(str(weights_file(weights)), num_slots, slot_tokens, num_threads=profile.num_threads or 1)


@dataclass(slots=True)
class EngineProfile:
    """One profile of one engine."""

    request: ProfileRequest
    engine: Engine
    settings: EngineSettings
    ledger: Ledger
    sweeps: Sweeps = field(init=False)
    _num_failures: int = 0

    def __post_init__(self) -> None:
        request = self.request
        self.sweeps = Sweeps(
            self.ledger,
            OneByOne(self.take),
            request.num_sweeps,
            request.budget_s,
            request.seed,
            grid_purposes=GRID_PURPOSES,
        )

    def run(self) -> None:
        """Measure everything that the ledger does not hold yet.

        Raises:
            DeviceError: The engine fails again and again.
        """
        known = {(sample.purpose, sample.point) for sample in self.ledger.samples}
        # What checks the rows is taken among them: on a busy machine minutes differ more than points do.
        self.sweeps.measure(sorted({*self.grid_items(), *self._checks(), *known}), "grid")
        if not any(point.operation is Operation.DECODE for point in collect(self.ledger.of(GRID)).latencies):
            reasons = (sample.reason for sample in self.ledger.samples if sample.reason is not None)
            raise DeviceError(f"no plain step could be measured: {next(reasons, 'no samples')}"[:400])
        while not self.sweeps.is_late(GRID):
            found = surfaces(collect(self.ledger.of(GRID)).latencies.items())
            new = [] if is_fine(leave_one_out(found)) else refinement(found, frozenset(self._points(GRID)))
            if not new:
                break
            self.sweeps.measure(sorted(item for point in new for item in _items_of(point)), "refinement")

    def grid_items(self) -> list[Item]:
        """Return what the trace is made of, coarsely."""
        grid = self.request.grid
        items: list[Item] = []
        for point in coarse_grid(grid):
            if point.operation is Operation.PREFILL:
                items += [(GRID, point), *([(PLAIN, point)] if grid.max_draft_tokens else [])]
            elif point.operation in (Operation.DECODE, Operation.VERIFY):
                items += _items_of(point)
                if point.tokens_per_seq in (2, grid.max_draft_tokens + 1):
                    items.append((DROPPED, point))
        return items

    def _checks(self) -> list[Item]:
        """Return points apart from the grid, and whole steps on it of which half of the drafts are accepted."""
        coarse = [point for _, point in self.grid_items()]
        hull = surfaces((point, 1.0) for point in coarse)
        apart = held_out(hull, frozenset(coarse), self.request.num_held_out, self.request.seed)
        return [*((HELD_OUT, point) for point in apart), *((COMPOSED, point) for point in self._half_accepted())]

    def _half_accepted(self) -> list[Point]:
        grid = self.request.grid
        k = grid.max_draft_tokens // 2 * 2
        context = grid.contexts_tokens[len(grid.contexts_tokens) // 2]
        batches = {grid.batches[0], grid.batches[len(grid.batches) // 2], grid.batches[-1]}
        return [Point(Operation.VERIFY, k + 1, batch, context) for batch in sorted(batches)] if k else []

    def _points(self, purpose: str) -> set[Point]:
        return {sample.point for sample in self.ledger.of(purpose)}

    def take(self, purpose: str, point: Point, sweep: int) -> Sample:
        """Return one sample, or why there is none.

        Raises:
            DeviceError: The engine has failed MAX_FAILURES times in a row.
        """
        try:
            timed = self._timed(purpose, point, sweep)
        except DeviceError as error:
            self._num_failures += 1
            if self._num_failures >= MAX_FAILURES:
                raise
            return Sample(purpose, point, sweep, None, str(error)[:300])
        self._num_failures = 0
        return Sample(purpose, point, sweep, timed.latency_s, None, timed.num_repeats)

    def _timed(self, purpose: str, point: Point, sweep: int) -> StepTime:
        vocab_size, seed = self.request.model.vocab_size, 1000 * self.request.seed + sweep
        if point.operation is Operation.PREFILL:
            most = 0 if purpose == PLAIN else self.request.grid.max_draft_tokens
            settings = replace(self.settings, num_draft_tokens=most)
            return time_prefill(self.engine, settings, point.tokens_per_seq, vocab_size, seed)
        k = point.tokens_per_seq - 1
        accepted = {ACCEPTED: k, COMPOSED: k // 2}.get(purpose, 0)
        settings = replace(self.settings, num_draft_tokens=k, drops_drafts=purpose == DROPPED)
        shape = StepShape(point.batch, point.context_tokens, accepted)
        return time_step(self.engine, settings, shape, vocab_size, seed)


def _items_of(point: Point) -> list[Item]:
    """Return a step of the grid: with all its drafts rejected and, if it has any, with all accepted."""
    return [(GRID, point), *([(ACCEPTED, point)] if point.operation is Operation.VERIFY else [])]
