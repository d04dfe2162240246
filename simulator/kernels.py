"""Kernels: the rollout side advances from one membership change of a batch to the next.

Two ways, same rules. The per-step reference makes every decode step and draws every sequence's accepted tokens. The
jump draws at admission how many steps a sequence needs (`step_law`), keeps a heap of finishing steps, and integrates
the step latency over the growing context between two changes (`step_table`). Tests hold them equal in law.

Replicas meet only in the queue of fresh sequences, so events are processed in global time order through a winner tree.
Two things are not the same to the last step, both only where the KV cache is full: the jump takes the context between
two changes as growing evenly, and looks for a fresh sequence that fits only when its own replica changes.
Does not know trainers, buffers or why it is interrupted.
"""

import numpy as np

from simulator.compiled import kernel, private
from simulator.rng import mix, sequence_key, uniform
from simulator.rollout_state import FREE, JOINING, JUMP, PER_STEP, QUEUED, RUNNING, TOOL, Record, RolloutState
from simulator.step_law import PARTIAL_DRAWS, StepLaw, draw_partial_tokens, draw_steps
from simulator.step_table import (
    StepTable,
    find_segment,
    prefill_seconds,
    span_seconds,
    step_seconds,
    steps_within,
)

_SLOT_BITS = 20
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_ALL = 1 << 40
_CLASS_DRAW = 1 << 50
_KV_WATERMARK = 0.01
"""Share of the KV cache that admission leaves free, against immediate preemption (vLLM's block-manager default)."""


@kernel
def advance(state: RolloutState, table: StepTable, law: StepLaw, until_s: float, wanted_groups: int) -> None:
    """Process events up to `until_s`, or until `wanted_groups` groups are ready, or nothing is left to do."""
    counters = state.counters[0]
    while counters.num_ready < wanted_groups:
        r = state.tree[1]
        next_s = state.next_s[r]
        if next_s > until_s or next_s == np.inf:
            return
        _event(state, table, law, r, True)


@kernel
def submit(state: RolloutState, table: StepTable, law: StepLaw, num_sequences: int, now_s: float) -> None:
    """Let sequences up to number `num_sequences` start; replicas with room take them, least loaded first."""
    counters, limits = state.counters[0], state.limits[0]
    counters.submitted = min(max(num_sequences, counters.submitted), state.first_turn.shape[0] - 1)
    counters.closed = 0
    waiting = counters.submitted - counters.next_sequence
    if waiting <= 0:
        return
    quota = state.quota
    level = limits.max_live
    for r in range(limits.num_replicas):
        quota[r] = 0
        level = min(level, state.replicas[r].num_live)
    while waiting > 0 and level < limits.max_live:
        for r in range(limits.num_replicas):
            if waiting > 0 and state.replicas[r].num_live + quota[r] == level:
                quota[r] += 1
                waiting -= 1
        level += 1
    for r in range(limits.num_replicas):
        if quota[r] > 0:
            _stop_at(state, table, law, r, now_s)
            _admit(state, table, law, r, quota[r])
            _plan(state, table, law, r)
    for r in range(limits.num_replicas):  # what did not fit into one replica's KV cache goes wherever it does
        if counters.next_sequence < counters.submitted and state.replicas[r].num_free > 0:
            _stop_at(state, table, law, r, now_s)
            _admit(state, table, law, r, _ALL)
            _plan(state, table, law, r)


@kernel
def weight_sync(
    state: RolloutState,
    table: StepTable,
    old_law: StepLaw,
    law: StepLaw,
    now_s: float,
    until_s: float,
    abort: bool,
    redraw: bool,
) -> None:
    """Stop every replica at its first step boundary at or after `now_s`, and let it go on at `until_s`.

    abort: running sequences lose their KV cache and are prefilled again with all they had. Otherwise they go on;
    redraw: `law` is not `old_law`, so the steps they still need are drawn anew (the process has no memory).
    """
    for r in range(state.limits[0].num_replicas):
        _stop_at(state, table, old_law, r, now_s)
        replica = state.replicas[r]
        replica.sync_s += max(until_s - replica.time_s, 0.0)
        replica.time_s = max(replica.time_s, until_s)
        if replica.idle == 1:
            replica.idle_since_s = replica.time_s
        if abort:
            _abort_all(state, old_law, r)
        elif redraw:
            _redraw_all(state, old_law, law, r)
        _admit(state, table, law, r, _ALL)
        _plan(state, table, law, r)


@kernel
def close(state: RolloutState) -> None:
    """Start no fresh sequence until the next `submit`."""
    state.counters[0].closed = 1


@kernel
def busy_seconds(state: RolloutState, now_s: float) -> float:
    """Return replica-seconds spent generating up to now; a span in progress counts as far as it has come."""
    total = 0.0
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        total += replica.busy_s - max(replica.time_s - now_s, 0.0)
        if replica.idle == 0:
            total += max(now_s - replica.time_s, 0.0)
    return total


@kernel
def idle_seconds(state: RolloutState, now_s: float) -> tuple[float, float]:
    """Return replica-seconds spent with nothing admitted, and with every live sequence at a tool, up to now."""
    starved, tool = 0.0, 0.0
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        starved += replica.starved_s
        tool += replica.tool_s
        if replica.idle == 1:
            if replica.num_live > 0:
                tool += max(now_s - replica.idle_since_s, 0.0)
            else:
                starved += max(now_s - replica.idle_since_s, 0.0)
    return starved, tool


# ---------------------------------------------------------------- one event of one replica


@private
def _event(state: RolloutState, table: StepTable, law: StepLaw, r: int, admit: bool) -> None:
    """Bring replica r to its next event and let happen what happens there."""
    replica = state.replicas[r]
    if replica.idle == 1:
        _wake(replica, state.next_s[r])
    elif state.limits[0].mode == PER_STEP:
        _make_one_step(state, law, r)
    else:
        _jump(replica, replica.next_step - replica.step, state.next_s[r])
        while replica.num_running > 0 and state.running[r, 0] >> _SLOT_BITS <= replica.step:
            slot = _heap_pop(state.running[r], replica.num_running)
            replica.num_running -= 1
            _end_stretch(state, r, slot)
    if replica.join_step >= 0 and replica.num_running == 0:
        # Nothing is left to mix the prefill with.
        seconds = (replica.join_step - replica.step) * replica.chunk_s * replica.slowness
        replica.busy_s += seconds
        replica.time_s += seconds
        _join(state, law, r)
    elif replica.join_step >= 0 and replica.join_step <= replica.step:
        _join(state, law, r)
    while replica.num_returns > 0 and state.returns_s[r, 0] <= replica.time_s:
        slot = _return_pop(state, r)
        _enqueue(state, r, slot)
    while replica.context_tokens > state.limits[0].kv_tokens and replica.num_running > 1:
        _preempt_latest(state, law, r)
    if admit:
        _admit(state, table, law, r, _ALL)
    _plan(state, table, law, r)


@private
def _jump(replica: Record, steps: int, time_s: float) -> None:
    """Move the replica `steps` steps on, to `time_s`."""
    replica.step += steps
    replica.context_tokens += replica.growth * steps
    replica.seq_steps += replica.num_running * steps
    replica.busy_s += time_s - replica.time_s
    replica.time_s = time_s


@private
def _make_one_step(state: RolloutState, law: StepLaw, r: int) -> None:
    """The reference: one step in which every running sequence draws its accepted tokens."""
    replica = state.replicas[r]
    replica.busy_s += state.next_s[r] - replica.time_s
    replica.time_s = state.next_s[r]
    replica.step += 1
    replica.seq_steps += replica.num_running
    emitted, least = _emit(state, law, r, replica.num_running, replica.step)
    replica.context_tokens += emitted
    if least > 0:
        return
    while replica.num_running > 0:
        first = -1  # by slot, as the jump's heap does: who is ready first decides what the trainer takes
        for i in range(replica.num_running):
            if state.left[r, i] <= 0 and (first < 0 or state.running[r, i] < state.running[r, first]):
                first = i
        if first < 0:
            return
        slot = state.running[r, first]
        replica.context_tokens += state.left[r, first]  # tokens beyond the response's end
        replica.num_running -= 1
        _move_last_to(state, r, first)
        _end_stretch(state, r, slot)


@private
def _emit(state: RolloutState, law: StepLaw, r: int, count: int, step: int) -> tuple[int, int]:
    """Let every running sequence emit; return (tokens emitted, fewest tokens that any sequence has left)."""
    left, keys = state.left[r], state.stretch_key[r]
    accepted = law.num_draft_tokens
    num_classes = state.limits[0].num_classes
    base = state.replicas[r].level * num_classes
    emitted, least = 0, 1 << 40
    for i in range(count):
        tokens = 1
        if accepted > 0:
            u = uniform(keys[i], step)
            cls = base
            if num_classes > 1:
                cls += state.slots[r * state.limits[0].max_live + state.running[r, i]].cls
            for j in range(accepted):
                tokens += u >= law.emit_cdf[cls, j]
        left[i] -= tokens
        emitted += tokens
        least = min(least, left[i])
    return emitted, least


@private
def _move_last_to(state: RolloutState, r: int, place: int) -> None:
    """Close the gap that a sequence leaves in the list of running ones (`num_running` already counts without it)."""
    last = state.replicas[r].num_running
    state.running[r, place] = state.running[r, last]
    state.left[r, place] = state.left[r, last]
    state.stretch_key[r, place] = state.stretch_key[r, last]


@private
def _end_stretch(state: RolloutState, r: int, slot: int) -> None:
    """A sequence has emitted the last token of its turn."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.context_tokens += record.tokens_left
    replica.stretch_tokens += record.tokens_left
    replica.stretch_steps += replica.step - record.start_step
    replica.growth -= record.growth
    replica.context_tokens -= record.context_tokens
    if replica.num_running == 0:
        replica.context_tokens, replica.growth = 0.0, 0.0
    record.turn += 1
    if record.turn < state.first_turn[record.sequence + 1]:
        record.status = TOOL
        record.flush = replica.flushes
        _return_push(state, r, slot, replica.time_s + state.delay_s[record.turn])
        return
    record.status = FREE
    state.free[r, replica.num_free] = slot
    replica.num_free += 1
    replica.num_live -= 1
    counters.num_live -= 1
    if counters.num_live == 0:
        counters.live_s += replica.time_s - counters.live_since_s
    counters.finished += 1
    counters.trajectory_s += replica.time_s - record.started_s
    if limits.record_finish:
        state.finish_s[record.sequence] = replica.time_s
    group = state.group_of[record.sequence]
    state.group_left[group] -= 1
    if state.group_left[group] == 0:
        state.ready_group[counters.num_ready] = group
        state.ready_s[counters.num_ready] = replica.time_s
        counters.num_ready += 1


@private
def _plan(state: RolloutState, table: StepTable, law: StepLaw, r: int) -> None:
    """Work out replica r's next event: a finish, a prefill's end, a full KV cache, or a tool's answer."""
    limits, replica = state.limits[0], state.replicas[r]
    answer_s = state.returns_s[r, 0] if replica.num_returns > 0 else np.inf
    if replica.num_running == 0 and replica.join_step < 0:
        if replica.idle == 0:
            replica.idle, replica.idle_since_s = 1, replica.time_s
        _set_next(state, r, replica.time_s if _has_room(state, r) else max(answer_s, replica.time_s))
        return
    replica.max_batch = max(replica.max_batch, replica.num_running)
    if _level(law, replica.num_running) != replica.level:
        _redraw_all(state, law, law, r)
    context = replica.context_tokens / replica.num_running
    replica.segment = find_segment(table.knots, context, replica.segment)
    if limits.mode == PER_STEP:
        replica.next_step = replica.step + 1
        step_s = step_seconds(
            table, replica.level * table.rows_per_level + replica.num_running, context, replica.segment
        )
        step_s += replica.chunk_s if replica.join_step >= 0 else 0.0
        _set_next(state, r, replica.time_s + step_s * replica.slowness)
        return
    last = state.running[r, 0] >> _SLOT_BITS
    if _has_room(state, r):
        last = min(last, replica.step + 1)
    extra_s = 0.0
    if replica.join_step >= 0:
        last = min(last, replica.join_step)
        extra_s = replica.chunk_s
    room = limits.kv_tokens - replica.context_tokens
    if replica.growth * (last - replica.step) > room and replica.num_running > 1:
        last = min(last, replica.step + int(max(room, 0.0) / replica.growth) + 1)
    steps = last - replica.step
    seconds = _span(table, replica, steps, extra_s)
    if answer_s < replica.time_s + seconds and steps > 1:
        steps = _steps_to(table, replica, extra_s, answer_s, steps)
        seconds = _span(table, replica, steps, extra_s)
    replica.next_step = replica.step + steps
    _set_next(state, r, replica.time_s + seconds)


@private
def _level(law: StepLaw, batch: int) -> int:
    """Return which number of draft tokens the engine chooses at this live batch."""
    return law.level_of_batch[min(batch, law.level_of_batch.shape[0] - 1)]


@private
def _span(table: StepTable, replica: Record, steps: int, extra_s: float) -> float:
    if steps == 0:
        return 0.0
    seconds = span_seconds(
        table, replica.num_running, replica.context_tokens, replica.growth, steps, replica.segment, replica.level
    )
    return (seconds + steps * extra_s) * replica.slowness


@private
def _steps_to(table: StepTable, replica: Record, extra_s: float, time_s: float, most: int) -> int:
    """Return the steps to the first boundary at or after `time_s`."""
    return steps_within(
        table,
        replica.num_running,
        replica.context_tokens,
        replica.growth,
        extra_s,
        (time_s - replica.time_s) / replica.slowness,
        most,
        replica.level,
    )


@private
def _stop_at(state: RolloutState, table: StepTable, law: StepLaw, r: int, now_s: float) -> None:
    """Bring replica r to its first step boundary at or after `now_s`, idle ones to `now_s`; admit nothing there."""
    replica = state.replicas[r]
    if replica.idle == 1:
        if now_s > replica.time_s:
            _wake(replica, now_s)
            replica.idle, replica.idle_since_s = 1, now_s
        return
    if replica.time_s >= now_s:
        return
    if state.limits[0].mode == PER_STEP:
        _event(state, table, law, r, False)
        return
    extra_s = replica.chunk_s if replica.join_step >= 0 else 0.0
    most = replica.next_step - replica.step
    steps = _steps_to(table, replica, extra_s, now_s, most) if most > 0 else 0
    if steps >= most:
        _event(state, table, law, r, False)
    else:
        _jump(replica, steps, replica.time_s + _span(table, replica, steps, extra_s))


@private
def _wake(replica: Record, time_s: float) -> None:
    """End an idle time, and account for it."""
    idle_s = max(time_s - replica.idle_since_s, 0.0)
    if replica.num_live > 0:
        replica.tool_s += idle_s
    else:
        replica.starved_s += idle_s
    replica.idle = 0
    replica.time_s = max(replica.time_s, time_s)


# ---------------------------------------------------------------- admission and prefill


@private
def _admit(state: RolloutState, table: StepTable, law: StepLaw, r: int, quota: int) -> None:
    """Take sequences, waiting ones first, then at most `quota` fresh ones, while there is room; prefill them."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    if replica.join_step >= 0:
        return  # one chunked prefill at a time, first come first served
    most_context = (1.0 - _KV_WATERMARK) * limits.kv_tokens
    tokens, pairs, context = 0.0, 0.0, replica.context_tokens
    count = 0
    while replica.num_running + count < limits.max_running:
        empty = replica.num_running + count == 0
        if replica.queue_len > 0:
            slot = state.queue[r, replica.queue_head]
            record = state.slots[r * limits.max_live + slot]
            if context + record.context_tokens > most_context and not empty:
                break
            replica.queue_head = (replica.queue_head + 1) % limits.max_live
            replica.queue_len -= 1
        else:
            if quota <= 0 or counters.closed or counters.next_sequence >= counters.submitted or replica.num_free == 0:
                break
            prompt = state.input_tokens[state.first_turn[counters.next_sequence]]
            if context + prompt > most_context and not empty:
                break
            slot = _start(state, r, counters.next_sequence)
            record = state.slots[r * limits.max_live + slot]
            counters.next_sequence += 1
            quota -= 1
        context += record.context_tokens
        tokens += record.fresh_tokens
        # A new token attends to the cached ones before it and, on average, to half of the new ones.
        pairs += record.fresh_tokens * (record.context_tokens - 0.5 * record.fresh_tokens)
        record.status = JOINING
        state.cohort[r, count] = slot
        count += 1
    if count == 0:
        return
    if replica.idle == 1:
        _wake(replica, replica.time_s)
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
    _join(state, law, r)


@private
def _has_room(state: RolloutState, r: int) -> bool:
    """Return whether a waiting sequence could start now, e.g. because one just admitted has ended with its prefill."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    if replica.join_step >= 0 or replica.num_running >= limits.max_running:
        return False
    if replica.queue_len > 0:
        context = state.slots[r * limits.max_live + state.queue[r, replica.queue_head]].context_tokens
    elif counters.closed or counters.next_sequence >= counters.submitted or replica.num_free == 0:
        return False
    else:
        context = np.int64(state.input_tokens[state.first_turn[counters.next_sequence]])
    most_context = (1.0 - _KV_WATERMARK) * limits.kv_tokens
    return replica.num_running == 0 or replica.context_tokens + context <= most_context


@private
def _start(state: RolloutState, r: int, sequence: int) -> int:
    """Give a fresh sequence a slot; return it."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
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
    record.cls = 0
    if limits.num_classes > 1:
        record.cls = int(uniform(mix(record.key), _CLASS_DRAW) * limits.num_classes)
    replica.num_live += 1
    if counters.num_live == 0:
        counters.live_since_s = replica.time_s
    counters.num_live += 1
    group = state.group_of[sequence]
    if state.group_version[group] < 0:
        state.group_version[group] = counters.version
    return slot


@private
def _join(state: RolloutState, law: StepLaw, r: int) -> None:
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
        _begin_stretch(state, law, r, slot)


@private
def _begin_stretch(state: RolloutState, law: StepLaw, r: int, slot: int) -> None:
    """Put a sequence that has `tokens_left` tokens to go among the running ones."""
    limits, replica = state.limits[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.start_step = replica.step
    record.num_steps, record.growth = 0, 0.0
    if record.tokens_left == 0:
        _end_stretch(state, r, slot)
        return
    if limits.mode == PER_STEP:
        state.running[r, replica.num_running] = slot
        state.left[r, replica.num_running] = record.tokens_left
        state.stretch_key[r, replica.num_running] = mix(record.key + np.uint64(record.draws))
        record.draws += 1
    else:
        cls = replica.level * limits.num_classes + record.cls
        record.num_steps, record.draws = draw_steps(law, cls, record.key, record.draws, record.tokens_left)
        record.growth = record.tokens_left / record.num_steps
        replica.growth += record.growth
        _heap_push(state.running[r], replica.num_running, (replica.step + record.num_steps) << _SLOT_BITS | slot)
    replica.num_running += 1


# ---------------------------------------------------------------- interruptions


@private
def _enqueue(state: RolloutState, r: int, slot: int) -> None:
    """A tool has answered: the next turn waits for a place."""
    limits, replica = state.limits[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    observation = state.input_tokens[record.turn]
    record.context_tokens += observation
    cached = limits.keep_prefix and record.flush == replica.flushes
    record.fresh_tokens = observation if cached else record.context_tokens
    record.tokens_left = state.output_tokens[record.turn]
    record.status = QUEUED
    state.queue[r, (replica.queue_head + replica.queue_len) % limits.max_live] = slot
    replica.queue_len += 1


@private
def _requeue_front(state: RolloutState, r: int, slot: int, recomputed: bool) -> None:
    """An interrupted sequence waits, before all others, to be prefilled with everything it had."""
    limits, replica = state.limits[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.fresh_tokens = record.context_tokens
    record.status = QUEUED
    if recomputed:
        replica.recomputed_tokens += record.fresh_tokens
    replica.queue_head = (replica.queue_head - 1) % limits.max_live
    state.queue[r, replica.queue_head] = slot
    replica.queue_len += 1


@private
def _cut_stretch(state: RolloutState, law: StepLaw, r: int, place: int) -> int:
    """Settle a stretch that is interrupted now: what it has emitted, what it still has to; return its slot."""
    limits, replica = state.limits[0], state.replicas[r]
    slot = state.running[r, place] & _SLOT_MASK
    record = state.slots[r * limits.max_live + slot]
    steps_done = replica.step - record.start_step
    if limits.mode == PER_STEP:
        done = record.tokens_left - state.left[r, place]
    else:
        cls = replica.level * limits.num_classes + record.cls
        done = draw_partial_tokens(law, cls, record.key, record.draws, record.tokens_left, record.num_steps, steps_done)
        record.draws += PARTIAL_DRAWS
    record.tokens_left -= done
    record.context_tokens += done
    replica.stretch_tokens += done
    replica.stretch_steps += steps_done
    return slot


@private
def _abort_all(state: RolloutState, law: StepLaw, r: int) -> None:
    """Empty the KV cache: whatever was running, joining, or cached between turns is prefilled again."""
    limits, replica = state.limits[0], state.replicas[r]
    replica.flushes += 1
    for i in range(replica.queue_len):
        waiting = state.slots[r * limits.max_live + state.queue[r, (replica.queue_head + i) % limits.max_live]]
        waiting.fresh_tokens = waiting.context_tokens
    for i in range(replica.num_joining - 1, -1, -1):
        _requeue_front(state, r, state.cohort[r, i], False)
    heap, count = state.running[r], replica.num_running
    for i in range(count):
        slot = _cut_stretch(state, law, r, i)
        heap[i] = -state.slots[r * limits.max_live + slot].order << _SLOT_BITS | slot
    for i in range(count // 2 - 1, -1, -1):
        _heap_sift_down(heap, i, count)
    for i in range(count, 0, -1):  # the latest first, so that the earliest comes to the front
        _requeue_front(state, r, _heap_pop(heap, i), True)
    replica.aborts += replica.num_running + replica.num_joining
    replica.num_running, replica.num_joining, replica.join_step = 0, 0, -1
    replica.context_tokens, replica.growth = 0.0, 0.0


@private
def _redraw_all(state: RolloutState, old_law: StepLaw, law: StepLaw, r: int) -> None:
    """Draw anew, from a new law or at another number of draft tokens, the steps that running sequences still need."""
    limits, replica = state.limits[0], state.replicas[r]
    count = replica.num_running
    old_level, level = replica.level, _level(law, count)
    if limits.mode == PER_STEP:
        replica.level = level
        return
    replica.growth, replica.context_tokens = 0.0, 0.0
    for i in range(count):
        replica.level = old_level
        slot = _cut_stretch(state, old_law, r, i)
        replica.level = level
        record = state.slots[r * limits.max_live + slot]
        record.start_step = replica.step
        cls = level * limits.num_classes + record.cls
        record.num_steps, record.draws = draw_steps(law, cls, record.key, record.draws, record.tokens_left)
        record.growth = record.tokens_left / record.num_steps
        replica.growth += record.growth
        replica.context_tokens += record.context_tokens
        state.running[r, i] = (replica.step + record.num_steps) << _SLOT_BITS | slot
    replica.level = level
    for i in range(count // 2 - 1, -1, -1):
        _heap_sift_down(state.running[r], i, count)


@private
def _preempt_latest(state: RolloutState, law: StepLaw, r: int) -> None:
    """The KV cache is full: the latest sequence gives way and is prefilled again later (vLLM's recompute)."""
    limits, replica = state.limits[0], state.replicas[r]
    latest, place = -1, 0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & _SLOT_MASK)]
        if record.order > latest:
            latest, place = record.order, i
    slot = _cut_stretch(state, law, r, place)
    replica.num_running -= 1
    _move_last_to(state, r, place)
    if limits.mode == JUMP and place < replica.num_running:
        _heap_sift_down(state.running[r], place, replica.num_running)
        _heap_sift_up(state.running[r], place)
    total, growth = 0.0, 0.0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & _SLOT_MASK)]
        total += record.context_tokens
        if limits.mode == PER_STEP:
            total += record.tokens_left - state.left[r, i]
        else:
            total += record.growth * (replica.step - record.start_step)
            growth += record.growth
    replica.context_tokens, replica.growth = total, growth
    replica.preemptions += 1
    _requeue_front(state, r, slot, True)


# ---------------------------------------------------------------- heaps and the winner tree


@private
def _set_next(state: RolloutState, r: int, time_s: float) -> None:
    """Set replica r's next event and replay its matches in the winner tree."""
    next_s, tree = state.next_s, state.tree
    next_s[r] = time_s
    node = (next_s.shape[0] + r) >> 1
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = left if next_s[left] <= next_s[right] else right
        node >>= 1


@private
def _heap_sift_up(heap: np.ndarray, i: int) -> None:
    key = heap[i]
    while i > 0:
        parent = (i - 1) >> 1
        if heap[parent] <= key:
            break
        heap[i] = heap[parent]
        i = parent
    heap[i] = key


@private
def _heap_sift_down(heap: np.ndarray, i: int, size: int) -> None:
    key = heap[i]
    child = 2 * i + 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
        child = 2 * i + 1
    heap[i] = key


@private
def _heap_push(heap: np.ndarray, size: int, key: int) -> None:
    heap[size] = key
    _heap_sift_up(heap, size)


@private
def _heap_pop(heap: np.ndarray, size: int) -> int:
    """Remove the smallest key; return its slot."""
    top = heap[0]
    heap[0] = heap[size - 1]
    if size > 1:
        _heap_sift_down(heap, 0, size - 1)
    return int(top & _SLOT_MASK)


@private
def _return_push(state: RolloutState, r: int, slot: int, time_s: float) -> None:
    times, slots, replica = state.returns_s[r], state.returns_slot[r], state.replicas[r]
    i = replica.num_returns
    replica.num_returns += 1
    while i > 0:
        parent = (i - 1) >> 1
        if times[parent] < time_s or (times[parent] == time_s and slots[parent] < slot):
            break
        times[i], slots[i] = times[parent], slots[parent]
        i = parent
    times[i], slots[i] = time_s, slot


@private
def _return_pop(state: RolloutState, r: int) -> int:
    times, slots, replica = state.returns_s[r], state.returns_slot[r], state.replicas[r]
    top = slots[0]
    replica.num_returns -= 1
    size = replica.num_returns
    time_s, slot = times[size], slots[size]
    i, child = 0, 1
    while child < size:
        if child + 1 < size and (
            times[child + 1] < times[child] or (times[child + 1] == times[child] and slots[child + 1] < slots[child])
        ):
            child += 1
        if times[child] > time_s or (times[child] == time_s and slots[child] >= slot):
            break
        times[i], slots[i] = times[child], slots[child]
        i = child
        child = 2 * i + 1
    times[i], slots[i] = time_s, slot
    return top
