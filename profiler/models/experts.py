"""Feed-forward layers: dense, and a mixture of experts whose routing is as skewed as that of trained models.

Random router weights spread tokens evenly and wake too many experts; the number of distinct experts decides the cost
of a verify pass. So the router is computed, but which experts a token visits comes from a `Routing`.
"""

# Shape letters: T tokens, E experts of this GPU, K experts per token, H hidden, I inner.

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from profiler.models.glue import Glue
from profiler.models.projection import Projection, project
from profiler.models.rank import Rank
from profiler.models.recorded_routing import RecordedRouting
from profiler.models.weights import WeightMaker
from traces.architecture import Architecture

DEFAULT_SKEW = 1.01
"""Exponent of the expert popularity, rank^-skew: the milder of the two skewed routers in aiconfigurator's MoE tables,
and the one that the simulator's roofline assumes."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts tokens visit: top-k drawn without replacement, expert popularity proportional to rank^-skew.

    Tokens are independent; drafts of one sequence visit fewer distinct experts in truth.
    """

    skew: float = DEFAULT_SKEW
    """0: all experts alike."""
    seed: int = 0

    def draw(self, num_tokens: int, num_experts: int, num_per_token: int, layer: int) -> NDArray[np.int64]:
        """Return expert numbers [num_tokens, num_per_token] of one layer; ranks are shuffled from layer to layer."""
        random = np.random.default_rng([self.seed, layer])
        log_popularity = -self.skew * np.log(np.arange(1, num_experts + 1))
        order = random.permutation(num_experts)
        drawn = np.empty((num_tokens, num_per_token), np.int64)
        for begin in range(0, num_tokens, 4096):
            # The k largest of log-popularity + Gumbel noise are a draw without replacement.
            size = min(4096, num_tokens - begin)
            keys = log_popularity + random.gumbel(size=(size, num_experts))
            drawn[begin : begin + size] = order[np.argpartition(-keys, num_per_token - 1, axis=1)[:, :num_per_token]]
        return drawn


AnyRouting = Routing | RecordedRouting


def visits_of_pass(
    routing: AnyRouting, a: Architecture, batch: int, tokens_per_seq: int
) -> Iterator[NDArray[np.int64]]:
    """Yield, MoE layer by layer, the experts that the tokens of one pass visit."""
    num_tokens = batch * tokens_per_seq
    rows = routing.rows(batch, tokens_per_seq) if isinstance(routing, RecordedRouting) else np.arange(num_tokens)
    for layer in range(a.num_layers - a.num_moe_layers, a.num_layers):
        yield routing.draw(num_tokens, a.fact("num_experts"), a.fact("num_experts_per_token"), layer)[rows]


@dataclass(slots=True)
class DenseFeedForward:
    """gate, up and down projection."""

    gate_up: Projection
    down: Projection
    glue: Glue

    @classmethod
    def build(cls, hidden: int, inner: int, maker: WeightMaker, glue: Glue) -> "DenseFeedForward":
        """Make the layer of this shape."""
        return cls(maker.projection(2 * inner, hidden), maker.projection(hidden, inner), glue)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, without the residual."""
        return project(self.glue.swiglu(project(x, self.gate_up, self.glue)), self.down, self.glue)


@dataclass(slots=True)
class ExpertFeedForward:
    """Router, the routed experts that this GPU holds (the first of all), and the shared expert."""

    router: Tensor
    gate_up_EHI: Tensor
    down_EIH: Tensor
    shared: DenseFeedForward | None
    visits_TK: Tensor
    """Expert numbers of the tokens of a pass."""
    glue: Glue
    rows: Callable[[int, int], NDArray[np.int64]] | None = None
    """(batch, new tokens of each) -> rows of `visits_TK` that stand for the pass; None takes the first ones."""
    _chosen: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """Experts by shape of the pass: looked up once, so that no replayed graph holds a lookup."""

    @classmethod
    def build(
        cls, rank: Rank, maker: WeightMaker, glue: Glue, routing: AnyRouting, layer: int, max_tokens: int
    ) -> "ExpertFeedForward":
        """Make the layer of this shape; it takes up to `max_tokens` tokens."""
        a, h = rank.local, rank.local.hidden_size
        num, inner = a.fact("num_experts"), a.fact("expert_ffn_size")
        whole = rank.whole.fact("num_experts")
        visits = torch.from_numpy(routing.draw(max_tokens, whole, a.fact("num_experts_per_token"), layer))
        return cls(
            router=maker.matrix(whole, h),
            gate_up_EHI=maker.matrix(num, 2 * inner, h).transpose(1, 2),
            down_EIH=maker.matrix(num, h, inner).transpose(1, 2),
            shared=DenseFeedForward.build(h, a.shared_ffn_size, maker, glue) if a.shared_ffn_size else None,
            visits_TK=visits.to(maker.device),
            glue=glue,
            rows=routing.rows if isinstance(routing, RecordedRouting) else None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, without the residual.

        Raises:
            ValueError: More tokens than routing was drawn for.
        """
        x_TH = x.reshape(-1, x.shape[-1])
        visits_TK = self.visits_TK[: len(x_TH)] if self.rows is None else self._recorded(*x.shape[:2])
        if len(visits_TK) < len(x_TH):
            raise ValueError(f"{len(x_TH)} tokens, but routing was drawn for {len(visits_TK)}; raise max_tokens")
        logits = F.linear(x_TH, self.router).float()
        share_TK = logits.gather(1, visits_TK).softmax(-1)
        out = self._routed(x_TH, visits_TK, share_TK.to(x.dtype))
        if self.shared is not None:
            out = out + self.shared.forward(x_TH)
        return out.view(x.shape)

    def _recorded(self, batch: int, tokens_per_seq: int) -> Tensor:
        assert self.rows is not None
        if (batch, tokens_per_seq) not in self._chosen:
            rows = torch.from_numpy(self.rows(batch, tokens_per_seq)).to(self.visits_TK.device)
            self._chosen[batch, tokens_per_seq] = self.visits_TK[rows]
        return self._chosen[batch, tokens_per_seq]

    def _routed(self, x_TH: Tensor, visits_TK: Tensor, share_TK: Tensor) -> Tensor:
        num_tokens, k = visits_TK.shape
        num_experts = self.gate_up_EHI.shape[0]
        # Visits to experts of other GPUs sort behind all of ours; what the products leave there is not used.
        expert = visits_TK.reshape(-1).clamp(max=num_experts)
        sorted_expert, order = expert.sort(stable=True)
        ends = torch.searchsorted(sorted_expert, torch.arange(num_experts, device=expert.device), right=True)
        ends = ends.to(torch.int32)
        inner = self.glue.swiglu(F.grouped_mm(x_TH[order // k], self.gate_up_EHI, offs=ends))
        result = F.grouped_mm(inner, self.down_EIH, offs=ends)
        if len(self.router) > num_experts:
            result = torch.where((sorted_expert < num_experts)[:, None], result, torch.zeros_like(result))
        back = torch.empty_like(result).index_copy(0, order, result).view(num_tokens, k, -1)
        return (back * share_TK[..., None]).sum(1)
