"""Multi-head latent attention (MLA): one latent per cached token, shared by all heads. DeepSeek-V2 (arXiv:2405.04434).

Few new tokens attend in the latent space (the key projection is absorbed into the query), many expand the latents to
keys and values first, as engines do; which is fewer operations decides. torch has no fused kernel for heads as wide as
the latent, so on a GPU its attention is slower than an engine's: two products and a softmax between them.
"""

# Shape letters: B sequences, Q new tokens of each, L tokens in the cache, N heads, R latent, P rotary part, H hidden.

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.attention import attend
from profiler.models.glue import Glue
from profiler.models.step import Step
from profiler.models.weights import WeightMaker
from traces.architecture import Architecture, MlaShape


@dataclass(slots=True)
class LatentCache:
    """Latents and rotary keys of all tokens so far, [B, 1, L, R + P]."""

    latent_B1LE: Tensor

    def extend(self, new_B1QE: Tensor, step: Step) -> Tensor:
        """Write new latents behind the cached ones; return all of them."""
        end = step.position + step.num_new
        self.latent_B1LE[:, :, step.position : end] = new_B1QE
        return self.latent_B1LE[:, :, :end]

    def accept(self, num_new: int) -> None:
        """Keep the first `num_new` new tokens: nothing to do, later ones are overwritten."""


@dataclass(slots=True)
class LatentAttention:
    """Weights of one MLA block."""

    q_down: Tensor
    q_up: Tensor
    kv_down: Tensor
    kv_up: Tensor
    out: Tensor
    num_heads: int
    shape: MlaShape
    glue: Glue

    @classmethod
    def build(cls, a: Architecture, maker: WeightMaker, glue: Glue) -> "LatentAttention":
        """Make the block of this shape."""
        assert a.mla is not None
        m, n, h = a.mla, a.num_q_heads, a.hidden_size
        return cls(
            q_down=maker.matrix(m.q_rank, h),
            q_up=maker.matrix(n * (m.nope_size + m.rope_size), m.q_rank),
            kv_down=maker.matrix(m.kv_rank + m.rope_size, h),
            kv_up=maker.matrix(n * (m.nope_size + m.v_size), m.kv_rank),
            out=maker.matrix(h, n * m.v_size),
            num_heads=n,
            shape=m,
            glue=glue,
        )

    def new_cache(self, batch: int, max_tokens: int, num_states: int, maker: WeightMaker) -> LatentCache:
        """Return a cache filled with random latents."""
        del num_states
        return LatentCache(maker.normal(batch, 1, max_tokens, self.shape.kv_rank + self.shape.rope_size))

    def forward(self, x_BQH: Tensor, cache: LatentCache | None, step: Step, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the block's output, without the residual; without a cache the tokens see only each other."""
        b, q, _ = x_BQH.shape
        m, n = self.shape, self.num_heads
        queries = F.linear(F.linear(x_BQH, self.q_down), self.q_up).view(b, q, n, m.nope_size + m.rope_size)
        q_nope, q_rope = torch.split(queries, [m.nope_size, m.rope_size], dim=-1)
        latent, k_rope = torch.split(F.linear(x_BQH, self.kv_down), [m.kv_rank, m.rope_size], dim=-1)
        k_rope = self.glue.rotate(k_rope[:, :, None], *rotary)[:, :, 0]
        keys = torch.cat((latent, k_rope), dim=-1)[:, None]
        if cache is not None:
            keys = cache.extend(keys, step)
        q_rope = self.glue.rotate(q_rope, *rotary)
        mix = self._expanded if q > self.most_absorbed or step.position == 0 else self._absorbed
        mixed = mix(q_nope.transpose(1, 2), q_rope.transpose(1, 2), keys)
        return F.linear(mixed.transpose(1, 2).reshape(b, q, n * m.v_size), self.out)

    @property
    def most_absorbed(self) -> int:
        """New tokens up to which attending in the latent space is fewer operations than expanding it.

        Per head and cached token: Q (2 R + P) against Q (nope + P + v) + R (nope + v) multiplications.
        """
        m = self.shape
        extra = 2 * m.kv_rank - m.nope_size - m.v_size
        return m.kv_rank * (m.nope_size + m.v_size) // extra if extra > 0 else 1_000_000_000

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, keys_B1LE: Tensor) -> Tensor:
        m, n = self.shape, self.num_heads
        latent, k_rope = torch.split(keys_B1LE[:, 0], [m.kv_rank, m.rope_size], dim=-1)
        b, length, _ = latent.shape
        up = F.linear(latent, self.kv_up).view(b, length, n, m.nope_size + m.v_size).transpose(1, 2)
        k_nope, values = torch.split(up, [m.nope_size, m.v_size], dim=-1)
        keys = torch.cat((k_nope, k_rope[:, None].expand(b, n, length, m.rope_size)), dim=-1)
        # Fused kernels want heads of one width: values are padded to that of the keys, and the padding cut off.
        padded = F.pad(values, (0, keys.shape[-1] - m.v_size)) if keys.shape[-1] > m.v_size else values
        return attend(torch.cat((q_nope, q_rope), dim=-1), keys, padded, self.glue)[..., : m.v_size]

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, keys_B1LE: Tensor) -> Tensor:
        m, n = self.shape, self.num_heads
        to_k, to_v = torch.split(self.kv_up.view(n, m.nope_size + m.v_size, m.kv_rank), [m.nope_size, m.v_size], dim=1)
        queries = torch.cat((q_nope @ to_k, q_rope), dim=-1)
        # `attend` divides by the root of the width it sees; the scores belong to heads of nope + rope.
        queries = queries * math.sqrt(queries.shape[-1] / (m.nope_size + m.rope_size))
        mixed = attend(queries, keys_B1LE, keys_B1LE[..., : m.kv_rank], self.glue)
        return mixed @ to_v.transpose(-1, -2)
