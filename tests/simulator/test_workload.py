"""Workloads: the same sequences for every arm, however many are asked for, and no token lost between turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simulator.config import (
    MAX_TOKENS,
    ConstantLength,
    Length,
    LognormalLength,
    QuantilesLength,
    SyntheticWorkload,
    TraceWorkload,
    TurnsConfig,
)
from simulator.workload import Workload, draw_workload, groups_per_step, quantile, trace_workload
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


WIDE = LognormalLength(median=20_000.0, sigma=0.7, maximum=float(MAX_TOKENS))
TAILED = QuantilesLength(points=((0.0, 64.0), (0.5, 4000.0), (0.9, 12_000.0), (0.99, 40_000.0), (1.0, 65_536.0)))


def responses(length: Length, num_groups: int, group_size: int, *seed: str | int, **fields: object) -> np.ndarray:
    """Return response lengths, [groups, members]."""
    asked = SyntheticWorkload(
        prompts_per_step=10,
        group_size=group_size,
        prompt_tokens=ConstantLength(value=7.0),
        response_tokens=length,
        **fields,  # type: ignore[arg-type]
    )
    return draw_workload(asked, num_groups, *seed).output_tokens.reshape(num_groups, group_size)


def on_the_normal_scale(length: Length, tokens: np.ndarray) -> np.ndarray:
    if length.kind == "lognormal":
        assert length.median is not None
        return np.log(tokens / length.median) / length.sigma
    assert length.kind == "quantiles"
    shares, lengths = np.array(length.points).T
    # Rounding may bring a length to an end of the range, whose normal number is infinite.
    return stats.norm.ppf(np.interp(np.log(tokens), np.log(lengths), shares).clip(1e-6, 1 - 1e-6))


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


@pytest.mark.parametrize(
    "length",
    [
        ConstantLength(value=7.0),
        LognormalLength(mean=300.0, sigma=1.0, minimum=100.0, maximum=800.0),
        LognormalLength(median=300.0, sigma=0.0, maximum=800.0),
        LognormalLength(median=300.0, sigma=2.0, minimum=0.0, maximum=800.0),
        TAILED,
        QuantilesLength(points=((0.0, 10.0), (0.4, 10.0), (0.7, 500.0), (1.0, 500.0))),
    ],
)
def test_the_mean_after_the_cut_is_that_of_what_is_drawn(length: Length) -> None:
    drawn = responses(length, 200_000, 1, "x")
    assert drawn.mean() == pytest.approx(length.mean_after_cut, abs=4 * drawn.std() / np.sqrt(drawn.size) + 0.05)


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


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.floats(1, MAX_TOKENS)), max_size=6))
def test_quantiles_are_exact_at_their_points_and_never_fall(points: list[tuple[float, float]]) -> None:
    shares = [0.0, *sorted({share for share, _ in points}), 1.0]
    lengths = sorted([0.5, *(length for _, length in points), MAX_TOKENS])[: len(shares) - 1]
    length = QuantilesLength(points=tuple(zip(shares, [*lengths, float(MAX_TOKENS)], strict=True)))
    shares, stated = np.array(length.points).T
    assert quantile(length, shares) == pytest.approx(stated, rel=1e-12)
    assert np.all(np.diff(quantile(length, np.linspace(0, 1, 1001))) >= 0)


def test_between_two_quantiles_the_logarithm_is_a_straight_line() -> None:
    length = QuantilesLength(points=((0.0, 100.0), (0.5, 10_000.0), (1.0, 40_000.0)))
    assert quantile(length, np.array([0.25, 0.75])) == pytest.approx([1000.0, 20_000.0])


def test_drawn_lengths_have_the_quantiles_that_were_asked_for() -> None:
    tokens = responses(TAILED, 200_000, 1, "x").ravel()
    for share, stated in TAILED.points[1:-1]:
        below = np.mean(tokens <= stated)
        assert below == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(tokens)))
    assert tokens.max() <= 65_536
    assert tokens.min() >= 64


def test_the_median_is_the_one_that_was_asked_for_and_means_the_same_as_its_mean() -> None:
    tokens = responses(LognormalLength(median=20_000.0, sigma=1.0, maximum=30_000.0), 100_000, 1, "x")
    assert np.mean(tokens < 20_000) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(tokens.size))
    by_mean = LognormalLength(mean=20_000 * np.exp(0.5), sigma=1.0, maximum=40_000.0)
    by_median = LognormalLength(median=20_000.0, sigma=1.0, maximum=40_000.0)
    difference = responses(by_mean, 1000, 2, "x") - responses(by_median, 1000, 2, "x")
    assert np.abs(difference).max() <= 1


def test_without_correlation_and_drift_the_lengths_are_those_of_before() -> None:
    plain = responses(WIDE, 500, 4, "x")
    assert np.array_equal(plain, responses(WIDE, 500, 4, "x", group_correlation=0.0))
    assert np.array_equal(plain, responses(WIDE, 500, 4, "x", length_drift=((0, 1.0), (9, 1.0))))
    # Frozen when correlation and drift came; the same numbers were drawn before there were any.
    assert responses(LognormalLength(mean=500.0, sigma=1.0, maximum=4000.0), 2, 4, "seed", 1).tolist() == [
        [312, 391, 161, 176],
        [176, 455, 266, 833],
    ]


@pytest.mark.parametrize("length", [WIDE, TAILED])
@pytest.mark.parametrize("correlation", [0.3, 0.8, 1.0])
def test_correlation_leaves_the_distribution_of_one_response_alone(length: Length, correlation: float) -> None:
    # One response per group, so that the draws are independent as the test demands.
    tokens = responses(length, 40_000, 3, "x", group_correlation=correlation)[:, 1]
    assert stats.kstest(on_the_normal_scale(length, tokens), "norm").pvalue > 0.001


@pytest.mark.parametrize("length", [WIDE, TAILED])
@pytest.mark.parametrize("correlation", [None, 0.1, 0.5, 0.9])
def test_the_intraclass_correlation_is_the_one_that_was_asked_for(length: Length, correlation: float | None) -> None:
    num_groups, size = 20_000, 4
    tokens = responses(length, num_groups, size, "x", group_correlation=correlation)
    normal = on_the_normal_scale(length, tokens)
    between = size * normal.mean(axis=1).var(ddof=1)
    within = normal.var(axis=1, ddof=1).mean()
    measured = (between - within) / (between + (size - 1) * within)
    asked = correlation or 0.0
    # Standard error of the analysis of variance's estimate (Fisher 1925, sec. 40).
    error = np.sqrt(2 / (size * (size - 1) * num_groups)) * (1 - asked) * (1 + (size - 1) * asked)
    assert measured == pytest.approx(asked, abs=4 * error)


def test_fully_correlated_responses_to_one_prompt_are_equally_long() -> None:
    tokens = responses(WIDE, 100, 5, "x", group_correlation=1.0)
    assert np.all(tokens == tokens[:, :1])
    assert len(np.unique(tokens[:, 0])) > 90


@pytest.mark.parametrize("group_size", [1, 7])
def test_a_correlated_drifting_group_is_the_same_however_many_are_asked_for(group_size: int) -> None:
    fields = {"group_correlation": 0.6, "length_drift": ((3, 1.0), (30, 4.0))}
    few = responses(TAILED, 11, group_size, "x", **fields)
    many = responses(TAILED, 300_000 // group_size, group_size, "x", **fields)  # more than are drawn at a time
    assert np.array_equal(few, many[:11])


@pytest.mark.parametrize("correlation", [None, 0.7])
def test_every_length_grows_by_the_factor_of_its_rl_step(correlation: float | None) -> None:
    drift = ((10, 1.0), (20, 3.0), (40, 2.0))
    asked = SyntheticWorkload(
        prompts_per_step=10,
        group_size=4,
        prompt_tokens=ConstantLength(value=7.0),
        response_tokens=LognormalLength(median=20_000.0, sigma=0.3, maximum=float(MAX_TOKENS)),
        group_correlation=correlation,
    )
    plain = draw_workload(asked, 500, "x").output_tokens.reshape(50, 40)
    drifting = asked.model_copy(update={"length_drift": drift})
    grown = draw_workload(drifting, 500, "x", first_step=5).output_tokens.reshape(50, 40)
    factors = np.interp(np.arange(5, 55), [10, 20, 40], [1.0, 3.0, 2.0])
    assert np.abs(grown - plain * factors[:, None]).max() <= 0.5 + 0.5 * 3.0  # both are rounded
    assert grown.mean(axis=1) / plain.mean(axis=1) == pytest.approx(factors, rel=1e-4)


def test_a_constant_length_drifts_exactly() -> None:
    tokens = responses(ConstantLength(value=1000.0), 40, 2, "x", length_drift=((0, 1.0), (2, 2.0)))
    assert tokens[::10, 0].tolist() == [1000, 1500, 2000, 2000]


@pytest.mark.parametrize("length", [LognormalLength(median=3000.0, sigma=0.5, maximum=8000.0), TAILED])
def test_drifting_lengths_are_cut_at_the_longest_again(length: Length) -> None:
    longest = 8000 if length.kind == "lognormal" else 65_536
    tokens = responses(length, 200, 4, "x", length_drift=((0, 20.0),))
    assert tokens.max() == longest
    assert np.mean(tokens == longest) > 0.2


def test_the_share_of_cut_responses_is_counted() -> None:
    def share(length: Length, **fields: object) -> float:
        asked = SyntheticWorkload(
            prompts_per_step=10, group_size=4, prompt_tokens=ConstantLength(value=7.0), response_tokens=length
        ).model_copy(update=fields)
        workload = draw_workload(asked, 10_000, "x")
        assert workload.truncated_fraction is not None
        return workload.truncated_fraction

    error = 4 * 0.5 / np.sqrt(40_000)
    cut = LognormalLength(median=1000.0, sigma=0.5, maximum=1500.0)
    expected = stats.norm.sf(np.log(1.5) / 0.5)
    assert share(cut) == pytest.approx(expected, abs=error)
    assert share(cut, length_drift=((0, 1.5),)) == pytest.approx(0.5, abs=error)
    assert share(cut, turns=TURNS) == share(cut)
    assert share(QuantilesLength(points=((0.0, 64.0), (0.7, 8192.0), (1.0, 8192.0)))) == pytest.approx(0.3, abs=error)
    assert share(TAILED) == 0.0
    assert share(ConstantLength(value=500.0)) == 0.0


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
    assert workload.truncated_fraction is None
    assert workload.group_size.tolist() == [1, 2, 1, 1, 2]
    assert workload.first_turn.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert workload.input_tokens.tolist() == [7, 1, 3, 9, 5, 7, 1, 3, 9]
    assert workload.output_tokens.tolist() == [8, 2, 4, 10, 6, 8, 2, 4, 10]
    assert workload.group_tokens.tolist() == [15, 29, 11, 15, 29]
    assert workload.group_output_tokens.tolist() == [8, 16, 6, 8, 16]
    assert groups_per_step(TraceWorkload(trace="t"), trace) == 2  # 1.5, rounded to even
