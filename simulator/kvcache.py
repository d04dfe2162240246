"""KV cache of a replica: what its running sequences hold, in whole blocks, and whether more fits.

A sequence holds ceil((context + lookahead) / block) blocks; lookahead are the k draft tokens whose KV a step writes
before it knows which of them stay (vLLM v1/core/kv_cache_manager.py, `allocate_slots`). Step by step the blocks are
counted sequence by sequence. The jump knows contexts as evenly growing numbers only: it adds to each what a last block
leaves empty on average, (block - 1) / 2 tokens. Does not know who comes in, or who gives way.
"""

import numpy as np

from simulator.compiled import private
from simulator.rollout_state import PER_STEP, Record, RolloutState


@private
def whole_blocks(limits: Record, context_tokens: int) -> float:
    """Return the KV tokens that one sequence takes."""
    tokens = context_tokens + limits.tokens_per_seq - 1
    return np.ceil(tokens / limits.block_tokens) * limits.block_tokens


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
    if limits.mode != PER_STEP:
        return held <= most_tokens
    half_blocks = 0.5 * (limits.block_tokens - 1) * replica.num_running
    if held + half_blocks <= most_tokens:
        return True  # even if every last block were empty but for one token: nothing to count
    return held - half_blocks + _empty_tokens(state, r) <= most_tokens


@private
def _empty_tokens(state: RolloutState, r: int) -> int:
    """Return the tokens that the last blocks of running sequences leave empty (per step only)."""
    limits = state.limits[0]
    empty = 0
    for i in range(state.replicas[r].num_running):
        record = state.slots[r * limits.max_live + state.running[r, i]]
        context = record.context_tokens + record.tokens_left - state.left[r, i]
        empty += -(context + limits.tokens_per_seq - 1) % limits.block_tokens
    return empty
