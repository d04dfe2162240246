"""Fit of the roofline to measured kernels, and its errors on rows that were fitted and rows that were held out.

Robust least squares on log(predicted / measured), from a fixed start, so the same rows give the same parameters.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from simulator.kernel_rows import BYTES_PER_VALUE, KV_BYTES_PER_TOKEN, NUM_KV_HEADS, KernelRows, load_kernel_rows
from simulator.roofline_moe import distinct_experts, moe_s
from simulator.roofline_ops import all_reduce_s, attention_s, gemm_s
from simulator.roofline_parameters import (
    AllReduceParameters,
    AttentionParameters,
    GemmParameters,
    MoeParameters,
    RooflineParameters,
)
from traces.hardware import load_gpu

Array = NDArray[np.float64]

OPERATORS = ("gemm", "moe", "attention", "all_reduce")
_H200 = load_gpu("H200")
_US = 1e-6
_NUM_QUERY_HEADS = 32
_HEAD_SIZE = 128
_LOSS_SCALE = 0.05
"""Relative error beyond which a row loses weight (soft L1): kernel selection makes single rows jump by 10-20 %."""


class Errors(TypedDict):
    """Of predicted / measured - 1 over a set of rows, fractions."""

    n: int
    median_error: float
    p90_error: float
    signed: float


def fit_roofline() -> RooflineParameters:
    """Return the parameters that the fitted rows give, rounded to five significant digits."""
    fitted = RooflineParameters(
        gpu="H200",
        source="traces/data/kernels/h200_kernel_rows.csv (aiconfigurator-core tables: vLLM 0.24, SGLang 0.5.14)",
        command="python benchmarks/roofline.py --fit",
        gemm=_fit_gemm(load_kernel_rows("gemm").fitted()),
        moe=_fit_moe(load_kernel_rows("moe").fitted()),
        attention=_fit_attention(load_kernel_rows("attention").fitted()),
        all_reduce=_fit_all_reduce(load_kernel_rows("all_reduce").fitted()),
    )
    return RooflineParameters.model_validate(_rounded(fitted.model_dump()))


def operator_errors(parameters: RooflineParameters, operator: str) -> dict[str, Errors]:
    """Return the errors of one operator on its fitted and its held-out rows."""
    rows = load_kernel_rows(operator)
    return {"fit": _errors(parameters, rows.fitted()), "held_out": _errors(parameters, rows.held_out())}


def relative_errors(predicted: Array, measured: Array) -> Errors:
    """Return count, median and 90th percentile of |predicted / measured - 1|, and the signed median."""
    error = predicted / measured - 1
    return {
        "n": len(error),
        "median_error": round(float(np.median(np.abs(error))), 4),
        "p90_error": round(float(np.quantile(np.abs(error), 0.9)), 4),
        "signed": round(float(np.median(error)), 4),
    }


def _errors(parameters: RooflineParameters, rows: KernelRows) -> Errors:
    predict: dict[str, Callable[[], Array]] = {
        "gemm": lambda: _gemm(parameters.gemm, rows),
        "moe": lambda: _moe(parameters.moe, rows),
        "attention": lambda: _attention(parameters.attention, rows),
        "all_reduce": lambda: _all_reduce(parameters.all_reduce, rows),
    }
    return relative_errors(predict[rows.operator](), rows.latency_s)


def _fit_gemm(rows: KernelRows) -> GemmParameters:
    def make(x: Sequence[float]) -> GemmParameters:
        return GemmParameters(bandwidth_efficiency=x[0], flop_efficiency=x[1], floor_s=x[2] * _US, sharpness=x[3])

    x = _solve(lambda x: _gemm(make(x), rows), rows, [(0.3, 0.85, 1), (0.3, 0.8, 1), (0, 4, 20), (1, 4, 20)])
    return make(x)


def _fit_moe(rows: KernelRows) -> MoeParameters:
    """Kernel efficiencies from balanced rows, where the number of distinct experts is known; then one skew a router."""
    routers = sorted(set(rows.labels) - {"balanced"})

    def kernel(x: Sequence[float]) -> MoeParameters:
        return MoeParameters(
            bandwidth_efficiency=x[0],
            flop_efficiency=x[1],
            floor_s=x[2] * _US,
            expert_overhead_s=x[3] * _US,
            sharpness=x[4],
            router_skew={},
            router_imbalance={},
        )

    labels = np.array(rows.labels)
    balanced = rows.subset(labels == "balanced")
    bounds = [(0.3, 0.9, 1), (0.3, 0.6, 1), (0, 25, 50), (0, 0.1, 3), (1, 1.5, 20)]
    fitted = kernel(_solve(lambda x: _moe(kernel(x), balanced), balanced, bounds))
    skews, imbalances = {}, {}
    for router in routers:
        routed = rows.subset(labels == router)

        def skewed(x: Sequence[float], name: str = router) -> MoeParameters:
            return fitted.model_copy(update={"router_skew": {name: x[0]}, "router_imbalance": {name: x[1]}})

        solve_bounds = [(0, 0.6, 3), (1, 1.1, 2)]
        skews[router], imbalances[router] = _solve(partial(_moe_of, skewed, routed), routed, solve_bounds)
    return fitted.model_copy(update={"router_skew": skews, "router_imbalance": imbalances})


def _moe_of(make: Callable[[Sequence[float]], MoeParameters], rows: KernelRows, x: Sequence[float]) -> Array:
    return _moe(make(x), rows)


def _fit_attention(rows: KernelRows) -> AttentionParameters:
    def make(x: Sequence[float]) -> AttentionParameters:
        return AttentionParameters(
            bandwidth_efficiency=x[0],
            floor_s=x[1] * _US,
            ramp_s=x[2] * _US,
            wave_s=x[3] * _US,
            wave_heads=x[4] * 100,
            sharpness=x[5],
        )

    bounds = [(0.3, 0.9, 1), (0, 11, 30), (0, 5, 50), (0, 3, 20), (0.3, 1.3, 4), (1, 2, 20)]
    return make(_solve(lambda x: _attention(make(x), rows), rows, bounds))


def _fit_all_reduce(rows: KernelRows) -> AllReduceParameters:
    def make(x: Sequence[float]) -> AllReduceParameters:
        return AllReduceParameters(
            floor_s=x[0] * _US,
            floor_per_doubling_s=x[1] * _US,
            one_shot_efficiency=x[2],
            two_shot_floor_s=x[3] * _US,
            two_shot_efficiency=x[4],
            in_switch_floor_s=x[5] * _US,
            in_switch_efficiency=x[6],
        )

    bounds = [(0, 2, 10), (0, 0.4, 5), (0.1, 0.6, 1), (0, 1.5, 20), (0.1, 0.7, 1), (0, 30, 100), (0.1, 0.6, 1)]
    return make(_solve(lambda x: _all_reduce(make(x), rows), rows, bounds))


def _solve(
    predict: Callable[[list[float]], Array], rows: KernelRows, bounds: Sequence[tuple[float, float, float]]
) -> list[float]:
    """Return the best parameters; `bounds` holds (least, start, most) of each."""
    least, start, most = (np.array(column, dtype=np.float64) for column in zip(*bounds, strict=True))

    def residuals(x: Array) -> Array:
        return np.log(predict(x.tolist()) / rows.latency_s)

    solution = least_squares(
        residuals, start, bounds=(least, most), loss="soft_l1", f_scale=_LOSS_SCALE, x_scale=start, xtol=1e-12
    )
    return [float(value) for value in solution.x]


def _rounded(content: object) -> object:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    return float(f"{content:.5g}") if isinstance(content, float) else content


def _gemm(fit: GemmParameters, rows: KernelRows) -> Array:
    c = rows.columns
    shapes = sorted(set(zip(c["n"].tolist(), c["k"].tolist(), strict=True)))
    predicted = np.zeros_like(rows.latency_s)
    for n, k in shapes:
        mask = (c["n"] == n) & (c["k"] == k)
        predicted[mask] = gemm_s(_H200, fit, c["m"][mask], n, k)
    return predicted


def _moe(fit: MoeParameters, rows: KernelRows) -> Array:
    c = rows.columns
    names = ("hidden", "inner", "experts", "experts_per_token")
    layers = sorted(set(zip(*(c[name].tolist() for name in names), rows.labels, strict=True)))
    labels = np.array(rows.labels)
    predicted = np.zeros_like(rows.latency_s)
    for hidden, inner, experts, top, router in layers:
        mask = labels == router
        for name, value in zip(names, (hidden, inner, experts, top), strict=True):
            mask &= c[name] == value
        tokens = c["tokens"][mask]
        if router == "balanced":
            distinct = np.minimum(experts, tokens * top)
        else:
            distinct = distinct_experts(tokens, int(experts), int(top), fit.router_skew[router])
        predicted[mask] = moe_s(
            _H200,
            fit,
            num_tokens=tokens,
            distinct=distinct,
            experts_per_token=top,
            hidden_size=hidden,
            inner_size=inner,
            imbalance=fit.router_imbalance.get(router, 1.0),
        )
    return predicted


def _attention(fit: AttentionParameters, rows: KernelRows) -> Array:
    # The measured context counts the new token itself.
    return attention_s(
        _H200,
        fit,
        batch=rows.columns["batch"],
        context_tokens=rows.columns["context_tokens"] - 1,
        tokens_per_seq=1.0,
        num_kv_heads=NUM_KV_HEADS,
        kv_bytes_per_token=KV_BYTES_PER_TOKEN,
        flops_per_query_key=4 * _NUM_QUERY_HEADS * _HEAD_SIZE,
    )


def _all_reduce(fit: AllReduceParameters, rows: KernelRows) -> Array:
    gpus, values = rows.columns["gpus"], rows.columns["values"]
    predicted = np.zeros_like(rows.latency_s)
    for count in np.unique(gpus).tolist():
        mask = gpus == count
        predicted[mask] = all_reduce_s(_H200, fit, values[mask] * BYTES_PER_VALUE, int(count))
    return predicted
