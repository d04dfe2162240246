"""The time of a step between tokens that arrive raggedly, in bursts, or several at once."""

import json

import pytest

from profiler.errors import EngineError
from profiler.sources.engine.http import Event
from profiler.sources.engine.load import Answer, parse_answer, steady_part

STEP_S = 0.02
K = 3


def answer(start_s: float, per_step: list[int], *, by_token: bool = False) -> Answer:
    """Return an answer whose first token comes at `start_s`, then `per_step[i]` tokens a step."""
    arrivals, tokens, now_s, done = [start_s], [1], start_s, 1
    for count in per_step:
        now_s += STEP_S
        for index in range(count if by_token else 1):
            arrivals.append(now_s + 1e-5 * index)
            tokens.append(done + index + 1 if by_token else done + count)
        done += count
    return Answer(start_s - 1, tuple(arrivals), tuple(tokens))


def steps_per_token(rows: list[list[int]]) -> tuple[float, float]:
    num_steps = sum(len(row) for row in rows)
    return num_steps / sum(map(sum, rows)), float(num_steps)


@pytest.mark.parametrize("by_token", [False, True])
def test_the_step_is_found_whether_an_event_is_a_step_or_a_token(by_token: bool) -> None:
    rows = [[1 + (i * 7 + j * 3) % (K + 1) for i in range(80)] for j in range(4)]
    answers = [answer(0.005 * j, row, by_token=by_token) for j, row in enumerate(rows)]
    part = steady_part(answers, *steps_per_token(rows))
    assert part is not None
    assert part.step_s == pytest.approx(STEP_S, rel=0.02 if by_token else 1e-3)


def test_events_that_bundle_steps_do_not_lengthen_them() -> None:
    whole = answer(0.0, [1] * 60)
    late = Answer(0.0, whole.arrivals_s[::3], whole.tokens[::3])  # a client that reads late gets three at once
    part = steady_part([late], 1.0, 60.0)
    assert part is not None
    assert part.step_s == pytest.approx(STEP_S)


def test_ramp_up_and_drain_are_left_out() -> None:
    """Two sequences; while only one runs its steps take half as long."""
    alone, together = [0.01 * i for i in range(11)], [0.1 + 0.02 * i for i in range(1, 41)]
    first = Answer(0.0, (*alone, *together), tuple(range(1, 52)))
    second = Answer(0.0, tuple(0.1 + 0.02 * i for i in range(61)), tuple(range(1, 62)))
    part = steady_part([first, second], 1.0, 110.0)
    assert part is not None
    assert part.step_s == pytest.approx(0.02)
    assert part.num_steps == pytest.approx(40)


def test_sequences_that_never_run_together_have_no_steady_part() -> None:
    assert steady_part([answer(0.0, [1] * 20), answer(5.0, [1] * 20)], 1.0, 40.0) is None


def event(at_s: float, **content: object) -> Event:
    return Event(at_s, json.dumps(content).encode())


CHOICE = [{"index": 0, "text": "x", "finish_reason": None}]


def test_tokens_are_counted_by_usage_by_timings_or_evenly() -> None:
    usages = [event(i, choices=CHOICE, usage={"completion_tokens": n}) for i, n in enumerate((1, 3, 4))]
    assert parse_answer(0, [*usages, event(9, choices=[], usage={"completion_tokens": 4})]).tokens == (1, 3, 4)
    timings = [event(i, choices=CHOICE, timings={"predicted_n": n}) for i, n in enumerate((1, 2, 2, 3))]
    assert parse_answer(0, timings).tokens == (1, 2, 3)  # the third event holds no new token
    bare = [event(i, choices=CHOICE, usage=None) for i in range(4)]
    assert parse_answer(0, [*bare, event(9, choices=[], usage={"completion_tokens": 8})]).tokens == (2, 4, 6, 8)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"<html>", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b'{"error": {"message": "out of\\nmemory"}}', "broke a request off"),
        (b'{"choices": [{"text": "x"}]}', "without a count"),
        (b'{"choices": [{"text": "x"}], "usage": {"completion_tokens": "many"}}', "without a count"),
        (b'{"usage": [], "timings": 3}', "without a count"),
    ],
)
def test_a_stream_of_something_else_is_named(payload: bytes, complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint) as caught:
        parse_answer(0.0, [Event(0.0, payload)])
    assert "\n" not in str(caught.value)
