"""Measure: from the options of `bebop profile --source engine` to traces in files, resumable through a ledger."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from profiler.errors import EngineError, ProfilerError, UsageError
from profiler.grid import held_out, surfaces
from profiler.ledger import GRID, HELD_OUT, Ledger
from profiler.point import Point
from profiler.progress import Progress
from profiler.sources.engine.http import Clock, Endpoint
from profiler.sources.engine.request import EngineRequest, load_of
from profiler.sources.engine.result import check_nature, make_acceptance, make_trace, trace_name
from profiler.sources.engine.session import BUSY_SHARE, Session
from profiler.statistics import NOISY_SPREAD, collect
from traces.acceptance import AcceptanceTrace
from traces.latency import LatencyTrace
from traces.store import load_trace, save_trace

GRID_SHARE = 0.9
"""Share of the time budget after which held-out points come first."""
EXTRA_SWEEPS = 2
"""Samples more for a point that is noisy after the planned ones."""
DEFAULT_BATCHES = (1, 4, 16, 64)
DEFAULT_CONTEXTS_TOKENS = (512, 2048, 8192)
DEFAULT_PREFILL_TOKENS = (128, 1024, 4096)
DEFAULT_TOKENS = 256
DEFAULT_BUDGET_S = 900.0
DEFAULT_HELD_OUT = 4
MAX_BATCH = 1024
"""Threads of this process that can still read streams in time."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was measured, and where it was put."""

    trace: LatencyTrace
    path: Path
    acceptance: AcceptanceTrace | None
    acceptance_path: Path


def request_of(arguments: argparse.Namespace, argv: Sequence[str]) -> EngineRequest:
    """Return the request that the parsed options make.

    Raises:
        UsageError: A value is missing or outside its range.
    """
    for flag, value in (("--url", arguments.url), ("--gpu", arguments.gpu)):
        if not value:
            raise UsageError(f"{flag} is needed with --source engine; e.g. --url http://127.0.0.1:8000 --gpu H200")
    if arguments.all or arguments.train_tokens is not None:
        raise UsageError("--all and --train-tokens do not belong to --source engine; drop them")
    request = EngineRequest(
        url=arguments.url,
        gpu=arguments.gpu,
        batches=arguments.batches or DEFAULT_BATCHES,
        contexts_tokens=arguments.contexts or DEFAULT_CONTEXTS_TOKENS,
        prefill_tokens=arguments.prefills or DEFAULT_PREFILL_TOKENS,
        num_tokens=arguments.tokens,
        num_sweeps=arguments.sweeps,
        num_held_out=DEFAULT_HELD_OUT if arguments.held_out is None else arguments.held_out,
        budget_s=DEFAULT_BUDGET_S if arguments.budget_s is None else arguments.budget_s,
        timeout_s=arguments.timeout_s,
        temperature=arguments.temperature,
        seed=arguments.seed,
        tp_size=arguments.tp,
        ep_size=arguments.ep,
        model=arguments.model,
        precision=arguments.precision,
        num_draft_tokens=arguments.k,
        vocab_size=arguments.vocab_size,
        verify_rule=arguments.verify_rule,
        plain=arguments.plain,
        command=shlex.join(["bebop", "profile", *argv])[:2000],
    )
    _check_ranges(request)
    return request


def key_from(name: str | None) -> str | None:
    """Return the key in the environment variable of this name, None without a name.

    Raises:
        UsageError: The variable is not set.
    """
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise UsageError(f"--api-key-env {name}: this variable is not set; put the server's key into it")
    return key


def measure(
    request: EngineRequest, output: Path | None, key: str | None = None, clock: Clock = time.perf_counter
) -> Written:
    """Measure what the ledger beside the output does not hold yet; write and return the traces.

    Raises:
        EngineError: The engine cannot be measured, or not any longer; samples so far are in the ledger.
        UsageError: The ledger belongs to another request, the plain trace to another model.
    """
    plain = None if request.plain is None else load_trace(request.plain, LatencyTrace)
    session = Session.open(Endpoint.parse(request.url, request.timeout_s, key), request, clock)
    facts, k = session.facts, session.num_draft_tokens
    check_nature(request, facts, plain)
    path = output or Path(f"{trace_name(request, facts, k)}.parquet")
    ledger = Ledger.open(path.with_name(f"{path.stem}.samples.jsonl"), request.identity(facts, k))
    print(f"{session.endpoint}: {facts.engine} {facts.version}, {facts.model_id}, k = {k}", file=sys.stderr)
    if ledger.samples:
        print(f"continuing {ledger.path} after {len(ledger.samples)} samples", file=sys.stderr)
    try:
        Plan(request, session, ledger).run()
    except (ProfilerError, KeyboardInterrupt):
        print(f"{len(ledger.samples)} samples are kept in {ledger.path}; repeat the command to go on", file=sys.stderr)
        raise
    trace = make_trace(request, facts, k, ledger, plain, session.largest_busy_share)
    save_trace(trace, path)
    acceptance = make_acceptance(request, facts, k, ledger)
    acceptance_path = path.with_name(f"{path.stem}.acceptance.json")
    if acceptance is not None:
        save_trace(acceptance, acceptance_path)
    return Written(trace, path, acceptance, acceptance_path)


@dataclass(slots=True)
class Plan:
    """Shuffled sweeps over the grid, then over points that only check it."""

    request: EngineRequest
    session: Session
    ledger: Ledger
    progress: Progress = field(default_factory=Progress)
    _started_s: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Take the samples that are missing, until the budget is used up.

        Raises:
            EngineError: Nothing could be measured.
        """
        points = self.request.points(self.session.num_draft_tokens)
        self._announce(points)
        self._measure(GRID, points, "grid", GRID_SHARE if self.request.num_held_out else 1.0)
        found = surfaces(collect(self.ledger.of(GRID)).latencies.items())
        if not found:
            reasons = [sample.reason for sample in self.ledger.samples if sample.reason]
            why = reasons[0] if reasons else f"the budget of {self.request.budget_s:g} s was too short"
            raise EngineError(f"no step could be measured: {why}; choose other --batches, --contexts or --budget-s")
        apart = held_out(found, frozenset(points), self.request.num_held_out, self.request.seed)
        self._measure(HELD_OUT, apart, "held out", 1.0)
        if self.session.largest_busy_share > BUSY_SHARE:
            share = self.session.largest_busy_share
            self.progress.say(f"reading took {share:.0%} of a core at worst: the client may be what was timed")

    def _announce(self, points: Sequence[Point]) -> None:
        request = self.request
        load = load_of(request, [*points] * request.num_sweeps)
        print(
            f"{len(points)} points, {request.num_sweeps} times each: {load.num_requests:,} requests, "
            f"{load.prompt_tokens:,} prompt and {load.generated_tokens:,} generated tokens; more for points that are "
            f"noisy, begin slowly or check the others; it ends after {request.budget_s:g} s",
            file=sys.stderr,
        )

    def _measure(self, purpose: str, points: Sequence[Point], phase: str, share: float) -> None:
        """Take every sample once, then the noisy ones again."""
        num_sweeps = self.request.num_sweeps
        self._sweeps(purpose, points, range(num_sweeps), phase, share)
        spreads = collect(self.ledger.of(purpose)).spreads
        noisy = [point for point in points if spreads.get(point, 0.0) > NOISY_SPREAD]
        self._sweeps(purpose, noisy, range(num_sweeps, num_sweeps + EXTRA_SWEEPS), f"{phase}, noisy", share)

    def _sweeps(self, purpose: str, points: Sequence[Point], sweeps: Iterable[int], phase: str, share: float) -> None:
        todo, infeasible = self.ledger.missing(purpose, points, sweeps, self.request.seed)
        if todo:
            self.progress.begin(phase, len(todo))
        for index, (point, sweep) in enumerate(todo):
            if time.monotonic() - self._started_s >= share * self.request.budget_s:
                left = len(todo) - index
                self.progress.say(f"the budget of {self.request.budget_s:g} s leaves {left} samples out")
                return
            if point not in infeasible:
                sample = self.session.sample(purpose, point, sweep)
                self.ledger.add(sample)
                if sample.latency_s is None:
                    infeasible.add(point)
            self.progress.advance()


def _check_ranges(request: EngineRequest) -> None:
    ranges = (
        ("--batches", max(request.batches), 1, MAX_BATCH),
        ("--tokens", request.num_tokens, 32, 4096),
        ("--sweeps", request.num_sweeps, 1, 100),
        ("--held-out", request.num_held_out, 0, 1000),
        ("--budget-s", request.budget_s, 0, 86_400),
        ("--timeout-s", request.timeout_s, 0.1, 3600),
        ("--temperature", request.temperature, 0, 10),
        ("--tp", request.tp_size, 1, 64),
        ("--ep", request.ep_size, 1, 64),
        ("--k", request.num_draft_tokens or 0, 0, 15),
        ("--vocab-size", request.vocab_size or 16, 16, 10_000_000),
    )
    for flag, value, low, high in ranges:
        if not low <= value <= high:
            raise UsageError(f"{flag} {value:g} is outside {low:g}..{high:g}; choose a value inside")
