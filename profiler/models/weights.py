"""Weights: random matrices of given shapes, on one device in one precision, and the tensors that an object holds."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from profiler.models.projection import Fp8Matrix, Projection

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
"""torch's type of activations and caches in each precision that a model can be built in."""


@dataclass(slots=True)
class WeightMaker:
    """Makes weights; the same seed makes the same ones."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator | None
    is_fp8: bool = False
    """Whether the projections of layers are e4m3."""

    @classmethod
    def seeded(cls, device: torch.device, precision: str, seed: int = 0) -> "WeightMaker":
        """Return a maker for `precision`, a key of DTYPES."""
        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(seed)
        return cls(device, DTYPES[precision], generator, precision == "fp8")

    def matrix(self, *shape: int) -> Tensor:
        """Return normal values of variance 1 / inputs, the last axis being the inputs."""
        values = torch.empty(shape, device=self.device, dtype=self.dtype)
        return values.normal_(0.0, shape[-1] ** -0.5, generator=self.generator)

    def projection(self, num_outputs: int, num_inputs: int) -> Projection:
        """Return the weight of a layer's product, as `matrix`; in e4m3 where the precision says so."""
        weight = self.matrix(num_outputs, num_inputs)
        return Fp8Matrix.of(weight) if self.is_fp8 else weight

    def ones(self, size: int) -> Tensor:
        """Return a norm's weight."""
        return torch.ones(size, device=self.device, dtype=self.dtype)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return standard-normal values: contents of a cache, hidden states."""
        values = torch.empty(shape, device=self.device, dtype=dtype or self.dtype)
        return values.normal_(generator=self.generator)

    def tokens(self, *shape: int, below: int) -> Tensor:
        """Return uniform token ids."""
        return torch.randint(below, shape, device=self.device, generator=self.generator)


def tensors_of(part: object) -> Iterator[Tensor]:
    """Yield each weight that a dataclass, or a tuple or list of such, holds; a shared one once, no whole numbers."""
    seen: set[int] = set()
    stack: list[object] = [part]
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            if item.is_floating_point() and id(item) not in seen:
                seen.add(id(item))
                yield item
        elif isinstance(item, list | tuple):
            stack.extend(reversed(item))
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            stack.extend(getattr(item, field.name) for field in reversed(dataclasses.fields(item)))


def num_values(part: object) -> int:
    """Return how many values the tensors of an object hold."""
    return sum(tensor.numel() for tensor in tensors_of(part))


def num_bytes(part: object) -> int:
    """Return how many bytes the tensors of an object hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(part))
