"""Interruption of a running batch: aborted, restarted or recomputed at a weight sync, under a new law, short of KV."""

from simulator.admission import requeue_front
from simulator.compiled import private
from simulator.heaps import SLOT_BITS, SLOT_MASK, heap_pop, heap_sift_down, heap_sift_up, return_pop
from simulator.kvcache import held_tokens, kv_fits
from simulator.prefix_cache import forget_prompts, release_prompt
from simulator.rollout_state import JUMP, PER_STEP, QUEUED, RolloutState
from simulator.step_law import StepLaw
from simulator.step_table import StepTable, prefill_seconds
from simulator.stretch import cut_stretch, draw_stretch, level_at, move_last_to


@private
def abort_all(state: RolloutState, law: StepLaw, r: int, resume: bool) -> None:
    """Empty the KV cache: whatever was running, joining, or cached between turns is prefilled again."""
    limits, replica = state.limits[0], state.replicas[r]
    _flush(state, r)
    for i in range(replica.num_joining - 1, -1, -1):
        release_prompt(state, r, state.slots[r * limits.max_live + state.cohort[r, i]], False)
        requeue_front(state, r, state.cohort[r, i], False)
    heap, count = state.running[r], replica.num_running
    for i in range(count):
        slot = cut_stretch(state, law, r, i)
        release_prompt(state, r, state.slots[r * limits.max_live + slot], True)
        heap[i] = -state.slots[r * limits.max_live + slot].order << SLOT_BITS | slot
    for i in range(count // 2 - 1, -1, -1):
        heap_sift_down(heap, i, count)
    for i in range(count, 0, -1):  # the latest first, so that the earliest comes to the front
        requeue_front(state, r, heap_pop(heap, i), resume)
    replica.aborts += replica.num_running + replica.num_joining
    replica.num_running, replica.num_joining, replica.join_step = 0, 0, -1
    replica.context_tokens, replica.growth = 0.0, 0.0
    forget_prompts(replica)


@private
def restart_all(state: RolloutState, law: StepLaw, r: int) -> None:
    """Throw away what every sequence under way has emitted; it waits to begin again from its prompt."""
    limits, replica = state.limits[0], state.replicas[r]
    abort_all(state, law, r, False)
    while replica.num_returns > 0:  # a tool's answer to a trajectory that is no more
        slot = return_pop(state, r)
        record = state.slots[r * limits.max_live + slot]
        record.tokens_left = state.output_tokens[record.turn]
        record.status = QUEUED
        state.queue[r, (replica.queue_head + replica.queue_len) % limits.max_live] = slot
        replica.queue_len += 1
    for i in range(replica.queue_len):
        _begin_again(state, r, state.queue[r, (replica.queue_head + i) % limits.max_live])


@private
def recompute_all(state: RolloutState, table: StepTable, r: int) -> None:
    """Compute the KV cache of every running sequence again, at once, before any goes on."""
    limits, replica = state.limits[0], state.replicas[r]
    _flush(state, r)
    forget_prompts(replica)
    tokens, pairs = 0.0, 0.0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & SLOT_MASK)]
        context = float(record.context_tokens)
        if limits.mode == PER_STEP:
            context += record.tokens_left - state.left[r, i]
        else:
            context += record.growth * (replica.step - record.start_step)
        tokens += context
        pairs += 0.5 * context * context
        if record.prefix >= 0:  # each of those who share a prompt pays its part of it
            prefix = state.prefixes[r * limits.prefix_places + record.prefix]
            spared = prefix.tokens * (1.0 - 1.0 / prefix.running)
            tokens -= spared
            pairs -= 0.5 * spared * prefix.tokens
    if replica.num_running == 0:
        return
    seconds = (prefill_seconds(table, tokens) + pairs * table.attention_s_per_token2) * replica.slowness
    replica.prefill_tokens += tokens
    replica.recomputed_tokens += tokens
    replica.prefill_s += seconds
    replica.busy_s += seconds
    replica.time_s += seconds


@private
def redraw_all(state: RolloutState, old_law: StepLaw, law: StepLaw, r: int) -> None:
    """Draw anew, from a new law or at another number of draft tokens, the steps that running sequences still need.

    What they have emitted is drawn too, so that they may turn out not to fit: the latest then give way.
    """
    limits, replica = state.limits[0], state.replicas[r]
    count = replica.num_running
    old_level, level = replica.level, level_at(law, count)
    if limits.mode == PER_STEP:
        replica.level = level
        return
    replica.growth, replica.context_tokens = 0.0, 0.0
    for i in range(count):
        replica.level = old_level
        slot = cut_stretch(state, old_law, r, i)
        replica.level = level
        record = state.slots[r * limits.max_live + slot]
        record.start_step = replica.step
        draw_stretch(state, law, record, level)
        replica.growth += record.growth
        replica.context_tokens += record.context_tokens
        state.running[r, i] = (replica.step + record.num_steps) << SLOT_BITS | slot
    replica.level = level
    for i in range(count // 2 - 1, -1, -1):
        heap_sift_down(state.running[r], i, count)
    while replica.num_running > 1 and held_tokens(limits, replica) > limits.kv_tokens:
        _preempt_latest(state, law, r)


@private
def make_room(state: RolloutState, law: StepLaw, r: int) -> None:
    """Preempt sequences until the rest fits into the KV cache, or only one is left: it may always run."""
    while state.replicas[r].num_running > 1 and not kv_fits(state, r, 0.0, state.limits[0].kv_tokens):
        _preempt_latest(state, law, r)


@private
def _preempt_latest(state: RolloutState, law: StepLaw, r: int) -> None:
    """The KV cache is full: the latest sequence gives way and is prefilled again later (vLLM's recompute)."""
    limits, replica = state.limits[0], state.replicas[r]
    latest, place = -1, 0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & SLOT_MASK)]
        if record.order > latest:
            latest, place = record.order, i
    slot = cut_stretch(state, law, r, place)
    release_prompt(state, r, state.slots[r * limits.max_live + slot], True)
    forget_prompts(replica)
    replica.num_running -= 1
    move_last_to(state, r, place)
    if limits.mode == JUMP and place < replica.num_running:
        heap_sift_down(state.running[r], place, replica.num_running)
        heap_sift_up(state.running[r], place)
    recount(state, r)
    replica.preemptions += 1
    requeue_front(state, r, slot, True)


@private
def recount(state: RolloutState, r: int) -> None:
    """Add up the context of the running sequences, and how fast it grows."""
    limits, replica = state.limits[0], state.replicas[r]
    total, growth = 0.0, 0.0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & SLOT_MASK)]
        total += record.context_tokens
        if limits.mode == PER_STEP:
            total += record.tokens_left - state.left[r, i]
        else:
            total += record.growth * (replica.step - record.start_step)
            growth += record.growth
    replica.context_tokens, replica.growth = total, growth


@private
def _begin_again(state: RolloutState, r: int, slot: int) -> None:
    """Bring a waiting sequence back to its prompt, and count what is lost."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    first = state.first_turn[record.sequence]
    emitted, read = 0, 0
    for turn in range(first, record.turn + 1):
        done = state.output_tokens[turn] - (record.tokens_left if turn == record.turn else 0)
        emitted += done
        read += state.input_tokens[turn] if done > 0 else 0
    if emitted > 0:
        record.restarts += 1
        counters.restarts += 1
        counters.max_restarts = max(counters.max_restarts, record.restarts)
        counters.restarted_tokens += emitted
        replica.recomputed_tokens += read
        record.lost_tokens = read
    record.version = counters.version
    record.turn = first
    record.context_tokens = state.input_tokens[first]
    record.fresh_tokens = record.context_tokens
    record.tokens_left = state.output_tokens[first]


@private
def _flush(state: RolloutState, r: int) -> None:
    """Whatever was cached between turns has to be prefilled again."""
    limits, replica = state.limits[0], state.replicas[r]
    replica.flushes += 1
    for i in range(replica.queue_len):
        waiting = state.slots[r * limits.max_live + state.queue[r, (replica.queue_head + i) % limits.max_live]]
        waiting.fresh_tokens = waiting.context_tokens
