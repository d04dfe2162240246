"""Rows over a grid: every pass of a speculative step at every batch, context and number of tokens, made monotone.

Does not know where the prices come from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from profiler.sources.operators import Price
from profiler.sources.passes import Passes
from traces.base import Origin
from traces.latency import LatencyRow, Operation

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CONTEXTS_TOKENS = (128, 512, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
PREFILL_NEW_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768)
PREFILL_CACHED_TOKENS = (0, 4096, 16384, 65536)
HOST_GAP_S = 10e-6
"""Assumed idle time of the GPU before each pass: replaying a CUDA graph costs 5-15 us (engines of 2026 on H100)."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class GridRows:
    """Rows of one replica layout, and how often monotonicity had to move one."""

    passes: Passes
    max_draft_tokens: int
    tp_size: int
    ep_size: int
    num_points: int = 0
    num_raised: int = 0
    """Points raised to the time of a smaller batch, context or number of tokens."""
    largest_raise: float = 0.0
    """Largest of those raises, as a fraction of the time before it."""
    rows: list[LatencyRow] = field(default_factory=list)

    def build(self) -> tuple[LatencyRow, ...]:
        """Return all rows; decode and verify share one array, so verify of one token is decode."""
        queries = tuple(range(1, self.max_draft_tokens + 2))
        passes = self.passes
        target = self._add(Operation.VERIFY, passes.target, BATCHES, CONTEXTS_TOKENS, queries)
        self.rows += [
            row.model_copy(update={"operation": Operation.DECODE}) for row in target if row.tokens_per_seq == 1
        ]
        self._add(Operation.DRAFT, passes.draft, BATCHES, CONTEXTS_TOKENS, queries)
        self._add(Operation.LM_HEAD, lambda batch, _c, _q: passes.lm_head(batch), BATCHES, (0,), (1,))
        self._add(Operation.SAMPLE, lambda batch, _c, q: passes.sample(batch, q), BATCHES, (0,), queries)
        self._add(Operation.HOST_GAP, lambda _b, _c, _q: Price(HOST_GAP_S), BATCHES, (0,), queries)
        self._add(
            Operation.PREFILL,
            lambda _b, cached, new: passes.prefill(new, cached),
            (1,),
            PREFILL_CACHED_TOKENS,
            PREFILL_NEW_TOKENS,
        )
        return tuple(self.rows)

    def _add(
        self,
        operation: Operation,
        price: Callable[[int, int, int], Price],
        batches: Sequence[int],
        contexts: Sequence[int],
        queries: Sequence[int],
    ) -> list[LatencyRow]:
        shape = (len(batches), len(contexts), len(queries))
        points = [(b, c, q) for b in batches for c in contexts for q in queries]
        prices = [price(*point) for point in points]
        latency = np.array([one.latency_s for one in prices]).reshape(shape)
        raised = monotone(latency)
        moved = raised > latency * (1 + 1e-9)
        self.num_points += latency.size
        self.num_raised += int(moved.sum())
        self.largest_raise = max(self.largest_raise, float((raised / latency).max()) - 1)
        added = list(self._rows(operation, points, prices, raised))
        self.rows += added
        return added

    def _rows(
        self, operation: Operation, points: Sequence[tuple[int, int, int]], prices: Sequence[Price], raised: Floats
    ) -> Iterator[LatencyRow]:
        is_assumed = operation in (Operation.SAMPLE, Operation.HOST_GAP)
        for (batch, context, tokens), price, latency_s in zip(points, prices, raised.ravel().tolist(), strict=True):
            yield LatencyRow(
                operation=operation,
                batch=batch,
                context_tokens=context,
                tokens_per_seq=tokens,
                latency_s=latency_s,
                tp_size=self.tp_size,
                ep_size=self.ep_size,
                origin=Origin.ASSUMED if is_assumed else Origin.MODELLED,
                measured_fraction=None if is_assumed else min(1.0, price.measured_s / latency_s),
            )


def monotone(latency: Floats) -> Floats:
    """Return the smallest array that is nowhere below `latency` and never falls along any axis."""
    for axis in range(latency.ndim):
        latency = np.maximum.accumulate(latency, axis=axis)
    return latency
