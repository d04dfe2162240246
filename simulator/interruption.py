"""Interruption of a running batch: aborted by a weight sync, under a new law, or short of KV cache."""

from simulator.admission import requeue_front
from simulator.compiled import private
from simulator.heaps import SLOT_BITS, SLOT_MASK, heap_pop, heap_sift_down, heap_sift_up
from simulator.rollout_state import JUMP, PER_STEP, RolloutState
from simulator.step_law import StepLaw, draw_steps
from simulator.stretch import cut_stretch, level_at, move_last_to


@private
def abort_all(state: RolloutState, law: StepLaw, r: int) -> None:
    """Empty the KV cache: whatever was running, joining, or cached between turns is prefilled again."""
    limits, replica = state.limits[0], state.replicas[r]
    replica.flushes += 1
    for i in range(replica.queue_len):
        waiting = state.slots[r * limits.max_live + state.queue[r, (replica.queue_head + i) % limits.max_live]]
        waiting.fresh_tokens = waiting.context_tokens
    for i in range(replica.num_joining - 1, -1, -1):
        requeue_front(state, r, state.cohort[r, i], False)
    heap, count = state.running[r], replica.num_running
    for i in range(count):
        slot = cut_stretch(state, law, r, i)
        heap[i] = -state.slots[r * limits.max_live + slot].order << SLOT_BITS | slot
    for i in range(count // 2 - 1, -1, -1):
        heap_sift_down(heap, i, count)
    for i in range(count, 0, -1):  # the latest first, so that the earliest comes to the front
        requeue_front(state, r, heap_pop(heap, i), True)
    replica.aborts += replica.num_running + replica.num_joining
    replica.num_running, replica.num_joining, replica.join_step = 0, 0, -1
    replica.context_tokens, replica.growth = 0.0, 0.0


@private
def redraw_all(state: RolloutState, old_law: StepLaw, law: StepLaw, r: int) -> None:
    """Draw anew, from a new law or at another number of draft tokens, the steps that running sequences still need."""
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
        cls = level * limits.num_classes + record.cls
        record.num_steps, record.draws = draw_steps(law, cls, record.key, record.draws, record.tokens_left)
        record.growth = record.tokens_left / record.num_steps
        replica.growth += record.growth
        replica.context_tokens += record.context_tokens
        state.running[r, i] = (replica.step + record.num_steps) << SLOT_BITS | slot
    replica.level = level
    for i in range(count // 2 - 1, -1, -1):
        heap_sift_down(state.running[r], i, count)


@private
def preempt_latest(state: RolloutState, law: StepLaw, r: int) -> None:
    """The KV cache is full: the latest sequence gives way and is prefilled again later (vLLM's recompute)."""
    limits, replica = state.limits[0], state.replicas[r]
    latest, place = -1, 0
    for i in range(replica.num_running):
        record = state.slots[r * limits.max_live + (state.running[r, i] & SLOT_MASK)]
        if record.order > latest:
            latest, place = record.order, i
    slot = cut_stretch(state, law, r, place)
    replica.num_running -= 1
    move_last_to(state, r, place)
    if limits.mode == JUMP and place < replica.num_running:
        heap_sift_down(state.running[r], place, replica.num_running)
        heap_sift_up(state.running[r], place)
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
    replica.preemptions += 1
    requeue_front(state, r, slot, True)
