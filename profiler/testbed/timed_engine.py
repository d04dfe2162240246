"""Times of an engine's own steps, whole and in parts, at any batch and context; what a profile is made from.

The engine runs as in a run; only where its sequences stand is set by hand. Their places are
spread around the mean as those of sequences that began at different times. Does not know traces.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from profiler.testbed.engine import Request
from profiler.testbed.parts import PreparedParts
from profiler.testbed.task import PROMPT_TOKENS
from profiler.testbed.torch_engine import Part, TorchEngine
from traces.testbed import TestbedConfig

STEPS_PER_VISIT = 8
WARM_STEPS = 2
"""First steps of a visit, not timed: the visit before was of another engine, whose weights fill the caches."""
SPREAD = 0.75
"""Places lie within so much of the distance between the mean and the nearer end of the range: an assumption."""
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, order=True)
class StepPoint:
    """One kind of step."""

    k: int
    batch: int
    context_tokens: int
    """Mean tokens in the KV cache of a sequence."""


@dataclass(slots=True)
class Stopwatch:
    """Seconds by part since it was started."""

    clock: Clock
    seconds: dict[Part, float] = field(default_factory=lambda: defaultdict(float))
    _last_s: float = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._last_s = self.clock()

    def __call__(self, part: Part) -> None:
        """End a part."""
        now_s = self.clock()
        self.seconds[part] += now_s - self._last_s
        self._last_s = now_s


class TimedEngine:
    """An engine with k drafts that can be put into any state."""

    def __init__(self, config: TestbedConfig, k: int, clock: Clock = time.perf_counter) -> None:
        longest = config.max_response_tokens + PROMPT_TOKENS + 16  # nothing ends while it is timed
        roomy = config.model_copy(update={"k": k, "max_response_tokens": longest})
        engine = PreparedParts().engine(roomy)
        assert isinstance(engine, TorchEngine)
        self._engine, self._end = engine, PROMPT_TOKENS + config.max_response_tokens
        self._k, self._clock = k, clock

    def steps(
        self, batch: int, context_tokens: int, num_steps: int = STEPS_PER_VISIT
    ) -> list[tuple[float, dict[Part, float]]]:
        """Return whole seconds, and seconds by part, of a few steps; those before them are not timed."""
        engine = self._engine
        engine.abort()
        engine.submit([Request(number, number, (0,), num_tokens=self._end + 12) for number in range(batch)])
        engine.step()
        known = [place + 1 for place in spread(batch, context_tokens, self._end)]
        found = []
        for index in range(num_steps + WARM_STEPS):
            watch = Stopwatch(self._clock)
            engine.stand_at(known)
            engine.watch = watch
            began_s = self._clock()
            watch.start()
            finished = engine.step()
            watch(Part.HOST)
            assert not finished
            if index >= WARM_STEPS:
                found.append((self._clock() - began_s, dict(watch.seconds)))
        return found

    def prefill_s(self, num_seqs: int, text_tokens: int) -> float:
        """Return the seconds in which so many texts are read, and a response of one token to each is handed back."""
        engine = self._engine
        engine.abort()
        known = (0,) * max(text_tokens - PROMPT_TOKENS, 0)
        prompt = (0,) * (text_tokens - len(known))
        requests = [
            Request(number, number, prompt, known, len(known) + 1, (0,) * len(known), (0.0,) * len(known))
            for number in range(num_seqs)
        ]
        began_s = self._clock()
        engine.submit(requests)
        finished = engine.step()
        seconds = self._clock() - began_s
        assert len(finished) == num_seqs
        return seconds

    def turnover_s(self, num_seqs: int, batch: int) -> float:
        """Return the seconds that two steps of a batch take longer where responses end in one and others begin.

        What ends is handed back and the gaps that it leaves are closed, prompts are read in the middle of everything,
        and the step after that finds little of its own in the caches.
        """
        engine, middle = self._engine, (PROMPT_TOKENS + self._end) // 2
        places = spread(batch, middle, self._end)
        before = [place - self._k - 2 for place in places]  # no step from here ends a response

        def seconds_of(known: Sequence[int], num_ended: int, submitted: Sequence[Request] = ()) -> float:
            engine.stand_at(known)
            began_s = self._clock()
            engine.submit(submitted)
            assert len(engine.step()) == num_ended
            return self._clock() - began_s

        engine.abort()
        ending = [Request(number, number, (0,), num_tokens=place) for number, place in enumerate(places[:num_seqs])]
        staying = [Request(number, number, (0,), num_tokens=self._end + 12) for number in range(num_seqs, batch)]
        fresh = [Request(number, number, (0,) * PROMPT_TOKENS, num_tokens=self._end) for number in range(num_seqs)]
        engine.submit([*ending, *staying])
        engine.step()
        for _ in range(WARM_STEPS):
            seconds_of(before, 0)
        usual_s = seconds_of(before, 0) + seconds_of(before, 0)
        ended_s = seconds_of(places, num_seqs)
        return ended_s + seconds_of(places[num_seqs:], 0, fresh) - usual_s


def spread(batch: int, context_tokens: int, end: int) -> list[int]:
    """Return places of a batch, evenly around their mean."""
    reach = SPREAD * min(context_tokens - PROMPT_TOKENS, end - context_tokens)
    if batch == 1 or reach <= 0:
        return [context_tokens] * batch
    return [round(place) for place in np.linspace(context_tokens - reach, context_tokens + reach, batch).tolist()]
