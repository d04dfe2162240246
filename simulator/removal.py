"""Removal of groups that are still under way: too old, or more than the trainer needs. Does not know which or why."""

from simulator.compiled import private
from simulator.heaps import SLOT_MASK, heap_sift_down, return_push
from simulator.interruption import recount
from simulator.prefix_cache import release_prompt
from simulator.rollout_state import DISCARDED, FREE, JUMP, TOOL, RolloutState
from simulator.step_law import StepLaw
from simulator.stretch import cut_stretch, release


@private
def mark_older(state: RolloutState, oldest_version: int) -> None:
    """Mark every group under way of which a sequence began before `oldest_version`; the rest of it will not start."""
    counters = state.counters[0]
    for i in range(state.slots.shape[0]):
        record = state.slots[i]
        if record.status == FREE:
            continue
        group = state.group_of[record.sequence]
        finished_version = state.group_version[group]
        if state.group_left[group] == DISCARDED:
            continue
        if record.version < oldest_version or 0 <= finished_version < oldest_version:
            _mark(state, group)
    head = counters.next_sequence
    if 0 < head < state.group_of.shape[0]:
        group = state.group_of[head]
        if state.group_left[group] == DISCARDED:
            counters.next_sequence = state.first_sequence[group + 1]


@private
def mark_not_started(state: RolloutState) -> None:
    """Pass over everything that has been submitted and has not started."""
    counters = state.counters[0]
    for r in range(state.limits[0].num_replicas):
        sequence = state.replicas[r].line_head
        for _ in range(state.replicas[r].line_len):
            if state.group_left[state.group_of[sequence]] != DISCARDED:
                _mark(state, state.group_of[sequence])
            sequence = state.next_in_line[sequence]
    while counters.next_sequence < counters.submitted:
        group = state.group_of[counters.next_sequence]
        if state.group_left[group] != DISCARDED:
            _mark(state, group)
        counters.next_sequence = state.first_sequence[group + 1]


@private
def remove_marked(state: RolloutState, law: StepLaw, r: int) -> None:
    """Take the sequences of marked groups out of replica r, which stands at a step boundary."""
    limits, replica = state.limits[0], state.replicas[r]
    count, replica.num_running = replica.num_running, 0
    for i in range(count):
        slot = state.running[r, i] & SLOT_MASK
        if _is_marked(state, r, slot):
            cut_stretch(state, law, r, i)
            release_prompt(state, r, state.slots[r * limits.max_live + slot], True)
            _throw_away(state, r, slot)
        else:
            place = replica.num_running
            state.running[r, place] = state.running[r, i]
            state.left[r, place], state.stretch_key[r, place] = state.left[r, i], state.stretch_key[r, i]
            replica.num_running += 1
    if limits.mode == JUMP:
        for i in range(replica.num_running // 2 - 1, -1, -1):
            heap_sift_down(state.running[r], i, replica.num_running)
    if replica.num_running < count:
        recount(state, r)
    count, replica.num_joining = replica.num_joining, 0
    for i in range(count):
        slot = state.cohort[r, i]
        if _is_marked(state, r, slot):
            release_prompt(state, r, state.slots[r * limits.max_live + slot], False)
            _throw_away(state, r, slot)
        else:
            state.cohort[r, replica.num_joining] = slot
            replica.num_joining += 1
    count, replica.queue_len = replica.queue_len, 0
    for i in range(count):
        slot = state.queue[r, (replica.queue_head + i) % limits.max_live]
        if _is_marked(state, r, slot):
            _throw_away(state, r, slot)
        else:
            state.queue[r, (replica.queue_head + replica.queue_len) % limits.max_live] = slot
            replica.queue_len += 1
    if replica.is_down == 1:
        state.counters[0].num_orphans -= count - replica.queue_len
    count, replica.num_returns = replica.num_returns, 0
    for i in range(count):
        slot, time_s = state.returns_slot[r, i], state.returns_s[r, i]
        if _is_marked(state, r, slot):
            _throw_away(state, r, slot)
        else:
            return_push(state, r, slot, time_s)


@private
def _is_marked(state: RolloutState, r: int, slot: int) -> bool:
    sequence = state.slots[r * state.limits[0].max_live + slot].sequence
    return bool(state.group_left[state.group_of[sequence]] == DISCARDED)


@private
def _mark(state: RolloutState, group: int) -> None:
    """Count a group as thrown away with all it was to emit; `_throw_away` takes off what does not come any more."""
    counters = state.counters[0]
    first, end = state.first_sequence[group], state.first_sequence[group + 1]
    counters.discarded_groups += 1
    counters.discarded_sequences += end - first - state.group_left[group]
    for sequence in range(first, min(end, counters.next_sequence)):
        for turn in range(state.first_turn[sequence], state.first_turn[sequence + 1]):
            counters.discarded_tokens += state.output_tokens[turn]
    state.group_left[group] = DISCARDED


@private
def _throw_away(state: RolloutState, r: int, slot: int) -> None:
    counters = state.counters[0]
    record = state.slots[r * state.limits[0].max_live + slot]
    turn, to_come = record.turn, 0
    if record.status != TOOL:
        to_come, turn = record.tokens_left, record.turn + 1
    for later in range(turn, state.first_turn[record.sequence + 1]):
        to_come += state.output_tokens[later]
    counters.discarded_sequences += 1
    counters.discarded_tokens -= to_come
    counters.abandoned_tokens += to_come
    release(state, r, slot)
