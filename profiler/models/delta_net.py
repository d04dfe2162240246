"""Gated DeltaNet: linear attention with a state of fixed size per sequence, fp32. arXiv:2412.06464; as in Qwen3-Next.

One token at a time (decode), one state kept per new token (verify, so that rejected drafts can be undone: vLLM and
SGLang do so), or in chunks by matrix products (prefill). Does not know layers.
"""

# Shape letters: B sequences, Q new tokens of each, N value heads, K key size, V value size, C channels of the
# convolution, H hidden, T chunks, S tokens of a chunk.

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.models.glue import Glue
from profiler.models.projection import Projection, project
from profiler.models.step import Step
from profiler.models.weights import WeightMaker
from traces.architecture import GDN_CONV_KERNEL, Architecture

CHUNK_TOKENS = 64
"""Tokens per chunk in prefill (flash-linear-attention's)."""
MAX_STEPPED_TOKENS = 16
"""New tokens up to which the state is advanced one by one."""


@dataclass(slots=True)
class DeltaState:
    """States [slot, B, N, K, V] and windows of the convolution [B, C, taps - 1 + Q].

    Slot 0 holds the state of the accepted tokens; slot j the one after j new tokens that may yet be rejected.
    """

    state: Tensor
    window_BCW: Tensor

    def accept(self, num_new: int) -> None:
        """Keep the first `num_new` of the tokens of the last pass that kept states."""
        self.state[0].copy_(self.state[num_new])
        taps = GDN_CONV_KERNEL - 1
        self.window_BCW[..., :taps] = self.window_BCW[..., num_new : num_new + taps].clone()


@dataclass(slots=True)
class GatedDeltaNet:
    """Weights of one gated-DeltaNet block."""

    qkvz: Projection
    decay_beta: Tensor
    conv: Tensor
    log_decay: Tensor
    decay_bias: Tensor
    out_norm: Tensor
    out: Projection
    num_k_heads: int
    num_v_heads: int
    head_size: int
    glue: Glue

    @classmethod
    def build(cls, a: Architecture, maker: WeightMaker, glue: Glue) -> "GatedDeltaNet":
        """Make the block of this shape."""
        n_k, n_v, d = a.fact("num_linear_k_heads"), a.fact("num_linear_v_heads"), a.fact("linear_head_size")
        return cls(
            qkvz=maker.projection((2 * n_k + 2 * n_v) * d, a.hidden_size),
            decay_beta=maker.matrix(2 * n_v, a.hidden_size),
            conv=maker.matrix((2 * n_k + n_v) * d, 1, GDN_CONV_KERNEL),
            log_decay=maker.ones(n_v),
            decay_bias=maker.ones(n_v),
            out_norm=maker.ones(d),
            out=maker.projection(a.hidden_size, n_v * d),
            num_k_heads=n_k,
            num_v_heads=n_v,
            head_size=d,
            glue=glue,
        )

    @property
    def num_channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return (2 * self.num_k_heads + self.num_v_heads) * self.head_size

    def new_cache(self, batch: int, max_tokens: int, num_states: int, maker: WeightMaker) -> DeltaState:
        """Return random states: slot 0, and one more for each of `num_states` new tokens."""
        del max_tokens
        d, taps = self.head_size, GDN_CONV_KERNEL - 1
        state = maker.normal(1 + num_states, batch, self.num_v_heads, d, d, dtype=torch.float32)
        return DeltaState(state, maker.normal(batch, self.num_channels, taps + max(num_states, 1)))

    def forward(self, x_BQH: Tensor, cache: DeltaState | None, step: Step, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Return the block's output, without the residual; without a cache the state begins at zero."""
        del rotary
        b, q, _ = x_BQH.shape
        n_k, n_v, d = self.num_k_heads, self.num_v_heads, self.head_size
        mixed, z = torch.split(project(x_BQH, self.qkvz, self.glue), [self.num_channels, n_v * d], dim=-1)
        beta, decay = torch.split(F.linear(x_BQH, self.decay_beta).float(), [n_v, n_v], dim=-1)
        mixed = self._convolve(mixed, cache, step).float()
        queries, keys, values = torch.split(mixed, [n_k * d, n_k * d, n_v * d], dim=-1)
        queries, keys = (self._unit_heads(part.reshape(b, q, n_k, d)) for part in (queries, keys))
        values = values.reshape(b, q, n_v, d).transpose(1, 2)
        log_decay = -(self.log_decay.float().exp() * F.softplus(decay + self.decay_bias.float())).transpose(1, 2)
        mixed = self._mix(queries * d**-0.5, keys, values, log_decay, beta.sigmoid().transpose(1, 2), cache, step)
        normed = self.glue.gated_norm(mixed.transpose(1, 2).reshape(b, q, n_v, d), z.view(b, q, n_v, d), self.out_norm)
        return project(normed.reshape(b, q, n_v * d), self.out, self.glue)

    def _convolve(self, mixed_BQC: Tensor, cache: DeltaState | None, step: Step) -> Tensor:
        """Return the short causal convolution, silu applied; keeps what later tokens need."""
        taps, channels = GDN_CONV_KERNEL - 1, mixed_BQC.transpose(1, 2)
        if cache is None or step.position == 0:
            window = F.pad(channels, (taps, 0))
        else:
            window = torch.cat((cache.window_BCW[..., :taps], channels), dim=-1)
        if cache is not None and step.keeps_states:
            cache.window_BCW[..., : window.shape[-1]] = window
        elif cache is not None:
            cache.window_BCW[..., :taps] = window[..., -taps:]
        return F.silu(F.conv1d(window, self.conv, groups=self.num_channels)).transpose(1, 2)

    def _unit_heads(self, part_BQKD: Tensor) -> Tensor:
        """Return heads of unit length, repeated for the value heads: [B, N, Q, D]."""
        unit = F.normalize(part_BQKD, dim=-1).transpose(1, 2)
        return unit.repeat_interleave(self.num_v_heads // self.num_k_heads, dim=1)

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, cache: DeltaState | None, step: Step
    ) -> Tensor:
        if cache is None or step.position == 0:
            state = torch.zeros_like(k[:, :, 0, :, None] * v[:, :, 0, None, :])
        else:
            state = cache.state[0]
        if step.num_new > MAX_STEPPED_TOKENS:
            out, state = delta_chunks(q, k, v, log_decay, beta, state)
        else:
            outs = []
            for token in range(step.num_new):
                parts = (part[:, :, token] for part in (q, k, v, log_decay, beta))
                state, now = self.glue.delta_step(state, *parts)
                outs.append(now)
                if cache is not None and step.keeps_states:
                    cache.state[token + 1].copy_(state)
            out = torch.stack(outs, dim=2)
        if cache is not None and not step.keeps_states:
            cache.state[0].copy_(state)
        return out


def delta_chunks(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state_BNKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Return outputs [B, N, Q, V] and the last state: the recurrence of `delta_step`, chunk by chunk.

    Inside a chunk the rank-one updates are a triangular system, between chunks the state is carried.
    Source: arXiv:2412.06464 sec. 3.3 (chunkwise form).
    """
    b, n, num_new, _ = q.shape
    pad = -num_new % CHUNK_TOKENS
    # Padded tokens have beta = 0 and no decay: they change nothing.
    q, k, v = (F.pad(x, (0, 0, 0, pad)).view(b, n, -1, CHUNK_TOKENS, x.shape[-1]) for x in (q, k, v))
    log_decay, beta = (F.pad(x, (0, pad)).view(b, n, -1, CHUNK_TOKENS) for x in (log_decay, beta))
    total = log_decay.cumsum(-1)
    between = torch.exp((total[..., :, None] - total[..., None, :]).tril()).tril()
    k_beta = k * beta[..., None]
    system = (k_beta @ k.transpose(-1, -2) * between).tril(-1)
    right = torch.cat((v * beta[..., None], k_beta * total.exp()[..., None]), dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    new_values, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    inside = (q @ k.transpose(-1, -2) * between).tril()
    q_decayed = q * total.exp()[..., None]
    k_left = k * torch.exp(total[..., -1:] - total)[..., None]
    outs = []
    for chunk in range(q.shape[2]):
        delta = new_values[:, :, chunk] - from_state[:, :, chunk] @ state_BNKV
        outs.append(q_decayed[:, :, chunk] @ state_BNKV + inside[:, :, chunk] @ delta)
        carried = state_BNKV * total[:, :, chunk, -1].exp()[..., None, None]
        state_BNKV = carried + k_left[:, :, chunk].transpose(-1, -2) @ delta
    return torch.cat(outs, dim=2)[:, :, :num_new], state_BNKV
