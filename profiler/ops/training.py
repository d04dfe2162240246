"""Train step: forward, backward and AdamW over whole sequences, loss at every token. Activations are not recomputed."""

import torch
import torch.nn.functional as F

from profiler.models.step import Step
from profiler.models.weights import tensors_of
from profiler.ops.bench import Bench
from profiler.timing import Work

LEARNING_RATE = 1e-6


def train_step(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One optimizer step over `batch` sequences of `tokens_per_seq`; the MTP head is trained on a detached trunk.

    The weights stop asking for gradients when the work is dropped, and change by a millionth per step.
    """
    del context_tokens
    model, step = bench.model, Step(0, tokens_per_seq)
    weights = list(tensors_of(model))
    tokens = bench.tokens(batch, tokens_per_seq)
    labels = bench.tokens(batch, tokens_per_seq)

    def loss(hidden: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model.logits(hidden).flatten(0, 1).float(), labels.flatten())

    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)

    def work() -> None:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            hidden = model.forward(tokens, None, step)
            total = loss(hidden) + loss(model.draft(hidden.detach(), tokens, None, step))
            total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for weight in weights:
            weight.requires_grad_(False)

    return work
