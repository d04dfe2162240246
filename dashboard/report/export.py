"""Reports for other programs: one row per run and arm as CSV, Parquet or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from traces.report import ArmReport, Interval, RunReport

_NESTED = ("rollout_time", "trainer_time", "lost", "staleness", "waterfall", "by_step")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A cell that begins so is a formula to a spreadsheet."""


def rows_of(reports: Sequence[RunReport]) -> list[dict[str, Any]]:
    """Return a flat row per run and arm, the baseline first: seconds, tokens, fractions, as in the report."""
    rows = []
    for report in reports:
        for name, arm in {"baseline": report.baseline, **report.arms}.items():
            rows.append(
                {
                    "scenario": report.scenario,
                    "scenario_hash": report.scenario_hash,
                    "model_version": report.model_version,
                    "seed": report.seed,
                    "num_gpus": report.num_gpus,
                    "arm": name,
                    **_flat(arm),
                }
            )
    return rows


def as_csv(reports: Sequence[RunReport]) -> str:
    """Return the rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    rows, text = rows_of(reports), io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _defused(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def as_json(reports: Sequence[RunReport]) -> str:
    """Return the reports whole, as one JSON list."""
    return json.dumps([report.model_dump(mode="json") for report in reports], allow_nan=False) + "\n"


def as_parquet(reports: Sequence[RunReport]) -> bytes:
    """Return the rows as one Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows_of(reports)), buffer)
    return buffer.getvalue()


def _flat(arm: ArmReport) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in type(arm).model_fields:
        value = getattr(arm, name)
        if isinstance(value, Interval):
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        elif name in ("rollout_time", "trainer_time"):
            row |= {f"{name}_{part}": share for part, share in value.model_dump().items()}
        elif name not in _NESTED:
            row[name] = value
    return row


def _defused(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
