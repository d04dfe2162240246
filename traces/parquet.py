"""A trace as one Parquet table: a row per row, the rest as JSON in the schema metadata.

Scalars are natural columns; a nested field (accepted rates, turns) is a column of JSON text: flat columns cannot
unfold beyond the row cap. Codecs are not checked, because Arrow aborts the process when asked for those of a corrupt
footer. Does not know which file it is written to.
"""

import types
import typing
from enum import Enum
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from traces.base import Trace, canonical_json
from traces.errors import TraceFormatError
from traces.schema import TRACES
from traces.strict_json import parse, parse_object

HEADER_KEY = b"bebop_trace"
"""Key of the schema metadata that holds everything but the rows, as JSON."""

TABLE_FIELDS = {"latency": "rows", "acceptance": "rows", "workload": "sequences", "measured": "steps"}
"""Field of each trace whose items are the rows of the table."""

MAX_HEADER_BYTES = 8_000_000
MAX_TEXT_BYTES = 256_000_000
"""Text of all JSON and name columns of one file."""

_BATCH_ROWS = 4096


def write_table(trace: Trace, sha256: str, file: IO[bytes]) -> None:
    """Write a trace and its content hash to an open file."""
    content = trace.model_dump(mode="json")
    if content["kind"] not in TABLE_FIELDS:
        raise TraceFormatError(f"{trace.name}: a {content['kind']} is no table; write it as .json")
    field = TABLE_FIELDS[content["kind"]]
    rows = content.pop(field)
    # A fact that rows may leave out has a column only where one has it: a format may grow, and files stay as they were.
    facts = _row_model(type(trace), field).model_fields
    columns = {
        name: kind
        for name, kind in _columns(type(trace), field).items()
        if facts[name].exclude_if is None or any(name in row for row in rows)
    }
    header = canonical_json({**content, "sha256": sha256}).encode()
    schema = pa.schema(list(columns.items()), metadata={HEADER_KEY: header})
    nested = {name for name in columns if _is_nested(_row_model(type(trace), field), name)}
    arrays = {name: [canonical_json(r[name]) if name in nested else r.get(name) for r in rows] for name in columns}
    pq.write_table(pa.Table.from_pydict(arrays, schema=schema), file, compression="snappy")


def read_content(path: Path, where: str, max_rows: int | None) -> dict[str, Any]:
    """Return what the file holds, not yet validated: the header with the rows put back in their field.

    Args:
        path: The file.
        where: Opens every complaint.
        max_rows: Row cap, checked in the footer and again while reading; None takes the format's own.

    Raises:
        TraceFormatError: Not Parquet, no header, wrong columns, more rows or text than allowed.
    """
    try:
        with pq.ParquetFile(path) as file:
            header = _checked_footer(file, where, max_rows)
        field = TABLE_FIELDS[header["kind"]]
        columns = _columns(TRACES[header["kind"]], field)
        # Text stays dictionary-encoded in memory: a million times one long text costs one text.
        texts = [name for name, kind in columns.items() if kind == pa.string()]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            header[field] = _read_rows(file, where, header["kind"])
    except OSError as error:
        if error.errno is not None:
            raise
        raise _unreadable(where, error) from None  # Arrow reports a broken page as a bare OSError
    except (
        pa.ArrowException,
        ValueError,
        LookupError,
    ) as error:  # names that are not UTF-8, columns that are not there
        raise _unreadable(where, error) from None
    return header


def _unreadable(where: str, error: Exception) -> TraceFormatError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return TraceFormatError(f"{where}: not a readable Parquet file ({reason}); make it again")


def _checked_footer(file: Any, where: str, max_rows: int | None) -> dict[str, Any]:
    metadata, schema = file.metadata, file.schema_arrow
    raw = (schema.metadata or {}).get(HEADER_KEY)
    if raw is None:
        raise TraceFormatError(
            f"{where}: no `{HEADER_KEY.decode()}` header in the schema metadata; write it with save_trace"
        )
    if len(raw) > MAX_HEADER_BYTES:
        raise TraceFormatError(f"{where}: header of {len(raw)} bytes is above the limit of {MAX_HEADER_BYTES}")
    header = parse_object(raw, f"{where}: header")
    kind = header.get("kind")
    if kind not in TABLE_FIELDS:
        raise TraceFormatError(f"{where}: kind {kind!r} is not one of {', '.join(TABLE_FIELDS)}")
    field = TABLE_FIELDS[kind]
    if field in header:
        raise TraceFormatError(f"{where}: header holds `{field}`, which belongs in the table; keep one of them")
    limit = row_limit(kind, max_rows)
    if metadata.num_rows > limit:
        raise TraceFormatError(f"{where}: {metadata.num_rows} rows are above the limit of {limit}; split the trace")
    _check_columns(schema, _columns(TRACES[kind], field), where)
    return header


def row_limit(kind: str, max_rows: int | None) -> int:
    """Return the row cap: the format's own, or `max_rows` where that is lower."""
    constraints = TRACES[kind].model_fields[TABLE_FIELDS[kind]].metadata
    own: int = next(item.max_length for item in constraints if hasattr(item, "max_length"))
    return own if max_rows is None else min(own, max_rows)


def _check_columns(schema: Any, expected: dict[str, Any], where: str) -> None:
    if len(set(schema.names)) != len(schema.names):
        raise TraceFormatError(f"{where}: two columns have one name; keep one of them")
    for name in schema.names:
        if name not in expected:
            raise TraceFormatError(f"{where}: unknown column {name!r}; the columns are {', '.join(expected)}")
        found, wanted = schema.field(name).type, expected[name]
        fits = {
            pa.int64(): pa.types.is_integer,
            pa.float64(): lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
            pa.string(): _is_text,
        }[wanted]
        if not fits(found) and not pa.types.is_null(found):
            raise TraceFormatError(f"{where}: column {name} has type {found}, expected {wanted}; convert the column")


def _is_text(kind: Any) -> bool:
    return _is_text(kind.value_type) if pa.types.is_dictionary(kind) else kind in (pa.string(), pa.large_string())


def _read_rows(file: Any, where: str, kind: str) -> list[dict[str, Any]]:
    field = TABLE_FIELDS[kind]
    model = _row_model(TRACES[kind], field)
    rows: list[dict[str, Any]] = []
    num_text_bytes = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        num_text_bytes += sum(_text_bytes(batch.column(i)) for i in range(batch.num_columns))
        if len(rows) + batch.num_rows > row_limit(kind, None) or num_text_bytes > MAX_TEXT_BYTES:
            raise TraceFormatError(f"{where}: more rows or text than allowed; make it again")
        rows.extend(batch.to_pylist())
    for name in (name for name in file.schema_arrow.names if _is_nested(model, name)):
        for index, row in enumerate(rows):
            row[name] = None if row[name] is None else parse(row[name], f"{where}: row {index}, column {name}")
    return rows


def _text_bytes(array: Any) -> int:
    """Bytes of text that a column unfolds into; 0 for numbers."""
    if not pa.types.is_dictionary(array.type):
        return 0
    lengths = [len(text or "") for text in array.dictionary.to_pylist()]
    return sum(lengths[index] for index in array.indices.to_pylist() if index is not None)


def _columns(model: type[Trace], field: str) -> dict[str, Any]:
    row_model = _row_model(model, field)
    return {name: _arrow_type(info.annotation) for name, info in row_model.model_fields.items()}


def _row_model(model: type[Trace], field: str) -> type[BaseModel]:
    row_model: type[BaseModel] = typing.get_args(model.model_fields[field].annotation)[0]
    return row_model


def _is_nested(row_model: type[BaseModel], name: str) -> bool:
    return _scalar(row_model.model_fields[name].annotation) is None


def _arrow_type(annotation: Any) -> Any:
    return {int: pa.int64(), float: pa.float64()}.get(_scalar(annotation), pa.string())  # type: ignore[arg-type]


def _scalar(annotation: Any) -> type | None:
    """Return int, float or str for an annotation that is one of them, optional or not; None for anything nested."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _scalar(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _scalar(next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Literal:
        return type(arguments[0].value if isinstance(arguments[0], Enum) else arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, str):
        return str
    return annotation if annotation in (int, float) else None
