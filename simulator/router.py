"""Router: which replica a fresh sequence goes to, and in which order.

`least_in_flight` keeps all fresh sequences in one queue: what can start when it is submitted is dealt one by one to the
replica that holds the fewest, and afterwards whoever has room takes the next. The others fix a sequence's replica when
it is submitted; it waits in that replica's line, and nobody else takes it. `round_robin`: sequences in turn, from one
submission to the next. `sticky`: a whole group to the replica with the fewest unfinished sequences. `static_split`:
every submission in equal contiguous parts, one per replica; parts that are one longer go round. This file, with
`queue_fresh` and `start` of `admission`, is all that touches fresh sequences. Does not know what a batch has room for.
"""

from simulator.compiled import private
from simulator.rollout_state import DISCARDED, LEAST_IN_FLIGHT, ROUND_ROBIN, STATIC_SPLIT, STICKY, RolloutState


@private
def next_fresh(state: RolloutState, r: int) -> int:
    """Return the sequence that replica r would begin next; -1: none, or no place for it."""
    counters, replica = state.counters[0], state.replicas[r]
    if counters.closed or replica.num_free == 0 or not takes_fresh(state, r):
        return -1
    if state.limits[0].router == LEAST_IN_FLIGHT:
        return counters.next_sequence if counters.next_sequence < counters.submitted else -1
    return replica.line_head if replica.line_len > 0 else -1


@private
def takes_fresh(state: RolloutState, r: int) -> bool:
    """Return whether replica r may begin new sequences at all, be there room or not."""
    replica = state.replicas[r]
    return bool(replica.pull_s < 0.0 and replica.is_down == 0)


@private
def take_fresh(state: RolloutState, r: int) -> int:
    """Take the sequence that `next_fresh` names out of its queue or line."""
    counters, replica = state.counters[0], state.replicas[r]
    if state.limits[0].router == LEAST_IN_FLIGHT:
        counters.next_sequence += 1
        return counters.next_sequence - 1
    sequence = replica.line_head
    replica.line_head = state.next_in_line[sequence]
    replica.line_len -= 1
    return sequence


@private
def deal(state: RolloutState) -> int:
    """Route what has been submitted; return how many sequences can start now.

    `state.deal` then names the replica of each of them, in their order, and `state.quota` how many go to each replica.
    """
    if state.limits[0].router == LEAST_IN_FLIGHT:
        return _deal_to_least_loaded(state)
    _line_up(state)
    num_dealt = 0
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        state.quota[r] = min(replica.line_len, replica.num_free) if takes_fresh(state, r) else 0
        for _ in range(state.quota[r]):
            state.deal[num_dealt] = r
            num_dealt += 1
    return num_dealt


@private
def _deal_to_least_loaded(state: RolloutState) -> int:
    counters, limits, quota = state.counters[0], state.limits[0], state.quota
    waiting = counters.submitted - counters.next_sequence
    num_dealt = 0
    level = limits.max_live
    for r in range(limits.num_replicas):
        quota[r] = 0
        if takes_fresh(state, r):
            level = min(level, state.replicas[r].num_live)
    while waiting > 0 and level < limits.max_live:
        for r in range(limits.num_replicas):
            if waiting > 0 and state.replicas[r].num_live + quota[r] == level and takes_fresh(state, r):
                quota[r] += 1
                state.deal[num_dealt] = r
                num_dealt += 1
                waiting -= 1
        level += 1
    return num_dealt


@private
def _line_up(state: RolloutState) -> None:
    """Send every sequence submitted since the last time to a replica's line."""
    counters, limits = state.counters[0], state.limits[0]
    num_replicas, submitted = limits.num_replicas, counters.submitted
    count = submitted - counters.next_sequence
    share, extra = count // num_replicas, count % num_replicas
    r, left = -1, 0  # the replica, and how many it still gets
    while counters.next_sequence < submitted:
        sequence = counters.next_sequence
        if limits.router == ROUND_ROBIN:
            r = _next_up(state, counters.next_replica)
            counters.next_replica = (r + 1) % num_replicas
        elif limits.router == STICKY:
            if left == 0 or state.group_of[sequence] != state.group_of[sequence - 1]:
                r, left = _fewest_unfinished(state), 1
        else:
            while left == 0:
                r += 1
                left = share + int((r - counters.next_replica) % num_replicas < extra)
            left -= 1
        _join_line(state, r, sequence)
        counters.next_sequence += 1
    if limits.router == STATIC_SPLIT:
        counters.next_replica = (counters.next_replica + extra) % num_replicas


@private
def reroute_line(state: RolloutState, r: int) -> None:
    """Send what stands in the line of a replica that is down to others, if any is up."""
    replica = state.replicas[r]
    for _ in range(replica.line_len):
        sequence = take_fresh(state, r)
        _join_line(state, _fewest_unfinished(state), sequence)


@private
def sweep_line(state: RolloutState, r: int) -> None:
    """Take sequences of discarded groups out of a line; they were counted with what their groups emit."""
    counters, replica = state.counters[0], state.replicas[r]
    for _ in range(replica.line_len):
        sequence = take_fresh(state, r)
        if state.group_left[state.group_of[sequence]] != DISCARDED:
            _join_line(state, r, sequence)
            continue
        for turn in range(state.first_turn[sequence], state.first_turn[sequence + 1]):
            counters.discarded_tokens -= state.output_tokens[turn]


@private
def _join_line(state: RolloutState, r: int, sequence: int) -> None:
    replica = state.replicas[r]
    if replica.line_len == 0:
        replica.line_head = sequence
    else:
        state.next_in_line[replica.line_tail] = sequence
    replica.line_tail = sequence
    replica.line_len += 1


@private
def _next_up(state: RolloutState, first: int) -> int:
    """Return the first replica from `first` on, going round, that is not down; `first` if all are."""
    count = state.limits[0].num_replicas
    for i in range(count):
        if state.replicas[(first + i) % count].is_down == 0:
            return (first + i) % count
    return first


@private
def _fewest_unfinished(state: RolloutState) -> int:
    fewest = _next_up(state, 0)
    for r in range(fewest + 1, state.limits[0].num_replicas):
        replica, best = state.replicas[r], state.replicas[fewest]
        if replica.is_down == 0 and replica.line_len + replica.num_live < best.line_len + best.num_live:
            fewest = r
    return fewest
