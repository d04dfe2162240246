"""Number formats of a model's weights: how many bytes a kernel reads, and at which peak the card multiplies.

Does not know kernels or passes. Weight-only formats (AWQ, GPTQ, GGUF) multiply in bf16 after unpacking; scales are
counted in the bytes of a value, zero points are not.
"""

from dataclasses import dataclass
from typing import Literal

from traces.hardware import Gpu

Peak = Literal["bf16", "fp8"]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How weights and activations of the layers' products are stored; lm_head and KV cache stay in bf16."""

    name: str
    weight_bytes: float
    """Of one weight, its share of the scales included."""
    activation_bytes: float = 2.0
    """Of one value that a product reads; it writes bf16."""
    peak: Peak = "bf16"
    """Which of the card's dense peaks bounds the products."""
    bandwidth_factor: float = 1.0
    """Share of bf16 kernels' bandwidth that kernels of this format reach."""
    quantising_kernels: int = 0
    """Small kernels per block that turn activations into the format."""

    def flops(self, gpu: Gpu) -> float:
        """Return the peak of the products; a card without fp8 multiplies in bf16."""
        return gpu.fp8_flops if self.peak == "fp8" and gpu.fp8_flops is not None else gpu.bf16_flops


BF16 = NumberFormat("bf16", 2.0)
FORMATS: dict[str, NumberFormat] = {
    "fp32": NumberFormat("fp32", 4.0, activation_bytes=4.0),
    "bf16": BF16,
    "fp16": NumberFormat("fp16", 2.0),
    # A block of 128 x 128 has one fp32 scale; activations are quantised per token before each product.
    "fp8": NumberFormat("fp8", 1.0, activation_bytes=1.0, peak="fp8", quantising_kernels=2),
    "int8": NumberFormat("int8", 1.0, activation_bytes=1.0, peak="fp8", quantising_kernels=2),
    # 4 bits and an fp8 scale for each 16 (NVFP4) or 32 (MXFP4); fp4 peaks are in no table here, fp8's stand in.
    "nvfp4": NumberFormat("nvfp4", 0.5625, activation_bytes=0.5625, peak="fp8", quantising_kernels=2),
    "mxfp4": NumberFormat("mxfp4", 0.53125),
    # 4 bits and an fp16 scale for each 128 (AWQ and GPTQ's usual group).
    "int4": NumberFormat("int4", 0.515625),
    # llama.cpp: bits per weight of the block formats (ggml-quants: Q4_K 4.5, Q6_K 6.5625, Q8_0 8.5).
    "q4": NumberFormat("q4", 0.5625),
    "q6": NumberFormat("q6", 0.8203125),
    "q8": NumberFormat("q8", 1.0625),
}
"""By the name that tables use."""
