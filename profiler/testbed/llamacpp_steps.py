"""LatencyTrace of llama.cpp as the testbed runs it: whole steps in shuffled sweeps, timed on the run's server.

Slots, context, weights, the way that drafts are drawn and the rates at which they are accepted are those of the run,
and so is the core, other processes' time on it left out. Requests are timed as they come in a run: all slots at once,
and one while others run. Each visit is timed between two visits to a plain step, in multiples of it. Nothing here tells
drafting from verifying: a step's drafts are in its verify row, and draft rows hold nothing. Does not know what the
times are for.
"""

import datetime
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from profiler.ledger import GRID, HELD_OUT, Sample
from profiler.point import Point
from profiler.result import own_version
from profiler.sources.llamacpp.profile import this_machine
from profiler.sources.llamacpp.session import FIRST_WORD, Answer, Call, EngineSettings
from profiler.sources.llamacpp.steps import LEAD_STEPS, arrangements
from profiler.sources.llamacpp.worker import Engine, EngineWorker
from profiler.statistics import Collected, collect
from profiler.testbed.actors import all_cores
from profiler.testbed.llamacpp_engine import settings_of, shape
from profiler.testbed.neighbour import CORE_OF
from profiler.testbed.pace import Pace
from profiler.testbed.step_trace import NUM_SWEEPS, as_row, batches_of, measurement_of
from profiler.testbed.task import PROMPT_TOKENS
from traces.base import Provenance
from traces.latency import MIN_LATENCY_S, LatencyRow, LatencyTrace, Operation
from traces.testbed import TestbedConfig

NEAR_TOKENS = 64
"""The shortest context that is timed: steps that accept all drafts need so much room."""
SWEEPS_PER_SWEEP = 4
"""Of the testbed's own engine, for one here: a visit makes several times its steps."""
NUM_STEPS = 24
"""Of a timing."""
BACKGROUND_STEPS = 64
"""That the others make while requests come and go."""
BACKGROUND_SHARE = 0.75
"""Of them, in which the requests have come and gone."""
RESPONSE_TOKENS = 8
"""Of the requests that are timed."""
REQUEST_REPEATS = 3
"""Of a visit to requests."""

NOTES = (
    "Medians over shuffled sweeps of whole steps: drafts, lm_head, sampling and host gaps are in the verify rows, and "
    "draft rows are empty. A batch below the number of slots is the mean over typical arrangements of busy and idle "
    f"slots. Prefill of {PROMPT_TOKENS} tokens is what a request takes beyond its steps while others run: its prompt, "
    "and steps at its end that draft less than the others' and break the batch; of a multiple, what several take that "
    "come at once."
)


def latency_trace(
    config: TestbedConfig,
    name: str,
    command: str,
    notes: str,
    num_sweeps: int = NUM_SWEEPS,
    between: Callable[[], None] = lambda: None,
) -> LatencyTrace:
    """Return what was timed on the core of the rollout actor, now; `between` is called after every sweep.

    Raises:
        DeviceError: llama.cpp does not load the weights, or dies.
    """
    with _engine() as engine:
        pace, samples = time_engine(config, engine, max(1, num_sweeps // SWEEPS_PER_SWEEP), between)
    grid, apart = (collect(sample for sample in samples if sample.purpose == purpose) for purpose in (GRID, HELD_OUT))
    machine = this_machine(1)
    return LatencyTrace(
        name=name,
        gpu=machine.cpu,
        model=shape().name,
        precision="fp32",
        engine=f"llama.cpp (xllamacpp {machine.versions['xllamacpp']}), {config.max_running_seqs} slots"[:100],
        rows=tuple(rows_of(grid, pace.spread)),
        measurement=measurement_of(grid, apart, len(samples)),
        provenance=Provenance(
            source=f"whole steps of llama.cpp: random weights of {shape().name}'s shape ({shape().source})"[:2000],
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=command,
            versions={"bebop-rollout": own_version(), **machine.versions},
            notes=f"{notes} {NOTES} All in multiples of a plain step taken before and after, whose time had an "
            f"interquartile range of {pace.spread:.1%}; spreads of rows include it.",
        ),
    )


def time_engine(
    config: TestbedConfig, engine: Engine, num_sweeps: int, between: Callable[[], None]
) -> tuple[Pace, list[Sample]]:
    """Return the reference step, and samples of every visit in sweeps of another order each, seconds at its median.

    Raises:
        DeviceError: The engine dies or refuses.
    """
    timed = TimedServer(engine, settings_of(config), random.Random(config.seed))
    reference = Point(Operation.DECODE, 1, config.max_running_seqs, NEAR_TOKENS)
    pace = Pace(lambda: timed.step_s(reference))
    order, found = random.Random(config.seed), list[Sample]()
    for point in {point.tokens_per_seq: point for _, point in visits_of(config)}.values():
        timed.seconds(point)  # servers start, and caches fill
    for sweep in range(num_sweeps):
        visits = visits_of(config)
        order.shuffle(visits)
        pace.mark()
        for purpose, point in visits:
            seconds = timed.seconds(point)
            found.append(Sample(purpose, point, sweep, seconds / pace.around()))
        between()
    return pace, [replace(sample, latency_s=(sample.latency_s or 0.0) * pace.unit_s) for sample in found]


def visits_of(config: TestbedConfig) -> list[tuple[str, Point]]:
    """Return what is timed, and whether it makes a row or is held against the rows.

    Whole steps are points of decode and verify; requests, whose prompts are all of a visit's tokens, of prefill in an
    engine without drafts and of draft_prefill in one with them.
    """
    slots, visits = config.max_running_seqs, list[tuple[str, Point]]()
    far = max(PROMPT_TOKENS + config.max_response_tokens, 2 * NEAR_TOKENS)
    for k in sorted({0, config.k}):
        operation = Operation.VERIFY if k else Operation.DECODE
        near_and_far = [(batch, context) for batch in batches_of(slots) for context in (NEAR_TOKENS, far)]
        visits += [(GRID, Point(operation, k + 1, batch, context)) for batch, context in near_and_far]
        visits.append((HELD_OUT, Point(operation, k + 1, slots, (NEAR_TOKENS + far) // 2)))
        operation = Operation.DRAFT_PREFILL if k else Operation.PREFILL
        visits += [(GRID, Point(operation, num * PROMPT_TOKENS, 1)) for num in range(1, slots + 1)]
    return visits


@dataclass(slots=True)
class TimedServer:
    """A server as a run starts it, whose steps and requests can be timed."""

    engine: Engine
    settings: EngineSettings
    """With drafts; without them where a point has none."""
    words: random.Random
    """Draws prompts and seeds."""

    def seconds(self, point: Point) -> float:
        """Return what a point of `visits_of` takes.

        Raises:
            DeviceError: The engine dies or refuses.
        """
        if point.operation not in (Operation.PREFILL, Operation.DRAFT_PREFILL):
            return self.step_s(point)
        settings = self._settings(drafts=point.operation is Operation.DRAFT_PREFILL)
        num = point.tokens_per_seq // PROMPT_TOKENS
        if num == 1 and settings.num_slots > 1:
            return statistics.median(self._one_among_others_s(settings) for _ in range(REQUEST_REPEATS))
        return statistics.median(self._at_once_s(settings, num) for _ in range(REQUEST_REPEATS))

    def step_s(self, point: Point) -> float:
        """Return the mean over arrangements of slots: twice the same, `NUM_STEPS` longer the second time.

        As long as the first response to end is under way, so are all.
        """
        settings = self._settings(drafts=point.operation is Operation.VERIFY)
        lead, more = (round(num * _tokens_per_step(settings)) for num in (LEAD_STEPS, NUM_STEPS))
        more = min(more, 2 * (_room(settings) - point.context_tokens))
        prompt_tokens = max(1, point.context_tokens - lead - more // 2)
        seconds = []
        for slots in arrangements(point.batch, settings.num_slots):
            ends = []
            for num_tokens in (1 + lead, 1 + lead + more):
                calls = [self._call(prompt_tokens, num_tokens, slot) for slot in slots]
                share, answers = self._complete(settings, calls)
                first = min(answers, key=lambda answer: answer.decode_s)
                ends.append((share * first.decode_s, first.num_steps))
            (short_s, few), (long_s, many) = ends
            seconds.append((long_s - short_s) / (many - few))
        return statistics.fmean(seconds)

    def _one_among_others_s(self, settings: EngineSettings) -> float:
        """Return what a request takes beyond its steps, while all other slots are busy.

        Guests come to the last slot, one after the other; the first is read with the others, before these are timed.
        """
        last, per_step = settings.num_slots - 1, _tokens_per_step(settings)
        room = _room(settings) - PROMPT_TOKENS
        long = min(round(BACKGROUND_STEPS * per_step), room)
        num = max(2, int(BACKGROUND_SHARE * (long / per_step) / (RESPONSE_TOKENS / per_step + 1)))

        def others(guests: Sequence[int]) -> tuple[float, int, int]:
            """Return the seconds of the first of the others to end, its steps, and those that their guests made."""
            calls = [self._call(PROMPT_TOKENS, long, slot) for slot in range(last)]
            calls += [self._call(PROMPT_TOKENS, num_tokens, last) for num_tokens in guests]
            share, answers = self._complete(settings, calls)
            first = min(answers[:last], key=lambda answer: answer.decode_s)
            return share * first.decode_s, first.num_steps, sum(guest.num_steps for guest in answers[last:])

        many_s, steps, guest_steps = others([RESPONSE_TOKENS] * num)
        one_s, fewer_steps, fewer_guest_steps = others([RESPONSE_TOKENS])
        full_s, alone_s = (total_s / num_own for total_s, num_own, _ in (others([min(2 * long, room)]), others(())))
        own_s = (steps - fewer_steps) * alone_s + (guest_steps - fewer_guest_steps) * (full_s - alone_s)
        return max((many_s - one_s - own_s) / (num - 1), MIN_LATENCY_S)

    def _at_once_s(self, settings: EngineSettings, num: int) -> float:
        """Return what so many requests take beyond their steps that come at once."""
        calls = [self._call(PROMPT_TOKENS, RESPONSE_TOKENS, slot) for slot in range(num)]
        batch = self.engine.complete(settings, calls)
        own = batch.on_core_share(settings.num_threads)
        return own * (batch.wall_s - statistics.fmean(answer.decode_s for answer in batch.answers))

    def _settings(self, *, drafts: bool) -> EngineSettings:
        return self.settings if drafts else replace(self.settings, num_draft_tokens=0, acceptance=None)

    def _call(self, prompt_tokens: int, num_tokens: int, slot: int) -> Call:
        prompt = tuple(self.words.randrange(FIRST_WORD, shape().vocab_size) for _ in range(prompt_tokens))
        return Call(prompt, num_tokens, slot, self.words.randrange(1 << 31))

    def _complete(self, settings: EngineSettings, calls: Sequence[Call]) -> tuple[float, list[Answer]]:
        batch = self.engine.complete(settings, calls)
        return batch.on_core_share(settings.num_threads), list(batch.answers)


def _tokens_per_step(settings: EngineSettings) -> float:
    return 1.0 + sum(settings.acceptance or ())


def _room(settings: EngineSettings) -> int:
    """Return the tokens of a slot that prompt and response can fill: drafts want some too."""
    return settings.slot_tokens - settings.num_draft_tokens - 1


def rows_of(grid: Collected, pace_spread: float) -> Iterator[LatencyRow]:
    """Return the rows that samples amount to; what drafts add to requests never falls with their number."""
    for point, whole_s in grid.latencies.items():
        if point.operation is Operation.DECODE:
            yield as_row(point, whole_s, grid.spreads[point], pace_spread)
        elif point.operation is Operation.VERIFY:
            k = point.tokens_per_seq - 1
            yield as_row(point, whole_s - k * MIN_LATENCY_S, grid.spreads[point], pace_spread)
            for tokens in sorted({k + 1, 1}):
                yield as_row(Point(Operation.DRAFT, tokens, point.batch, point.context_tokens), MIN_LATENCY_S)
    longest_s = 0.0
    for point in sorted(point for point in grid.latencies if point.operation is Operation.PREFILL):
        yield as_row(point, grid.latencies[point])
        drafting = replace(point, operation=Operation.DRAFT_PREFILL)
        if drafting in grid.latencies:
            longest_s = max(longest_s, grid.latencies[drafting] - grid.latencies[point])
            yield as_row(drafting, longest_s)


def _engine() -> EngineWorker:
    """Return an engine on the core of the rollout actor; this process itself may wait on any."""
    if not hasattr(os, "sched_setaffinity"):
        return EngineWorker()
    known = all_cores()
    os.sched_setaffinity(0, known)
    return EngineWorker((known[CORE_OF["rollout"]],))
