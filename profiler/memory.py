"""Memory that a point needs on one GPU: weights, caches and logits; activations are in the device's reserve."""

from profiler.models.rank import Rank
from profiler.point import Point
from traces.architecture import BYTES_PER_VALUE
from traces.latency import Operation


def weight_bytes(rank: Rank, precision: str) -> float:
    """Return bytes of all weights of one GPU, MTP layer included."""
    a = rank.local
    return float(a.num_params + a.mtp_layer_params) * BYTES_PER_VALUE[precision]


def bytes_needed(point: Point, rank: Rank, precision: str) -> float:
    """Return bytes of weights, caches and logits while a point is timed."""
    a, q = rank.local, point.tokens_per_seq
    length = point.context_tokens + q
    layers = 1 if point.operation is Operation.DRAFT else a.num_full_attention_layers
    caches = point.batch * length * layers * a.kv_bytes_per_token_per_layer(precision)
    states = a.state_bytes_per_seq * point.batch * (1 + q if point.operation is Operation.VERIFY else 1)
    num_logits = point.batch * (1 if point.operation is Operation.PREFILL else q) * a.vocab_size
    return weight_bytes(rank, precision) + caches + states + BYTES_PER_VALUE[precision] * num_logits
