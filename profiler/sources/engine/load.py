"""Load: a batch of requests at once, and the time of one engine step while all of them decode.

Requests begin and end raggedly: the first ones decode while the last ones are prefilled, and the last ones decode
alone. Only the time from the last one's first token to the first one's last token counts, in which every sequence runs.
Does not know what the engine is, nor what is done with the time.
"""

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiler.errors import EngineError
from profiler.sources.engine.http import Clock, Endpoint, Event

BURST_SHARE = 0.25
"""Tokens of one step arrive closer together than this share of a step."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's tokens as they arrived."""

    sent_s: float
    arrivals_s: tuple[float, ...]
    tokens: tuple[int, ...]
    """Tokens received so far, after each arrival."""

    @property
    def num_tokens(self) -> int:
        """Return how many tokens the answer holds."""
        return self.tokens[-1]


@dataclass(frozen=True, slots=True)
class SteadyPart:
    """What a batch did while all of it was running."""

    step_s: float
    num_steps: float
    """Steps of one sequence."""


def run_batch(endpoint: Endpoint, bodies: Sequence[dict[str, Any]], clock: Clock) -> list[Answer]:
    """Send all requests at once, each on its own thread; return their answers.

    Raises:
        EngineError: One failed; the others are broken off.
    """
    answers: dict[int, Answer] = {}
    errors: list[Exception] = []

    def ask(index: int, body: dict[str, Any]) -> None:
        try:
            sent_s, events = endpoint.stream("/v1/completions", body, clock, body["max_tokens"] + 16)
            answers[index] = parse_answer(sent_s, events)
        except Exception as error:  # handed to the caller's thread, which raises it
            errors.append(error)
            endpoint.abort()

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(bodies)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        endpoint.abort()
        raise
    if errors:
        raise errors[0]
    return [answers[index] for index in range(len(bodies))]


def parse_answer(sent_s: float, events: Sequence[Event]) -> Answer:
    """Return the tokens by arrival, from whichever count the engine sends along.

    vLLM and SGLang repeat the usage in every event on request, llama.cpp its timings; where there is neither, the last
    event's usage is spread evenly.

    Raises:
        EngineError: An event is no completion, or reports an error.
    """
    arrivals, counts, total = [], [], 0
    for event in events:
        content = _content(event.payload)
        count = _count(content)
        total = max(total, count or 0)
        if content.get("choices") and count != 0:
            arrivals.append(event.arrived_s)
            counts.append(count or 0)
    if not arrivals or total < 1:
        raise EngineError("a stream without a count of its tokens; does the server know stream_options.include_usage?")
    if 0 in counts:
        counts = [round(total * (index + 1) / len(counts)) for index in range(len(counts))]
    keep = _rising(counts)
    return Answer(sent_s, tuple(arrivals[i] for i in keep), tuple(counts[i] for i in keep))


def steady_part(answers: Sequence[Answer], steps_per_token: float, num_steps: float) -> SteadyPart | None:
    """Return the step time of the part in which all sequences decode, None if there is no such part.

    Args:
        answers: One per sequence.
        steps_per_token: Verify steps per emitted token, from the engine's counters; 1 without drafts.
        num_steps: Verify steps of all sequences, from the same counters; where as many events arrived, they are steps.
    """
    begin_s = max(answer.arrivals_s[0] for answer in answers)
    end_s = min(answer.arrivals_s[-1] for answer in answers)
    num_arrivals = sum(len(answer.arrivals_s) - 1 for answer in answers)
    counts_arrivals = steps_per_token < 1 and abs(num_arrivals - num_steps) <= 0.01 * num_steps
    seconds = steps = 0.0
    for answer in answers:
        ends = range(len(answer.arrivals_s)) if counts_arrivals else _step_ends(answer, steps_per_token)
        times = [answer.arrivals_s[index] for index in ends]
        first, last = bisect_left(times, begin_s), bisect_right(times, end_s) - 1
        if last <= first:
            return None
        num_tokens = answer.tokens[ends[last]] - answer.tokens[ends[first]]
        steps += last - first if counts_arrivals else num_tokens * steps_per_token
        seconds += times[last] - times[first]
    if seconds <= 0 or steps <= 0:
        return None
    return SteadyPart(seconds / steps, steps / len(answers))


def _step_ends(answer: Answer, steps_per_token: float) -> Sequence[int]:
    """Return the arrivals that end a step, for engines that send each of its tokens by itself."""
    times = answer.arrivals_s
    if steps_per_token == 1 or len(times) < 3:
        return range(len(times))
    step_s = (times[-1] - times[0]) / (answer.tokens[-1] - answer.tokens[0]) / steps_per_token
    ends = [i for i in range(len(times) - 1) if times[i + 1] - times[i] > BURST_SHARE * step_s]
    return [*ends, len(times) - 1]


def _rising(counts: Sequence[int]) -> list[int]:
    """Return the places where the count exceeds all before: an event may bring text or an end, but no token."""
    keep, most = [], 0
    for index, count in enumerate(counts):
        if count > most:
            keep.append(index)
            most = count
    return keep


def _count(content: dict[str, Any]) -> int | None:
    """Return the tokens generated so far, as the event tells them."""
    for name, key in (("usage", "completion_tokens"), ("timings", "predicted_n")):
        part = content.get(name)
        count = part.get(key) if isinstance(part, dict) else None
        if isinstance(count, int) and 0 <= count < 10**9:
            return count
    return None


def _content(payload: bytes) -> dict[str, Any]:
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise EngineError("a stream's event is no JSON object; is this an engine's /v1/completions?")
    if content.get("error"):
        raise EngineError(f"the engine broke a request off: {' '.join(str(content['error']).split())[:200]}")
    return content
