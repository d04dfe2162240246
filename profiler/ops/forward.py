"""Forward passes: prefill, decode, verify, draft, lm_head. Each returns work that may be repeated."""

from profiler.models.step import Step
from profiler.ops.bench import Bench
from profiler.timing import Work


def prefill(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One target pass over new tokens behind a cached prefix; lm_head at the last position only."""
    model, step = bench.model, Step(context_tokens, tokens_per_seq)
    caches = model.new_caches(batch, context_tokens + tokens_per_seq)
    tokens = bench.tokens(batch, tokens_per_seq)
    return lambda: model.logits(model.forward(tokens, caches, step)[:, -1])


def decode(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One target pass over one token per sequence, lm_head included."""
    return _target(bench, batch, Step(context_tokens, tokens_per_seq))


def verify(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One target pass over k + 1 tokens per sequence, lm_head at each; recurrent layers keep a state per token."""
    return _target(bench, batch, Step(context_tokens, tokens_per_seq, keeps_states=tokens_per_seq > 1))


def draft(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One pass of the MTP layer, embedding included, lm_head not."""
    model, step = bench.model, Step(context_tokens, tokens_per_seq)
    cache = model.new_mtp_cache(batch, context_tokens + tokens_per_seq)
    hidden = bench.maker.normal(batch, tokens_per_seq, bench.hidden_size)
    tokens = bench.tokens(batch, tokens_per_seq)
    return lambda: model.draft(hidden, tokens, cache, step)


def lm_head(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """Projection to the vocabulary, one row per sequence."""
    del context_tokens
    model, hidden = bench.model, bench.maker.normal(batch, tokens_per_seq, bench.hidden_size)
    return lambda: model.logits(hidden)


def _target(bench: Bench, batch: int, step: Step) -> Work:
    model = bench.model
    num_states = step.num_new if step.keeps_states else 0
    caches = model.new_caches(batch, step.position + step.num_new, num_states)
    tokens = bench.tokens(batch, step.num_new)
    return lambda: model.logits(model.forward(tokens, caches, step))
