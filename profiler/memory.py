"""Memory that a point needs on one GPU: weights, caches and logits; activations are in the device's reserve."""

from profiler.models.rank import Rank
from profiler.point import Point
from traces.architecture import BYTES_PER_VALUE
from traces.latency import Operation


def weight_bytes(rank: Rank, precision: str) -> float:
    """Return bytes of all weights of one GPU, MTP layer included; embedding and lm_head are never in fp8."""
    a = rank.local
    layers = a.num_params - a.embedding_params + a.mtp_layer_params
    return float(layers * BYTES_PER_VALUE[precision] + a.embedding_params * BYTES_PER_VALUE[_cached(precision)])


def bytes_needed(point: Point, rank: Rank, precision: str) -> float:
    """Return bytes of weights, caches and logits while a point is timed."""
    a, q = rank.local, point.tokens_per_seq
    length = point.context_tokens + q
    layers = 1 if point.operation is Operation.DRAFT else a.num_full_attention_layers
    caches = point.batch * length * layers * a.kv_bytes_per_token_per_layer(_cached(precision))
    states = a.state_bytes_per_seq * point.batch * (1 + q if point.operation is Operation.VERIFY else 1)
    num_logits = point.batch * (1 if point.operation is Operation.PREFILL else q) * a.vocab_size
    return weight_bytes(rank, precision) + caches + states + BYTES_PER_VALUE[_cached(precision)] * num_logits


def _cached(precision: str) -> str:
    """Return the precision of what is no projection: caches, activations, embedding and lm_head."""
    return "bf16" if precision == "fp8" else precision
