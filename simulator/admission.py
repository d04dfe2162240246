"""Admission: which sequences join a replica's batch, and the prefill that they cost. Does not know when to ask."""

import numpy as np

from simulator.compiled import private
from simulator.kvcache import held_tokens, kv_fits, whole_blocks
from simulator.prefix_cache import held_prompt, hold_prompt, share_prompt
from simulator.rng import mix, sequence_key, uniform
from simulator.rollout_state import JOINING, QUEUED, RUNNING, Record, RolloutState
from simulator.router import next_fresh, take_fresh
from simulator.step_law import StepLaw
from simulator.step_table import StepTable, prefill_seconds
from simulator.stretch import begin_stretch

_CLASS_DRAW = 1 << 50
_KV_WATERMARK = 0.01
"""Share of the KV cache that admission leaves free, against immediate preemption (vLLM's block-manager default)."""


@private
def fill_batch(state: RolloutState, table: StepTable, law: StepLaw, r: int) -> None:
    """Take sequences, waiting ones first, then fresh ones, while there is room; prefill them."""
    limits, replica = state.limits[0], state.replicas[r]
    if replica.join_step >= 0 or replica.is_down == 1:
        return  # one chunked prefill at a time, first come first served
    while limits.max_live > limits.max_running and _has_fresh(state, r):
        queue_fresh(state, r)  # first come, first served: whoever comes back from a tool later waits behind it
    most_tokens = (1.0 - _KV_WATERMARK) * limits.kv_tokens
    tokens, pairs, taken = 0.0, 0.0, 0.0
    count = 0
    while replica.num_running + count < limits.max_running:
        empty = replica.num_running + count == 0
        if replica.queue_len == 0 and not _has_fresh(state, r):
            break
        needed = _needed_tokens(state, r)
        if not empty and not kv_fits(state, r, taken + needed, most_tokens):
            break
        if replica.queue_len > 0:
            slot = state.queue[r, replica.queue_head]
            replica.queue_head = (replica.queue_head + 1) % limits.max_live
            replica.queue_len -= 1
        else:
            slot = start(state, r)
        record = state.slots[r * limits.max_live + slot]
        taken += needed
        _use_prompt(state, r, record)
        tokens += record.fresh_tokens
        # A new token attends to the cached ones before it and, on average, to half of the new ones.
        pairs += record.fresh_tokens * (record.context_tokens - 0.5 * record.fresh_tokens)
        record.status = JOINING
        state.cohort[r, count] = slot
        count += 1
    if count == 0:
        return
    if replica.idle == 1:
        wake(replica, replica.time_s)
    replica.num_joining = count
    replica.prefill_tokens += tokens
    attention_s = pairs * table.attention_s_per_token2
    if limits.chunk_tokens > 0 and replica.num_running > 0:
        decode_tokens = replica.num_running * limits.tokens_per_seq
        chunk = max(limits.chunk_tokens - decode_tokens, 16)
        steps = max(int(np.ceil(tokens / chunk)), 1)  # a prompt may be empty
        per_step = tokens / steps
        chunk_s = prefill_seconds(table, per_step + decode_tokens) - prefill_seconds(table, decode_tokens)
        replica.chunk_s = max(chunk_s, 0.0) + attention_s / steps
        replica.prefill_s += replica.chunk_s * steps
        replica.join_step = replica.step + steps
        return
    seconds = (prefill_seconds(table, tokens) + attention_s) * replica.slowness
    replica.prefill_s += seconds
    replica.busy_s += seconds
    replica.time_s += seconds
    join(state, law, r)


@private
def _use_prompt(state: RolloutState, r: int, record: Record) -> None:
    """Hold the group's prompt; what of it is cached need not be prefilled by a sequence without KV of its own."""
    replica = state.replicas[r]
    found = hold_prompt(state, r, record)
    if found > 0 and record.fresh_tokens == record.context_tokens:
        record.fresh_tokens -= found
        replica.prefix_hit_tokens += found
        replica.recomputed_tokens -= min(found, record.lost_tokens)
    record.lost_tokens = 0


@private
def _needed_tokens(state: RolloutState, r: int) -> float:
    """Return the KV tokens that the next sequence, waiting or else fresh, takes."""
    limits, replica = state.limits[0], state.replicas[r]
    if replica.queue_len > 0:
        record = state.slots[r * limits.max_live + state.queue[r, replica.queue_head]]
        sequence, context = record.sequence, record.context_tokens
    else:
        sequence = next_fresh(state, r)
        context = np.int64(state.input_tokens[state.first_turn[sequence]])
    return whole_blocks(limits, context) - held_prompt(state, r, sequence)


@private
def has_room(state: RolloutState, r: int) -> bool:
    """Return whether a waiting sequence could start now, e.g. because one just admitted has ended with its prefill.

    Asked by the jump, and by an idle replica.
    """
    limits, replica = state.limits[0], state.replicas[r]
    if replica.join_step >= 0 or replica.num_running >= limits.max_running or replica.is_down == 1:
        return False
    if replica.queue_len == 0 and not _has_fresh(state, r):
        return False
    most_tokens = (1.0 - _KV_WATERMARK) * limits.kv_tokens
    return replica.num_running == 0 or held_tokens(limits, replica) + _needed_tokens(state, r) <= most_tokens


@private
def _has_fresh(state: RolloutState, r: int) -> bool:
    """Return whether replica r may take a sequence that has not begun."""
    return next_fresh(state, r) >= 0


@private
def queue_fresh(state: RolloutState, r: int) -> None:
    """Send the next fresh sequence to replica r, where it waits behind those that are there."""
    limits = state.limits[0]
    slot = start(state, r)
    state.slots[r * limits.max_live + slot].status = QUEUED
    queue_back(state, r, slot)


@private
def start(state: RolloutState, r: int) -> int:
    """Give the next fresh sequence a slot; return it."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    sequence = take_fresh(state, r)
    counters.started += 1
    for turn in range(state.first_turn[sequence], state.first_turn[sequence + 1]):
        counters.started_tokens += state.output_tokens[turn]
    replica.num_free -= 1
    slot = state.free[r, replica.num_free]
    record = state.slots[r * limits.max_live + slot]
    record.sequence = sequence
    record.key = sequence_key(state.stream[0], sequence)
    record.turn = state.first_turn[sequence]
    record.draws = 0
    record.context_tokens = state.input_tokens[record.turn]
    record.fresh_tokens = record.context_tokens
    record.tokens_left = state.output_tokens[record.turn]
    record.started_s = replica.time_s
    record.version, record.restarts = counters.version, 0
    record.lost_tokens = 0
    record.cls = 0
    if limits.num_classes > 1:
        record.cls = int(uniform(mix(record.key), _CLASS_DRAW) * limits.num_classes)
    replica.num_live += 1
    if counters.num_live == 0:
        counters.live_since_s = replica.time_s
    counters.num_live += 1
    return slot


@private
def join(state: RolloutState, law: StepLaw, r: int) -> None:
    """The prefill is done: its sequences have emitted one token each and start to decode."""
    limits, replica = state.limits[0], state.replicas[r]
    count = replica.num_joining
    replica.num_joining = 0
    replica.join_step = -1
    for i in range(count):
        slot = state.cohort[r, i]
        record = state.slots[r * limits.max_live + slot]
        record.status = RUNNING
        record.order = replica.admissions
        replica.admissions += 1
        record.tokens_left -= 1
        replica.first_tokens += 1
        replica.context_tokens += record.context_tokens
        share_prompt(state, r, record)
        begin_stretch(state, law, r, slot)


@private
def enqueue(state: RolloutState, r: int, slot: int) -> None:
    """A tool has answered: the next turn waits for a place."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.context_tokens += record.fresh_tokens
    if not limits.keep_prefix or record.flush != replica.flushes:
        record.fresh_tokens = record.context_tokens
    record.status = QUEUED
    queue_back(state, r, slot)
    if replica.is_down == 1:
        counters.num_orphans += 1


@private
def queue_back(state: RolloutState, r: int, slot: int) -> None:
    """Let a sequence wait behind all others."""
    limits, replica = state.limits[0], state.replicas[r]
    state.queue[r, (replica.queue_head + replica.queue_len) % limits.max_live] = slot
    replica.queue_len += 1


@private
def requeue_front(state: RolloutState, r: int, slot: int, recomputed: bool) -> None:
    """An interrupted sequence waits, before all others, to be prefilled with everything it had."""
    limits, replica = state.limits[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.fresh_tokens = record.context_tokens
    record.status = QUEUED
    if recomputed:
        record.lost_tokens = record.fresh_tokens
        replica.recomputed_tokens += record.fresh_tokens
    replica.queue_head = (replica.queue_head - 1) % limits.max_live
    state.queue[r, replica.queue_head] = slot
    replica.queue_len += 1


@private
def wake(replica: Record, time_s: float) -> None:
    """End an idle time, and account for it."""
    idle_s = max(time_s - replica.idle_since_s, 0.0)
    if replica.is_down == 1:
        replica.down_s += idle_s
    elif replica.num_live > 0:
        replica.tool_s += idle_s
    else:
        replica.starved_s += idle_s
    replica.idle = 0
    replica.time_s = max(replica.time_s, time_s)
