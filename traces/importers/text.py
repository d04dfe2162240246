"""Text of a log file: pieces of lines in bounded memory, whatever encoding or compression, without colour.

A piece is what stands between two line feeds or carriage returns: a progress bar writes over its line with the latter.
Does not know what a line means.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from traces.errors import TraceError, TraceFormatError
from traces.importers.tally import Tally, printable

MAX_LINE_CHARS = 2_000_000
"""Longest line: a validation line of verl with 3000 keys has 200 thousand."""
MAX_TEXT_CHARS = 16_000_000_000
"""Longest text, unpacked: ends what a small compressed file can cost."""
MAX_DOCUMENT_BYTES = 64_000_000
"""Longest JSON file that is one document: a `trainer_state.json` of 200 thousand steps has 60 MB."""
HEAD_BYTES = 65536

_COMPRESSED = {b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
_ANSI = re.compile(r"\x1b(?:\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a line."""

    where: str
    """`file:line`."""
    text: str


def open_binary(path: Path) -> BinaryIO:
    """Open a file, unpacked if gzip; a TraceError says why it cannot be."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()}); check the path") from None
    except ValueError:  # a zero byte in the name
        raise TraceError(f"{str(path)!r}: no path of a file; check it") from None
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()  # GzipFile would leave it open
    return cast(BinaryIO, gzip.open(path, "rb"))


def head(path: Path) -> bytes:
    """Return the first bytes of a file, unpacked.

    Raises:
        TraceError: No such file, a folder, unreadable, or packed by something other than gzip.
    """
    start = b""
    with open_binary(path) as file:
        try:
            while len(start) < HEAD_BYTES and (more := file.read1(HEAD_BYTES)):  # type: ignore[attr-defined]
                start += more
        except (OSError, EOFError, zlib.error) as error:
            if not start:  # else there is something to read, and what is missing is counted then
                raise _broken_gzip(path, error) from None
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise TraceFormatError(f"{path}: is {name}, which is not read here; unpack it (only gzip is)")
    return start


def encoding_of(start: bytes, path: Path) -> str:
    """Return the encoding of a text by its first bytes; UTF-8 unless a mark or its zero bytes say UTF-16.

    Raises:
        TraceFormatError: Neither; the file is binary.
    """
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if even + odd > max(1, len(start) // 1000):
        half = len(start) // 2
        if odd > 0.4 * half and even < 0.1 * half:
            return "utf-16-le"
        if even > 0.4 * half and odd < 0.1 * half:
            return "utf-16-be"
        raise TraceFormatError(f"{path}: is binary ({even + odd} zero bytes at its head); give a log, or an event file")
    return "utf-8"


def pieces(path: Path, tally: Tally) -> Iterator[Piece]:
    """Yield the pieces of a text, without colour and control characters; empty ones are left out.

    Lines over `MAX_LINE_CHARS` are dropped and counted, bytes that are not of the encoding replaced and counted.

    Raises:
        TraceError: The file cannot be read.
        TraceFormatError: Binary, or longer than `MAX_TEXT_CHARS`.
    """
    encoding = encoding_of(head(path), path)
    name = printable(path.name)
    with open_binary(path) as binary, io.TextIOWrapper(binary, encoding, errors="replace", newline="\n") as file:
        for number, line in enumerate(_lines(path, file, tally), start=1):
            tally.num_lines += 1
            if line is None:
                tally.drop(f"{name}:{number}", f"line of more than {MAX_LINE_CHARS} characters")
                continue
            if "\ufffd" in line:
                tally.ignore(f"bytes that are not {encoding}", "replaced by \ufffd")
            for part in line.split("\r"):
                text = plain(part)
                if text:
                    yield Piece(f"{name}:{number}", text)


def plain(text: str) -> str:
    """Return a text without escape sequences, control characters and outer blanks."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return (text if text.isprintable() else _CONTROL.sub("", text)).strip()


def document(path: Path) -> bytes | None:
    """Return a whole small file, unpacked; None when it is longer than `MAX_DOCUMENT_BYTES`."""
    with open_binary(path) as file:
        try:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _broken_gzip(path, error) from None
    return content if len(content) <= MAX_DOCUMENT_BYTES else None


def _lines(path: Path, file: io.TextIOWrapper, tally: Tally) -> Iterator[str | None]:
    """Yield the lines, None for one that is too long."""
    num_chars = 0
    while True:
        try:
            line = file.readline(MAX_LINE_CHARS + 1)
            num_chars += len(line)
            is_long = len(line) > MAX_LINE_CHARS and not line.endswith("\n")
            while is_long and line and not line.endswith("\n"):
                line = file.readline(MAX_LINE_CHARS)
                num_chars += len(line)
                _check_length(path, num_chars)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            if isinstance(error, UnicodeError):
                raise TraceFormatError(f"{path}: not {file.encoding} ({error}); write it as UTF-8") from None
            tally.drop(printable(path.name), f"the file is cut off or damaged after {num_chars} characters ({error})")
            return
        _check_length(path, num_chars)
        if is_long:
            yield None
        elif line:
            yield line
        else:
            return


def _check_length(path: Path, num_chars: int) -> None:
    if num_chars > MAX_TEXT_CHARS:
        raise TraceFormatError(f"{path}: more than {MAX_TEXT_CHARS} characters of text; cut the log")


def _broken_gzip(path: Path, error: Exception) -> TraceFormatError:
    return TraceFormatError(f"{path}: cannot be unpacked ({error}); copy the file again")
