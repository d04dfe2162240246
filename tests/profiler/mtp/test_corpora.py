"""The text that small models are trained on."""

import re

import pytest

torch = pytest.importorskip("torch")

from profiler.mtp.corpora import DOMAINS, VOCAB_SIZE, decode, encode, own_tokens, stream, windows  # noqa: E402

by_domain = pytest.mark.parametrize("domain", list(DOMAINS))


@by_domain
def test_a_stream_is_ascii_and_the_same_every_time(domain: str) -> None:
    tokens = stream(domain, 5000, seed=3)
    assert len(tokens) == 5000
    assert tokens.min() >= 0
    assert tokens.max() < VOCAB_SIZE
    assert torch.equal(tokens, stream(domain, 5000, seed=3))


@by_domain
def test_held_out_text_is_other_text(domain: str) -> None:
    seen = {line for line in decode(stream(domain, 60_000)).splitlines() if len(line) > 9}
    held_out = [line for line in decode(stream(domain, 60_000, held_out=True)).splitlines() if len(line) > 9]
    assert len(held_out) > 100
    assert sum(line in seen for line in held_out) < 0.5 * len(held_out)


def test_worked_arithmetic_is_right() -> None:
    documents = re.findall(r"Q:([0-9+*]+)\n((?:=.*\n)+)A:(\d+)\n", decode(stream("math", 30_000)))
    assert len(documents) > 300
    for question, steps, answer in documents:
        assert all(eval(line) == int(answer) for line in [question, *re.findall(r"=(.*)", steps)])


def test_equations_are_solved() -> None:
    documents = re.findall(r"Q:(\d+)x\+(\d+)=(\d+)\n.*\n.*\nx=(\d+)\nA:(\d+)\n", decode(stream("math", 30_000)))
    assert len(documents) > 100
    assert all(int(a) * int(x) + int(b) == int(c) and x == answer for a, b, c, x, answer in documents)


def test_questions_users_and_tools_are_not_the_policys_own() -> None:
    def own(domain: str, text: str) -> str:
        tokens = encode(text)
        return decode(tokens[own_tokens(domain, tokens[None])[0]])

    assert own("math", "Q:1+2+3\n=3+3\nA:6\nQ:7") == "=3+3\nA:6\n"
    assert own("agent", "user: hi\ncall: f()\ntool: 1\nbot: one\nuser") == "call: f()\nbot: one\n"
    assert own("code", "Q\nuser\n") == "Q\nuser\n"


def test_windows_are_pieces_of_the_stream() -> None:
    found = windows(torch.arange(1000), 5, 7, seed=1)
    assert found.shape == (5, 7)
    assert (found.diff(dim=1) == 1).all()
    assert torch.equal(found, windows(torch.arange(1000), 5, 7, seed=1))
