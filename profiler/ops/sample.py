"""The sampler as an operation: one position per sequence is drawn, k + 1 are verified. Logits cover the vocabulary."""

from torch import Tensor

from profiler.mtp import rejection
from profiler.mtp.rejection import draw, probabilities
from profiler.ops.bench import TEMPERATURE, Bench
from profiler.timing import Work


def sample(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """Draw one token per sequence, or verify k = `tokens_per_seq` - 1 drafts by the bench's rule."""
    del context_tokens
    logits = bench.maker.normal(batch, tokens_per_seq, bench.vocab_size)
    if tokens_per_seq == 1:
        return lambda: draw(probabilities(logits, TEMPERATURE))
    drafts, proposal = propose(bench, bench.maker.normal(batch, tokens_per_seq - 1, bench.vocab_size))
    return lambda: bench.verifier(probabilities(logits, TEMPERATURE), drafts, proposal)


def propose(bench: Bench, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return draft tokens, and the distribution they were drawn from where the verify rule needs it."""
    return rejection.propose(logits, bench.verify_rule, TEMPERATURE)
