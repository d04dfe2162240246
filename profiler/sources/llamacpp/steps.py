"""Steps: how long one step of the engine takes, plain or speculative, at a batch, a context and a forced acceptance.

A response is generated twice, the second time `NUM_STEPS` whole steps longer; the difference is that many steps at the
full batch, without prompts, without the shorter steps at a response's end (fewer drafts than k when fewer tokens are
left) and without the time in which sequences begin one after the other. Which slots are busy matters: with one KV cache
per slot llama.cpp breaks a batch with idle slots between busy ones into one pass per run of neighbours. In a rollout
slots fall idle in no order, so a batch below the number of slots is timed over several typical arrangements.
Does not know what the times are for.
"""

import itertools
import random
import statistics
from dataclasses import dataclass, replace
from functools import cache

from profiler.sources.llamacpp.session import FIRST_WORD, Call, EngineSettings
from profiler.sources.llamacpp.worker import Engine

NUM_STEPS = 16
"""Whole steps in one timing."""
LEAD_STEPS = 4
"""Steps that both responses have before, while sequences begin one after the other."""
NUM_ARRANGEMENTS = 3
"""Of busy slots, from few runs of neighbours to many."""
REQUEST_TOKENS = 32
"""Response of the requests whose prompts are timed."""
MIN_TIMED_S = 0.03
"""A sample repeats its timings until this much was timed."""
MAX_REPEATS = 8


@dataclass(frozen=True, slots=True)
class StepShape:
    """One kind of step."""

    batch: int
    context_tokens: int
    """Mean over the timed steps; near 0 only as near as the tokens of a response allow."""
    num_accepted: int = 0
    """Drafts accepted in each step."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """One sample."""

    latency_s: float
    num_repeats: int


def time_step(engine: Engine, settings: EngineSettings, shape: StepShape, vocab_size: int, seed: int) -> StepTime:
    """Return the time of one step: for each arrangement of slots the median of its timings, then their mean.

    Raises:
        DeviceError: The engine dies or refuses.
    """
    settings = replace(settings, acceptance=forced(settings.num_draft_tokens, shape.num_accepted))
    per_step = shape.num_accepted + 1
    lead = per_step * (-(-(settings.num_draft_tokens + 1) // per_step) + LEAD_STEPS)
    tokens = NUM_STEPS * per_step
    prompt_tokens = max(1, shape.context_tokens - lead - tokens // 2)
    words = random.Random(f"{seed} {shape}")
    timings: list[list[float]] = []
    spent_s, num_repeats = 0.0, 0
    places = arrangements(shape.batch, settings.num_slots)
    while num_repeats == 0 or (spent_s < MIN_TIMED_S and num_repeats < MAX_REPEATS):
        for index, slots in enumerate(places):
            calls = [
                Call(_prompt(words, prompt_tokens, vocab_size), 1 + lead, slot, words.randrange(1 << 31))
                for slot in slots
            ]
            short_s = _decode_s(engine, settings, calls)
            long_s = _decode_s(engine, settings, [replace(call, num_tokens=1 + lead + tokens) for call in calls])
            if num_repeats == 0:
                timings.append([])
            timings[index].append((long_s - short_s) / NUM_STEPS)
            spent_s += long_s
        num_repeats += 1
    return StepTime(statistics.fmean(map(statistics.median, timings)), num_repeats)


def time_prefill(engine: Engine, settings: EngineSettings, num_tokens: int, vocab_size: int, seed: int) -> StepTime:
    """Return what a request takes beyond its decode steps, alone in the engine.

    Its prompt, and the server's work on request and answer, which at small models is as long: from call to answer, less
    the time from first to last token of `REQUEST_TOKENS`.

    Raises:
        DeviceError: The engine dies or refuses.
    """
    settings = replace(settings, acceptance=forced(settings.num_draft_tokens, 0))
    words = random.Random(f"{seed} prefill {num_tokens}")
    seconds: list[float] = []
    while not seconds or (sum(seconds) < MIN_TIMED_S and len(seconds) < MAX_REPEATS):
        call = Call(_prompt(words, num_tokens, vocab_size), REQUEST_TOKENS, seed=words.randrange(1 << 31))
        batch = engine.complete(settings, [call])
        own = batch.on_core_share(settings.num_threads)
        seconds.append(own * (batch.wall_s - batch.answers[0].decode_s))
    return StepTime(statistics.median(seconds), len(seconds))


def forced(num_draft_tokens: int, num_accepted: int) -> tuple[float, ...] | None:
    """Return rates that accept the first `num_accepted` drafts of every step and no other; None without drafts."""
    if num_draft_tokens == 0:
        return None
    return tuple(1.0 if j < num_accepted else 0.0 for j in range(num_draft_tokens))


@cache
def arrangements(batch: int, num_slots: int) -> tuple[tuple[int, ...], ...]:
    """Return places for `batch` busy slots, evenly spread over what chance would do, by their runs of neighbours."""
    if batch in (1, num_slots):
        return (tuple(range(batch)),)
    random_slots = random.Random(f"{batch} of {num_slots}")
    all_slots = range(num_slots)
    every = (
        list(itertools.combinations(all_slots, batch))
        if num_slots <= 12
        else [tuple(sorted(random_slots.sample(all_slots, batch))) for _ in range(400)]
    )
    every.sort(key=lambda slots: (num_runs(slots), slots))
    return tuple(every[(2 * i + 1) * len(every) // (2 * NUM_ARRANGEMENTS)] for i in range(NUM_ARRANGEMENTS))


def num_runs(slots: tuple[int, ...]) -> int:
    """Return into how many runs of neighbours these slots fall."""
    return 1 + sum(right - left > 1 for left, right in itertools.pairwise(slots))


def _decode_s(engine: Engine, settings: EngineSettings, calls: list[Call]) -> float:
    """Return the mean time of a response from its first token to its last, other processes' time left out."""
    batch = engine.complete(settings, calls)
    own = batch.on_core_share(settings.num_threads)
    return own * statistics.fmean(answer.decode_s for answer in batch.answers)


def _prompt(words: random.Random, num_tokens: int, vocab_size: int) -> tuple[int, ...]:
    return tuple(words.randrange(FIRST_WORD, vocab_size) for _ in range(num_tokens))
