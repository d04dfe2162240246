"""The profile: its rows give timed steps back, its counts are the engine's, its lines go through what was timed."""

import itertools
import math
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import bebop
from profiler.errors import DeviceError
from profiler.testbed import timed_engine
from profiler.testbed.cli import read_config
from profiler.testbed.counting import count, group_correlation, quantiles
from profiler.testbed.engine import Finished, Request
from profiler.testbed.neighbour import requests_of, training_beside
from profiler.testbed.pace import Pace
from profiler.testbed.parts import PreparedParts
from profiler.testbed.prepared import prepare, weights_of
from profiler.testbed.profile import with_messages
from profiler.testbed.step_trace import (
    Times,
    batches_of,
    grid_points,
    held_out_points,
    latency_trace,
    prefill_texts,
    time_engine,
)
from profiler.testbed.task import PROMPT_TOKENS
from profiler.testbed.timed_engine import WARM_STEPS, StepPoint, TimedEngine, spread
from profiler.testbed.torch_engine import Part
from profiler.testbed.train_times import TrainTimes, examples_of, fit
from simulator.latency import Need, TraceLatency
from simulator.step_table import StepTable, find_segment, prefill_seconds, step_seconds
from traces import testbed
from traces.latency import LatencyTrace, Operation

CONFIGS = sorted((Path(timed_engine.__file__).parent / "configs").rglob("*.toml"))
HONEST = 0.35
"""How far half of the steps may be from what the rows say, in CPU time on a machine that others use: their work costs
caches. Some percent on a quiet one."""


def config_of(k: int = 2, **changes: object) -> testbed.TestbedConfig:
    return testbed.TestbedConfig(
        name="tiny",
        model=testbed.TestbedModel(hidden_size=32, num_layers=1, target_batches=4),
        policy=testbed.TestbedPolicy(kind="synchronous"),
        k=k,
        prompts_per_step=2,
        group_size=2,
        max_running_seqs=4,
        max_response_tokens=20,
        learning_rate=1e-4,
        num_steps=2,
    ).model_copy(update=changes)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def made_up_times(config: testbed.TestbedConfig) -> Times:
    """Samples in which every part has a time of its own, and whole steps are more than their sum."""
    times = Times()
    for point in [*grid_points(config), *held_out_points(config)]:
        size = point.batch * (1 + point.k) * (1 + point.context_tokens / 100)
        for number, part in enumerate(Part):
            times.parts[point, part] = [1e-5 * (1 + number) * size**0.5]
        times.whole[point] = [1e-3 * (1 + 0.1 * size)]
    for num, tokens in prefill_texts(config):
        times.prefill[0, num * tokens] = [1e-3 + 1e-5 * num * tokens]
        times.prefill[1, num * tokens] = [1.5e-3 + 1.2e-5 * num * tokens]
    return times


def table_of(config: testbed.TestbedConfig, times: Times, k: int) -> StepTable:
    trace = latency_trace(config, times, "made-up", "command", "notes.")
    longest = PROMPT_TOKENS + config.max_response_tokens
    table, _ = TraceLatency(trace).step_table(Need("arm", k, config.max_running_seqs, longest, 1e6))
    return table


def predicted_s(table: StepTable, point: StepPoint) -> float:
    context = float(point.context_tokens)
    return step_seconds(table, point.batch, context, find_segment(table.knots, context, 0))


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_the_simulators_sum_of_rows_is_the_whole_step_that_was_timed(k: int) -> None:
    config = config_of()
    times = made_up_times(config)
    table = table_of(config, times, k)
    points = [point for point in grid_points(config) if point.k == k]
    assert len(points) == 12
    for point in points:
        assert predicted_s(table, point) == pytest.approx(times.whole[point][0], rel=1e-9)


def test_only_arms_that_draft_pay_for_the_heads_pass_over_prompts() -> None:
    config = config_of()
    times = made_up_times(config)
    plain, drafting = (table_of(config, times, k) for k in (0, 2))
    for num, tokens in prefill_texts(config):
        assert prefill_seconds(plain, num * tokens) == pytest.approx(times.prefill[0, num * tokens][0])
        assert prefill_seconds(drafting, num * tokens) == pytest.approx(times.prefill[1, num * tokens][0])


def test_a_response_pays_for_its_messages_once_and_a_text_that_is_read_again_does_not() -> None:
    config = config_of()
    trace = latency_trace(config, made_up_times(config), "made-up", "command", "notes.")
    with_them = with_messages(trace, config.max_running_seqs, 0.002)
    for num, tokens in prefill_texts(config):
        before, after = (prefill_row_s(each, num * tokens) for each in (trace, with_them))
        assert after - before == pytest.approx(0.002 * num if tokens == PROMPT_TOKENS else 0.0)
    others = [[row for row in each.rows if row.operation is not Operation.PREFILL] for each in (trace, with_them)]
    assert others[0] == others[1]
    assert "2 ms of messages per response" in with_them.provenance.notes


def prefill_row_s(trace: LatencyTrace, tokens: int) -> float:
    (found,) = [
        row.latency_s for row in trace.rows if row.operation is Operation.PREFILL and row.tokens_per_seq == tokens
    ]
    return found


def test_steps_that_all_take_the_same_leave_nothing_for_responses_that_end_and_begin() -> None:
    config = config_of(max_running_seqs=4)
    prepare(config)
    for k in (0, 2):
        looks = itertools.count()
        engine = TimedEngine(config, k, partial(next, looks))
        assert [engine.turnover_s(num, 4) for num in (1, 2, 4)] == [0.0] * 3  # it checks itself how many end
        assert next(looks) == 3 * 2 * (WARM_STEPS + 4)


def test_a_machine_that_slows_down_in_the_middle_leaves_no_step_dearer_than_another() -> None:
    slowness = iter((1.0, 1.0, 1.4, 1.4, 1.2))
    pace = Pace(lambda: 0.001 * next(slowness))
    times, point, other = Times(), StepPoint(0, 1, 24), StepPoint(3, 4, 30)
    pace.mark()
    for slow in (1.0, 1.2, 1.4, 1.3):
        times.add(Times(whole={point: [slow * 0.002], other: [slow * 0.005]}), pace.around())
    found = times.in_seconds(pace)
    assert found.whole[point] == pytest.approx([0.0024] * 4)
    assert found.whole[other] == pytest.approx([0.006] * 4)
    assert found.pace_spread == pytest.approx(0.4 / 1.2)  # the quartiles of 1, 1, 1.2, 1.4, 1.4


def test_steps_between_the_rows_take_about_what_the_rows_say() -> None:
    config = config_of(max_running_seqs=8)
    prepare(config)
    trace = latency_trace(config, time_engine(config, 3, time.thread_time), "tiny", "command", "notes.")
    assert trace.measurement is not None
    errors = trace.measurement.held_out
    assert errors is not None
    print(f"held-out steps: {errors.median:.1%} median, {errors.worst:.1%} worst")
    assert errors.num_points >= 8
    assert errors.median < HONEST


def test_grids_reach_every_state_that_a_run_can_be_in() -> None:
    assert batches_of(32) == [1, 2, 4, 8, 16, 24, 32]
    assert batches_of(1) == [1]
    assert batches_of(6) == [1, 2, 4, 6]
    config = config_of(k=5)
    contexts = [point.context_tokens for point in grid_points(config)]
    assert (min(contexts), max(contexts)) == (PROMPT_TOKENS, PROMPT_TOKENS + 20)
    assert {point.k for point in grid_points(config)} == set(range(6))
    assert not set(held_out_points(config)) & set(grid_points(config))
    places = spread(5, 34, 44)
    assert sum(places) == 5 * 34
    assert PROMPT_TOKENS <= min(places) < max(places) <= 44
    assert spread(3, 44, 44) == [44, 44, 44]


def test_a_trained_head_is_accepted_more_often_than_an_untrained_one() -> None:
    policy = testbed.TestbedModel(hidden_size=32, num_layers=1, target_batches=40)
    found = [count(config_of(model=policy, head_batches=batches), 64).acceptance for batches in (0, 60)]
    rows = [trace.rows[0] for trace in found if trace is not None]
    print([row.accept_length() for row in rows])
    assert (rows[0].loss, rows[1].loss) == ("untrained", "e2e_tv")
    assert rows[1].accept_length() > 1.2 * rows[0].accept_length()
    assert len(rows[0].cumulative) == 3


def test_nothing_is_counted_of_drafts_where_there_are_none() -> None:
    found = count(config_of(k=0, response_tokens=((0.0, 5), (1.0, 9))), 16)
    assert found.acceptance is None
    assert found.response_tokens == ((0.0, 5), (1.0, 9))
    assert found.group_correlation == 0.0
    assert {5 <= len(one.tokens) <= 9 for one in found.finished} == {True}


def test_what_is_prepared_twice_is_the_same_and_depends_on_its_seed(tmp_path: Path) -> None:
    config = config_of(head_batches=3)
    first, again = (prepare(config, folder=tmp_path) for _ in range(2))
    other = prepare(config_of(head_batches=3, seed=1), folder=tmp_path)
    pairs = zip(weights_of(first.decoder, first.head), weights_of(again.decoder, again.head), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.decoder.embedding_VH, other.decoder.embedding_VH)
    assert len(list(tmp_path.iterdir())) == 4


def test_quantiles_begin_and_end_with_the_shortest_and_the_longest() -> None:
    found = quantiles([7, 9, 9, 30, 100])
    assert (found[0], found[-1]) == ((0.0, 7), (1.0, 100))
    assert [length for _, length in found] == sorted(length for _, length in found)


def finished_of(group_id: int, length: int) -> Finished:
    return Finished(Request(0, group_id, (1,)), (1,) * length, (0,) * length, (0.0,) * length, 0.0, 1.0)


def test_lengths_of_a_group_that_are_alike_are_correlated_and_others_are_not() -> None:
    alike = [finished_of(group, 10 * (1 + group)) for group in range(8) for _ in range(4)]
    assert group_correlation(alike) == pytest.approx(1.0)
    unlike = [finished_of(group, 10 * (1 + number)) for group in range(8) for number in range(4)]
    assert group_correlation(unlike) == 0.0


def test_the_line_of_a_phase_goes_through_what_was_timed() -> None:
    cost = fit([100, 200, 400, 100], [0.3, 0.4, 0.6, 0.3])
    assert (cost.constant_s, cost.s_per_token) == (pytest.approx(0.2), pytest.approx(1e-3))
    assert cost.relative_error == pytest.approx(0.0, abs=1e-9)
    assert fit([100, 400], [0.1, 0.5]).constant_s == 0.0
    falling = fit([100, 400], [0.5, 0.4])
    assert (falling.s_per_token, falling.constant_s) == (0.0, pytest.approx(0.45))


def test_a_neighbour_trains_and_tells_how_long_it_took() -> None:
    config = config_of(head_batches=0)
    prepare(config)
    engine = PreparedParts().engine(config)
    engine.submit(requests_of(config, 2))
    finished: list[Finished] = []
    while engine.num_running + engine.num_waiting:
        finished += engine.step()
    assert len(examples_of(finished, config)) == 4
    alone = TrainTimes(config, finished)
    with training_beside(config, finished) as beside:
        alone.take()
        assert not beside.seconds
    assert sorted(set(beside.tokens)) == alone.tokens
    assert len(beside.seconds) == len(beside.tokens) >= 3
    for cost in (alone.cost(), fit(beside.tokens, beside.seconds)):
        assert math.isfinite(cost.relative_error)
        assert cost.constant_s + cost.s_per_token > 0


def test_a_neighbour_that_dies_is_one_line() -> None:
    config = config_of(head_batches=0)
    prepare(config)
    beside = training_beside(config, [finished_of(0, 5)])
    beside.__enter__()
    (process,) = multiprocessing.active_children()
    process.kill()
    with pytest.raises(DeviceError, match="the neighbour that trains died; free memory and repeat"):
        beside.__exit__(None, None, None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_read_and_named_like_their_files(path: Path) -> None:
    assert read_config(path).name == path.stem


def test_a_config_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "x"\nkk = 3\n')
    assert bebop.main(["testbed", "profile", str(broken), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "kk" in said
