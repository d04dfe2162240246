"""RooflineParameters: what real kernels reach of a card's peaks, fitted to measurements; stored beside them.

Does not know the formulas they enter (`roofline_ops`), nor how they were fitted (`roofline_fit`).
"""

from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import Field, PositiveFloat

from traces.base import Strict

Efficiency = Annotated[float, Field(gt=0, le=1)]
"""Share of a datasheet peak."""
Seconds = Annotated[float, Field(ge=0, le=1e-3)]
Sharpness = Annotated[float, Field(ge=1, le=50)]
"""p of (memory^p + compute^p)^(1/p): 1 adds the two times, large takes their maximum."""


class GemmParameters(Strict):
    """Dense matrix products."""

    bandwidth_efficiency: Efficiency
    """Of the memory peak."""
    flop_efficiency: Efficiency
    """Of the bf16 peak."""
    floor_s: Seconds
    """Launch and drain of one kernel."""
    sharpness: Sharpness
    """Of the corner between memory and compute."""


class MoeParameters(Strict):
    """Routed experts: align, two grouped products, activation, reduction."""

    bandwidth_efficiency: Efficiency
    """Of the memory peak."""
    flop_efficiency: Efficiency
    """Of the bf16 peak."""
    floor_s: Seconds
    """Launches of the kernels together."""
    expert_overhead_s: Seconds
    """Added per distinct expert."""
    sharpness: Sharpness
    """Of the corner between memory and compute."""
    router_skew: dict[str, Annotated[float, Field(ge=0)]]
    """Per router of the measurements: s of popularity proportional to rank^-s."""
    router_imbalance: dict[str, Annotated[float, Field(ge=1)]]
    """Per router: factor on the compute time, because the fullest expert finishes last."""


class AttentionParameters(Strict):
    """Attention of new tokens over a KV cache."""

    bandwidth_efficiency: Efficiency
    """Of the memory peak."""
    floor_s: Seconds
    """Launch, split and merge of one call."""
    ramp_s: Seconds
    """Added once a call streams more than the L2 cache holds."""
    wave_s: Seconds
    """Time per `wave_heads` pairs of sequence and KV head, after the first wave."""
    wave_heads: PositiveFloat
    """Pairs of sequence and KV head that run at once."""
    sharpness: Sharpness
    """Of the corner between memory and waves."""


class AllReduceParameters(Strict):
    """All-reduce within one NVLink domain; the fastest of three algorithms."""

    floor_s: Seconds
    """Latency with one GPU's worth of synchronisation."""
    floor_per_doubling_s: Seconds
    """Added per doubling of the GPUs."""
    one_shot_efficiency: Efficiency
    """Of one direction of NVLink: every GPU reads every message."""
    two_shot_floor_s: Seconds
    """Second synchronisation of reduce-scatter plus all-gather, per doubling of the GPUs."""
    two_shot_efficiency: Efficiency
    """Of one direction of NVLink, reduce-scatter plus all-gather."""
    in_switch_floor_s: Seconds
    """Extra latency of the reduction inside the switch."""
    in_switch_efficiency: Efficiency
    """Of one direction of NVLink, reduction inside the switch."""


class RooflineParameters(Strict):
    """All fitted parameters, and where they come from."""

    gpu: str
    """The card measured; its datasheet peaks are what the efficiencies are shares of."""
    source: str
    """The measurements."""
    command: str
    """Makes this file again."""
    gemm: GemmParameters
    moe: MoeParameters
    attention: AttentionParameters
    all_reduce: AllReduceParameters


@cache
def load_roofline_parameters() -> RooflineParameters:
    """Return the stored fit (`traces/data/kernels/roofline_h200.json`)."""
    text = files("traces").joinpath("data", "kernels", "roofline_h200.json").read_text(encoding="utf-8")
    return RooflineParameters.model_validate_json(text)
