"""The whole speculative step as one piece of work, to hold against the sum of its parts.

verify, sample, draft pass 0 over k + 1 tokens, then k - 1 passes over one, an lm_head and a draw after each.
"""

import torch
from torch import Tensor

from profiler.models.step import Step
from profiler.mtp.rejection import probabilities
from profiler.ops.bench import TEMPERATURE, Bench
from profiler.ops.sample import propose
from profiler.timing import Work


def speculative_step(bench: Bench, batch: int, context_tokens: int, tokens_per_seq: int) -> Work:
    """One step with k = `tokens_per_seq` - 1 drafts, of random accepted lengths; may be repeated.

    With several GPUs per replica the logits of this one are used as they are: the gather is not in it.
    """
    model, num_drafts = bench.model, tokens_per_seq - 1
    caches = model.new_caches(batch, context_tokens + tokens_per_seq, tokens_per_seq)
    mtp_cache = model.new_mtp_cache(batch, context_tokens + 2 * tokens_per_seq)
    verify_step = Step(context_tokens, tokens_per_seq, keeps_states=True)
    tokens = bench.tokens(batch, tokens_per_seq)
    first_drafts, first_proposal = propose(
        bench, model.logits(bench.maker.normal(batch, num_drafts, bench.hidden_size))
    )

    def work() -> Tensor:
        hidden = model.forward(tokens, caches, verify_step)
        target = probabilities(model.logits(hidden), TEMPERATURE)
        emitted, accepted = bench.verifier(target, first_drafts, first_proposal)
        hidden = model.draft(hidden, emitted, mtp_cache, Step(context_tokens, tokens_per_seq))
        last = hidden.gather(1, accepted[:, None, None].expand(-1, 1, hidden.shape[2]))
        drafts: list[Tensor] = []
        for index in range(num_drafts):
            if index > 0:
                last = model.draft(last, drafts[-1], mtp_cache, Step(context_tokens + tokens_per_seq + index, 1))
            drafts.append(propose(bench, model.logits(last))[0])
        return torch.cat(drafts, dim=1)

    return work
