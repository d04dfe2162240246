"""How far the committed aiconfigurator traces are from measured serving: Qwen3-32B on H100, vLLM, no speculation.

A measured TPOT is not a decode step: while one sequence decodes, the others of a closed loop finish, and the prefill of
each successor delays everyone. Two predictions are compared with it, decode alone, and decode plus those prefills.

    python benchmarks/aiconfigurator_check.py [--json]
"""

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from traces.architecture import load_architecture
from traces.latency import LatencyTrace, Operation
from traces.store import find_trace, load_trace

MODEL = "Qwen3-32B"
GPU_MEMORY_BYTES = 80e9
"""H100 SXM datasheet."""
MEMORY_SHARE = 0.9
"""vLLM's default `gpu_memory_utilization`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """One measured point: a closed loop of `batch` requests."""

    tp_size: int
    batch: int
    prompt_tokens: int
    response_tokens: int
    tpot_s: float

    @property
    def mean_context_tokens(self) -> float:
        """Tokens in the KV cache halfway through a response."""
        return self.prompt_tokens + self.response_tokens / 2

    def fits(self) -> bool:
        """Return whether the whole batch fits in the KV cache; otherwise the engine ran a smaller one."""
        architecture = load_architecture(MODEL)
        room = self.tp_size * GPU_MEMORY_BYTES * MEMORY_SHARE - architecture.weight_bytes()
        tokens = self.batch * (self.prompt_tokens + self.response_tokens)
        return tokens * architecture.kv_bytes_per_token() <= room


class Predictor:
    """Linear interpolation in one committed trace, at its own batches."""

    def __init__(self, trace: LatencyTrace) -> None:
        self.points: dict[tuple[Operation, int, int], dict[int, float]] = {}
        for row in trace.rows:
            if row.operation is Operation.PREFILL:
                if row.context_tokens == 0:
                    self._put((Operation.PREFILL, 1, 1), row.tokens_per_seq, row.latency_s)
            elif row.tokens_per_seq == 1:
                self._put((row.operation, row.batch, 1), row.context_tokens, row.latency_s)

    def decode_s(self, point: Served) -> float:
        """Return decode, sampling and host gap of one step."""
        fixed = self._at(Operation.SAMPLE, point.batch, 0) + self._at(Operation.HOST_GAP, point.batch, 0)
        return self._at(Operation.DECODE, point.batch, point.mean_context_tokens) + fixed

    def serving_s(self, point: Served) -> float:
        """Return TPOT: during the response's steps each of the other sequences is replaced, hence prefilled, once."""
        prefill_s = self._at(Operation.PREFILL, 1, point.prompt_tokens)
        return self.decode_s(point) + (point.batch - 1) * prefill_s / point.response_tokens

    def _put(self, key: tuple[Operation, int, int], where: int, latency_s: float) -> None:
        self.points.setdefault(key, {})[where] = latency_s

    def _at(self, operation: Operation, batch: int, where: float) -> float:
        line = sorted(self.points[operation, batch, 1].items())
        return float(np.interp(where, [at for at, _ in line], [latency for _, latency in line]))


def read_served() -> list[Served]:
    """Return the measured points."""
    text = files("traces").joinpath("data", "published", "measured_serving_qwen3_32b_h100.csv").read_text("utf-8")
    return [
        Served(
            tp_size=round(float(row["tp_size"])),
            batch=round(float(row["batch_size"])),
            prompt_tokens=int(row["isl"]),
            response_tokens=int(row["osl"]),
            tpot_s=float(row["silicon_tpot_ms"]) / 1e3,
        )
        for row in csv.DictReader(text.splitlines())
    ]


def check() -> dict[str, object]:
    """Return the errors, over all points that fit in memory and per tensor-parallel size."""
    served = read_served()
    fitting = [point for point in served if point.fits()]
    sizes = sorted({point.tp_size for point in fitting})
    predictors = {
        tp: Predictor(load_trace(find_trace(f"qwen3-32b-h100-tp{tp}", "latency"), LatencyTrace)) for tp in sizes
    }
    measured = np.array([point.tpot_s for point in fitting])
    decode = np.array([predictors[point.tp_size].decode_s(point) for point in fitting])
    serving = np.array([predictors[point.tp_size].serving_s(point) for point in fitting])
    tp = np.array([point.tp_size for point in fitting])
    batch = np.array([float(point.batch) for point in fitting])
    # Longest responses only: prefills, and what is wrong about them, weigh least there.
    longest = np.array([point.response_tokens == 1024 for point in fitting])
    design = np.stack([np.ones_like(batch), batch], axis=1)
    per_step_s, per_sequence_s = np.linalg.lstsq(design[longest], (measured - serving)[longest], rcond=None)[0]
    return {
        "benchmark": "aiconfigurator_check",
        "points": len(fitting),
        "left_out_beyond_kv_capacity": len(served) - len(fitting),
        "decode_only": _errors(decode, measured),
        "decode_and_prefills": _errors(serving, measured),
        **{f"decode_and_prefills_tp{size}": _errors(serving[tp == size], measured[tp == size]) for size in sizes},
        "unexplained_per_step_ms": round(1e3 * float(per_step_s), 3),
        "unexplained_per_step_and_sequence_us": round(1e6 * float(per_sequence_s), 2),
    }


def _errors(predicted: Floats, measured: Floats) -> dict[str, float]:
    relative = predicted / measured - 1
    return {
        "median_abs": round(float(np.median(abs(relative))), 4),
        "p90_abs": round(float(np.quantile(abs(relative), 0.9)), 4),
        "mean_abs": round(float(np.mean(abs(relative))), 4),
        "median_signed": round(float(np.median(relative)), 4),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    result = check()
    if parser.parse_args(argv).json:
        print(json.dumps(result))
        return 0
    for key, value in result.items():
        if isinstance(value, dict):
            numbers = ", ".join(f"{name} {number:.1%}" for name, number in value.items())
            print(f"{key:26} {numbers}")
        else:
            print(f"{key:26} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
