"""Numbers and dictionaries as Python prints them, read without evaluating anything.

Knows `np.float64(1.5)`, `np.int32(2)`, `tensor(0.1, device='cuda:0')`, `Decimal('1')`, True, None, nan and inf. A
dictionary may be cut off: what stands before the cut is returned. Does not know any key.
"""

import re
from dataclasses import dataclass, field

from traces.measured import MAX_KEYS

MAX_DEPTH = 12
MAX_KEY_CHARS = 300

_PLAIN = r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,5})?"
_WORD = r"[+-]?(?:nan|inf|Infinity|NaN|True|False)"
_EITHER = rf"(?:{_PLAIN}|{_WORD})"
NUMBER = (
    rf"(?:{_EITHER}|(?:np|numpy)\.[a-z]+[0-9]*_?\({_EITHER}\)|tensor\({_EITHER}[^()]{{0,100}}\)"
    rf"|Decimal\('{_PLAIN}'\))"
)
"""Regular expression of a number as any of the loggers prints it."""

_NUMBER = re.compile(NUMBER)
_INNER = re.compile(rf"(?<![A-Za-z0-9_.]){_EITHER}")
_STRING = re.compile(r"""[bru]{0,2}(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")""")
_BLANK = re.compile(r"\s*")
_CALL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\(")
_ATOM = re.compile(r"[^,{}\[\]()\s:]+")
_OPEN, _CLOSE = "([{", ")]}"


def number(text: str) -> float | None:
    """Return the number that the text is, None when it is none; NaN and infinities are numbers."""
    if not text.isascii() or "_" in text:  # Python's float() takes digits of any script, and 1_000
        return None
    try:
        return float(text)
    except ValueError:
        pass
    if not _NUMBER.fullmatch(text):
        return None
    inner = _INNER.search(text.partition("(")[2] or text)
    if inner is None:
        return None
    word = inner.group()
    return float(word == "True") if word in ("True", "False") else float(word)


@dataclass(slots=True)
class Literal:
    """Numbers of a dictionary: nested keys are joined by `/`."""

    numbers: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False
    """Whether the closing brace was met."""
    end: int = 0
    """Where in the text reading stopped."""


def dictionary(text: str, start: int = 0) -> Literal:
    """Return the numbers and texts of the dictionary that opens at `start`; lists and objects are passed over.

    Never raises: what is no dictionary, nested beyond `MAX_DEPTH` or longer than `MAX_KEYS` ends the reading there.
    """
    found = Literal()
    found.end = _read(text, start, "", found, 0)
    found.is_whole = text[found.end - 1 : found.end] == "}" and found.end > start + 1
    return found


def _read(text: str, place: int, prefix: str, found: Literal, depth: int) -> int:
    """Read one dictionary into `found`; return the place behind its brace, or where it broke off."""
    if text[place : place + 1] != "{" or depth > MAX_DEPTH:
        return place
    place = _skip(text, place + 1)
    while text[place : place + 1] not in ("}", ""):
        key = _STRING.match(text, place)
        colon = _skip(text, key.end()) if key else place
        if key is None or text[colon : colon + 1] != ":" or len(found.numbers) + len(found.texts) >= MAX_KEYS:
            return place
        name = prefix + (key.group(1) or key.group(2) or "")[:MAX_KEY_CHARS]
        after = _read_value(text, _skip(text, colon + 1), name, found, depth)
        if after is None:
            return place
        place = _skip(text, after)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "}":
            found.numbers.pop(name, None)  # `12` of a cut `123`
            return place
    return place + 1 if place < len(text) else place


def _read_value(text: str, place: int, name: str, found: Literal, depth: int) -> int | None:
    """Put the value at `place` under `name`; return the place behind it, None when it is broken."""
    opening = text[place : place + 1]
    if opening == "{":
        end = _read(text, place, name + "/", found, depth + 1)
        return end if text[end - 1 : end] == "}" else None
    match = _NUMBER.match(text, place)
    if match and text[match.end() : match.end() + 1] in (",", "}", " ", "\n", ""):
        value = number(match.group())
        if value is not None:
            found.numbers[name] = value
        return match.end()
    string = _STRING.match(text, place)
    if string:
        found.texts[name] = (string.group(1) or string.group(2) or "")[:MAX_KEY_CHARS]
        return string.end()
    call = _CALL.match(text, place)
    if opening in ("[", "(") or call:
        return _skip_brackets(text, place if call is None else call.end() - 1)
    atom = _ATOM.match(text, place)
    return atom.end() if atom else None


def _skip_brackets(text: str, place: int) -> int | None:
    """Return the place behind the bracket that opens at `place`; None when it never closes."""
    depth = 0
    while place < len(text):
        letter = text[place]
        if letter in "'\"":
            string = _STRING.match(text, place)
            if string is None:
                return None
            place = string.end()
            continue
        depth += (letter in _OPEN) - (letter in _CLOSE)
        place += 1
        if depth == 0:
            return place
    return None


def _skip(text: str, place: int) -> int:
    blank = _BLANK.match(text, place)
    return blank.end() if blank else place
