"""Workload: every sequence of a run, drawn before it starts, so that all arms generate the same ones.

Does not know when or where a sequence runs.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from simulator.config import MAX_TOKENS, Length, QuantilesLength, SyntheticWorkload, TraceWorkload, TurnsConfig
from simulator.rng import generator
from simulator.turns import split_into_turns
from traces.workload import WorkloadTrace

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

NO_FILTER: Final = np.zeros(0, np.bool_)


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
    truncated_fraction: float | None = None
    """Share of responses cut at the longest length, whatever a longest context cuts; None: a trace does not say."""
    is_useful: Bools = field(default_factory=lambda: NO_FILTER)
    """[groups]: whether a finished group passes the filter; empty without one."""

    @property
    def num_sequences(self) -> int:
        return len(self.first_turn) - 1

    @property
    def has_filter(self) -> bool:
        return len(self.is_useful) > 0

    @property
    def num_groups(self) -> int:
        return len(self.group_size)

    @property
    def max_context_tokens(self) -> int:
        """Return the longest context any sequence reaches."""
        per_turn = self.input_tokens + self.output_tokens
        return int(np.add.reduceat(per_turn, self.first_turn[:-1], dtype=np.int64).max())

    @property
    def mean_context_tokens(self) -> float:
        """Return the context of a typical decode step: what was there before a turn and half of what it adds."""
        return float(np.mean(self.group_tokens / self.group_size)) / 2

    @property
    def max_output_tokens(self) -> int:
        """Return the longest single turn."""
        return int(self.output_tokens.max())


def draw_useful(config: SyntheticWorkload, num_groups: int, *seed: str | int) -> Bools:
    """Return which groups pass the filter; group g is the same however many are asked for."""
    if config.useful_fraction is None:
        return NO_FILTER
    useful: Bools = generator(*seed, "useful").random(num_groups) < config.useful_fraction
    return useful


def draw_workload(
    config: SyntheticWorkload,
    num_groups: int,
    *seed: str | int,
    first_step: int = 0,
    groups_per_step: float | None = None,
) -> Workload:
    """Return `num_groups` groups; group g is the same however many groups are asked for.

    Lengths drift with the RL step that a group belongs to when groups are generated in order: the first
    `groups_per_step` groups, None: prompts_per_step, are those of `first_step`.
    """
    workload = _draw_sequences(config, num_groups, first_step, groups_per_step or config.prompts_per_step, *seed)
    return replace(workload, is_useful=draw_useful(config, num_groups, *seed))


def _draw_sequences(
    config: SyntheticWorkload, num_groups: int, first_step: int, groups_per_step: float, *seed: str | int
) -> Workload:
    group_size = config.group_size
    prompt_tokens = _draw_counts(config.prompt_tokens, num_groups, *seed, "prompt").repeat(group_size)
    response_tokens, truncated = _draw_responses(config, num_groups, first_step, groups_per_step, *seed, "response")
    return sequences_of(config, prompt_tokens, response_tokens, *seed, truncated_fraction=truncated)


def sequences_of(
    config: SyntheticWorkload,
    prompt_tokens: I32,
    response_tokens: I32,
    *seed: str | int,
    truncated_fraction: float | None = None,
) -> Workload:
    """Return sequences of these lengths ([sequences], group after group), in turns as the workload's are."""
    num_sequences, num_groups = len(response_tokens), len(response_tokens) // config.group_size
    groups = np.arange(num_groups, dtype=np.int32).repeat(config.group_size)
    if config.turns is None:
        first_turn = np.arange(num_sequences + 1, dtype=np.int64)
        delays = np.zeros(num_sequences, np.float32)
        return _assemble(first_turn, prompt_tokens, response_tokens, delays, groups, num_groups, truncated_fraction)
    turns = _draw_turns(config.turns, prompt_tokens, response_tokens, *seed)
    return _assemble(*turns, groups, num_groups, truncated_fraction)


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


def quantile(length: QuantilesLength, probability: F64) -> F64:
    """Return the lengths that responses stay at or below with these probabilities."""
    shares, lengths = np.array(length.points).T
    inside: F64 = np.exp(np.interp(probability, shares, np.log(lengths)))
    return inside


def _assemble(
    first_turn: I64,
    inputs: I32,
    outputs: I32,
    delays: NDArray[np.float32],
    groups: I32,
    num_groups: int,
    truncated_fraction: float | None = None,
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
        truncated_fraction=truncated_fraction,
    )


_CHUNK = 1 << 18
"""Draws made at a time, so that a run of millions of sequences needs no more memory than its tokens."""


def _draw_responses(
    config: SyntheticWorkload, num_groups: int, first_step: int, groups_per_step: float, *stream: str | int
) -> tuple[I32, float]:
    """Return the length of every response, group after group, and the share that is cut at the longest length."""
    size, length, share = config.group_size, config.response_tokens, config.group_correlation or 0.0
    own, common = generator(*stream), generator(*stream, "group")
    longest = _limits(length)[1] * (1 - 1e-9)  # the logarithm's rounding must not hide a length that reaches it
    drawn = np.empty(num_groups * size, np.int32)
    num_cut = 0
    chunk = max(_CHUNK // size, 1)
    for first in range(0, num_groups, chunk):
        groups = np.arange(first, min(first + chunk, num_groups))
        normal = own.standard_normal(len(groups) * size)
        if share:
            # Gaussian copula: correlated normals, and every length still a function of one standard normal.
            together = common.standard_normal(len(groups)).repeat(size)
            normal = np.sqrt(share) * together + np.sqrt(1 - share) * normal
        natural = _natural(length, normal)
        if config.length_drift is not None:
            steps, factors = np.array(config.length_drift).T
            natural *= np.interp(first_step + groups // groups_per_step, steps, factors).repeat(size)
        num_cut += int(np.count_nonzero(natural >= longest))
        drawn[first * size : (groups[-1] + 1) * size] = _counts(_cut(length, natural))
    return drawn, num_cut / len(drawn)


def _draw_turns(
    config: TurnsConfig, prompt_tokens: I32, response_tokens: I32, *seed: str | int
) -> tuple[I64, I32, I32, NDArray[np.float32]]:
    """Return first_turn, input_tokens, output_tokens and delay_s of sequences with these prompts and responses."""
    count = len(response_tokens)
    num_turns = np.minimum(_draw_counts(config.num_turns, count, *seed, "turns"), response_tokens)
    first_turn, drawn = np.zeros(count + 1, np.int64), int(num_turns.sum(dtype=np.int64))
    inputs, outputs, delays = np.empty(drawn, np.int32), np.empty(drawn, np.int32), np.empty(drawn, np.float32)
    observation, delay = generator(*seed, "observation"), generator(*seed, "delay")
    chunk = max(_CHUNK * count // drawn, 1)
    for begin in range(0, count, chunk):
        some = slice(begin, begin + chunk)
        size = int(num_turns[some].sum(dtype=np.int64))
        split_into_turns(
            prompt_tokens[some],
            response_tokens[some],
            num_turns[some],
            _counts(_draw(config.observation_tokens, observation, size)),
            _draw(config.delay_s, delay, size),
            config.max_context_tokens,
            first_turn[begin : begin + chunk + 1],
            inputs,
            outputs,
            delays,
        )
    kept = int(first_turn[-1])
    return first_turn, inputs[:kept], outputs[:kept], delays[:kept]


def _draw_counts(length: Length, count: int, *stream: str | int) -> I32:
    """Return `count` whole numbers, at least 1."""
    drawn = np.empty(count, np.int32)
    source = generator(*stream)
    for begin in range(0, count, _CHUNK):
        end = min(begin + _CHUNK, count)
        drawn[begin:end] = _counts(_draw(length, source, end - begin))
    return drawn


def _draw(length: Length, source: np.random.Generator, count: int) -> F64:
    return _cut(length, _natural(length, source.standard_normal(count)))


def _counts(lengths: F64) -> F64:
    return np.maximum(np.rint(lengths), 1.0)


def _cut(length: Length, natural: F64) -> F64:
    return np.clip(natural, *_limits(length))


def _limits(length: Length) -> tuple[float, float]:
    if length.kind == "constant":
        return 0.0, float(MAX_TOKENS)
    return (length.minimum, length.maximum) if length.kind == "lognormal" else (0.0, length.points[-1][1])


def _natural(length: Length, normal: F64) -> F64:
    """Return lengths before any cut, as a rising function of standard normal numbers."""
    if length.kind == "constant":
        return np.full(len(normal), float(length.value))
    if length.kind == "quantiles":
        return quantile(length, ndtr(normal))
    if length.mean is not None:
        log_median = np.log(length.mean) - length.sigma**2 / 2
    else:
        assert length.median is not None
        log_median = np.log(length.median)
    lengths: F64 = np.exp(log_median + length.sigma * normal)
    return lengths
