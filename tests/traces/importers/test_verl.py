import re
from pathlib import Path

import pytest

from tests.traces.importers.logs import PUBLISHED, needs_published_logs, read_text, verl_line
from traces.importers import read_log
from traces.measured import Quality

RUNS = {
    "20251129_221801-i80f2v90": 235,
    "20251130_224918-ry3hgbx5": 162,
    "20251201_212417-b91ltsnz": 27,
    "20251202_000304-yeu8r64c": 63,
    "20251202_120842-do7bl4gg": 144,
    "20251203_152244-bd2o9c4a": 45,
    "20251203_201530-38rf6xe8": 16,
}
"""Published console log -> steps, as the list that came with them says."""


@needs_published_logs
@pytest.mark.parametrize(("name", "num_steps"), RUNS.items())
def test_a_published_log_imports_whole(name: str, num_steps: int) -> None:
    path = PUBLISHED / "verl" / f"{name}.log"
    run = read_log(path)
    lines = [line for line in path.read_text().splitlines() if line.startswith("step:")]
    complete = [line for line in lines if "timing_s/step:" in line]
    assert run.framework == "verl"
    assert len(run.steps) == len(complete) == num_steps
    assert run.account is not None
    assert run.account.num_lines == path.read_bytes().count(b"\n")
    assert run.account.num_step_lines == len(lines)
    assert run.account.num_dropped == len(lines) - len(complete)
    for step, line in zip(run.steps, complete, strict=True):
        assert step.step == int(re.match(r"step:(\d+)", line).group(1))  # type: ignore[union-attr]
        assert set(step.logged) == set(re.findall(r" - (\S+?):(?:np\.|-?\d)", line))


@needs_published_logs
@pytest.mark.parametrize("name", RUNS)
def test_times_of_a_published_log_make_up_its_steps(name: str) -> None:
    for step in read_log(PUBLISHED / "verl" / f"{name}.log").steps:
        parts = (step.generation_s, step.reference_s, step.log_prob_s, step.train_s)
        assert sum(part or 0.0 for part in parts) == pytest.approx(step.step_s, rel=0.02)


@needs_published_logs
def test_a_log_tells_its_gpus_its_sequences_and_that_nothing_overlaps() -> None:
    run = read_log(PUBLISHED / "verl" / "20251202_000304-yeu8r64c.log")
    assert run.setup.num_gpus == 4  # as the list that came with the log says
    assert {step.num_sequences for step in run.steps} == {32 * 16}
    assert run.setup.is_asynchronous is False
    assert all(step.generation_wait_s == step.generation_s for step in run.steps)


@needs_published_logs
def test_a_run_that_collapses_to_length_one_is_found_and_no_other() -> None:
    collapsed = {
        name: sum(Quality.COLLAPSED in step.quality for step in read_log(PUBLISHED / "verl" / f"{name}.log").steps)
        for name in RUNS
    }
    assert collapsed.pop("20251129_221801-i80f2v90") == 226  # 9 healthy steps, then length 5 and 1
    assert set(collapsed.values()) == {0}


def test_a_step_that_holds_validation_numbers_only_is_dropped_with_that_reason(tmp_path: Path) -> None:
    text = f"step:0 - val-core/gsm8k/acc/mean@1:0.5 - timing_s/testing:88.0\n{verl_line(1)}\n"
    run = read_text(tmp_path, text)
    assert [step.step for step in run.steps] == [1]
    assert run.account is not None
    assert run.account.dropped == ("run.log:1: step 0 holds validation numbers only",)


def test_validation_and_checkpoints_mark_a_step(tmp_path: Path) -> None:
    marked = verl_line(2, timing_s__testing=30.0, timing_s__save_checkpoint=12.0)
    plain, slow = read_text(tmp_path, f"{verl_line(1)}\n{marked}\n").steps
    assert plain.quality == ()
    assert slow.quality == (Quality.VALIDATION, Quality.CHECKPOINT)
    assert (slow.validation_s, slow.checkpoint_s) == (30.0, 12.0)


def test_numpy_wrappers_colour_prefixes_and_progress_bars_are_read_through(tmp_path: Path) -> None:
    bar = "Training Progress:  10%|█         | 1/10 [01:40<15:00, 100.00s/it]"
    line = verl_line(
        1, actor__entropy="np.float64(0.25)", num_turns__max="np.int32(2)", perf__mfu__actor="np.float64(0.0)"
    )
    text = f"{bar}\r\x1b[36m(TaskRunner pid=3165)\x1b[0m {line}{bar}\n"
    (step,) = read_text(tmp_path, text).steps
    assert step.entropy_nats == 0.25
    assert step.turns_max == 2
    assert step.logged["timing_s/step"] == 100.0
    assert step.logged["perf/mfu/actor"] == 0.0


def test_renamed_keys_reach_their_field(tmp_path: Path) -> None:
    text = "step:1 - actor/entropy_loss:0.31 - timing_s/get_batch_rollout_with_filtering:51.5 - timing_s/step:90.0"
    (step,) = read_text(tmp_path, text).steps
    assert (step.entropy_nats, step.generation_s) == (0.31, 51.5)


ASYNCHRONOUS = "\n".join(
    [
        "step:1 - fully_async/count/current_param_version:1 - fully_async/count/dropped_stale_samples:3",
        "step:1 - training/global_step:4 - timing_s/gen:70.0 - timing_s/step:200.0 - timing_s/timing_s/param_sync:5.5",
        "step:2 - training/global_step:8 - timing_s/gen:60.0 - timing_s/step:190.0 - timing_s/timing_s/param_sync:5.6",
        "step:2 - fully_async/count/current_param_version:2 - fully_async/count/dropped_stale_samples:10",
    ]
)


def test_gen_of_an_asynchronous_trainer_is_waiting(tmp_path: Path) -> None:
    run = read_text(tmp_path, ASYNCHRONOUS)
    assert run.setup.is_asynchronous is True
    assert [step.generation_wait_s for step in run.steps] == [70.0, 60.0]
    assert [step.generation_s for step in run.steps] == [None, None]


def test_a_line_that_adds_up_optimizer_steps_says_how_many(tmp_path: Path) -> None:
    steps = read_text(tmp_path, ASYNCHRONOUS).steps
    assert [step.num_aggregated for step in steps] == [4, 4]
    assert all(Quality.AGGREGATED in step.quality for step in steps)


def test_the_prefix_that_stands_twice_is_the_push_of_weights(tmp_path: Path) -> None:
    assert [step.sync_s for step in read_text(tmp_path, ASYNCHRONOUS).steps] == [5.5, 5.6]


def test_dropped_samples_are_those_of_the_step_and_not_of_the_run(tmp_path: Path) -> None:
    assert [step.dropped_samples for step in read_text(tmp_path, ASYNCHRONOUS).steps] == [3, 7]


def test_acceptance_is_marked_as_a_mean_over_requests(tmp_path: Path) -> None:
    (step,) = read_text(tmp_path, verl_line(1, rollout__spec_accept_length=2.4, rollout__spec_accept_rate=0.47)).steps
    assert step.speculation is not None
    assert step.speculation.is_request_weighted
    assert (step.speculation.accept_length, step.speculation.accept_rate) == (2.4, 0.47)


def test_an_accept_length_below_one_is_no_accept_length(tmp_path: Path) -> None:
    # verl counts a request without drafts as length 0.0, so that the mean may fall below the bonus token.
    run = read_text(tmp_path, verl_line(1, rollout__spec_accept_length=0.8, rollout__spec_accept_rate=0.2))
    (step,) = run.steps
    assert step.speculation is not None
    assert step.speculation.accept_length is None
    assert run.account is not None
    assert "speculation.accept_length out of its limits" in run.account.ignored


def test_the_last_value_of_a_line_that_was_cut_is_not_believed(tmp_path: Path) -> None:
    line = verl_line(1, actor__padding="1" * 300) + " - actor/pg_loss:0.123"
    line = line.replace("1" * 300, "1" * (300 + 4096 - len(line)))
    assert len(line) == 4096
    (step,) = read_text(tmp_path, line + "\n").steps
    assert "actor/pg_loss" not in step.logged


def test_lengths_say_whether_they_hold_what_tools_put_in(tmp_path: Path) -> None:
    assert read_text(tmp_path, verl_line(1)).setup.response_includes_observations is False
    assert read_text(tmp_path, verl_line(1, num_turns__max=8)).setup.response_includes_observations is True
