"""Weight sync inside one machine: every weight of the model copied to another place on the device, or to the host."""

import torch

from profiler.models.weights import tensors_of
from profiler.ops.bench import Bench
from profiler.timing import Work


def weight_sync(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """Copy all weights, MTP head included; to the host through pinned memory."""
    del batch, context_tokens, tokens_per_seq
    weights = list(tensors_of(bench.model))
    to_host = bench.sync_to == "host"
    is_cuda = bench.maker.device.type == "cuda"
    copies = [
        torch.empty(weight.shape, dtype=weight.dtype, pin_memory=is_cuda) if to_host else torch.empty_like(weight)
        for weight in weights
    ]

    def work() -> None:
        for copy, weight in zip(copies, weights, strict=True):
            copy.copy_(weight, non_blocking=True)

    return work
