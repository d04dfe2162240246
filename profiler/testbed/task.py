"""The task of the testbed: sums of two to seven digits, worked line by line, with an answer that can be checked.

    Q:8+9+4
    so=17+4
    =21
    A:21.

How a line begins is the policy's choice, and so is repeating one: responses to one prompt differ, by some 10 to 90
tokens, one per character. Prompts have one length; room before the question holds the end of another worked sum. A
response ends with its first full stop. Does not know models.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from profiler.mtp.corpora import encode

PROMPT_TOKENS = 24
END = ord(".")
"""Token that ends a response; part of it."""
NUM_TERMS = (2, 7)
LARGEST = 9
OPENINGS = ("", "so", "now", "then")
"""How a worked line may begin; alike in chance."""
REPEATED = 0.15
"""Chance that a line is written once more."""
FORM_REWARD = 0.1
FIRST_LINE_REWARD = 0.2


@dataclass(frozen=True, slots=True)
class Problem:
    """A sum."""

    terms: tuple[int, ...]
    prompt: tuple[int, ...]
    """PROMPT_TOKENS tokens."""


def problems(num: int, seed: int) -> list[Problem]:
    """Return problems; the same ones for a seed, whatever `num`."""
    draw = random.Random(f"testbed {seed}")
    return [_problem(draw) for _ in range(num)]


def worked_problems(num_tokens: int, seed: int) -> Tensor:
    """Return a stream of problems with right answers, [num_tokens]: what the policy learns the task from."""
    draw = random.Random(f"testbed worked {seed}")
    pieces, size = [], 0
    while size < num_tokens:
        terms = _terms(draw)
        pieces.append(question(terms) + worked(terms, draw) + "\n")
        size += len(pieces[-1])
    return encode("".join(pieces))[:num_tokens]


def question(terms: Sequence[int]) -> str:
    """Return the line that asks."""
    return f"Q:{'+'.join(map(str, terms))}\n"


def worked(terms: Sequence[int], draw: random.Random) -> str:
    """Return one right response, end included."""
    lines, rest = [], list(terms)
    while len(rest) > 1:
        rest = [rest[0] + rest[1], *rest[2:]]
        line = f"{draw.choice(OPENINGS)}={'+'.join(map(str, rest))}\n"
        lines.append(line)
        while draw.random() < REPEATED:
            lines.append(line)
    return "".join(lines) + f"A:{rest[0]}."


def reward(response: Sequence[int], terms: Sequence[int]) -> float:
    """Return 1 for a right response: 0.1 of it for an answer of the right form, 0.2 for a right first line."""
    text = bytes(response).decode("ascii", "replace")
    found = re.search(r"(?:^|\n)A:(\d{1,6})\.$", text)
    if found is None:
        return 0.0
    rest = (terms[0] + terms[1], *terms[2:])
    first = text.partition("\n")[0].partition("=")[2] == "+".join(map(str, rest))
    answer_reward = 1.0 - FORM_REWARD - FIRST_LINE_REWARD
    return FORM_REWARD + FIRST_LINE_REWARD * first + answer_reward * (int(found[1]) == sum(terms))


def _problem(draw: random.Random) -> Problem:
    terms = _terms(draw)
    text = question(terms)
    while len(text) < PROMPT_TOKENS:
        before = _terms(draw)
        text = question(before) + worked(before, draw) + "\n" + text
    return Problem(terms, tuple(text[-PROMPT_TOKENS:].encode("ascii")))


def _terms(draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randint(1, LARGEST) for _ in range(draw.randint(*NUM_TERMS)))
