"""KernelRows: the measured kernels, as columns, with the shapes that are fitted and those that are held out.

Whole shapes are held out, never random points: neighbours of a point in the same shape would give it away.
Does not know the formulas.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceFormatError
from traces.hardware import load_gpu

Array = NDArray[np.float64]
BYTES_PER_VALUE = 2
"""All rows are bf16."""


@dataclass(frozen=True, slots=True)
class KernelRows:
    """Rows of one operator: its shape columns, the measured latency, and which rows are held out."""

    operator: str
    columns: dict[str, Array]
    labels: tuple[str, ...]
    """Router of each MoE row, empty text otherwise."""
    latency_s: Array
    is_held_out: NDArray[np.bool_]
    num_impossible: int
    """Rows dropped because they would need more than the card's memory bandwidth."""

    def subset(self, mask: NDArray[np.bool_]) -> "KernelRows":
        """Return the rows where `mask` is true."""
        columns = {name: values[mask] for name, values in self.columns.items()}
        labels = tuple(label for label, keep in zip(self.labels, mask, strict=True) if keep)
        return KernelRows(
            self.operator, columns, labels, self.latency_s[mask], self.is_held_out[mask], self.num_impossible
        )

    def fitted(self) -> "KernelRows":
        """Return the rows a fit may see."""
        return self.subset(~self.is_held_out)

    def held_out(self) -> "KernelRows":
        """Return the rows no fit may see."""
        return self.subset(self.is_held_out)


@cache
def load_kernel_rows(operator: str) -> KernelRows:
    """Return the rows of `gemm`, `moe`, `attention` or `all_reduce`, physically impossible ones dropped and counted."""
    op, names, is_held_out, least_bytes = _OPERATORS[operator]
    text = files("traces").joinpath("data", "kernels", "h200_kernel_rows.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["op"] == op]
    if not rows:
        raise TraceFormatError(f"h200_kernel_rows.csv: no row of op {op}; restore the file")
    columns = {name: np.array([float(row[letter]) for row in rows]) for name, letter in names.items()}
    labels = tuple(row["d"] for row in rows)
    if operator == "moe":
        columns["experts_per_token"] = np.array([float(label.split("of")[0].removeprefix("top")) for label in labels])
        columns["experts"] = np.array([float(label.split("of")[1].split(":")[0]) for label in labels])
        labels = tuple(label.split(":")[1] for label in labels)
    latency_s = np.array([float(row["lat_us"]) for row in rows]) * 1e-6
    all_rows = KernelRows(operator, columns, labels, latency_s, is_held_out(columns), 0)
    possible = least_bytes(all_rows) / latency_s <= load_gpu("H200").hbm_bytes_per_s
    kept = all_rows.subset(possible)
    return KernelRows(operator, kept.columns, kept.labels, kept.latency_s, kept.is_held_out, int((~possible).sum()))


def _gemm_bytes(rows: KernelRows) -> Array:
    # What fits into the 50 MB L2 may stay there between replays; larger weights surely come from memory.
    weight_bytes = rows.columns["n"] * rows.columns["k"] * BYTES_PER_VALUE
    return np.where(weight_bytes > _L2_BYTES, weight_bytes, 0.0)


def _moe_bytes(rows: KernelRows) -> Array:
    c = rows.columns
    distinct = np.minimum(c["experts"], c["tokens"] * c["experts_per_token"])
    weights = distinct * 3 * c["hidden"] * c["inner"] * BYTES_PER_VALUE
    # How many experts a skewed router reaches is not in the file: only balanced rows can be checked.
    return np.where(np.array(rows.labels) == "balanced", weights, 0.0)


def _attention_bytes(rows: KernelRows) -> Array:
    cache_bytes = rows.columns["batch"] * rows.columns["context_tokens"] * KV_BYTES_PER_TOKEN
    return np.where(cache_bytes > _L2_BYTES, cache_bytes, 0.0)


def _no_bytes(rows: KernelRows) -> Array:
    return np.zeros_like(rows.latency_s)


NUM_KV_HEADS = 8
"""Of `decode_attn_h32kv8d128`."""
KV_BYTES_PER_TOKEN = 2 * NUM_KV_HEADS * 128 * BYTES_PER_VALUE
"""K and V of one token in the measured attention."""
_L2_BYTES = 50e6
"""L2 cache of GH100 (H100 architecture whitepaper)."""
_OPERATORS: dict[
    str,
    tuple[str, dict[str, str], Callable[[dict[str, Array]], NDArray[np.bool_]], Callable[[KernelRows], Array]],
] = {
    "gemm": (
        "gemm_bf16",
        {"m": "a", "n": "b", "k": "c"},
        lambda c: ((c["n"] == 12288) & (c["k"] == 4096)) | ((c["n"] == 65536) & (c["k"] == 2048)),
        _gemm_bytes,
    ),
    "moe": (
        "moe_bf16",
        {"tokens": "a", "hidden": "b", "inner": "c"},
        lambda c: (c["hidden"] == 2048) & (c["inner"] == 768),
        _moe_bytes,
    ),
    "attention": (
        "decode_attn_h32kv8d128",
        {"batch": "a", "context_tokens": "b"},
        lambda c: np.isin(c["batch"], [8, 64, 512]),
        _attention_bytes,
    ),
    "all_reduce": (
        "allreduce_bf16",
        {"gpus": "a", "values": "b"},
        lambda c: c["gpus"] == 4,
        _no_bytes,
    ),
}
