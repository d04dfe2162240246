"""Kernels: the rollout side advances from one membership change of a batch to the next.

Two ways, same rules. The per-step reference makes every decode step and draws every sequence's accepted tokens. The
jump draws at admission how many steps a sequence needs (`step_law`), keeps a heap of finishing steps, and integrates
the step latency over the growing context between two changes (`step_table`). Tests hold them equal in law.

Replicas meet only in the queue of fresh sequences, if there is one (`router`), so events are processed in global time
order through a winner tree.
Three things are not the same to the last step, all only where the KV cache is full: the jump takes the context between
two changes as growing evenly, a sequence's last block as half empty (`kvcache`), and looks for a fresh sequence that
fits only when its own replica changes. The same evenness holds where acceptance changes along the response: a
sequence's context is then off between its two ends.
Does not know trainers, buffers or why it is interrupted.
"""

import numpy as np

from simulator.admission import enqueue, fill_batch, has_room, join, queue_fresh, wake
from simulator.compiled import called, kernel, private
from simulator.heaps import SLOT_BITS, heap_pop, return_pop, set_next
from simulator.interruption import abort_all, make_room, recompute_all, redraw_all, restart_all
from simulator.kvcache import held_tokens
from simulator.relocation import adopt, relocate_all, wake_idle
from simulator.removal import mark_not_started, mark_older, remove_marked
from simulator.rollout_state import ABORT, DRAIN, NEVER, PER_STEP, RECOMPUTE, RESTART, Record, Records, RolloutState
from simulator.router import deal, reroute_line, sweep_line
from simulator.step_law import StepLaw
from simulator.step_table import StepTable, find_segment, span_seconds, step_seconds, steps_within
from simulator.stretch import emit, end_stretch, level_at, move_last_to


@kernel
def advance(state: RolloutState, table: StepTable, law: StepLaw, until_s: float, wanted_groups: int) -> None:
    """Process events up to `until_s`, or until `wanted_groups` groups are ready, or nothing is left to do."""
    counters = state.counters[0]
    while counters.num_ready < wanted_groups and counters.num_filtered < counters.stop_filtered:
        r = state.tree[1]
        next_s = state.next_s[r]
        if next_s > until_s or next_s == np.inf:
            return
        _event(state, law, r)
        fill_batch(state, table, law, r)
        _plan(state, table, law, r)


@kernel
def submit(state: RolloutState, table: StepTable, law: StepLaw, num_sequences: int, now_s: float) -> None:
    """Let sequences up to number `num_sequences` start, each on the replica that the router sends it to."""
    counters, limits, quota = state.counters[0], state.limits[0], state.quota
    counters.submitted = min(max(num_sequences, counters.submitted), state.first_turn.shape[0] - 1)
    counters.closed = 0
    num_dealt = deal(state)
    for r in range(limits.num_replicas):
        if quota[r] > 0:
            _stop_at(state, table, law, r, now_s)
    for i in range(num_dealt):  # one after the other, so that a group is spread over the replicas
        queue_fresh(state, state.deal[i])
    for r in range(limits.num_replicas):
        if quota[r] > 0:
            _go_on(state, table, law, r)


@kernel
def weight_sync(
    state: RolloutState,
    table: StepTable,
    old_law: StepLaw,
    law: StepLaw,
    now_s: float,
    begin_s: float,
    until_s: float,
    rule: int,
    redraw: bool,
) -> None:
    """Stop every replica at its first step boundary at or after `now_s`, and let it go on at `until_s`.

    begin_s: when the sync begins; replicas that stop earlier stand still until then;
    rule: KEEP, ABORT, RESTART, RECOMPUTE or DRAIN, what happens to sequences under way;
    redraw: `law` is not `old_law`, so the steps they still need are drawn anew (the process has no memory).
    """
    for r in range(state.limits[0].num_replicas):
        replica = state.replicas[r]
        if replica.is_down == 1:
            continue
        if rule == DRAIN and replica.num_live > 0:
            replica.pull_s = until_s - now_s
            continue
        _stop_at(state, table, old_law, r, now_s)
        replica.starved_s += max(begin_s - replica.time_s, 0.0)
        end_s = replica.time_s + until_s - now_s if rule == DRAIN else until_s
        replica.sync_s += max(end_s - max(replica.time_s, begin_s), 0.0)
        replica.time_s = max(replica.time_s, end_s)
        if replica.idle == 1:
            replica.idle_since_s = replica.time_s
        if rule == RESTART:
            restart_all(state, old_law, r)
        elif rule == ABORT:
            abort_all(state, old_law, r, True)
        elif redraw:
            redraw_all(state, old_law, law, r)
        if rule == RECOMPUTE:
            recompute_all(state, table, r)
        _go_on(state, table, law, r)


@kernel
def change_costs(state: RolloutState, old_table: StepTable, table: StepTable, law: StepLaw, now_s: float) -> None:
    """Let every replica go on with other step times from its first step boundary at or after `now_s`."""
    for r in range(state.limits[0].num_replicas):
        _stop_at(state, old_table, law, r, now_s)
        _go_on(state, table, law, r)


@kernel
def discard(state: RolloutState, table: StepTable, law: StepLaw, now_s: float, oldest_version: int) -> None:
    """Throw away all groups under way that began before `oldest_version`; NEVER: also those that wait to begin."""
    for r in range(state.limits[0].num_replicas):
        _stop_at(state, table, law, r, now_s)
    mark_older(state, oldest_version)
    if oldest_version == NEVER:
        mark_not_started(state)
    for r in range(state.limits[0].num_replicas):
        sweep_line(state, r)
        remove_marked(state, law, r)
        _end_lonely_prefill(state, law, r)
        _go_on(state, table, law, r)


@kernel
def take_down(
    state: RolloutState, table: StepTable, law: StepLaw, first: int, end: int, now_s: float, rule: int
) -> None:
    """Take replicas first .. end out at their next step boundary; their sequences go on elsewhere.

    rule: ABORT or RESTART, whether they go on with all they had or begin again from their prompt.
    """
    for r in range(state.limits[0].num_replicas):
        _stop_at(state, table, law, r, now_s)
    for r in range(first, end):
        replica = state.replicas[r]
        if replica.is_down == 1:
            continue
        if rule == RESTART:
            restart_all(state, law, r)
        else:
            abort_all(state, law, r, True)
        replica.is_down, replica.idle, replica.idle_since_s, replica.pull_s = 1, 1, replica.time_s, -1.0
    for r in range(first, end):
        reroute_line(state, r)
        relocate_all(state, r)
    for r in range(state.limits[0].num_replicas):
        _go_on(state, table, law, r)


@kernel
def bring_up(state: RolloutState, table: StepTable, law: StepLaw, first: int, end: int, now_s: float) -> None:
    """Let replicas first .. end, which are down, generate again."""
    for r in range(first, end):
        replica = state.replicas[r]
        wake(replica, max(now_s, replica.time_s))
        state.counters[0].num_orphans -= replica.queue_len
        replica.is_down, replica.idle, replica.idle_since_s = 0, 1, replica.time_s
        _go_on(state, table, law, r)


@kernel
def close(state: RolloutState) -> None:
    """Start no fresh sequence until the next `submit`."""
    state.counters[0].closed = 1


@kernel
def busy_seconds(replicas: Records, now_s: float) -> float:
    """Return replica-seconds spent generating up to now; a span in progress counts as far as it has come."""
    total = 0.0
    for r in range(replicas.shape[0]):
        replica = replicas[r]
        total += replica.busy_s - max(replica.time_s - now_s, 0.0)
        if replica.idle == 0:
            total += max(now_s - replica.time_s, 0.0)
    return total


@kernel
def idle_seconds(replicas: Records, first: int, end: int, now_s: float) -> tuple[float, float, float]:
    """Return seconds of replicas first .. end with nothing admitted, with all at a tool, and down, up to now."""
    starved, tool, down = 0.0, 0.0, 0.0
    for r in range(first, end):
        replica = replicas[r]
        starved += replica.starved_s
        tool += replica.tool_s
        down += replica.down_s
        if replica.idle == 1:
            idle_s = max(now_s - replica.idle_since_s, 0.0)
            if replica.is_down == 1:
                down += idle_s
            elif replica.num_live > 0:
                tool += idle_s
            else:
                starved += idle_s
    return starved, tool, down


@private
def _event(state: RolloutState, law: StepLaw, r: int) -> None:
    """Bring replica r to its next event and let happen what happens there, but for admission."""
    replica = state.replicas[r]
    if replica.idle == 1:
        wake(replica, state.next_s[r])
    elif state.limits[0].mode == PER_STEP:
        _make_one_step(state, law, r)
    else:
        _jump(replica, replica.next_step - replica.step, state.next_s[r])
        while replica.num_running > 0 and state.running[r, 0] >> SLOT_BITS <= replica.step:
            slot = heap_pop(state.running[r], replica.num_running)
            replica.num_running -= 1
            end_stretch(state, r, slot)
    _end_lonely_prefill(state, law, r)
    if 0 <= replica.join_step <= replica.step:
        join(state, law, r)
    _take_answers(state, r)
    if state.counters[0].num_orphans > 0:
        if replica.is_down == 1:
            wake_idle(state, replica.time_s)
        else:
            adopt(state, r)
    make_room(state, law, r)


@private
def _end_lonely_prefill(state: RolloutState, law: StepLaw, r: int) -> None:
    """Let a chunked prefill go to its end at once when no decoding is left to mix it with."""
    replica = state.replicas[r]
    if replica.join_step >= 0 and replica.num_running == 0:
        seconds = (replica.join_step - replica.step) * replica.chunk_s * replica.slowness
        replica.busy_s += seconds
        replica.time_s += seconds
        join(state, law, r)


@private
def _take_answers(state: RolloutState, r: int) -> None:
    """Let the next turns of all trajectories whose tools have answered by now wait for a place."""
    replica = state.replicas[r]
    while replica.num_returns > 0 and state.returns_s[r, 0] <= replica.time_s:
        slot = return_pop(state, r)
        enqueue(state, r, slot)


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
    emitted, least = emit(state, law, r, replica.num_running, replica.step)
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
        move_last_to(state, r, first)
        end_stretch(state, r, slot)


@private
def _plan(state: RolloutState, table: StepTable, law: StepLaw, r: int) -> None:
    """Work out replica r's next event: a finish, a prefill's end, a full KV cache, or a tool's answer."""
    limits, replica = state.limits[0], state.replicas[r]
    answer_s = state.returns_s[r, 0] if replica.num_returns > 0 else np.inf
    if replica.num_running == 0 and replica.join_step < 0:
        if replica.pull_s >= 0.0 and replica.num_live == 0:
            replica.sync_s += replica.pull_s
            replica.time_s += replica.pull_s
            replica.pull_s = -1.0
        if replica.idle == 0:
            replica.idle, replica.idle_since_s = 1, replica.time_s
        set_next(state, r, replica.time_s if has_room(state, r) else max(answer_s, replica.time_s))
        return
    replica.max_batch = max(replica.max_batch, replica.num_running)
    while level_at(law, replica.num_running) != replica.level:
        redraw_all(state, law, law, r)
    context = replica.context_tokens / replica.num_running
    replica.segment = find_segment(table.knots, context, replica.segment)
    if limits.mode == PER_STEP:
        replica.next_step = replica.step + 1
        step_s = step_seconds(
            table, replica.level * table.rows_per_level + replica.num_running, context, replica.segment
        )
        step_s += replica.chunk_s if replica.join_step >= 0 else 0.0
        set_next(state, r, replica.time_s + step_s * replica.slowness)
        return
    last = state.running[r, 0] >> SLOT_BITS
    if has_room(state, r):
        last = min(last, replica.step + 1)
    extra_s = 0.0
    if replica.join_step >= 0:
        last = min(last, replica.join_step)
        extra_s = replica.chunk_s
    room = limits.kv_tokens - held_tokens(limits, replica)
    if replica.growth * (last - replica.step) > room and replica.num_running > 1:
        last = min(last, replica.step + int(max(room, 0.0) / replica.growth) + 1)
    steps = last - replica.step
    seconds = _span(table, replica, steps, extra_s)
    # An answer is an event only if it is admitted at once; otherwise it is taken, in order, at the next one.
    admits = replica.num_running < limits.max_running and replica.queue_len == 0 and replica.join_step < 0
    if admits and answer_s < replica.time_s + seconds and steps > 1:
        steps = _steps_to(table, replica, extra_s, answer_s, steps)
        seconds = _span(table, replica, steps, extra_s)
    replica.next_step = replica.step + steps
    set_next(state, r, replica.time_s + seconds)


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


@called
def _go_on(state: RolloutState, table: StepTable, law: StepLaw, r: int) -> None:
    """Let replica r admit what it can, and go on."""
    fill_batch(state, table, law, r)
    _plan(state, table, law, r)


@called
def _stop_at(state: RolloutState, table: StepTable, law: StepLaw, r: int, now_s: float) -> None:
    """Bring replica r to its first step boundary at or after `now_s`, idle ones to `now_s`; admit nothing there."""
    replica = state.replicas[r]
    if replica.idle == 1:
        if now_s > replica.time_s:
            wake(replica, now_s)
            replica.idle, replica.idle_since_s = 1, now_s
        return
    if replica.time_s >= now_s:
        return
    extra_s = replica.chunk_s if replica.join_step >= 0 else 0.0
    most = replica.next_step - replica.step
    steps = most
    if state.limits[0].mode != PER_STEP and most > 0:
        steps = _steps_to(table, replica, extra_s, now_s, most)
    if steps >= most:
        _event(state, law, r)
        _plan(state, table, law, r)
    else:
        _jump(replica, steps, replica.time_s + _span(table, replica, steps, extra_s))
        _take_answers(state, r)
