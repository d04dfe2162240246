"""The task: prompts of one length, responses that end, a reward that knows right from wrong."""

import random
import statistics
from itertools import pairwise

import pytest

from profiler.testbed.task import END, PROMPT_TOKENS, problems, question, reward, worked, worked_problems


def test_prompts_have_one_length_and_end_with_their_question() -> None:
    for problem in problems(500, seed=1):
        assert len(problem.prompt) == PROMPT_TOKENS
        assert bytes(problem.prompt).decode().endswith(question(problem.terms))
    assert problems(3, seed=1) == problems(500, seed=1)[:3]
    assert problems(3, seed=1) != problems(3, seed=2)


def test_worked_responses_earn_everything_and_end_once() -> None:
    draw = random.Random(1)
    lengths = []
    for problem in problems(500, seed=2):
        response = worked(problem.terms, draw).encode()
        assert reward(response, problem.terms) == pytest.approx(1.0)
        assert response.count(END) == 1
        assert response[-1] == END
        lengths.append(len(response))
    assert min(lengths) < 12
    assert max(lengths) > 70
    assert 25 < statistics.fmean(lengths) < 50


@pytest.mark.parametrize(
    ("response", "earned"),
    [
        ("so=17+4\n=21\nA:21.", 1.0),
        ("so=17+4\n=21\nA:22.", 0.3),
        ("so=18+4\n=22\nA:22.", 0.1),
        ("so=18+4\n=21\nA:21.", 0.8),
        ("so=17+4\n=21\nA:21", 0.0),
        ("so=17+4\n=21\nA:.", 0.0),
        ("", 0.0),
    ],
)
def test_the_reward_of_an_answer_its_form_and_its_first_line(response: str, earned: float) -> None:
    assert reward(response.encode(), (8, 9, 4)) == pytest.approx(earned)


def test_the_stream_to_learn_from_is_made_of_whole_problems() -> None:
    text = bytes(worked_problems(4000, seed=3).tolist()).decode()
    lines = text.split("\n")[:-1]
    assert lines[0].startswith("Q:")
    assert all(after.startswith("Q:") for line, after in pairwise(lines) if line[-1:] == ".")
