"""A serving engine with continuous batching, simulated one iteration at a time; shares no code with `simulator`.

The rules of vLLM's scheduler without chunked prefill: first come first served; at most `max_num_seqs` run together;
what waits and fits is prefilled, whole prompts in one pass, before anybody decodes further; a decode iteration gives
every running sequence one token; the KV cache is made of blocks, and when they run out the latest sequence gives its
blocks back and is prefilled again later, before everybody who waits. A batch is padded to the next captured CUDA graph.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Trajectory:
    """A client's conversation: prompt and response lengths of its turns, and the seconds before each."""

    arrival_s: float
    inputs: list[int]
    outputs: list[int]
    delays_s: list[float]


@dataclass(frozen=True)
class Latency:
    """One latency table: what an iteration takes."""

    graph_batches: list[int]
    contexts: list[int]
    decode_s: list[list[float]]
    """[graph, context]: seconds of one decode iteration at the mean context."""
    prefill_tokens: list[int]
    prefill_s: list[float]
    """Seconds of a pass over so many new tokens, attention left out."""
    attention_s_per_token2: float

    def decode(self, batch: int, mean_context: float) -> float:
        """Return the seconds of one decode iteration."""
        row = next(row for size, row in zip(self.graph_batches, self.decode_s, strict=True) if size >= batch)
        return _line(self.contexts, row, max(mean_context, self.contexts[0]))

    def prefill(self, tokens: int, pairs: float) -> float:
        """Return the seconds of a pass over new tokens that attend to so many pairs of tokens."""
        return _line(self.prefill_tokens, self.prefill_s, tokens) + pairs * self.attention_s_per_token2


@dataclass(frozen=True)
class Engine:
    """Replicas behind a router that knows how many sequences each holds."""

    num_replicas: int
    max_num_seqs: int
    max_live: int
    """Trajectories that a replica holds, those between two turns included."""
    kv_blocks: int
    watermark: float = 0.01
    """Share of the blocks that admission leaves free (vLLM's default)."""


@dataclass(eq=False)
class _Sequence:
    number: int
    trajectory: Trajectory
    turn: int = 0
    cached: int = 0
    """Tokens in the KV cache when it last ran."""
    to_prefill: int = 0
    left: int = 0

    def begin_turn(self) -> None:
        self.to_prefill += self.trajectory.inputs[self.turn]
        self.left = self.trajectory.outputs[self.turn]

    def blocks(self, more: int = 0) -> int:
        return -(-(self.cached + self.to_prefill + more) // BLOCK_TOKENS)


@dataclass
class _Replica:
    time_s: float = 0.0
    live: int = 0
    waiting: deque[_Sequence] = field(default_factory=deque)
    running: list[_Sequence] = field(default_factory=list)
    tools: list[tuple[float, int, _Sequence]] = field(default_factory=list)
    num_preempted: int = 0
    leaves_s: list[float] = field(default_factory=list)
    """When those left who left with the iteration under way; a router learns of it only then."""

    def live_at(self, now_s: float) -> int:
        return self.live + sum(leave_s > now_s for leave_s in self.leaves_s)


def serve(trajectories: list[Trajectory], engine: Engine, latency: Latency) -> tuple[list[float], int]:
    """Return when each trajectory ends, and how often a sequence was preempted; arrivals must be in order."""
    replicas = [_Replica() for _ in range(engine.num_replicas)]
    pending: deque[_Sequence] = deque()
    finish_s = [0.0] * len(trajectories)
    arrived = 0
    while True:
        times = [_next_s(replica, pending, engine) for replica in replicas]
        soonest = min(range(len(replicas)), key=times.__getitem__)
        if arrived < len(trajectories) and trajectories[arrived].arrival_s <= times[soonest]:
            now_s = trajectories[arrived].arrival_s
            pending.append(_Sequence(arrived, trajectories[arrived]))
            arrived += 1
            live = [replica.live_at(now_s) for replica in replicas]
            emptiest = replicas[live.index(min(live))]
            if min(live) < engine.max_live:
                emptiest.time_s = max(emptiest.time_s, now_s)
                _take(emptiest, pending)
            continue
        if times[soonest] == float("inf"):
            return finish_s, sum(replica.num_preempted for replica in replicas)
        replica = replicas[soonest]
        replica.time_s = times[soonest]
        _iterate(replica, pending, engine, latency, finish_s)


def _next_s(replica: _Replica, pending: deque[_Sequence], engine: Engine) -> float:
    """Return when the replica begins its next iteration; inf: it has nothing to do."""
    if replica.running or replica.waiting or (pending and replica.live < engine.max_live):
        return replica.time_s
    return max(replica.time_s, replica.tools[0][0]) if replica.tools else float("inf")


def _take(replica: _Replica, pending: deque[_Sequence]) -> None:
    sequence = pending.popleft()
    sequence.begin_turn()
    replica.live += 1
    replica.waiting.append(sequence)


def _iterate(
    replica: _Replica, pending: deque[_Sequence], engine: Engine, latency: Latency, finish_s: list[float]
) -> None:
    """Make one iteration: a prefill of what waits and fits, or else one token for everybody who runs."""
    replica.leaves_s.clear()
    while replica.tools and replica.tools[0][0] <= replica.time_s:
        replica.waiting.append(heapq.heappop(replica.tools)[2])
    admitted = _schedule(replica, pending, engine)
    if admitted:
        tokens = sum(sequence.to_prefill for sequence in admitted)
        pairs = sum(s.to_prefill * (s.cached + s.to_prefill / 2) for s in admitted)
        replica.time_s += latency.prefill(tokens, pairs)
        for sequence in admitted:
            sequence.cached, sequence.to_prefill = sequence.cached + sequence.to_prefill, 0
        replica.running += admitted
        _emit(replica, admitted, finish_s)
    elif replica.running:
        _preempt(replica, engine)
        batch = len(replica.running)
        mean_context = sum(sequence.cached for sequence in replica.running) / batch
        replica.time_s += latency.decode(batch, mean_context)
        for sequence in replica.running:
            sequence.cached += 1
        _emit(replica, list(replica.running), finish_s)


def _schedule(replica: _Replica, pending: deque[_Sequence], engine: Engine) -> list[_Sequence]:
    admitted: list[_Sequence] = []
    used = sum(sequence.blocks() for sequence in replica.running)
    while len(replica.running) + len(admitted) < engine.max_num_seqs:
        if not replica.waiting:
            if not pending or replica.live >= engine.max_live:
                break
            _take(replica, pending)
        need = replica.waiting[0].blocks()
        if used + need > (1 - engine.watermark) * engine.kv_blocks and (replica.running or admitted):
            break
        used += need
        admitted.append(replica.waiting.popleft())
    return admitted


def _preempt(replica: _Replica, engine: Engine) -> None:
    while len(replica.running) > 1 and sum(s.blocks(more=1) for s in replica.running) > engine.kv_blocks:
        latest = replica.running.pop()
        latest.to_prefill, latest.cached = latest.cached, 0
        replica.waiting.appendleft(latest)
        replica.num_preempted += 1


def _emit(replica: _Replica, sequences: list[_Sequence], finish_s: list[float]) -> None:
    """Give each sequence a token; those whose turn is over leave the batch."""
    ended = False
    for sequence in sequences:
        sequence.left -= 1
        if sequence.left > 0:
            continue
        ended = True
        sequence.turn += 1
        if sequence.turn == len(sequence.trajectory.outputs):
            finish_s[sequence.number] = replica.time_s
            replica.live -= 1
            replica.leaves_s.append(replica.time_s)
        else:
            answer_s = replica.time_s + sequence.trajectory.delays_s[sequence.turn]
            sequence.begin_turn()
            heapq.heappush(replica.tools, (answer_s, sequence.number, sequence))
    if ended:
        replica.running = [sequence for sequence in replica.running if sequence.left > 0 and not sequence.to_prefill]


def _line(xs: list[int], ys: list[float], x: float) -> float:
    i = 0
    while i < len(xs) - 2 and x >= xs[i + 1]:
        i += 1
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])
