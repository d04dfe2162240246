"""Weights as they travel at a sync. Does not know who sends them.

One flat fp32 array: Ray's object store takes it in one copy, and a receiver on the same machine reads it in place.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    """Policy and draft head of one version."""

    version: int
    flat: NDArray[np.float32]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], version: int) -> "Weights":
        """Return a copy of the tensors."""
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).to(torch.float32).cpu().numpy()
        return cls(version, flat, tuple(tuple(tensor.shape) for tensor in tensors))

    def tensors(self) -> list[Tensor]:
        """Return the tensors, to be read only: they are views of the array."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of an array that cannot be written, as Ray's are
            flat = torch.from_numpy(self.flat)
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    @property
    def num_bytes(self) -> int:
        """Return the bytes that travel."""
        return self.flat.nbytes


@torch.no_grad()
def copy_into(tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Overwrite tensors with weights of the same shapes, in place."""
    for tensor, weight in zip(tensors, weights, strict=True):
        tensor.copy_(weight)
