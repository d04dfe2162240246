"""Traces as files: JSON or Parquet by suffix, hashed, atomic; and the catalogue of those that are shipped.

The content hash is written with every trace and checked on load; a file made by hand may leave it out. Shipped traces
lie in `traces/data/<kind>/<name>.json|.parquet`. Does not know what a trace means.
"""

import difflib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar, overload

from pydantic import ValidationError

from traces.base import SCHEMA_VERSION, Trace
from traces.complaint import complaint, shown
from traces.errors import TraceError, TraceFormatError, TraceIntegrityError
from traces.schema import TRACES
from traces.strict_json import parse_object

T = TypeVar("T", bound=Trace)

MAX_JSON_BYTES = 8_000_000
MAX_PARQUET_BYTES = 64_000_000

DATA_FOLDER = Path(__file__).parent / "data"
"""Traces shipped with the package, in one folder per kind."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A shipped trace."""

    name: str
    kind: str
    path: Path


def save_trace(trace: Trace, path: Path | str) -> None:
    """Write a trace with its content hash; the file is either the old one or the whole new one.

    Raises:
        TraceError: Suffix neither .json nor .parquet, or more JSON than `load_trace` reads.
        OSError: The folder cannot be written to.
    """
    path = Path(path)
    sha256 = trace.content_hash()
    if _suffix(path) == ".json":
        text = json.dumps({"sha256": sha256, **trace.model_dump(mode="json")}, indent=1, allow_nan=False) + "\n"
        if len(text) > MAX_JSON_BYTES:
            raise TraceError(f"{path}: {len(text)} bytes of JSON are above the limit of {MAX_JSON_BYTES}; use .parquet")
        write_atomically(path, text.encode())
    else:
        # Arrow takes a quarter of a second to import, and most runs read JSON only.
        from traces.parquet import write_table

        write_atomically(path, lambda file: write_table(trace, sha256, file))


@overload
def load_trace(path: Path | str, expected: type[T], *, max_json_bytes: int = ..., max_rows: int | None = ...) -> T: ...
@overload
def load_trace(
    path: Path | str, expected: None = None, *, max_json_bytes: int = ..., max_rows: int | None = ...
) -> Trace: ...
def load_trace(
    path: Path | str,
    expected: type[Trace] | None = None,
    *,
    max_json_bytes: int = MAX_JSON_BYTES,
    max_rows: int | None = None,
) -> Trace:
    """Read a trace, checked in full: format, values, version, content hash.

    Args:
        path: A .json or .parquet file.
        expected: The only trace class to accept; None accepts any.
        max_json_bytes: Refuse a longer JSON file before parsing it.
        max_rows: Refuse a Parquet file of more rows before reading it; None takes the format's own limit.

    Raises:
        TraceError: No such file, or not readable.
        TraceFormatError: Not such a trace, or too large; names row, column, value, limit and next step.
        TraceIntegrityError: The content is not what was written.
    """
    path = Path(path)
    try:
        if _suffix(path) == ".json":
            content = parse_object(_read_at_most(path, max_json_bytes), str(path))
        else:
            content = _read_parquet(path, max_rows)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    stored = content.pop("sha256", None)
    trace = _validate(content, _model_of(content, expected, path), path)
    found = trace.content_hash()
    if stored is not None and stored != found:
        raise TraceIntegrityError(
            f"{path}: content has sha256 {found}, expected {str(stored)[:64]} as written with it; restore the file, or "
            "take the sha256 entry out if you edited it on purpose"
        )
    return trace


def load_named(name_or_path: str, expected: type[T]) -> T:
    """Return a shipped trace or a file's, read again only when the file has changed: traces never change themselves.

    Raises:
        TraceError: As `find_trace` and `load_trace` do.
    """
    path = find_trace(name_or_path, expected.model_fields["kind"].default)
    status = path.stat()
    trace: T = _load_unchanged(path, expected, (status.st_ino, status.st_mtime_ns, status.st_size))
    return trace


@lru_cache(maxsize=16)
def _load_unchanged(path: Path, expected: type[T], state: tuple[int, ...]) -> T:  # noqa: ARG001
    return load_trace(path, expected)


def list_traces(kind: str | None = None) -> list[CatalogueEntry]:
    """Return the shipped traces of a kind, or all, ordered by kind and name."""
    kinds = list(TRACES) if kind is None else [kind]
    entries = [
        CatalogueEntry(name=path.stem, kind=each, path=path)
        for each in kinds
        for path in (DATA_FOLDER / each).rglob("*")
        if path.suffix in (".json", ".parquet")
    ]
    return sorted(entries, key=lambda entry: (entry.kind, entry.name))


def find_trace(name_or_path: str, kind: str) -> Path:
    """Return the file of a shipped trace by its name, or the path itself when a suffix makes it one.

    Raises:
        TraceError: No such name or file; the message lists close matches.
    """
    entries = {entry.name: entry.path for entry in list_traces(kind)}
    if name_or_path in entries:
        return entries[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".json", ".parquet"):
        if path.is_file():
            return path
        raise TraceError(f"{name_or_path}: no such file; give the path of a {kind} trace or the name of a shipped one")
    close = difflib.get_close_matches(name_or_path, list(entries), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"shipped are: {', '.join(entries) or 'none'}"
    raise TraceError(f"{kind} trace {name_or_path!r} is neither shipped nor a .json or .parquet file; {hint}")


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Put `content`, bytes or what a writer makes, in place of `path` in one go; nothing is left behind on failure."""
    temporary = path.parent / f".bebop-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)  # the reader never heard of the temporary file
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _suffix(path: Path) -> str:
    if path.suffix not in (".json", ".parquet"):
        raise TraceError(f"{path}: suffix {path.suffix!r} is neither .json nor .parquet; rename the file")
    return path.suffix


def _read_at_most(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TraceFormatError(f"{path}: larger than {max_bytes} bytes of JSON; save it as .parquet")
    return data


def _read_parquet(path: Path, max_rows: int | None) -> dict[str, Any]:
    num_bytes = path.stat().st_size
    if num_bytes > MAX_PARQUET_BYTES:
        raise TraceFormatError(f"{path}: {num_bytes} bytes are above the limit of {MAX_PARQUET_BYTES}; split the trace")
    from traces.parquet import read_content  # late for the reason given in save_trace

    return read_content(path, str(path), max_rows)


def _model_of(content: dict[str, Any], expected: type[Trace] | None, path: Path) -> type[Trace]:
    version = content.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise TraceFormatError(f"{path}: schema_version {version}, this build reads {SCHEMA_VERSION}; upgrade Bebop")
    kinds = [kind for kind, model in TRACES.items() if expected in (None, model)]
    kind = content.get("kind", kinds[0] if expected else None)
    if kind not in kinds:
        raise TraceFormatError(
            f"{path}: kind is {shown(kind)}, expected {' or '.join(kinds)}; give another file or see `bebop schema`"
        )
    return TRACES[kind]


def _validate(content: dict[str, Any], model: type[Trace], path: Path) -> Trace:
    try:
        # JSON mode: strict about types (no "1" for 1), yet lists may become tuples and strings enums.
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        text = complaint(error, model)
        next_step = "" if "; " in text else f"; {_next_step(text, model.model_fields['kind'].default)}"
        raise TraceFormatError(f"{path}: {text}{next_step}") from None


def _next_step(text: str, kind: str) -> str:
    again = "re-run `bebop profile`" if kind == "latency" else f"see `bebop schema {kind}`"
    return f"fix the {'row' if 'row ' in text.split(':')[0] else 'file'} or {again}"
