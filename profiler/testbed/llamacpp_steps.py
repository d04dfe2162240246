"""LatencyTrace of llama.cpp as the testbed runs it: the rows of `bebop profile --source llamacpp`, on the run's server.

Slots, context, weights and the way that drafts are drawn are those of the run, and so is the core, other processes'
time on it left out. Prompts are timed as they arrive in a run, several at once, with drafts and without. Does not know
what the times are for.
"""

import math
import os
import random
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from profiler.grid import GridRequest
from profiler.ledger import Ledger, Sample
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.sources.llamacpp.profile import EngineProfile, this_machine
from profiler.sources.llamacpp.session import FIRST_WORD, Call, EngineSettings
from profiler.sources.llamacpp.steps import REQUEST_TOKENS, StepShape, forced, time_step
from profiler.sources.llamacpp.trace import compose_trace
from profiler.sources.llamacpp.worker import Engine, EngineWorker
from profiler.testbed.actors import all_cores
from profiler.testbed.llamacpp_engine import settings_of, shape
from profiler.testbed.neighbour import CORE_OF
from profiler.testbed.pace import Pace
from profiler.testbed.step_trace import MOST_DRAFTS, batches_of
from profiler.testbed.task import PROMPT_TOKENS
from traces.latency import MIN_LATENCY_S, LatencyRow, LatencyTrace, Operation
from traces.testbed import TestbedConfig

NEAR_TOKENS = 64
"""The shortest context that is timed: steps that accept all drafts need so much room."""
NUM_SWEEPS = 3
NUM_HELD_OUT = 4
BUDGET_S = 240.0
PREFILL_REPEATS = 9
NOTE_ON_PACE = (
    "All in multiples of a plain step taken before and after, whose time had an interquartile range of {:.1%}; spreads "
    "of rows include it."
)
FIXED_SHARE = 0.5
"""Of drafts accepted in the steps of the trace: one profile serves configs of several forced rates."""


def latency_trace(config: TestbedConfig, name: str, command: str, notes: str) -> LatencyTrace:
    """Return what was timed on this process's cores, now.

    Raises:
        DeviceError: llama.cpp does not load the weights, or dies on everything.
    """
    most = max(config.k, MOST_DRAFTS)
    settings = replace(settings_of(config), num_draft_tokens=0, acceptance=None)
    request = ProfileRequest(
        name,
        shape(),
        "cpu",
        "fp32",
        GridRequest(
            tuple(batches_of(config.max_running_seqs)),
            (NEAR_TOKENS, max(PROMPT_TOKENS + config.max_response_tokens, 2 * NEAR_TOKENS)),
            most,
            (PROMPT_TOKENS,),
            (0,),
        ),
        num_threads=settings.num_threads,
        num_sweeps=NUM_SWEEPS,
        num_held_out=NUM_HELD_OUT,
        budget_s=BUDGET_S,
        seed=config.seed,
        command=command,
    )
    with TemporaryDirectory(prefix="bebop-testbed-") as folder, _engine() as engine:
        ledger = Ledger.open(Path(folder) / "samples.jsonl", request.identity())
        reference = StepShape(max(request.grid.batches), NEAR_TOKENS)
        pace = Pace(lambda: time_step(engine, settings, reference, shape().vocab_size, config.seed).latency_s)
        PacedProfile(request, engine, settings, ledger, pace=pace).run()
        prefills = prefill_rows(engine, settings, most, config.seed, pace)
    ledger.samples = [_scaled(sample, pace.unit_s) for sample in ledger.samples]
    trace = compose_trace(request, this_machine(1), ledger, FIXED_SHARE)
    told = f"{notes} {trace.provenance.notes} {NOTE_ON_PACE.format(pace.spread)}"
    steps = (row for row in trace.rows if row.operation is not Operation.PREFILL)
    return trace.model_copy(
        update={
            "rows": (*(_with_spread(row, pace.spread) for row in steps), *prefills),
            "provenance": trace.provenance.model_copy(update={"notes": told}),
        }
    )


@dataclass(slots=True)
class PacedProfile(EngineProfile):
    """A profile whose samples are in multiples of a reference step that is timed between them."""

    pace: Pace = field(kw_only=True)

    def take(self, purpose: str, point: Point, sweep: int) -> Sample:
        """Return one sample, or why there is none.

        Raises:
            DeviceError: The engine fails again and again.
        """
        if not self.pace.seconds:
            self.pace.mark()
        sample = EngineProfile.take(self, purpose, point, sweep)
        return _scaled(sample, 1 / self.pace.around())


def _scaled(sample: Sample, factor: float) -> Sample:
    return sample if sample.latency_s is None else replace(sample, latency_s=sample.latency_s * factor)


def _with_spread(row: LatencyRow, pace_spread: float) -> LatencyRow:
    """Return a row of the target's steps that says how far the machine's pace spreads, its own samples included."""
    if row.operation not in (Operation.DECODE, Operation.VERIFY):
        return row
    spread = math.hypot(row.relative_spread or 0.0, pace_spread)
    return row.model_copy(update={"relative_spread": round(spread, 6)})


def _engine() -> EngineWorker:
    """Return an engine on the core of the rollout actor; this process itself may wait on any."""
    if not hasattr(os, "sched_setaffinity"):
        return EngineWorker()
    known = all_cores()
    os.sched_setaffinity(0, known)
    return EngineWorker((known[CORE_OF["rollout"]],))


def prefill_rows(
    engine: Engine, settings: EngineSettings, num_draft_tokens: int, seed: int, pace: Pace
) -> list[LatencyRow]:
    """Return what prompts take that arrive together, by their tokens, and what the MTP layer adds to it."""
    pace.mark()
    found: list[list[float]] = []
    for num in range(1, settings.num_slots + 1):
        found.append([])
        for k in (0, num_draft_tokens):
            seconds = prompts_s(engine, replace(settings, num_draft_tokens=k, acceptance=forced(k, 0)), num, seed)
            found[-1].append(seconds / pace.around())
    rows, longest_s = [], 0.0
    for num, units in enumerate(found, start=1):
        plain_s, drafting_s = (pace.unit_s * each for each in units)
        longest_s = max(longest_s, drafting_s - plain_s)
        for operation, seconds in ((Operation.PREFILL, plain_s), (Operation.DRAFT_PREFILL, longest_s)):
            point = Point(operation, num * PROMPT_TOKENS, 1)
            rows.append(
                LatencyRow(
                    operation=point.operation,
                    batch=point.batch,
                    context_tokens=point.context_tokens,
                    tokens_per_seq=point.tokens_per_seq,
                    latency_s=max(seconds, MIN_LATENCY_S),
                )
            )
    return rows


def prompts_s(engine: Engine, settings: EngineSettings, num: int, seed: int) -> float:
    """Return what so many requests take beyond their decode steps: prompts, and the server's work on each of them.

    Raises:
        DeviceError: The engine dies or refuses.
    """
    words = random.Random(f"{seed} {num} prompts")
    seconds = []
    for _ in range(PREFILL_REPEATS):
        prompts = [tuple(words.randrange(FIRST_WORD) for _ in range(PROMPT_TOKENS)) for _ in range(num)]
        calls = [Call(prompt, REQUEST_TOKENS, slot, words.randrange(1 << 31)) for slot, prompt in enumerate(prompts)]
        batch = engine.complete(settings, calls)
        own = batch.on_core_share(settings.num_threads)
        seconds.append(own * (batch.wall_s - statistics.fmean(answer.decode_s for answer in batch.answers)))
    return statistics.median(seconds)
