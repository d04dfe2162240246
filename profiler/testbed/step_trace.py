"""LatencyTrace of the testbed's own engine: its steps timed in shuffled sweeps, and taken apart into a trace's rows.

A whole step is what counts: target rows hold what is left of it once the parts that a predictor adds are taken away, so
that the sum in `simulator/latency.py` gives every timed step back, exactly. Points between are timed too, and held
against what the rows say there. A machine does not keep its pace over a profile: each visit is timed between two visits
to one reference step, in multiples of it, and brought to the reference's median. Measures on one core; does not know
what runs on the others.
"""

import datetime
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from profiler.cpu import cpu_name
from profiler.grid import between, leave_one_out, surfaces
from profiler.ledger import GRID, Sample
from profiler.point import Point
from profiler.result import own_version
from profiler.statistics import NOISY_SPREAD, Collected, collect
from profiler.testbed.pace import Pace
from profiler.testbed.task import PROMPT_TOKENS
from profiler.testbed.timed_engine import Clock, StepPoint, TimedEngine
from profiler.testbed.torch_engine import Part
from traces.base import Provenance
from traces.latency import MIN_LATENCY_S, LatencyRow, LatencyTrace, Measurement, Operation
from traces.testbed import TestbedConfig

MOST_DRAFTS = 3
"""Drafts of the largest step that is timed, for a config that has no more."""
NUM_SWEEPS = 16
NUM_HELD_OUT = 8
TURNOVERS_PER_VISIT = 3
PACE_STEPS = 4
"""Reference steps between two visits."""


@dataclass(slots=True)
class Times:
    """Samples of an engine, seconds."""

    whole: dict[StepPoint, list[float]] = field(default_factory=dict)
    parts: dict[tuple[StepPoint, Part], list[float]] = field(default_factory=dict)
    prefill: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    """By whether the head reads too (0, 1) and tokens."""
    pace_spread: float = 0.0
    """`Pace.spread` of the reference step."""

    def add(self, raw: "Times", unit_s: float) -> None:
        """Add samples in units of so many seconds."""
        for ours, theirs in zip(self._samples(), raw._samples(), strict=True):
            for key, seconds in theirs.items():
                ours.setdefault(key, []).extend(each / unit_s for each in seconds)

    def in_seconds(self, pace: Pace) -> "Times":
        """Return samples that are in reference steps in seconds, at the median pace."""
        found = Times(pace_spread=pace.spread)
        found.add(self, 1 / pace.unit_s)
        return found

    def _samples(self) -> tuple[dict[Any, list[float]], ...]:
        return self.whole, self.parts, self.prefill


def time_engine(
    config: TestbedConfig,
    num_sweeps: int = NUM_SWEEPS,
    clock: Clock = time.perf_counter,
    between: Callable[[], None] = lambda: None,
) -> Times:
    """Return samples of steps with 0 to k drafts, and of prefills, in sweeps of another order each.

    Args:
        config: Of the engine.
        num_sweeps: How often each is visited.
        clock: What tells seconds.
        between: Called after every sweep.
    """
    times, most = Times(), max(config.k, MOST_DRAFTS)
    engines = [TimedEngine(config, k, clock) for k in range(most + 1)]
    points = [*grid_points(config), *held_out_points(config)]
    texts = prefill_texts(config)
    order = random.Random(config.seed)
    middle = PROMPT_TOKENS + config.max_response_tokens // 2
    pace = Pace(lambda: _reference_s(engines[0], config.max_running_seqs, middle))
    for sweep in range(num_sweeps + 1):
        visits: list[StepPoint | tuple[int, int, int]] = [
            *points,
            *((head, *text) for head in (0, 1) for text in texts),
        ]
        order.shuffle(visits)
        found = Times() if sweep == 0 else times
        pace.mark()
        for visit in visits if sweep else visits[::4]:  # the first one warms caches up
            raw = Times()
            if isinstance(visit, StepPoint):
                _note_steps(raw, visit, engines[visit.k])
            else:
                head, num_seqs, tokens = visit
                raw.prefill[head, num_seqs * tokens] = _prefills_s(
                    engines[most if head else 0], config, num_seqs, tokens
                )
            found.add(raw, pace.around())
        between()
    return times.in_seconds(pace)


def _reference_s(engine: TimedEngine, batch: int, context_tokens: int) -> float:
    """Return the median of a few reference steps, now."""
    return statistics.median(whole_s for whole_s, _ in engine.steps(batch, context_tokens, PACE_STEPS))


def grid_points(config: TestbedConfig) -> list[StepPoint]:
    """Return the points that become rows: all numbers of drafts, batches by halves, the ends and middle of contexts."""
    end = PROMPT_TOKENS + config.max_response_tokens
    contexts = (PROMPT_TOKENS, (PROMPT_TOKENS + end) // 2, end)
    drafts = range(max(config.k, MOST_DRAFTS) + 1)
    return [StepPoint(k, b, c) for k in drafts for b in batches_of(config.max_running_seqs) for c in contexts]


def batches_of(most: int) -> list[int]:
    """Return 1, 2, 4 .. `most`, and three quarters of it."""
    halves = {2**power for power in range(most.bit_length()) if 2**power < most}
    return sorted(halves | {most, max(1, 3 * most // 4)})


def held_out_points(config: TestbedConfig) -> list[StepPoint]:
    """Return points between those, the same for a config."""
    draw, known = random.Random("held out"), set(batches_of(config.max_running_seqs))
    between_batches = [batch for batch in range(1, config.max_running_seqs) if batch not in known]
    if not between_batches:
        return []
    low, high = PROMPT_TOKENS + 4, PROMPT_TOKENS + config.max_response_tokens - 4
    drafts = range(max(config.k, MOST_DRAFTS) + 1)
    chosen = [
        StepPoint(k, draw.choice(between_batches), draw.randint(low, max(low, high)))
        for k in drafts
        for _ in range(NUM_HELD_OUT // 2)
    ]
    return sorted(set(chosen))


def prefill_texts(config: TestbedConfig) -> list[tuple[int, int]]:
    """Return (sequences, tokens of each): fresh prompts, and full batches of half-finished responses."""
    longer = PROMPT_TOKENS + config.max_response_tokens // 2
    return [(num, PROMPT_TOKENS) for num in batches_of(config.max_running_seqs)] + [(config.max_running_seqs, longer)]


def _note_steps(times: Times, point: StepPoint, engine: TimedEngine) -> None:
    for whole_s, parts in engine.steps(point.batch, point.context_tokens):
        times.whole.setdefault(point, []).append(whole_s)
        for part, seconds in parts.items():
            times.parts.setdefault((point, part), []).append(seconds / _num_runs(part, point.k))


def _num_runs(part: Part, k: int) -> int:
    """Return how often a part runs in a step."""
    return {Part.LATER_DRAFT: k - 1, Part.LM_HEAD: k, Part.PROPOSE: k, Part.HOST: k + 1}.get(part, 1)


def _prefills_s(engine: TimedEngine, config: TestbedConfig, num_seqs: int, tokens: int) -> list[float]:
    """Return what fresh prompts cost as responses end and begin, or longer texts that are read again by themselves."""
    if tokens > PROMPT_TOKENS:
        return [engine.prefill_s(num_seqs, tokens)]
    return [engine.turnover_s(num_seqs, config.max_running_seqs) for _ in range(TURNOVERS_PER_VISIT)]


def latency_trace(config: TestbedConfig, times: Times, name: str, command: str, notes: str) -> LatencyTrace:
    """Return the trace that samples amount to."""
    grid, apart = (_whole_steps(times, points) for points in (grid_points(config), held_out_points(config)))
    return LatencyTrace(
        name=name,
        gpu=cpu_name(1),
        model=f"testbed-{config.model.hidden_size}x{config.model.num_layers}",
        precision="fp32",
        engine=f"testbed, torch {torch.__version__}, {config.max_running_seqs} slots",
        rows=tuple(_rows(config, times, grid)),
        measurement=measurement_of(
            grid, apart, sum(map(len, times.whole.values())) + sum(map(len, times.prefill.values()))
        ),
        provenance=Provenance(
            source="steps of the testbed's own engine, timed in place",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
            command=command,
            versions={"bebop-rollout": own_version(), "torch": torch.__version__},
            notes=f"{notes} Medians over shuffled sweeps; contexts of a batch are spread around their mean. A prefill "
            "row of n prompts is what two steps take longer in which n responses end and as many begin; of longer "
            "texts, one pass that reads them by itself. Target rows are what is left of whole steps. All in multiples "
            "of a reference step taken before and after, whose time had an interquartile range of "
            f"{times.pace_spread:.1%}; spreads of rows include it.",
        ),
    )


def measurement_of(grid: Collected, apart: Collected, num_samples: int) -> Measurement:
    """Return what whole steps say of themselves, and of those between them."""
    found = surfaces(grid.latencies.items())
    return Measurement(
        num_sweeps=min(grid.counts.values()),
        num_samples=num_samples,
        noisy_spread=NOISY_SPREAD,
        num_noisy=sum(each > NOISY_SPREAD for each in grid.spreads.values()),
        leave_one_out=leave_one_out(found),
        held_out=between(found, apart.latencies),
    )


def _whole_steps(times: Times, points: Iterable[StepPoint]) -> Collected:
    """Return whole steps as points of decode and verify."""
    return collect(
        Sample(GRID, _as_point(point), sweep, seconds)
        for point in points
        for sweep, seconds in enumerate(times.whole.get(point, ()))
    )


def _as_point(point: StepPoint) -> Point:
    operation = Operation.VERIFY if point.k else Operation.DECODE
    return Point(operation, point.k + 1, point.batch, point.context_tokens)


def _rows(config: TestbedConfig, times: Times, grid: Collected) -> Iterator[LatencyRow]:
    points = grid_points(config)
    most = max(point.k for point in points)
    added: dict[Point, float] = {}
    for batch in sorted({point.batch for point in points}):
        of_batch = [point for point in points if point.batch == batch]
        drafting = [point for point in of_batch if point.k > 0]
        added[Point(Operation.HOST_GAP, 1, batch)] = _median(times, Part.HOST, [p for p in of_batch if p.k == most])
        added[Point(Operation.SAMPLE, 1, batch)] = _median(times, Part.PROPOSE, drafting)
        added[Point(Operation.LM_HEAD, 1, batch)] = _median(times, Part.LM_HEAD, drafting)
        for k in range(1, most + 1):
            added[Point(Operation.SAMPLE, k + 1, batch)] = _median(
                times, Part.SAMPLE, [p for p in drafting if p.k == k]
            )
        for point in drafting:
            first_s = _median(times, Part.FIRST_DRAFT, [point])
            added[Point(Operation.DRAFT, point.k + 1, batch, point.context_tokens)] = first_s
            alike = [p for p in drafting if p.k > 1 and p.context_tokens == point.context_tokens]
            later_s = _median(times, Part.LATER_DRAFT, alike)
            added[Point(Operation.DRAFT, 1, batch, point.context_tokens)] = later_s
    for point in points:
        whole = _as_point(point)
        rest_s = grid.latencies[whole] - sum(times_run * added[part] for part, times_run in _added_parts(point))
        yield as_row(whole, rest_s, grid.spreads[whole], times.pace_spread)
    for part, seconds in added.items():
        yield as_row(part, seconds)
    yield from _prefill_rows(times)


def _added_parts(point: StepPoint) -> list[tuple[Point, int]]:
    """Return what `simulator/latency.py` adds to the target's pass, and how often."""
    k, b, c = point.k, point.batch, point.context_tokens
    gap, sample = Point(Operation.HOST_GAP, 1, b), Point(Operation.SAMPLE, 1, b)
    if k == 0:
        return [(gap, 1), (sample, 1)]
    drafts = [(Point(Operation.DRAFT, k + 1, b, c), 1), (Point(Operation.DRAFT, 1, b, c), k - 1)]
    return [
        *drafts,
        (Point(Operation.LM_HEAD, 1, b), k),
        (Point(Operation.SAMPLE, k + 1, b), 1),
        (sample, k),
        (gap, k + 1),
    ]


def _prefill_rows(times: Times) -> Iterator[LatencyRow]:
    longest_s = 0.0
    for tokens in sorted({tokens for _, tokens in times.prefill}):
        plain_s, with_head_s = (statistics.median(times.prefill[head, tokens]) for head in (0, 1))
        yield as_row(Point(Operation.PREFILL, tokens, 1), plain_s)
        longest_s = max(longest_s, with_head_s - plain_s)
        yield as_row(Point(Operation.DRAFT_PREFILL, tokens, 1), longest_s)


def _median(times: Times, part: Part, points: Sequence[StepPoint]) -> float:
    return statistics.median([each for point in points for each in times.parts[point, part]])


def as_row(point: Point, latency_s: float, *spreads: float) -> LatencyRow:
    """Return the row of a point; its spread is that of independent ones together, None where none is given."""
    return LatencyRow(
        operation=point.operation,
        batch=point.batch,
        context_tokens=point.context_tokens,
        tokens_per_seq=point.tokens_per_seq,
        latency_s=max(latency_s, MIN_LATENCY_S),
        relative_spread=round(math.hypot(*spreads), 6) if spreads else None,
    )
