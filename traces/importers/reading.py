"""One pass over the files of a run, in bounded memory: pieces, events and documents become records, records steps.

Does not know what a key means, nor which framework wrote it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traces.errors import TraceFormatError
from traces.importers import llama_cpp, sglang, vllm
from traces.importers.blocks import Blocks
from traces.importers.engines import Readings, metrics_reading
from traces.importers.prime_rl import console_line
from traces.importers.records import Record, Steps
from traces.importers.syntax import json_line, json_record, named_dictionary, step_line
from traces.importers.tally import Tally, printable
from traces.importers.tensorboard import events, is_event_file
from traces.importers.text import Piece, document, head, pieces

METRICS_MARKS = (b"# HELP ", b"# TYPE ", b"vllm:", b"ray_vllm", b"sglang:", b"llamacpp:")
"""How a text that an engine's `/metrics` answers begins."""


@dataclass(slots=True)
class Reading:
    """What one pass over the files found."""

    tally: Tally = field(default_factory=Tally)
    steps: Steps = field(init=False)
    blocks: Blocks = field(init=False)
    engines: Readings = field(default_factory=Readings)
    requests: llama_cpp.Requests = field(default_factory=llama_cpp.Requests)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the first object says beside its numbers."""

    def __post_init__(self) -> None:
        self.steps = Steps(self.tally)
        self.blocks = Blocks(self.tally)

    def take_engine(self, engine: str) -> None:
        """Put the readings of an engine in place of the steps."""
        self.steps = self.engines.steps[engine]
        found = self.engines.tallies[engine]
        self.tally.num_step_lines = found.num_step_lines
        self.tally.num_dropped += found.num_dropped
        self.tally.dropped += found.dropped


def read_file(path: Path, reading: Reading) -> None:
    """Read one file of the run into `reading`; raises TraceError where it cannot be read at all."""
    start = head(path)
    if is_event_file(start):
        for record in events(path, reading.tally):
            reading.steps.add(record)
        return
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(METRICS_MARKS) and _read_metrics(path, reading):
        return
    content = _document(path, text)
    if content is not None:
        _read_document(content, path, reading)
        return
    for piece in pieces(path, reading.tally):
        _read_piece(piece, reading)
    for record in reading.blocks.finish():
        reading.steps.add(record)
    _add_engine("llama_cpp", reading.requests.finish(), printable(path.name), reading)


def _read_metrics(path: Path, reading: Reading) -> bool:
    """Read a file of metrics; return whether it was one of an engine."""
    content = document(path)
    if content is None:
        return False
    found = metrics_reading(content, str(path), reading.tally)
    if found is None:
        raise TraceFormatError(f"{path}: metrics of no known engine; those of vLLM, SGLang and llama.cpp are read")
    reading.tally.num_lines += content.count(b"\n")
    _add_engine(*found, printable(path.name), reading)
    return True


def _document(path: Path, start: bytes) -> dict[str, Any] | list[Any] | None:
    """Return a file that is one JSON value over several lines, or a list, or one long line; None for any other."""
    if start[:1] == b"[" or (start[:1] == b"{" and not start.partition(b"\n")[0].rstrip().endswith(b"}")):
        content = document(path)
        try:
            value = json.loads(content) if content is not None else None
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict | list) else None
    return None


def _read_document(content: dict[str, Any] | list[Any], path: Path, reading: Reading) -> None:
    """Read the records of `trainer_state.json`, of a list of objects, or of one object."""
    history = content.get("log_history", [content]) if isinstance(content, dict) else content
    for number, item in enumerate(history if isinstance(history, list) else [history], start=1):
        reading.tally.num_lines += 1
        where = f"{printable(path.name)}:record {number}"
        if isinstance(item, dict):
            record = _take_object(json_record(item, where, reading.tally), item, where, reading)
            if record is not None:
                reading.steps.add(record)
        else:
            reading.tally.ignore("items of a JSON list", "no objects")


def _read_piece(piece: Piece, reading: Reading) -> None:
    tally = reading.tally
    record = step_line(piece, tally) or named_dictionary(piece, tally) or console_line(piece, tally)
    if record is None and '{"' in piece.text:
        record = _read_object(piece, reading)
    if record is not None:
        reading.steps.add(record)
        return
    for engine, numbers in _engine_numbers(piece.text, reading):
        _add_engine(engine, numbers, piece.where, reading)
    for report in reading.blocks.feed(piece):
        reading.steps.add(report)


def _read_object(piece: Piece, reading: Reading) -> Record | None:
    """Return the record of a JSON line."""
    found = json_line(piece, reading.tally)
    if found is None:
        if piece.text.startswith('{"'):
            reading.tally.ignore("lines that begin a JSON object", "not whole: cut off, or over several lines")
        return None
    record, content = found
    return _take_object(record, content, piece.where, reading)


def _take_object(record: Record | None, content: dict[str, Any], where: str, reading: Reading) -> Record | None:
    """Keep what the first object says of the run beside its numbers, and tell those that name no step."""
    numbers = vllm.bench_numbers(content, reading.tally) if record is None else None
    if numbers is not None:
        _add_engine("sglang" if sglang.is_bench(content) else "vllm", numbers, where, reading)
    elif record is None:
        reading.tally.ignore("JSON objects without a step", "nothing to join them on")
        return None
    if not reading.facts:
        reading.facts = {key: value for key, value in content.items() if isinstance(value, str | int | float | dict)}
    return record


def _engine_numbers(text: str, reading: Reading) -> Iterator[tuple[str, dict[str, float] | None]]:
    yield "vllm", vllm.line_numbers(text)
    yield "sglang", sglang.line_numbers(text)
    yield "llama_cpp", reading.requests.feed(text)


def _add_engine(engine: str, numbers: dict[str, float] | None, where: str, reading: Reading) -> None:
    if numbers is not None:
        reading.engines.add(engine, numbers, where)
