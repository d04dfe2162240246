"""Workload: every sequence of a run, drawn before it starts, so that all arms generate the same ones.

Does not know when or where a sequence runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.config import Length, SyntheticWorkload, TraceWorkload
from simulator.rng import generator
from traces.workload import WorkloadTrace

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Workload:
    """Sequences in the order they are submitted, group after group, as flat arrays of turns."""

    first_turn: I64
    """[sequences + 1]: turns of sequence s are first_turn[s] .. first_turn[s + 1]."""
    input_tokens: I32
    """[turns]: new tokens to prefill."""
    output_tokens: I32
    """[turns]: tokens to generate, at least 1."""
    delay_s: NDArray[np.float32]
    """[turns]: tool time before the turn."""
    group_of: I32
    """[sequences]"""
    group_size: I32
    """[groups]: sequences of a group."""
    group_tokens: I64
    """[groups]: tokens the trainer sees, prompts, observations and responses."""
    group_output_tokens: I64
    """[groups]: tokens generated."""

    @property
    def num_sequences(self) -> int:
        return len(self.first_turn) - 1

    @property
    def num_groups(self) -> int:
        return len(self.group_size)

    @property
    def max_context_tokens(self) -> int:
        """Return the longest context any sequence reaches."""
        per_turn = self.input_tokens + self.output_tokens
        return int(np.add.reduceat(per_turn, self.first_turn[:-1], dtype=np.int64).max())

    @property
    def max_output_tokens(self) -> int:
        """Return the longest single turn."""
        return int(self.output_tokens.max())


def draw_workload(config: SyntheticWorkload, num_groups: int, *seed: str | int) -> Workload:
    """Return `num_groups` groups; group g is the same however many groups are asked for."""
    group_size = config.group_size
    num_sequences = num_groups * group_size
    prompt_tokens = _draw_counts(config.prompt_tokens, num_groups, *seed, "prompt").repeat(group_size)
    response_tokens = _draw_counts(config.response_tokens, num_sequences, *seed, "response")
    groups = np.arange(num_groups, dtype=np.int32).repeat(group_size)
    if config.turns is None:
        first_turn = np.arange(num_sequences + 1, dtype=np.int64)
        delays = np.zeros(num_sequences, np.float32)
        return _assemble(first_turn, prompt_tokens, response_tokens, delays, groups, num_groups)
    turns = np.minimum(_draw_counts(config.turns.num_turns, num_sequences, *seed, "turns"), response_tokens)
    first_turn = np.concatenate([np.zeros(1, np.int64), np.cumsum(turns, dtype=np.int64)])
    num_turns = int(first_turn[-1])
    index = np.arange(num_turns) - first_turn[:-1].repeat(turns)
    share, count = response_tokens.astype(np.int64).repeat(turns), turns.repeat(turns)
    outputs = np.floor_divide(share * (index + 1), count) - np.floor_divide(share * index, count)
    observed = _draw_counts(config.turns.observation_tokens, num_turns, *seed, "observation")
    inputs = np.where(index == 0, prompt_tokens.repeat(turns), observed)
    outputs = outputs.astype(np.int32)
    delays = np.where(index == 0, 0.0, _draw(config.turns.delay_s, num_turns, *seed, "delay")).astype(np.float32)
    # A trajectory ends before the turn that would exceed the longest context; its first turn always stays.
    context = np.cumsum(inputs + outputs.astype(np.int64))
    before = (context - inputs - outputs)[first_turn[:-1]].repeat(turns)
    kept = (context - before <= config.turns.max_context_tokens) | (index == 0)
    num_kept = np.add.reduceat(kept, first_turn[:-1], dtype=np.int64)
    first_turn = np.concatenate([np.zeros(1, np.int64), np.cumsum(num_kept)])
    return _assemble(first_turn, inputs[kept], outputs[kept], delays[kept], groups, num_groups)


def trace_workload(trace: WorkloadTrace, num_groups: int) -> Workload:
    """Return `num_groups` groups of a trace, in the order of its RL steps, from the start again when it ends."""
    rows = sorted(range(len(trace.sequences)), key=lambda i: (trace.sequences[i].rl_step, trace.sequences[i].group, i))
    members: dict[tuple[int, int], list[int]] = {}
    for i in rows:
        members.setdefault((trace.sequences[i].rl_step, trace.sequences[i].group), []).append(i)
    order = list(members.values())
    chosen = [(g, trace.sequences[i]) for g in range(num_groups) for i in order[g % len(order)]]
    turns = [turn for _, row in chosen for turn in row.turns]
    first_turn = np.concatenate([[0], np.cumsum([len(row.turns) for _, row in chosen])]).astype(np.int64)
    return _assemble(
        first_turn,
        np.array([turn.input_tokens for turn in turns], np.int32),
        np.array([turn.output_tokens for turn in turns], np.int32),
        np.array([turn.delay_s for turn in turns], np.float32),
        np.array([g for g, _ in chosen], np.int32),
        num_groups,
    )


def groups_per_step(config: SyntheticWorkload | TraceWorkload, trace: WorkloadTrace | None) -> int:
    """Return how many groups one RL step trains on."""
    if isinstance(config, SyntheticWorkload):
        return config.prompts_per_step
    assert trace is not None
    steps: dict[int, set[int]] = {}
    for row in trace.sequences:
        steps.setdefault(row.rl_step, set()).add(row.group)
    return round(sum(map(len, steps.values())) / len(steps))


def _assemble(
    first_turn: I64, inputs: I32, outputs: I32, delays: NDArray[np.float32], groups: I32, num_groups: int
) -> Workload:
    group_size = np.bincount(groups, minlength=num_groups).astype(np.int32)
    first_sequence = np.cumsum(group_size, dtype=np.int64) - group_size
    group_turns = first_turn[first_sequence]  # a group's turns lie side by side
    output_tokens = np.add.reduceat(outputs, group_turns, dtype=np.int64)
    return Workload(
        first_turn=first_turn,
        input_tokens=inputs,
        output_tokens=outputs,
        delay_s=delays,
        group_of=groups,
        group_size=group_size,
        group_tokens=output_tokens + np.add.reduceat(inputs, group_turns, dtype=np.int64),
        group_output_tokens=output_tokens,
    )


_CHUNK = 1 << 18
"""Draws made at a time, so that a run of millions of sequences needs no more memory than its tokens."""


def _draw_counts(length: Length, count: int, *stream: str | int) -> I32:
    """Return `count` whole numbers, at least 1."""
    drawn = np.empty(count, np.int32)
    values = _Drawer(length, *stream)
    for begin in range(0, count, _CHUNK):
        end = min(begin + _CHUNK, count)
        drawn[begin:end] = np.maximum(np.rint(values.next(end - begin)), 1.0)
    return drawn


def _draw(length: Length, count: int, *stream: str | int) -> NDArray[np.float64]:
    return _Drawer(length, *stream).next(count)


class _Drawer:
    """Draws one after the other from one stream, in pieces of any size."""

    def __init__(self, length: Length, *stream: str | int) -> None:
        self._length = length
        self._generator = generator(*stream)

    def next(self, count: int) -> NDArray[np.float64]:
        length = self._length
        if length.kind == "constant":
            return np.full(count, float(length.value))
        normal = self._generator.standard_normal(count)
        log_mean = np.log(length.mean) - length.sigma**2 / 2
        clipped: NDArray[np.float64] = np.clip(np.exp(log_mean + length.sigma * normal), length.minimum, length.maximum)
        return clipped
