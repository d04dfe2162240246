"""Step: where in their sequences the new tokens of a forward pass stand. Does not know what they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

ROTARY_BASE = 1e6
"""Base of the rotary frequencies (`rope_theta` of Qwen3); it does not change the cost."""


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass over `num_new` tokens of each sequence, all at the same positions."""

    position: int
    """Tokens already cached, per sequence."""
    num_new: int
    keeps_states: bool = False
    """Whether recurrent layers keep a state per new token, so that drafts can be rejected."""

    def rotary(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [num_new, size] of the new tokens' positions, fp32."""
        frequencies = ROTARY_BASE ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
        positions = torch.arange(self.position, self.position + self.num_new, device=device, dtype=torch.float32)
        angles = torch.outer(positions, frequencies)
        both = torch.cat((angles, angles), dim=-1)
        return both.cos(), both.sin()
