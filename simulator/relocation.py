"""Relocation: sequences of a replica that goes down continue on others, as far as these have places.

Does not know why the replica goes down, or what is left of a sequence's tokens.
"""

from simulator.admission import queue_back
from simulator.compiled import private
from simulator.heaps import return_push, set_next
from simulator.rollout_state import FREE, QUEUED, RolloutState


@private
def relocate_all(state: RolloutState, r: int) -> None:
    """Give what waits or is at a tool on replica r to the least loaded others; what finds no place stays, an orphan."""
    counters, replica = state.counters[0], state.replicas[r]
    while replica.queue_len > 0:
        target = _least_loaded(state)
        if target < 0:
            break
        _move_first_waiting(state, r, target)
    counters.num_orphans += replica.queue_len
    count, replica.num_returns = replica.num_returns, 0
    for i in range(count):
        slot, time_s = state.returns_slot[r, i], state.returns_s[r, i]
        target = _least_loaded(state)
        if target < 0:
            return_push(state, r, slot, time_s)
        else:
            return_push(state, target, _move(state, r, slot, target), time_s)


@private
def adopt(state: RolloutState, target: int) -> None:
    """Let a replica with free places take sequences that wait on replicas that are down."""
    counters, other = state.counters[0], state.replicas[target]
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        while replica.is_down == 1 and replica.queue_len > 0 and other.num_free > 0:
            _move_first_waiting(state, r, target)
            counters.num_orphans -= 1


@private
def wake_idle(state: RolloutState, time_s: float) -> None:
    """Let idle replicas with free places look for orphans now."""
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        if replica.is_down == 0 and replica.idle == 1 and replica.num_free > 0:
            set_next(state, r, max(time_s, replica.time_s))


@private
def _move_first_waiting(state: RolloutState, r: int, target: int) -> None:
    limits, replica = state.limits[0], state.replicas[r]
    slot = _move(state, r, state.queue[r, replica.queue_head], target)
    replica.queue_head = (replica.queue_head + 1) % limits.max_live
    replica.queue_len -= 1
    queue_back(state, target, slot)


@private
def _least_loaded(state: RolloutState) -> int:
    """Return the replica that is up and has most free places, -1 if none has any."""
    best, most = -1, 0
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        if replica.is_down == 0 and replica.num_free > most:
            best, most = r, replica.num_free
    return best


@private
def _move(state: RolloutState, r: int, slot: int, target: int) -> int:
    """Copy a sequence into a slot of another replica, where nothing of it is cached; return the slot."""
    limits, replica, other = state.limits[0], state.replicas[r], state.replicas[target]
    other.num_free -= 1
    place = state.free[target, other.num_free]
    state.slots[target * limits.max_live + place] = state.slots[r * limits.max_live + slot]
    record = state.slots[target * limits.max_live + place]
    if record.status == QUEUED:
        record.fresh_tokens = record.context_tokens
    record.flush = -1  # one at a tool finds nothing cached when it comes back
    other.num_live += 1
    state.slots[r * limits.max_live + slot].status = FREE
    state.free[r, replica.num_free] = slot
    replica.num_free += 1
    replica.num_live -= 1
    return int(place)
