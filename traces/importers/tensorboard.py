"""TensorBoard event files to records: TFRecord frames, checked, and the few protobuf fields that hold scalars.

A reader of its own, because the tensorboard package brings gRPC and a web server. Histograms, images and texts are
passed over and counted. Does not know what a tag means.

Source: tensorflow/core/lib/io/record_writer.h (frames), tensorflow/core/util/event.proto and framework/summary.proto.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from traces.importers.records import Record, put
from traces.importers.tally import Tally, printable
from traces.importers.text import open_binary
from traces.measured import MAX_KEYS

MAX_SCALAR_BYTES = 65536
"""Longest event that is looked into: scalars have some 60 bytes, what is longer is a picture."""
MAX_EVENT_BYTES = 1_000_000_000

_FRAME = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()


def masked_crc32c(data: bytes) -> int:
    """Return the checksum that TFRecord puts behind a length and behind an event (Castagnoli, rotated and shifted)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def is_event_file(start: bytes) -> bool:
    """Return whether a file's first bytes are a frame with the right checksum."""
    return len(start) >= _FRAME.size and _FRAME.unpack_from(start)[1] == masked_crc32c(start[:8])


def events(path: Path, tally: Tally) -> Iterator[Record]:
    """Yield the scalars of an event file, one record per step and run of tags; a damaged rest is counted as dropped."""
    name = printable(path.name)
    current: Record | None = None
    with open_binary(path) as file:
        for number, event in enumerate(_frames(file, name, tally), start=1):
            tally.num_lines += 1
            time_s, step, scalars = _event(event, tally)
            if not scalars:
                continue
            if step < 0:
                tally.drop(f"{name}:event {number}", f"step {step} is negative")
                continue
            if current is not None and step == current.step:
                told = [scalar for scalar in scalars if current.numbers.get(scalar[0]) == scalar[1]]
                if told:
                    tally.ignore("values that an event file tells twice", "the same again", len(told))
                scalars = [scalar for scalar in scalars if scalar not in told]
            is_same = current is not None and current.step == step and len(current.numbers) < MAX_KEYS
            if current is None or not is_same or any(tag in current.numbers for tag, _ in scalars):
                if current is not None:
                    yield current
                current = Record(step, {}, f"{name}:event {number}", part="events", time_s=time_s)
            for tag, value in scalars:
                put(current.numbers, tag, value, tally)
    if current is not None:
        yield current


def _frames(file: BinaryIO, name: str, tally: Tally) -> Iterator[bytes]:
    """Yield the events, b"" for one too long to be scalars; stop where a frame is cut off or damaged."""
    number = 0
    while header := file.read(_FRAME.size):
        number += 1
        where = f"{name}:event {number}"
        length, check = _FRAME.unpack(header) if len(header) == _FRAME.size else (0, -1)
        if check != masked_crc32c(header[:8]) or length > MAX_EVENT_BYTES:
            tally.drop(where, "the file is cut off or damaged here; what follows cannot be read")
            return
        if length > MAX_SCALAR_BYTES:
            tally.ignore("long events", "histograms, pictures or texts")
            left = length + _CRC.size
            while left and (chunk := file.read(min(left, 1 << 20))):
                left -= len(chunk)
            yield b""
            continue
        data = file.read(length)
        tail = file.read(_CRC.size)
        if len(tail) < _CRC.size or _CRC.unpack(tail)[0] != masked_crc32c(data):
            tally.drop(where, "the file is cut off or damaged here; what follows cannot be read")
            return
        yield data


def _event(data: bytes, tally: Tally) -> tuple[float | None, int, list[tuple[str, float]]]:
    """Return wall time, step and scalars of an Event message."""
    time_s: float | None = None
    step = 0
    scalars: list[tuple[str, float]] = []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes) and len(value) == 8:
            time = _DOUBLE.unpack(value)[0]
            time_s = time if 0 <= time < 1e11 else None
        elif field == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >= 1 << 63 else value
        elif field == 5 and isinstance(value, bytes):
            for inner, summary in _fields(value):
                if inner == 1 and isinstance(summary, bytes):
                    scalar = _scalar(summary)
                    if scalar is None:
                        tally.ignore("values that are no scalars", "histograms, pictures or texts")
                    else:
                        scalars.append(scalar)
    return time_s, step, scalars


def _scalar(data: bytes) -> tuple[str, float] | None:
    """Return tag and number of a Summary.Value, None where it is no scalar."""
    tag, number = None, None
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            tag = value.decode(errors="replace")
        elif field == 2 and isinstance(value, bytes) and len(value) == 4:
            number = float(_FLOAT.unpack(value)[0])
        elif field == 8 and isinstance(value, bytes):
            number = _tensor(value)
    return (tag, number) if tag is not None and number is not None else None


def _tensor(data: bytes) -> float | None:
    """Return the number of a TensorProto of one element (what the newer scalar plugin writes)."""
    content = dict(_fields(data))
    kind = content.get(1)
    for field, packed, code in ((5, _FLOAT, 1), (6, _DOUBLE, 2)):
        for raw in (content.get(field), content.get(4) if kind == code else None):
            if isinstance(raw, bytes) and len(raw) == packed.size:
                return float(packed.unpack(raw)[0])
    return None


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protobuf message; stop where it is malformed."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield field, value
            continue
        if kind == 2:
            size, place = _varint(data, place)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or place < 0 or place + size > len(data):
            return
        yield field, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a variable-length integer and the place behind it; a place beyond the data where it is cut off."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), place
    return 0, len(data) + 1
