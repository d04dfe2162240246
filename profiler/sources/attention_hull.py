"""Attention hull: which decode-attention shapes aiconfigurator measured. Beyond it, its engine extrapolates by roofline
and still calls the result silicon.
"""

import json
from typing import Any, Protocol

from profiler.sources.operators import AttentionHull, Spec


class TableEngine(Protocol):
    """The part of aiconfigurator's engine that shows its raw tables."""

    def table_view_json(self, attribute: str) -> str | None:
        """Return a table as nested JSON objects, None when no file of it exists."""
        ...


def attention_hull(engine: TableEngine) -> AttentionHull:
    """Return a test of (operator, batch, context): some measured point has at least that batch and that context."""
    view = engine.table_view_json("_generation_attention_data")
    table: dict[str, Any] = json.loads(view) if view is not None else {}

    def in_hull(spec: Spec, batch: int, context_tokens: int) -> bool:
        # Keys: cache type, KV heads (0: as many as query heads), head size, window, query heads, batch, context.
        kv_heads = 0 if spec["n_kv"] == spec["n"] else spec["n_kv"]
        found: Any = table
        for key in (spec["kv_cache_dtype"], kv_heads, spec["head_size"], spec["window_size"], spec["n"]):
            found = found.get(str(key), {})
        # 1 % of slack: the k + 1 new tokens of the last grid point do not make it an extrapolation.
        return any(
            int(measured_batch) >= batch and 1.01 * max(map(int, contexts)) >= context_tokens
            for measured_batch, contexts in found.items()
        )

    return in_hull
