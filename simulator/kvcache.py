"""KV cache of a replica: what its running sequences hold, in whole blocks, and whether more fits.

A sequence holds ceil((context + lookahead) / block) blocks; lookahead are the k draft tokens whose KV a step writes
before it knows which of them stay (vLLM v1/core/kv_cache_manager.py, `allocate_slots`). Step by step the blocks are
counted sequence by sequence. The jump knows contexts as evenly growing numbers only: it adds to each what a last block
leaves empty on average, (block - 1) / 2 tokens. Does not know who comes in, or who gives way.
"""

import numpy as np

from simulator.compiled import called, private
from simulator.rollout_state import I64, PER_STEP, Record, Records, RolloutState


@private
def whole_blocks(limits: Record, context_tokens: int) -> float:
    """Return the KV tokens that one sequence takes to be admitted.

    When jumping no fewer than it is taken to hold afterwards: prompts that fill their blocks would overflow the cache.
    """
    tokens = context_tokens + limits.tokens_per_seq - 1
    whole = np.ceil(tokens / limits.block_tokens) * limits.block_tokens
    if limits.mode == PER_STEP:
        return whole
    return max(whole, tokens + 0.5 * (limits.block_tokens - 1))


@private
def held_tokens(limits: Record, replica: Record) -> float:
    """Return the KV tokens that running sequences hold, last blocks half empty, shared prompts once."""
    each = limits.tokens_per_seq - 1 + 0.5 * (limits.block_tokens - 1)
    return replica.context_tokens - replica.shared_tokens + each * replica.num_running


@private
def kv_fits(state: RolloutState, r: int, more_tokens: float, most_tokens: float) -> bool:
    """Return whether running sequences and `more_tokens` together take at most `most_tokens`."""
    limits, replica = state.limits[0], state.replicas[r]
    held = held_tokens(limits, replica) + more_tokens
    if limits.mode != PER_STEP or held + _half_blocks(limits, replica) <= most_tokens:
        return held <= most_tokens
    empty = _empty_tokens(limits, replica, state.slots, state.running, state.left, r)
    return held - _half_blocks(limits, replica) + empty <= most_tokens


@private
def _half_blocks(limits: Record, replica: Record) -> float:
    return 0.5 * (limits.block_tokens - 1) * replica.num_running


@called
def _empty_tokens(limits: Record, replica: Record, slots: Records, running: I64, left: I64, r: int) -> int:
    """Return the tokens that the last blocks of running sequences leave empty (per step only)."""
    empty = 0
    for i in range(replica.num_running):
        record = slots[r * limits.max_live + running[r, i]]
        context = record.context_tokens + record.tokens_left - left[r, i]
        empty += -(context + limits.tokens_per_seq - 1) % limits.block_tokens
    return empty
