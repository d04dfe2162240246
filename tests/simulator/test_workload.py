"""Workloads: the same sequences for every arm, however many are asked for, and no token lost between turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import ConstantLength, LognormalLength, SyntheticWorkload, TraceWorkload, TurnsConfig
from simulator.workload import Workload, draw_workload, groups_per_step, trace_workload
from traces.base import Provenance
from traces.workload import SequenceRow, Turn, WorkloadTrace

TURNS = TurnsConfig(
    num_turns=LognormalLength(mean=4.0, sigma=0.6, maximum=12.0),
    observation_tokens=LognormalLength(mean=30.0, sigma=0.5, maximum=200.0),
    delay_s=LognormalLength(mean=2.0, sigma=1.0, minimum=0.01, maximum=60.0),
    max_context_tokens=1_000_000,
)
LENGTHS = st.one_of(
    st.builds(ConstantLength, value=st.floats(0, 3000)),
    st.builds(
        LognormalLength,
        mean=st.floats(1, 500),
        sigma=st.floats(0, 2),
        minimum=st.just(0.0),
        maximum=st.floats(500, 5000),
    ),
)


def config(turns: TurnsConfig | None = None, group_size: int = 4) -> SyntheticWorkload:
    return SyntheticWorkload(
        prompts_per_step=8,
        group_size=group_size,
        prompt_tokens=LognormalLength(mean=100.0, sigma=0.5, maximum=400.0),
        response_tokens=LognormalLength(mean=500.0, sigma=1.0, maximum=4000.0),
        turns=turns,
    )


def totals(turns: np.ndarray, workload: Workload) -> np.ndarray:
    return np.add.reduceat(turns.astype(np.int64), workload.first_turn[:-1])


@pytest.mark.parametrize("turns", [None, TURNS])
def test_a_group_is_the_same_however_many_are_asked_for(turns: TurnsConfig | None) -> None:
    few, many = draw_workload(config(turns), 20, "seed", 1), draw_workload(config(turns), 300, "seed", 1)
    last = few.first_turn[-1]
    assert np.array_equal(few.first_turn, many.first_turn[: len(few.first_turn)])
    for name in ("input_tokens", "output_tokens", "delay_s"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:last])
    assert np.array_equal(few.group_tokens, many.group_tokens[:20])
    again, other = draw_workload(config(turns), 20, "seed", 1), draw_workload(config(turns), 20, "seed", 2)
    assert np.array_equal(few.output_tokens, again.output_tokens)
    assert not np.array_equal(few.output_tokens[:20], other.output_tokens[:20])


@given(LENGTHS, LENGTHS, LENGTHS, st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_no_token_is_lost_between_turns_and_groups(
    prompt: ConstantLength, response: ConstantLength, observation: ConstantLength, group: int, num: int, multi: bool
) -> None:
    turns = TURNS.model_copy(update={"observation_tokens": observation}) if multi else None
    shape = {"prompts_per_step": num, "group_size": group, "prompt_tokens": prompt, "response_tokens": response}
    one = draw_workload(SyntheticWorkload(**shape), num, "x")
    workload = draw_workload(SyntheticWorkload(**shape, turns=turns), num, "x")
    assert workload.num_sequences == num * group
    assert workload.output_tokens.min() >= 1
    assert workload.input_tokens.min() >= 1
    assert np.array_equal(totals(workload.output_tokens, workload), one.output_tokens)
    assert np.array_equal(workload.input_tokens[workload.first_turn[:-1]], one.input_tokens)
    assert np.array_equal(workload.group_of, np.arange(num).repeat(group))
    assert workload.group_size.sum() == workload.num_sequences
    assert workload.group_output_tokens.sum() == workload.output_tokens.sum(dtype=np.int64)
    assert workload.group_tokens.sum() == (workload.output_tokens + workload.input_tokens).sum(dtype=np.int64)
    contexts = totals(workload.output_tokens, workload) + totals(workload.input_tokens, workload)
    assert workload.max_context_tokens == contexts.max()
    assert workload.max_output_tokens == workload.output_tokens.max()


def test_members_of_a_group_share_the_prompt_and_not_the_response() -> None:
    workload = draw_workload(config(), 50, "x")
    prompts = workload.input_tokens.reshape(50, 4)
    assert np.all(prompts == prompts[:, :1])
    assert len(np.unique(workload.output_tokens)) > 100


def test_lengths_have_the_mean_that_was_asked_for() -> None:
    asked = SyntheticWorkload(
        prompts_per_step=1,
        group_size=1,
        prompt_tokens=ConstantLength(value=7.0),
        response_tokens=LognormalLength(mean=20.0, sigma=0.5, maximum=10_000.0),
    )
    lengths = draw_workload(asked, 100_000, "x").output_tokens
    assert lengths.mean() == pytest.approx(20.0, abs=4 * lengths.std() / np.sqrt(len(lengths)))


def test_only_the_first_turn_starts_without_a_tool() -> None:
    workload = draw_workload(config(TURNS), 100, "x")
    first = np.zeros(len(workload.delay_s), bool)
    first[workload.first_turn[:-1]] = True
    assert np.all(workload.delay_s[first] == 0.0)
    assert np.all(workload.delay_s[~first] >= 0.01 * (1 - 1e-6))
    counts = np.diff(workload.first_turn)
    assert counts.min() == 1
    assert counts.max() <= 12


def test_a_trajectory_ends_before_the_turn_that_would_exceed_the_longest_context() -> None:
    free = draw_workload(config(TURNS), 100, "x")
    limit = 700
    cut = draw_workload(config(TURNS.model_copy(update={"max_context_tokens": limit})), 100, "x")
    assert cut.num_sequences == free.num_sequences
    assert len(cut.output_tokens) < len(free.output_tokens)
    for s in range(cut.num_sequences):
        begin, end = cut.first_turn[s], cut.first_turn[s + 1]
        whole = slice(free.first_turn[s], free.first_turn[s] + end - begin)
        assert np.array_equal(cut.output_tokens[begin:end], free.output_tokens[whole])
        tokens = (cut.output_tokens[begin:end] + cut.input_tokens[begin:end]).sum()
        assert tokens <= limit or end - begin == 1


def test_a_trace_is_replayed_in_order_and_starts_again() -> None:
    def row(rl_step: int, group: int, *turns: tuple[int, int]) -> SequenceRow:
        return SequenceRow(
            rl_step=rl_step, group=group, turns=tuple(Turn(input_tokens=i, output_tokens=o) for i, o in turns)
        )

    trace = WorkloadTrace(
        name="t",
        provenance=Provenance(source="a test", created="2026-01-01"),
        sequences=(row(1, 0, (5, 6)), row(0, 1, (1, 2), (3, 4)), row(0, 0, (7, 8)), row(0, 1, (9, 10))),
    )
    workload = trace_workload(trace, 5)
    assert workload.group_size.tolist() == [1, 2, 1, 1, 2]
    assert workload.first_turn.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert workload.input_tokens.tolist() == [7, 1, 3, 9, 5, 7, 1, 3, 9]
    assert workload.output_tokens.tolist() == [8, 2, 4, 10, 6, 8, 2, 4, 10]
    assert workload.group_tokens.tolist() == [15, 29, 11, 15, 29]
    assert workload.group_output_tokens.tolist() == [8, 16, 6, 8, 16]
    assert groups_per_step(TraceWorkload(trace="t"), trace) == 2  # 1.5, rounded to even
