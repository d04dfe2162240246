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
        per_turn = self.input_tokens.astype(np.int64) + self.output_tokens
        return int(np.add.reduceat(per_turn, self.first_turn[:-1]).max())

    @property
    def max_output_tokens(self) -> int:
        """Return the longest single turn."""
        return int(self.output_tokens.max())


def draw_workload(config: SyntheticWorkload, num_groups: int, *seed: str | int) -> Workload:
    """Return `num_groups` groups; group g is the same however many groups are asked for."""
    group_size = config.group_size
    first_turn: I64
    inputs: I64
    outputs: I64
    num_sequences = num_groups * group_size
    prompts = _draw(config.prompt_tokens, num_groups, *seed, "prompt").repeat(group_size)
    responses = np.maximum(_draw(config.response_tokens, num_sequences, *seed, "response"), 1.0).astype(np.int64)
    prompt_tokens = np.maximum(prompts, 1).astype(np.int64)
    if config.turns is None:
        first_turn = np.arange(num_sequences + 1, dtype=np.int64)
        inputs, outputs = prompt_tokens, responses
        delays = np.zeros(num_sequences, np.float32)
    else:
        drawn = np.rint(_draw(config.turns.num_turns, num_sequences, *seed, "turns"))
        turns = np.clip(drawn.astype(np.int64), 1, responses)
        first_turn = np.concatenate([np.zeros(1, np.int64), np.cumsum(turns)])
        num_turns = int(first_turn[-1])
        index = np.arange(num_turns) - first_turn[:-1].repeat(turns)
        share = responses.repeat(turns)
        count = turns.repeat(turns)
        outputs = share * (index + 1) // count - share * index // count
        first = index == 0
        observed = np.maximum(_draw(config.turns.observation_tokens, num_turns, *seed, "observation"), 1)
        inputs = np.where(first, prompt_tokens.repeat(turns), observed.astype(np.int64))
        delays = np.where(first, 0.0, _draw(config.turns.delay_s, num_turns, *seed, "delay")).astype(np.float32)
    groups = np.arange(num_groups, dtype=np.int32).repeat(group_size)
    return _assemble(first_turn, inputs, outputs, delays, groups, num_groups)


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
        np.array([turn.input_tokens for turn in turns], np.int64),
        np.array([turn.output_tokens for turn in turns], np.int64),
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
    first_turn: I64, inputs: I64, outputs: I64, delays: NDArray[np.float32], groups: I32, num_groups: int
) -> Workload:
    output_per_sequence = np.add.reduceat(outputs, first_turn[:-1])
    tokens_per_sequence = output_per_sequence + np.add.reduceat(inputs, first_turn[:-1])
    return Workload(
        first_turn=first_turn,
        input_tokens=inputs.astype(np.int32),
        output_tokens=outputs.astype(np.int32),
        delay_s=delays,
        group_of=groups,
        group_size=np.bincount(groups, minlength=num_groups).astype(np.int32),
        group_tokens=np.bincount(groups, weights=tokens_per_sequence, minlength=num_groups).astype(np.int64),
        group_output_tokens=np.bincount(groups, weights=output_per_sequence, minlength=num_groups).astype(np.int64),
    )


def _draw(length: Length, count: int, *stream: str | int) -> NDArray[np.float64]:
    if length.kind == "constant":
        return np.full(count, float(length.value))
    log_mean = np.log(length.mean) - length.sigma**2 / 2
    drawn = np.exp(log_mean + length.sigma * generator(*stream).standard_normal(count))
    clipped: NDArray[np.float64] = np.clip(drawn, length.minimum, length.maximum)
    return clipped
