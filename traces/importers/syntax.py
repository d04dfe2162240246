"""Lines and documents to records: the forms in which trainers print what they logged, one line each.

`step:7 - key:value - ...` (verl), `perf 7: {...}` and its like (slime, miles, OpenRLHF), one JSON object per line in
any of the shapes met in the wild, also behind a logger's prefix (ROLL). Does not know what a key means.
"""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from traces.importers.literals import NUMBER, dictionary, number
from traces.importers.prime_rl import is_orchestrator, orchestrator_keys
from traces.importers.records import MAX_KEY_CHARS, Record, put
from traces.importers.tally import Tally
from traces.importers.text import Piece
from traces.measured import MAX_KEYS

MAX_STEP = 10**12
CUT_CHARS = (4095, 4096, 8191, 8192, 16383, 16384)
"""Lengths at which collectors of console output cut a line."""

_STEP_LINE = re.compile(r"(?<![\w/:.])step:(\d{1,12}) - ", re.ASCII)
_ITEM = re.compile(rf"(.{{1,{MAX_KEY_CHARS}}}?):({NUMBER})(?![0-9._+(\u0080-\U0010ffff-])", re.ASCII)
_NAMED = re.compile(r"(?<![\w/])(perf|rollout|step|eval|passrate|Global step) (\d{1,12}): ?(?=\{)", re.ASCII)
_TIME = re.compile(r"\[(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_STEP_KEYS = (
    "step",
    "global_step",
    "training/global_step",
    "trainer/global_step",
    "rollout/step",
    "train/step",
    "train/global_step",
    "system/step",
    "_step",
)
"""Where an object names its step; that of W&B comes last, for it may count calls of `log`."""
_DATA_KEYS = ("data", "metrics", "log", "logs")
_TIME_KEYS = ("_timestamp", "timestamp", "time", "ts")


def step_line(piece: Piece, tally: Tally) -> Record | None:
    """Return the record of `step:7 - key:value - key:value`, None when the piece holds none."""
    if "step:" not in piece.text:
        return None
    match = _STEP_LINE.search(piece.text)
    if match is None:
        return None
    numbers: dict[str, float] = {}
    items = piece.text[match.end() :].split(" - ", MAX_KEYS)
    key = None
    for item in items:
        name, _, text = item.rpartition(":")
        value = number(text) if name else None
        if value is None or "%|" in name:
            found = _ITEM.match(item)  # a progress bar may follow without a blank
            if found is None:
                tally.ignore("items without a number", "cut off, or text")
                key = None
                continue
            name, value = found.group(1), number(found.group(2)) or 0.0
        key = name.strip()
        put(numbers, key, value, tally)
    is_cut = len(piece.text) in CUT_CHARS
    if is_cut and key is not None and not piece.text.endswith(")"):
        numbers.pop(key, None)
        tally.ignore("last value of a cut line", f"lines end after {len(piece.text)} characters")
    return Record(int(match.group(1)), numbers, piece.where, part="step line", is_cut=is_cut)


def named_dictionary(piece: Piece, tally: Tally) -> Record | None:
    """Return the record of `perf 7: {'key': value, ...}`; its part tells the processes apart that print it."""
    match = _NAMED.search(piece.text) if "{" in piece.text else None
    if match is None:
        return None
    found = dictionary(piece.text, match.end())
    if not found.is_whole:
        tally.ignore("dictionaries that are cut off", "what stands before the cut is taken")
    numbers: dict[str, float] = {}
    for key, value in found.numbers.items():
        put(numbers, key, value, tally)
    kind = match.group(1)
    part = f"{kind} of the rollout" if kind == "perf" and "perf/rollout_time" in numbers else kind
    return Record(int(match.group(2)), numbers, piece.where, part=part, time_s=_time_s(piece.text))


def json_line(piece: Piece, tally: Tally) -> tuple[Record | None, dict[str, Any]] | None:
    """Return the JSON object that ends a line, with its record if it names a step; None when there is none."""
    start = piece.text.find('{"')
    if start < 0 or not piece.text.endswith("}"):
        return None
    try:
        content = json.loads(piece.text[start:])
    except (ValueError, RecursionError):
        return None
    return (json_record(content, piece.where, tally), content) if isinstance(content, dict) else None


def json_record(content: dict[str, Any], where: str, tally: Tally) -> Record | None:
    """Return the record of one JSON object, None when it names no step."""
    inner = next((content[key] for key in _DATA_KEYS if isinstance(content.get(key), dict)), content)
    names = [content["step_key"]] if isinstance(content.get("step_key"), str) else []
    name, step = next(
        (
            (name, step)
            for source in (content, inner)
            for name in (*names, *_STEP_KEYS)
            if (step := _step(source, name)) is not None
        ),
        (None, None),
    )
    if step is None:
        return None
    numbers: dict[str, float] = {}
    for key, value in _flat(inner, "", 0):
        if inner is not content or key not in ("step", "_step", *_TIME_KEYS):
            put(numbers, key, value, tally)
    part = names[0] if names else "train/step" if name == "train/step" else "json"
    if is_orchestrator(numbers):
        part, numbers = "orchestrator", orchestrator_keys(numbers)
    times = (content.get(key) for key in _TIME_KEYS)
    time_s = next((float(t) for t in times if isinstance(t, int | float) and 0 < t < 1e11), None)
    return Record(step, numbers, where, part=part, time_s=time_s)


def _flat(content: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, float]]:
    """Yield the numbers of an object, keys of nested ones joined by `/`."""
    for key, value in content.items():
        if isinstance(value, int | float):
            try:
                yield prefix + key, float(value)
            except OverflowError:
                yield prefix + key, math.inf
        elif isinstance(value, dict) and depth < 6:
            yield from _flat(value, f"{prefix}{key}/", depth + 1)


def _step(content: dict[str, Any], key: str) -> int | None:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_STEP:
        return None
    return int(value) if value == int(value) else None


def _time_s(text: str) -> float | None:
    """Return the time in `[2026-06-29 12:28:30]` as if it were UTC: only differences mean something."""
    match = _TIME.search(text[:400])
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
