"""A decode stretch: a sequence from its entry into the batch to its exit, with the tokens it must emit meanwhile.

When jumping, the number of steps it needs is drawn at its beginning; step by step, its tokens are drawn in every step.
Where acceptance changes along the response, a step has the law of the piece in which it begins: when jumping, the steps
to the end of each piece are drawn in turn, with what the last of them emits beyond it. A stretch that is cut draws them
again, from the same random numbers, to find the piece it is in. Does not know who gets into the batch, or why a stretch
is cut.
"""

import numpy as np

from simulator.compiled import private
from simulator.heaps import SLOT_BITS, SLOT_MASK, heap_push, return_push
from simulator.prefix_cache import release_prompt
from simulator.rng import mix, uniform
from simulator.rollout_state import FREE, PER_STEP, TOOL, Record, RolloutState
from simulator.step_law import PARTIAL_DRAWS, StepLaw, draw_partial_tokens, draw_steps, draw_until


@private
def level_at(law: StepLaw, batch: int) -> int:
    """Return which number of draft tokens the engine chooses at this live batch."""
    return law.level_of_batch[min(batch, law.level_of_batch.shape[0] - 1)]


@private
def begin_stretch(state: RolloutState, law: StepLaw, r: int, slot: int) -> None:
    """Put a sequence that has `tokens_left` tokens to go among the running ones."""
    limits, replica = state.limits[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.start_step = replica.step
    record.num_steps, record.growth = 0, 0.0
    if record.tokens_left == 0:
        end_stretch(state, r, slot)
        return
    if limits.mode == PER_STEP:
        state.running[r, replica.num_running] = slot
        state.left[r, replica.num_running] = record.tokens_left
        state.stretch_key[r, replica.num_running] = mix(record.key + np.uint64(record.draws))
        record.draws += 1
    else:
        draw_stretch(state, law, record, replica.level)
        replica.growth += record.growth
        heap_push(state.running[r], replica.num_running, (replica.step + record.num_steps) << SLOT_BITS | slot)
    replica.num_running += 1


@private
def draw_stretch(state: RolloutState, law: StepLaw, record: Record, level: int) -> None:
    """Draw how many steps the tokens that are left need, when jumping."""
    limits = state.limits[0]
    cls = level * limits.num_pieces * limits.num_classes + record.cls
    if limits.num_pieces == 1:
        record.num_steps, record.draws = draw_steps(law, cls, record.key, record.draws, record.tokens_left)
    else:
        record.first_draw = record.draws
        steps, counter = 0, record.draws
        end = state.emitted_before[record.turn] + state.output_tokens[record.turn]
        position = end - record.tokens_left
        while position < end:
            piece = _piece_at(state, position)
            own = cls + piece * limits.num_classes
            if piece + 1 < limits.num_pieces and state.piece_from[piece + 1] < end:
                tokens = state.piece_from[piece + 1] - position
                more, emitted, counter = draw_until(law, own, record.key, counter, tokens)
            else:
                emitted = end - position
                more, counter = draw_steps(law, own, record.key, counter, emitted)
            steps += more
            position += emitted
        record.num_steps, record.draws = steps, counter
    record.growth = record.tokens_left / record.num_steps


@private
def _tokens_done(state: RolloutState, law: StepLaw, record: Record, level: int, steps_done: int) -> int:
    """Return tokens emitted in the first steps of a stretch, when jumping."""
    limits = state.limits[0]
    cls = level * limits.num_pieces * limits.num_classes + record.cls
    if limits.num_pieces == 1 or steps_done >= record.num_steps:
        return draw_partial_tokens(law, cls, record.key, record.draws, record.tokens_left, record.num_steps, steps_done)
    end = state.emitted_before[record.turn] + state.output_tokens[record.turn]
    begin = end - record.tokens_left
    position, counter, steps_left = begin, record.first_draw, record.num_steps
    while True:
        piece = _piece_at(state, position)
        own = cls + piece * limits.num_classes
        tokens, steps = end - position, steps_left
        if piece + 1 < limits.num_pieces and state.piece_from[piece + 1] < end:
            tokens = state.piece_from[piece + 1] - position
            steps, emitted, counter = draw_until(law, own, record.key, counter, tokens)
            if steps <= steps_done:  # of fewer steps than the whole stretch, so it goes on behind them
                position += emitted
                steps_done -= steps
                steps_left -= steps
                continue
        partial = draw_partial_tokens(law, own, record.key, record.draws, tokens, steps, steps_done)
        return position - begin + partial


@private
def _piece_at(state: RolloutState, position: int) -> int:
    """Return the piece of a response that holds this many tokens already."""
    piece = 0
    while piece + 1 < state.piece_from.shape[0] and state.piece_from[piece + 1] <= position:
        piece += 1
    return piece


@private
def emit(state: RolloutState, law: StepLaw, r: int, count: int, step: int) -> tuple[int, int]:
    """Let every running sequence emit; return (tokens emitted, fewest tokens that any sequence has left)."""
    if state.limits[0].num_pieces > 1:
        return _emit_by_piece(state, law, r, count, step)
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
def _emit_by_piece(state: RolloutState, law: StepLaw, r: int, count: int, step: int) -> tuple[int, int]:
    """Do the same where acceptance changes along the response; apart, for `emit` is the reference's inner loop."""
    limits, left = state.limits[0], state.left[r]
    base = state.replicas[r].level * limits.num_pieces * limits.num_classes
    emitted, least = 0, 1 << 40
    for i in range(count):
        record = state.slots[r * limits.max_live + state.running[r, i]]
        position = state.emitted_before[record.turn] + state.output_tokens[record.turn] - left[i]
        cls = base + _piece_at(state, position) * limits.num_classes + record.cls
        u = uniform(state.stretch_key[r, i], step)
        tokens = 1
        for j in range(law.num_draft_tokens):
            tokens += u >= law.emit_cdf[cls, j]
        left[i] -= tokens
        emitted += tokens
        least = min(least, left[i])
    return emitted, least


@private
def cut_stretch(state: RolloutState, law: StepLaw, r: int, place: int) -> int:
    """Settle a stretch that is interrupted now: what it has emitted, what it still has to; return its slot."""
    limits, replica = state.limits[0], state.replicas[r]
    slot = state.running[r, place] & SLOT_MASK
    record = state.slots[r * limits.max_live + slot]
    steps_done = replica.step - record.start_step
    if limits.mode == PER_STEP:
        done = record.tokens_left - state.left[r, place]
    else:
        done = _tokens_done(state, law, record, replica.level, steps_done)
        record.draws += PARTIAL_DRAWS
    record.tokens_left -= done
    record.context_tokens += done
    replica.stretch_tokens += done
    replica.stretch_steps += steps_done
    return slot


@private
def end_stretch(state: RolloutState, r: int, slot: int) -> None:
    """A sequence has emitted the last token of its turn."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    record = state.slots[r * limits.max_live + slot]
    record.context_tokens += record.tokens_left
    replica.stretch_tokens += record.tokens_left
    replica.stretch_steps += replica.step - record.start_step
    replica.growth -= record.growth
    replica.context_tokens -= record.context_tokens
    release_prompt(state, r, record, True)
    if replica.num_running == 0:
        replica.context_tokens, replica.growth = 0.0, 0.0
    record.turn += 1
    if record.turn < state.first_turn[record.sequence + 1]:
        record.status = TOOL
        record.flush = replica.flushes
        # Read here, where the loads overlap, and not when the tool answers and the slot alone is at hand.
        record.fresh_tokens = state.input_tokens[record.turn]
        record.tokens_left = state.output_tokens[record.turn]
        return_push(state, r, slot, replica.time_s + state.delay_s[record.turn])
        return
    release(state, r, slot)
    counters.finished += 1
    counters.trajectory_s += replica.time_s - record.started_s
    if limits.record_finish:
        state.finish_s[record.sequence] = replica.time_s
    group = state.group_of[record.sequence]
    if state.group_version[group] < 0 or record.version < state.group_version[group]:
        state.group_version[group] = record.version
    state.group_left[group] -= 1
    if state.group_left[group] > 0:
        return
    if state.is_useful.shape[0] > 0 and not state.is_useful[group]:
        state.filtered_group[counters.num_filtered] = group
        counters.num_filtered += 1
        counters.filtered_s = replica.time_s
    elif limits.in_order:
        state.ready_group[group], state.ready_s[group] = group, replica.time_s
        while counters.num_ready < len(state.group_left) and state.group_left[counters.num_ready] == 0:
            counters.num_ready += 1
    else:
        state.ready_group[counters.num_ready] = group
        state.ready_s[counters.num_ready] = replica.time_s
        counters.num_ready += 1


@private
def release(state: RolloutState, r: int, slot: int) -> None:
    """Let a sequence leave its slot for good."""
    limits, counters, replica = state.limits[0], state.counters[0], state.replicas[r]
    state.slots[r * limits.max_live + slot].status = FREE
    state.free[r, replica.num_free] = slot
    replica.num_free += 1
    replica.num_live -= 1
    counters.num_live -= 1
    if counters.num_live == 0:
        counters.live_s += replica.time_s - counters.live_since_s


@private
def move_last_to(state: RolloutState, r: int, place: int) -> None:
    """Close the gap that a sequence leaves in the list of running ones (`num_running` already counts without it)."""
    last = state.replicas[r].num_running
    state.running[r, place] = state.running[r, last]
    state.left[r, place] = state.left[r, last]
    state.stretch_key[r, place] = state.stretch_key[r, last]
