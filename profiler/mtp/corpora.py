"""Text to train small models on, on any machine: Python's standard library, worked arithmetic, dialogues with tools.

One token per ASCII character, V = 128. Every domain is one endless stream; which of its tokens a policy would write
itself (not questions, nor what tools answer) shows in the first letter of each line. Does not know models.
"""

# Shape letters: B sequences, T tokens.

import random
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

VOCAB_SIZE = 128
HELD_OUT_EVERY = 8
"""Of the files of the standard library, every eighth is only measured on."""
FOREIGN_LINES = {"code": "", "math": "Q", "agent": "ut"}
"""First letters of lines that the policy does not write: questions, users, tools."""


def encode(text: str) -> Tensor:
    """Return one token per character; what is not ASCII becomes a question mark."""
    return torch.frombuffer(bytearray(text.encode("ascii", "replace")), dtype=torch.uint8).long()


def decode(tokens: Tensor) -> str:
    """Return the text of tokens."""
    return bytes(tokens.tolist()).decode("ascii")


def stream(domain: str, num_tokens: int, *, held_out: bool = False, seed: int = 0) -> Tensor:
    """Return tokens of a domain, [num_tokens]; held-out ones share no file, or no seed, with the others."""
    documents = DOMAINS[domain](held_out, seed)
    pieces, size = [], 0
    while size < num_tokens:
        pieces.append(encode(next(documents)))
        size += len(pieces[-1])
    return torch.cat(pieces)[:num_tokens]


def windows(tokens: Tensor, num: int, length: int, seed: int = 0) -> Tensor:
    """Return `num` pieces of a stream, [num, length], at random places."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - length, (num,), generator=generator, device=generator.device)
    return tokens[starts[:, None] + torch.arange(length, device=generator.device)]


def own_tokens(domain: str, tokens_BT: Tensor) -> Tensor:
    """Return which tokens the policy writes itself, [B, T]: those of lines that do not begin with a foreign letter."""
    length, device = tokens_BT.shape[1], tokens_BT.device
    after_break = torch.nn.functional.pad(tokens_BT[:, :-1] == ord("\n"), (1, 0), value=True)
    begin = torch.where(after_break, torch.arange(length, device=device), 0).cummax(1).values
    first_letters = tokens_BT.gather(1, begin)
    foreign = torch.tensor([ord(letter) for letter in FOREIGN_LINES[domain]], dtype=torch.long, device=device)
    return ~torch.isin(first_letters, foreign)


def _code(held_out: bool, seed: int) -> Iterator[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    # Modules at the top of the library: the packages below differ between installations (site-packages, tests).
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py"))
    files = [file for file in files if not {"test", "site-packages", "dist-packages", "idlelib"} & {*file.parts}]
    files = [file for index, file in enumerate(files) if (index % HELD_OUT_EVERY == 0) == held_out]
    order = random.Random(f"code {seed}")
    while True:
        order.shuffle(files)
        for file in files:
            yield file.read_text(encoding="utf-8", errors="replace") + "\n"


def _math(held_out: bool, seed: int) -> Iterator[str]:
    draw = random.Random(f"math {held_out} {seed}")
    while True:
        yield draw.choice((sum_problem, product_problem, equation_problem))(draw)


def sum_problem(draw: random.Random, most: int = 99) -> str:
    """Return a sum of three numbers, worked from the left."""
    a, b, c = (draw.randint(1, most) for _ in range(3))
    return f"Q:{a}+{b}+{c}\n={a + b}+{c}\n={a + b + c}\nA:{a + b + c}\n"


def product_problem(draw: random.Random) -> str:
    """Return a product and a sum, the product first."""
    a, b, c = draw.randint(1, 99), draw.randint(2, 12), draw.randint(2, 12)
    return f"Q:{a}+{b}*{c}\n={a}+{b * c}\n={a + b * c}\nA:{a + b * c}\n"


def equation_problem(draw: random.Random) -> str:
    """Return a linear equation, solved in two steps."""
    a, x, b = draw.randint(2, 9), draw.randint(1, 12), draw.randint(1, 40)
    return f"Q:{a}x+{b}={a * x + b}\n{a}x={a * x + b}-{b}\n{a}x={a * x}\nx={x}\nA:{x}\n"


_CITIES = ("Paris", "Lima", "Oslo", "Cairo", "Quito", "Delhi", "Tunis", "Perth")
_ITEMS = ("book", "lamp", "desk", "phone", "chair", "mug")
_SKIES = ("rain", "sun", "snow", "fog", "wind")


def _agent(held_out: bool, seed: int) -> Iterator[str]:
    draw = random.Random(f"agent {held_out} {seed}")
    while True:
        turns = (draw.choice((_weather, _order, _file))(draw) for _ in range(draw.randint(1, 4)))
        yield "".join(turns) + "end\n"


def _weather(draw: random.Random) -> str:
    city, degrees, sky = draw.choice(_CITIES), draw.randint(-9, 35), draw.choice(_SKIES)
    asked = draw.choice((f"how is the weather in {city}?", f"tell me the weather of {city}", f"{city} today?"))
    call = f'call: get_weather(city="{city}")'
    said = draw.choice((f"it is {degrees} degrees with {sky} in {city}.", f"{city} has {sky} at {degrees} degrees."))
    return f"user: {asked}\n{call}\ntool: {degrees} {sky}\nbot: {said}\n"


def _order(draw: random.Random) -> str:
    item, number, price = draw.choice(_ITEMS), draw.randint(2, 9), draw.randint(2, 60)
    call = f'call: get_price(item="{item}")'
    then = f"call: multiply(a={price}, b={number})"
    said = draw.choice((f"{number} of them cost {number * price}.", f"that is {number * price} for {number}."))
    return f"user: what do {number} {item}s cost?\n{call}\ntool: {price}\n{then}\ntool: {number * price}\nbot: {said}\n"


def _file(draw: random.Random) -> str:
    name, lines = f"{draw.choice(_ITEMS)}{draw.randint(1, 99)}.txt", draw.randint(1, 500)
    said = draw.choice((f"{name} has {lines} lines.", f"there are {lines} lines in {name}."))
    return f'user: how long is {name}?\ncall: count_lines(path="{name}")\ntool: {lines}\nbot: {said}\n'


DOMAINS: dict[str, Callable[[bool, int], Iterator[str]]] = {"code": _code, "math": _math, "agent": _agent}
"""Streams of documents by the name of the domain: (held out, seed) -> documents."""
