"""The committed LatencyTraces: which models, GPUs and layouts are kept in `traces/data/latency/`."""

from profiler.sources.aiconfigurator import TraceRequest

GPUS = ("H200", "H100", "B200")
LAYOUTS: tuple[tuple[str, int, int], ...] = (
    ("Qwen3-8B", 1, 1),
    ("Qwen3-32B", 2, 1),
    ("Qwen3-32B", 4, 1),
    ("Qwen3-30B-A3B", 1, 1),
    ("Qwen3-30B-A3B", 2, 2),
    ("Qwen3.5-9B", 1, 1),
    ("Qwen3.5-27B", 1, 1),
    ("Qwen3.5-27B", 2, 1),
    ("Qwen3.5-35B-A3B", 1, 1),
    ("Qwen3.5-35B-A3B", 2, 2),
)
"""Model, tensor-parallel size, expert-parallel size."""


def committed_requests() -> tuple[TraceRequest, ...]:
    """Return one request per committed file."""
    return tuple(TraceRequest(model, gpu, tp, ep) for gpu in GPUS for model, tp, ep in LAYOUTS)
