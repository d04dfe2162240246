"""Projection: x W^T of a layer, in the model's own precision or in fp8 with a scale per row.

fp8 is what vLLM calls W8A8: weights are e4m3 with one scale per output, activations are quantized to e4m3 with one
scale per token as they come, products are summed in fp32. Embedding, lm_head, norms, routers, convolutions and caches
stay in bf16, as in published fp8 checkpoints (`modules_to_not_convert` in Qwen3-*-FP8).
"""

# Shape letters: T tokens, O outputs, I inputs.

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.errors import UnsupportedModelError
from profiler.models.glue import Glue, quantize


@dataclass(slots=True)
class Fp8Matrix:
    """A weight in e4m3, and what each of its rows was divided by."""

    values_OI: Tensor
    scales_1O: Tensor

    @classmethod
    def of(cls, weight_OI: Tensor) -> "Fp8Matrix":
        """Return the nearest such matrix.

        Raises:
            UnsupportedModelError: A size that the product's kernel cannot take.
        """
        if weight_OI.shape[0] % 16 or weight_OI.shape[1] % 16:
            raise UnsupportedModelError(
                f"fp8 products need sizes divisible by 16, a weight here is {tuple(weight_OI.shape)}; use bf16, or "
                "another --tp"
            )
        values_OI, scales_O1 = quantize(weight_OI)
        return cls(values_OI, scales_O1.t().contiguous())


Projection = Tensor | Fp8Matrix


def project(x: Tensor, weight: Projection, glue: Glue) -> Tensor:
    """Return x W^T over the last axis, in the type of x."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight)
    values_TI, scales_T1 = glue.quantize(x.reshape(-1, x.shape[-1]))
    out_TO = torch._scaled_mm(
        values_TI, weight.values_OI.t(), scale_a=scales_T1, scale_b=weight.scales_1O, out_dtype=x.dtype
    )
    return out_TO.view(*x.shape[:-1], -1)
