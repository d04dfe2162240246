"""All-reduce: what the GPUs of one replica tell each other, from a measured table; added to one rank's own time.

The table is H200's (SGLang's all-reduce in CUDA graphs, `traces/data/kernels`). Gathers have no table: they move half
of an all-reduce's bytes and are charged as one of half the values.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from profiler.errors import UnsupportedModelError
from profiler.models.rank import Rank
from profiler.point import Point
from traces.latency import Operation

GPU = "H200"
_TABLE = "h200_kernel_rows.csv"


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Time of one all-reduce over some GPUs by the values in the message."""

    values: tuple[float, ...]
    seconds: tuple[float, ...]

    def latency_s(self, num_values: float) -> float:
        """Return seconds: linear between the points, the last slope beyond, flat below."""
        if num_values > self.values[-1]:
            slope = (self.seconds[-1] - self.seconds[-2]) / (self.values[-1] - self.values[-2])
            return self.seconds[-1] + slope * (num_values - self.values[-1])
        return float(np.interp(num_values, self.values, self.seconds))

    def pass_s(self, point: Point, rank: Rank) -> float:
        """Return what one pass pays: two per layer, one for the embedding, a gather per lm_head and MTP projection."""
        whole, tokens = rank.whole, point.batch * point.tokens_per_seq
        message_s = self.latency_s(tokens * whole.hidden_size)
        in_head = point.batch if point.operation is Operation.PREFILL else tokens
        gather_s = self.latency_s(in_head * whole.vocab_size / 2)
        if point.operation in (Operation.PREFILL, Operation.DECODE, Operation.VERIFY):
            return (2 * whole.num_layers + 1) * message_s + gather_s
        if point.operation is Operation.DRAFT:
            return 3 * message_s + self.latency_s(tokens * whole.hidden_size / 2)
        return gather_s if point.operation is Operation.LM_HEAD else 0.0


def load_all_reduce(gpu: str, num_gpus: int) -> AllReduce | None:
    """Return the table for this many GPUs; None for one, which has nobody to tell.

    Raises:
        UnsupportedModelError: No table for this GPU or number of GPUs.
    """
    if num_gpus == 1:
        return None
    tables = _tables()
    if gpu != GPU or num_gpus not in tables:
        raise UnsupportedModelError(
            f"--tp {num_gpus} on {gpu}: all-reduce is known on {GPU} for {', '.join(map(str, tables))} GPUs; "
            "choose one of them or --tp 1"
        )
    return tables[num_gpus]


@cache
def _tables() -> dict[int, AllReduce]:
    text = files("traces").joinpath("data", "kernels", _TABLE).read_text(encoding="utf-8")
    points: dict[int, dict[float, float]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["op"] == "allreduce_bf16":
            points.setdefault(int(row["a"]), {})[float(row["b"])] = 1e-6 * float(row["lat_us"])
    return {
        count: AllReduce(tuple(sorted(row)), tuple(row[values] for values in sorted(row)))
        for count, row in sorted(points.items())
    }
