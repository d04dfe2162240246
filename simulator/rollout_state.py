"""The rollout side as the kernels see it: replicas, slots, queues and the sequences to generate, in flat arrays.

One record per replica and per slot, because a kernel touches all fields of one slot together. Everything is SI
seconds and plain tokens. Does not know how anything moves (`kernels`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simulator.workload import Workload

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Records = NDArray[np.void]
Record: TypeAlias = Any
"""One element of `Records`; numba knows its fields, type checkers do not."""

FREE, RUNNING, TOOL, QUEUED, JOINING = 0, 1, 2, 3, 4
"""What a slot's sequence is doing: none, decoding, waiting for a tool, waiting for a place, being prefilled."""

JUMP, PER_STEP = 0, 1
"""How a replica advances: to its next membership change in closed form, or step by step (the reference)."""

KEEP, ABORT, RESTART, RECOMPUTE, DRAIN = 0, 1, 2, 3, 4
"""What a weight sync does to sequences under way: nothing; their KV cache is emptied and they wait to be prefilled with
all they had; they wait to begin again from their prompt; their KV cache is computed again before any goes on; their
replica finishes them, starts no other, and then gets the weights by itself."""

DISCARDED = -1
NEVER = 1 << 60

LEAST_IN_FLIGHT, ROUND_ROBIN, STICKY, STATIC_SPLIT = 0, 1, 2, 3
"""How fresh sequences find a replica; see `router`."""

SLOT_DTYPE = np.dtype(
    [
        ("sequence", "i8"),
        ("key", "u8"),  # the sequence's own random stream
        ("turn", "i8"),  # index into the turn arrays
        ("start_step", "i8"),  # replica step after which this decode stretch began
        ("num_steps", "i8"),  # verify steps the stretch needs (jump only)
        ("tokens_left", "i8"),  # tokens the stretch must emit
        ("context_tokens", "i8"),  # KV tokens at the start of the stretch
        ("fresh_tokens", "i8"),  # tokens to prefill before it can decode; at a tool: those of its answer
        ("draws", "i8"),  # random numbers used so far
        ("first_draw", "i8"),  # first one of the stretch, to draw its pieces again (jump, several pieces)
        ("order", "i8"),  # admission order in its replica; the latest is preempted first
        ("growth", "f8"),  # tokens per step added to the context (jump)
        ("started_s", "f8"),  # first admission
        ("status", "i4"),
        ("cls", "i4"),  # dispersion class
        ("flush", "i8"),  # how often the KV cache had been emptied when its tool call began
        ("version", "i4"),  # policy version with which it began, or began again
        ("restarts", "i4"),  # how often it began again
        ("prefix", "i4"),  # place of the prompt that it holds together with its group; -1 none
        ("lost_tokens", "i4"),  # of what it has to prefill: had been computed before
    ]
)

REPLICA_DTYPE = np.dtype(
    [
        ("time_s", "f8"),  # clock at `step`
        ("slowness", "f8"),  # factor of every latency; 1 as the table says
        ("step", "i8"),  # decode steps made so far
        ("next_step", "i8"),  # step of the next membership change
        ("num_running", "i8"),
        ("num_live", "i8"),  # slots in use, tool calls included
        ("context_tokens", "f8"),  # KV tokens of all running sequences
        ("growth", "f8"),  # tokens per step added to it
        ("shared_tokens", "f8"),  # of them, in the KV cache once for several
        ("level", "i8"),  # number of draft tokens in use, as an index of the law's levels
        ("segment", "i8"),  # context knot interval last used
        ("join_step", "i8"),  # step at which the chunked prefill in progress ends; -1 none
        ("chunk_s", "f8"),  # what that prefill adds to every step
        ("num_joining", "i8"),
        ("queue_head", "i8"),
        ("queue_len", "i8"),
        ("num_returns", "i8"),
        ("line_head", "i8"),  # first sequence in its line (routers with lines only)
        ("line_tail", "i8"),
        ("line_len", "i8"),
        ("num_free", "i8"),
        ("admissions", "i8"),
        ("flushes", "i8"),
        ("pull_s", "f8"),  # it gets weights for so long when its last sequence has ended; below 0: none to get
        ("prefix_epoch", "i8"),  # how often prompts that nobody held were forgotten
        ("idle", "i8"),
        ("idle_since_s", "f8"),
        ("busy_s", "f8"),
        ("prefill_s", "f8"),
        ("sync_s", "f8"),
        ("starved_s", "f8"),  # idle with nothing admitted
        ("tool_s", "f8"),  # idle with every live sequence waiting for a tool
        ("down_s", "f8"),  # crashed, or its GPUs train
        ("is_down", "i8"),
        ("seq_steps", "f8"),  # verify steps x sequences
        ("stretch_steps", "f8"),  # steps of ended decode stretches
        ("stretch_tokens", "f8"),  # tokens emitted in them
        ("first_tokens", "f8"),  # tokens emitted by a prefill
        ("prefill_tokens", "f8"),
        ("prefix_hit_tokens", "f8"),  # of prompts, found in the cache instead of prefilled
        ("recomputed_tokens", "f8"),  # prefilled again after an abort or a preemption
        ("preemptions", "i8"),
        ("aborts", "i8"),
        ("max_batch", "i8"),
    ],
    align=True,
)

PREFIX_DTYPE = np.dtype(
    [
        ("group", "i8"),
        ("tokens", "i8"),
        ("holders", "i8"),  # sequences whose KV it is part of, those being prefilled included
        ("running", "i8"),  # of them
        ("epoch", "i8"),  # of the replica, when it was last held
    ]
)

COUNTERS_DTYPE = np.dtype(
    [
        ("submitted", "i8"),  # sequences that may start
        ("next_sequence", "i8"),  # first one that has not started, or is in no line
        ("next_replica", "i8"),  # whose turn it is (routers that go round)
        ("started", "i8"),  # sequences that have
        ("started_tokens", "i8"),  # to emit in all their turns
        ("num_ready", "i8"),  # finished groups that may be trained on
        ("num_filtered", "i8"),  # finished groups that the filter took out
        ("filtered_s", "f8"),  # when it did so last
        ("stop_filtered", "i8"),  # `advance` returns when so many have been
        ("num_live", "i8"),
        ("live_since_s", "f8"),
        ("live_s", "f8"),  # time in which any sequence was under way
        ("version", "i8"),  # policy version of the weights in the replicas
        ("finished", "i8"),
        ("trajectory_s", "f8"),  # sum over finished sequences, first admission to last token
        ("restarts", "i8"),  # how often sequences began again from their prompt
        ("max_restarts", "i8"),  # most restarts of any one sequence
        ("restarted_tokens", "i8"),  # emitted, and thrown away by a restart
        ("num_orphans", "i8"),  # sequences that wait on replicas that are down
        ("closed", "i8"),  # 1: no fresh sequence may start (waiting for a weight sync)
        ("discarded_groups", "i8"),  # dropped while under way
        ("discarded_sequences", "i8"),  # of them, those that had started
        ("discarded_tokens", "i8"),  # emitted, and thrown away with them
        ("abandoned_tokens", "i8"),  # that they were still to emit
    ]
)

LIMITS_DTYPE = np.dtype(
    [
        ("mode", "i8"),
        ("num_replicas", "i8"),
        ("max_running", "i8"),
        ("max_live", "i8"),
        ("kv_tokens", "f8"),
        ("block_tokens", "i8"),  # KV is handed out in blocks of so many
        ("chunk_tokens", "i8"),  # 0: prefill at once
        ("tokens_per_seq", "i8"),  # k + 1
        ("keep_prefix", "i8"),
        ("router", "i8"),
        ("prefix_places", "i8"),  # per replica, a power of two; 0: groups do not share their prompt
        ("num_classes", "i8"),
        ("num_pieces", "i8"),  # of a response, each with its own acceptance
        ("record_finish", "i8"),
        ("in_order", "i8"),  # 1: groups are ready in the order of their numbers
    ]
)


class RolloutState(NamedTuple):
    """Everything the kernels read and write."""

    limits: Records
    counters: Records
    replicas: Records
    slots: Records
    prefixes: Records
    """[replicas x places]: prompts in the KV cache that groups share."""
    running: I64
    """[replicas, slots]: heap of (finish step, slot) when jumping, plain list of slots per step."""
    left: I64
    """[replicas, slots]: tokens that the i-th running sequence still has to emit (per step only)."""
    stretch_key: NDArray[np.uint64]
    """[replicas, slots]: random stream of its stretch (per step only)."""
    queue: I32
    """[replicas, slots]: ring of slots waiting for a place."""
    returns_s: F64
    """[replicas, slots]: heap of times at which tools answer."""
    returns_slot: I32
    cohort: I32
    """[replicas, slots]: slots being prefilled."""
    free: I32
    """[replicas, slots]: stack of free slots."""
    next_s: F64
    """[power of two]: time of each replica's next event; inf: none."""
    tree: I64
    """Winner tree over next_s; tree[1] is the replica whose event comes first, the lower index on ties."""
    quota: I64
    """[replicas]: scratch of `submit`: how many sequences start there."""
    deal: I32
    """[replicas x slots]: scratch of `submit`: the replica that each sequence is dealt to."""
    next_in_line: I32
    """[sequences, none without lines]: who stands behind each."""
    stream: NDArray[np.uint64]
    piece_from: I64
    """[pieces]: tokens of the response at which each piece begins, the first at 0."""
    emitted_before: I64
    """[turns]: tokens of the response that earlier turns have; empty with one piece."""
    first_turn: I64
    input_tokens: I32
    output_tokens: I32
    delay_s: NDArray[np.float32]
    group_of: I32
    first_sequence: I64
    """[groups + 1]: sequences of group g are first_sequence[g] .. first_sequence[g + 1]."""
    group_left: I32
    """[groups]: sequences that have not finished; DISCARDED: the group was dropped while under way."""
    group_version: I32
    is_useful: NDArray[np.bool_]
    """[groups]: whether the filter keeps a finished group; empty: it keeps all."""
    filtered_group: I32
    """[groups]: finished groups that the filter took out, in that order; empty without a filter."""
    ready_group: I32
    ready_s: F64
    finish_s: F64


def new_state(
    workload: Workload,
    *,
    num_replicas: int,
    max_running: int,
    max_live: int,
    kv_tokens: float,
    block_tokens: int = 1,
    num_draft_tokens: int,
    num_classes: int,
    stream: np.uint64,
    chunk_tokens: int = 0,
    keep_prefix: bool = True,
    share_prompts: bool = False,
    router: int = LEAST_IN_FLIGHT,
    mode: int = JUMP,
    record_finish: bool = False,
    slowness: Sequence[float] = (),
    num_helpers: int = 0,
    in_order: bool = False,
    piece_from: Sequence[int] = (0,),
) -> RolloutState:
    """Return an idle rollout side at time 0 with nothing submitted; the last `num_helpers` replicas are down."""
    num_replicas += num_helpers
    places = _power_of_two(2 * max_live) if share_prompts else 0
    limits = np.zeros(1, LIMITS_DTYPE)
    counters = np.zeros(1, COUNTERS_DTYPE)
    counters["stop_filtered"] = NEVER
    limits[0] = (
        mode,
        num_replicas,
        max_running,
        max_live,
        kv_tokens,
        block_tokens,
        chunk_tokens,
        num_draft_tokens + 1,
        keep_prefix,
        router,
        places,
        num_classes,
        len(piece_from),
        record_finish,
        in_order,
    )
    replicas = np.zeros(num_replicas, REPLICA_DTYPE)
    replicas["join_step"] = -1
    replicas["pull_s"] = -1.0
    replicas["is_down"][num_replicas - num_helpers :] = 1
    replicas["idle"] = 1
    replicas["num_free"] = max_live
    replicas["slowness"] = 1.0
    replicas["slowness"][: len(slowness)] = slowness
    slots = np.zeros(num_replicas * max_live, SLOT_DTYPE)
    slots["prefix"] = -1
    prefixes = np.zeros(num_replicas * places, PREFIX_DTYPE)
    prefixes["group"] = -1
    width = _power_of_two(num_replicas)
    tree = np.zeros(2 * width, np.int64)
    tree[width:] = np.arange(width)
    for node in range(width - 1, 0, -1):
        tree[node] = tree[2 * node]
    shape = (num_replicas, max_live)
    return RolloutState(
        limits=limits,
        counters=counters,
        replicas=replicas,
        slots=slots,
        prefixes=prefixes,
        running=np.zeros(shape, np.int64),
        left=np.zeros(shape, np.int64),
        stretch_key=np.zeros(shape, np.uint64),
        queue=np.zeros(shape, np.int32),
        returns_s=np.zeros(shape),
        returns_slot=np.zeros(shape, np.int32),
        cohort=np.zeros(shape, np.int32),
        free=np.tile(np.arange(max_live - 1, -1, -1, dtype=np.int32), (num_replicas, 1)),
        next_s=np.full(width, np.inf),
        tree=tree,
        quota=np.zeros(num_replicas, np.int64),
        deal=np.zeros(num_replicas * max_live, np.int32),
        next_in_line=np.zeros(0 if router == LEAST_IN_FLIGHT else workload.num_sequences, np.int32),
        stream=np.array([stream], np.uint64),
        piece_from=np.array(piece_from, np.int64),
        emitted_before=_emitted_before(workload) if len(piece_from) > 1 else np.zeros(0, np.int64),
        first_turn=workload.first_turn,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        delay_s=workload.delay_s,
        group_of=workload.group_of,
        first_sequence=np.concatenate([[0], np.cumsum(workload.group_size, dtype=np.int64)]),
        group_left=workload.group_size.copy(),
        group_version=np.full(workload.num_groups, -1, np.int32),
        is_useful=workload.is_useful,
        filtered_group=np.zeros(len(workload.is_useful), np.int32),
        ready_group=np.zeros(workload.num_groups, np.int32),
        ready_s=np.zeros(workload.num_groups),
        finish_s=np.zeros(workload.num_sequences if record_finish else 0),
    )


def _emitted_before(workload: Workload) -> I64:
    outputs = workload.output_tokens.astype(np.int64)
    before = np.cumsum(outputs) - outputs
    first = workload.first_turn[:-1]
    return before - before[first].repeat(np.diff(workload.first_turn))


def _power_of_two(least: int) -> int:
    """Return the smallest power of two that is not below `least`."""
    return 1 << (least - 1).bit_length()
