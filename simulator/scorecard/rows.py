"""Published inference rows: a CSV of what somebody measured, read without trusting a cell.

The columns are those of `traces/data/published/published_inference_rows.csv`; columns that are missing count as blank,
unknown ones are left out. Does not know models, cards, or what a row is good for.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from traces.errors import TraceFormatError
from traces.store import DATA_FOLDER

PUBLISHED = DATA_FOLDER / "published"
INFERENCE_FILE = PUBLISHED / "published_inference_rows.csv"
SERVING_FILE = PUBLISHED / "measured_serving_qwen3_32b_h100.csv"

MAX_FILE_BYTES = 8_000_000
MAX_ROWS = 20_000
MAX_CELL_CHARACTERS = 500
COLUMNS = (
    *("id", "source", "engine", "hw", "model", "precision", "tp", "method", "k", "temp", "isl", "osl", "concurrency"),
    *("tok_s_out", "tpot_ms", "accept_len", "per_pos_uncond", "speedup_vs_AR", "step_ms_derived", "note"),
)
NEEDED_COLUMNS = ("model", "hw")

_LIMITS = {
    "tp": (1, 1024),
    "k": (0, 64),
    "isl": (0, 1e7),
    "osl": (1, 1e7),
    "concurrency": (1, 8192),
    "tok_s_out": (1e-3, 1e9),
    "tpot_ms": (1e-3, 6e5),
    "accept_len": (1, 65),
    "speedup_vs_AR": (1e-3, 1e3),
}
"""Smallest and largest plausible value of each number."""


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """One measured configuration; None where the cell is blank."""

    id: str
    source: str = ""
    engine: str = ""
    hw: str = ""
    model: str = ""
    precision: str = ""
    method: str = ""
    note: str = ""
    tp: float | None = None
    k: float | None = None
    isl: float | None = None
    osl: float | None = None
    concurrency: float | None = None
    tok_s_out: float | None = None
    tpot_ms: float | None = None
    accept_len: float | None = None
    per_position: tuple[float, ...] = ()
    """Unconditional rates c_1 .. c_k."""
    speedup: float | None = None
    complaints: tuple[str, ...] = field(default=())
    """What is wrong with a cell, each one line."""

    @property
    def drafts(self) -> int:
        """Draft tokens per step; 0 without speculation."""
        return int(self.k or 0)

    @property
    def measured_tpot_s(self) -> float | None:
        """Seconds per output token of one request: as stated, else from the throughput of all requests together."""
        if self.tpot_ms is not None:
            return self.tpot_ms * 1e-3
        if self.tok_s_out is not None:
            return (self.concurrency or 1.0) / self.tok_s_out
        return None


def published_rows() -> list[InferenceRow]:
    """Return the shipped rows: speculation and serving."""
    return [*read_rows(INFERENCE_FILE), *_serving_rows()]


def read_rows(path: Path) -> list[InferenceRow]:
    """Return the rows of a CSV file.

    Raises:
        TraceFormatError: Not a table of rows: too large, not text, no header that names model and hardware.
        OSError: The file cannot be read.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TraceFormatError(
            f"{path}: {path.stat().st_size} bytes are above the limit of {MAX_FILE_BYTES}; split the file"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceFormatError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8 text") from None
    lines = list(_records(path, text))
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in NEEDED_COLUMNS if name not in header]
    if missing:
        raise TraceFormatError(
            f"{path}: no column {' and no column '.join(missing)}; the first line must name columns of {COLUMNS}"
        )
    body = [cells for cells in lines[1:] if any(cell.strip() for cell in cells)]
    if len(body) > MAX_ROWS:
        raise TraceFormatError(f"{path}: {len(body)} rows are above the limit of {MAX_ROWS}; split the file")
    return [parse_row(dict(zip(header, cells, strict=False)), f"row {n}") for n, cells in enumerate(body, start=1)]


def parse_row(cells: dict[str, str], default_id: str) -> InferenceRow:
    """Return a row of cells by column name; what cannot be read becomes a complaint of the row."""
    complaints: list[str] = []
    text = {name: _clean(cells.get(name) or "") for name in COLUMNS}
    numbers = {name: _number(name, text[name], limits, complaints) for name, limits in _LIMITS.items()}
    if text["k"] and numbers["k"] is not None and numbers["k"] != int(numbers["k"]):
        complaints.append(f"column k: {text['k']} is no whole number")
    for name in ("tp", "concurrency"):
        value = numbers[name]
        if value is not None and value != int(value):
            complaints.append(f"column {name}: {text[name]} is no whole number")
    return InferenceRow(
        id=text["id"] or default_id,
        source=text["source"],
        engine=text["engine"],
        hw=text["hw"],
        model=text["model"],
        precision=text["precision"],
        method=text["method"],
        note=text["note"],
        tp=numbers["tp"],
        k=numbers["k"],
        isl=numbers["isl"],
        osl=numbers["osl"],
        concurrency=numbers["concurrency"],
        tok_s_out=numbers["tok_s_out"],
        tpot_ms=numbers["tpot_ms"],
        accept_len=numbers["accept_len"],
        per_position=_rates(text["per_pos_uncond"], complaints),
        speedup=numbers["speedup_vs_AR"],
        complaints=tuple(complaints),
    )


def _serving_rows() -> Iterator[InferenceRow]:
    with SERVING_FILE.open(newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            tp, batch = int(float(cells["tp_size"])), int(float(cells["batch_size"]))
            isl, osl = cells["isl"], cells["osl"]
            yield parse_row(
                {
                    "id": f"qwen3-32b-h100-tp{tp}-{isl}x{osl}-c{batch}",
                    "source": f"aiconfigurator-core validation rows: {cells['id']}",
                    "engine": f"vLLM {cells['backend_version']}",
                    "hw": f"H100x{tp}",
                    "model": "Qwen3-32B",
                    "precision": "bf16",
                    "tp": str(tp),
                    "method": "AR",
                    "k": "0",
                    "isl": isl,
                    "osl": osl,
                    "concurrency": str(batch),
                    "tpot_ms": cells["silicon_tpot_ms"],
                },
                "",
            )


def _records(path: Path, text: str) -> Iterator[list[str]]:
    reader = csv.reader(text.splitlines())
    try:
        yield from reader
    except csv.Error as error:
        raise TraceFormatError(f"{path}: line {reader.line_num}: {error}; is this a CSV file?") from None


def _clean(cell: str) -> str:
    """Return a cell without control characters and no longer than a line; never interpreted as anything."""
    kept = "".join(character if character.isprintable() else " " for character in cell[: 4 * MAX_CELL_CHARACTERS])
    return " ".join(kept.split())[:MAX_CELL_CHARACTERS]


def _number(name: str, text: str, limits: tuple[float, float], complaints: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = float(text.rstrip("x"))
    except ValueError:
        complaints.append(f"column {name}: {text[:40]!r} is no number")
        return None
    if not math.isfinite(value) or not limits[0] <= value <= limits[1]:
        complaints.append(f"column {name}: {text[:40]} is outside {limits[0]:g} to {limits[1]:g}")
        return None
    return value


def _rates(text: str, complaints: list[str]) -> tuple[float, ...]:
    if not text:
        return ()
    try:
        rates = tuple(float(part) for part in text.split(";"))
    except ValueError:
        complaints.append(f"column per_pos_uncond: {text[:40]!r} is no list of numbers joined by ;")
        return ()
    if not _are_cumulative(rates):
        complaints.append(f"column per_pos_uncond: {text[:40]} are no falling rates between 0 and 1")
        return ()
    return rates


def _are_cumulative(rates: Sequence[float]) -> bool:
    falling = all(later <= earlier for earlier, later in pairwise(rates))
    return falling and all(0 <= rate <= 1 for rate in rates)
