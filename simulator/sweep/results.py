"""Results of a sweep: what became of each point, their digest, and the Parquet file that holds them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from traces.base import canonical_json
from traces.store import write_atomically

Status = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one point."""

    key: str
    status: Status
    result: str | None = None
    """Canonical JSON: arm -> numbers."""
    reason: str | None = None
    """One line, where it failed."""
    attempts: int = 1


def digest(outcomes: Iterable[Outcome]) -> str:
    """Return the sha256 over all results in the order of their keys; how often they were tried does not count."""
    rows = sorted((outcome.key, outcome.status, outcome.result or "") for outcome in outcomes)
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()


def write_results(path: Path, points: Sequence[dict[str, Any]], outcomes: Sequence[Outcome]) -> None:
    """Write a row per point and arm, in the order of the design: the same results, the same bytes.

    Columns: `point`, `key`, `status`, `reason`, a column per swept path, `arm`, and the numbers of the arm. A failed
    point has one row without arm.
    """
    import pyarrow as pa  # a quarter of a second, wanted at the end only
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for index, (point, outcome) in enumerate(zip(points, outcomes, strict=True)):
        head = {"point": index, "key": outcome.key, "status": outcome.status, "reason": outcome.reason, **point}
        arms = json.loads(outcome.result) if outcome.result is not None else {}
        rows += [{**head, "arm": arm, **numbers} for arm, numbers in arms.items()] or [{**head, "arm": None}]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))


def _column(values: list[Any]) -> list[Any]:
    """Return values that one column can hold: numbers of one type, or text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {float} or kinds <= {bool} or kinds <= {str}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else canonical_json(value) for value in values]
