"""How far the roofline is off: fitted kernels, held-out kernels, composed steps, measured serving, and its speed.

    python benchmarks/roofline.py [--json | --fit]

`--json` prints one line; `--fit` fits again and writes the stored parameters. Only the kernels marked as fitted are
ever fitted; steps, serving rows and the latency traces of aiconfigurator are checks. Those traces are composed from
tables that the kernels were taken from: agreement with them tests the composition, not the kernels.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.kernel_rows import load_kernel_rows
from simulator.roofline import DEFAULT_BATCHES, DEFAULT_CONTEXTS_TOKENS, roofline_points, roofline_trace
from simulator.roofline_fit import OPERATORS, fit_roofline, operator_errors, relative_errors
from simulator.roofline_parameters import load_roofline_parameters
from simulator.roofline_passes import (
    HOST_GAP_S,
    Machine,
    draft_pass_s,
    lm_head_s,
    prefill_pass_s,
    sample_s,
    target_pass_s,
)
from traces.architecture import load_architecture
from traces.hardware import load_gpu
from traces.latency import LatencyTrace, Operation
from traces.store import DATA_FOLDER, list_traces, load_trace

Array = NDArray[np.float64]

PARAMETERS = DATA_FOLDER / "kernels" / "roofline_h200.json"
SERVING = DATA_FOLDER / "published" / "measured_serving_qwen3_32b_h100.csv"
NUM_ANCHOR_DRAFTS = 3
ANCHORS_MS = {1: (5.17, 5.28, 1.35), 32: (9.76, 10.18, 1.80), 128: (23.1, 28.7, 2.96)}
"""Batch -> decode, verify, draft (k = 3) of Qwen3-8B on H200, tp 1, context 4096: an earlier composition of
aiconfigurator's operators."""
MEMORY_SHARE = 0.9
"""vLLM's default `gpu_memory_utilization`."""


def main() -> None:
    """Print the errors, or fit again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true", help="one line of JSON")
    what.add_argument("--fit", action="store_true", help="fit again and write the stored parameters")
    arguments = parser.parse_args()
    if arguments.fit:
        PARAMETERS.write_text(json.dumps(fit_roofline().model_dump(), indent=2) + "\n", encoding="utf-8")
    report = {
        "operators": {operator: operator_errors(load_roofline_parameters(), operator) for operator in OPERATORS},
        "impossible_rows_dropped": {name: load_kernel_rows(name).num_impossible for name in OPERATORS},
        "step_ms": step_anchors(),
        "serving_tpot": serving_errors(),
        "against_aiconfigurator": against_aiconfigurator(),
        "speed_s": speed(),
    }
    if arguments.json:
        print(json.dumps(report))
    else:
        _print_report(report)


def step_anchors() -> list[dict[str, Any]]:
    """Return decode, verify and the whole draft (k MTP passes and k lm_heads) beside the anchors."""
    machine = _machine("Qwen3-8B", "H200")
    context, one, verified = _column(4096), _column(1), _column(NUM_ANCHOR_DRAFTS + 1)
    report = []
    for batch, anchors in ANCHORS_MS.items():
        b = _column(batch)
        draft_s = draft_pass_s(machine, b, context, verified)
        draft_s = draft_s + (NUM_ANCHOR_DRAFTS - 1) * draft_pass_s(machine, b, context, one)
        draft_s = draft_s + NUM_ANCHOR_DRAFTS * lm_head_s(machine, b)
        steps = (target_pass_s(machine, b, context, one), target_pass_s(machine, b, context, verified), draft_s)
        for name, seconds, anchor_ms in zip(("decode", "verify", "draft"), steps, anchors, strict=True):
            ms = 1e3 * seconds.item()
            report.append(
                {
                    "batch": batch,
                    "pass": name,
                    "anchor_ms": anchor_ms,
                    "ms": round(ms, 2),
                    "error": round(ms / anchor_ms - 1, 3),
                }
            )
    return report


def serving_errors() -> dict[str, Any]:
    """Return errors of predicted TPOT against measured serving: decode alone, and with the neighbours' prefills.

    A closed loop of B requests prefills B - 1 others while one decodes its osl tokens, and a prefill stops all
    decoding: TPOT = step + (B - 1) prefill(isl) / osl. Rows that ask for more KV cache than there is are kept apart.
    """
    predictions: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    with SERVING.open(newline="") as file:
        for row in csv.DictReader(file):
            tp_size, batch = int(float(row["tp_size"])), float(row["batch_size"])
            isl, osl = int(row["isl"]), int(row["osl"])
            machine = _machine("Qwen3-32B", "H100", tp_size)
            b = _column(batch)
            step_s = target_pass_s(machine, b, _column(isl + osl / 2), _column(1)) + sample_s(machine, b) + HOST_GAP_S
            prefill_s = prefill_pass_s(machine, _column(0), _column(isl))
            served_s = step_s + (batch - 1) * prefill_s / osl
            fits = batch * (isl + osl) <= _kv_capacity_tokens(machine)
            predictions[fits].append((float(row["silicon_tpot_ms"]) * 1e-3, step_s.item(), served_s.item()))
    report: dict[str, Any] = {}
    for fits, name in ((True, "fits_in_memory"), (False, "overfull")):
        measured, step, served = (np.array(column) for column in zip(*predictions[fits], strict=True))
        report[name] = {
            "decode_only": relative_errors(step, measured),
            "with_prefills": relative_errors(served, measured),
        }
    return report


def against_aiconfigurator() -> dict[str, Any]:
    """Return the deviation from every committed aiconfigurator trace, by operation and GPU; not a measurement."""
    ratios: dict[str, list[tuple[Array, Array]]] = {}
    for entry in list_traces("latency"):
        trace = load_trace(entry.path, LatencyTrace)
        if "aiconfigurator" not in trace.provenance.source.lower() + (trace.provenance.command or ""):
            continue
        machine = _machine(trace.model, trace.gpu, trace.rows[0].tp_size, trace.rows[0].ep_size)
        for operation, predict in _PREDICT.items():
            rows = [row for row in trace.rows if row.operation is operation]
            if not rows or (operation is Operation.PREFILL and max(row.batch for row in rows) > 1):
                continue
            points = [(row.batch, row.context_tokens, row.tokens_per_seq, row.latency_s) for row in rows]
            b, c, q, stored_s = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
            ratios.setdefault(f"{trace.gpu} {operation.value}", []).append((predict(machine, b, c, q), stored_s))
    return {
        name: relative_errors(*(np.concatenate(column) for column in zip(*pairs, strict=True)))
        for name, pairs in sorted(ratios.items())
    }


def speed() -> dict[str, float]:
    """Return seconds for one default grid of a MoE model, least of five: the numbers alone, and the whole trace."""
    machine = _machine("Qwen3.5-35B-A3B", "H200")
    columns = [
        _seconds(lambda: roofline_points(machine, 8, DEFAULT_BATCHES, DEFAULT_CONTEXTS_TOKENS)) for _ in range(5)
    ]
    traces = [_seconds(lambda: roofline_trace(machine.architecture, machine.gpu)) for _ in range(5)]
    return {"grid": round(min(columns), 5), "trace": round(min(traces), 5)}


_PREDICT: dict[Operation, Callable[[Machine, Array, Array, Array], Array]] = {
    Operation.DECODE: target_pass_s,
    Operation.VERIFY: target_pass_s,
    Operation.DRAFT: draft_pass_s,
    Operation.LM_HEAD: lambda machine, b, _c, _q: lm_head_s(machine, b),
    Operation.PREFILL: lambda machine, _b, c, q: prefill_pass_s(machine, c, q),
}


def _machine(model: str, gpu: str, tp_size: int = 1, ep_size: int = 1) -> Machine:
    return Machine(load_architecture(model), load_gpu(gpu), load_roofline_parameters(), tp_size, ep_size)


def _column(value: float) -> Array:
    return np.array([value], dtype=np.float64)


def _kv_capacity_tokens(machine: Machine) -> float:
    free_bytes = MEMORY_SHARE * machine.gpu.memory_bytes * machine.tp_size - machine.architecture.weight_bytes()
    return free_bytes / machine.architecture.kv_bytes_per_token()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _print_report(report: dict[str, Any]) -> None:
    print(f"{'':34}{'n':>6}{'median':>9}{'p90':>8}{'signed':>8}")
    for operator, sets in report["operators"].items():
        for name, errors in sets.items():
            _print_errors(f"{operator}, {name}", errors)
    dropped = ", ".join(f"{name} {count}" for name, count in report["impossible_rows_dropped"].items())
    print(f"impossible rows dropped: {dropped}")
    for name, kinds in report["serving_tpot"].items():
        for kind, errors in kinds.items():
            _print_errors(f"TPOT {name}, {kind}", errors)
    for name, errors in report["against_aiconfigurator"].items():
        _print_errors(f"aiconfigurator {name}", errors)
    for row in report["step_ms"]:
        print(
            f"Qwen3-8B H200 B={row['batch']:<4}{row['pass']:8}{row['ms']:8.2f} ms, anchor {row['anchor_ms']:6.2f}"
            f" ({row['error']:+.1%})"
        )
    print(
        f"default grid {report['speed_s']['grid'] * 1e3:.1f} ms, as a trace {report['speed_s']['trace'] * 1e3:.1f} ms"
    )


def _print_errors(name: str, errors: dict[str, float]) -> None:
    print(f"{name:34}{errors['n']:6}{errors['median_error']:9.1%}{errors['p90_error']:8.1%}{errors['signed']:+8.1%}")


if __name__ == "__main__":
    main()
