import json
from pathlib import Path

import pytest

from tests.traces.importers.logs import PUBLISHED, needs_published_logs, read_text
from traces.importers import read_log
from traces.measured import Quality, Setup

ROLLOUT = (
    "(RolloutManager pid=310428) [2026-06-29 12:{minute:02}:30] rollout.py:1244 - perf {n}: {{"
    "'rollout/response_len/mean': 2069.72, 'rollout/response_len/max': np.int64(9000), "
    "'rollout/spec_accept_rate': 0.0, 'rollout/spec_accept_length': 0.0, 'perf/rollout_time': {time}, "
    "'perf/tokens_per_gpu_per_sec': np.float64(938.2)}}"
)
TRAIN = (
    "\x1b[36m(MegatronTrainRayActor pid=77)\x1b[0m [2026-06-29 12:{minute:02}:50] train_metric_utils.py:44 - "
    "perf {n}: {{"
    "'perf/update_weights_time': 34.19, 'perf/train_wait_time': 615.18, 'perf/log_probs_time': 71.13, "
    "'perf/actor_train_time': 203.92, 'perf/train_time': 275.57, 'perf/step_time': 890.75}}"
)


@needs_published_logs
@pytest.mark.parametrize(("name", "num_steps"), [("slime-swe-30045", 20), ("slime-swe-31888", 6)])
def test_a_published_log_imports_whole(name: str, num_steps: int) -> None:
    path = PUBLISHED / "slime" / f"{name}.jsonl"
    run = read_log(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert run.framework == "slime"
    assert len(run.steps) == len(rows) == num_steps
    for step, row in zip(run.steps, rows, strict=True):
        assert step.logged == row["metrics"]
        assert step.step_s == row["metrics"].get("perf/step_time")
    assert run.setup.is_asynchronous is True
    assert (run.setup.num_gpus, run.setup.num_train_gpus, run.setup.num_rollout_gpus) == (96, 32, 64)


@needs_published_logs
@pytest.mark.parametrize("name", ["slime-swe-30045", "slime-swe-31888"])
def test_terms_make_up_the_step_whether_or_not_waiting_holds_the_push(name: str) -> None:
    for step in read_log(PUBLISHED / "slime" / f"{name}.jsonl").steps:
        if Quality.PARTIAL not in step.quality:
            terms = (step.generation_wait_s, step.sync_s, step.log_prob_s, step.train_s)
            assert sum(term or 0.0 for term in terms) == pytest.approx(step.step_s, abs=1.5)


@needs_published_logs
def test_a_step_whose_trainer_never_reported_is_partial() -> None:
    last = read_log(PUBLISHED / "slime" / "slime-swe-31888.jsonl").steps[-1]
    assert last.quality == (Quality.PARTIAL,)
    assert last.generation_s is not None
    assert last.train_s is None


@needs_published_logs
def test_sequences_are_counted_from_the_tokens_that_were_trained_on() -> None:
    steps = read_log(PUBLISHED / "slime" / "slime-swe-31888.jsonl").steps
    assert {step.num_sequences for step in steps if step.total_tokens} == {64}  # global_batch_size


def test_two_processes_are_joined_on_the_number_and_never_by_position(tmp_path: Path) -> None:
    # The rollout runs ahead: its line for step 1 comes before the trainer's for step 0.
    lines = [
        ROLLOUT.format(n=0, minute=0, time=500.0),
        ROLLOUT.format(n=1, minute=1, time=510.0),
        TRAIN.format(n=0, minute=2),
        ROLLOUT.format(n=2, minute=3, time=520.0),
        TRAIN.format(n=2, minute=4),
    ]
    steps = read_text(tmp_path, "\n".join(lines)).steps
    assert [step.step for step in steps] == [0, 1, 2]
    assert [step.generation_s for step in steps] == [500.0, 510.0, 520.0]
    assert [step.train_s for step in steps] == [203.92, None, 203.92]
    assert Quality.PARTIAL in steps[1].quality


def test_an_acceptance_of_zero_is_missing(tmp_path: Path) -> None:
    run = read_text(tmp_path, ROLLOUT.format(n=0, minute=0, time=500.0))
    assert run.steps[0].speculation is None
    assert run.account is not None
    assert run.account.ignored["rollout/spec_accept_length = 0.0"] == "stands for not measured; once"


def test_what_the_model_wrote_is_not_mixed_with_what_tools_put_in(tmp_path: Path) -> None:
    row = {"rollout/response_len/mean": 14555.0, "rollout/response_lengths": 18896.0, "perf/rollout_time": 579.3}
    (step,) = read_text(tmp_path, json.dumps({"step_key": "rollout/step", "step": 0, **row})).steps
    assert (step.response_tokens_mean, step.observation_tokens_mean) == (14555.0, 4341.0)


def test_waiting_leaves_out_the_push_that_a_raw_log_puts_into_it(tmp_path: Path) -> None:
    (step,) = read_text(tmp_path, TRAIN.format(n=0, minute=0)).steps
    assert step.generation_wait_s == pytest.approx(615.18 - 34.19)
    assert step.sync_s == 34.19


def test_what_the_user_states_stands_above_the_log(tmp_path: Path) -> None:
    row = {"step": 0, "gpu_count": 96, "gpu": "H200", "metrics": {"perf/rollout_time": 5.0}}
    run = read_text(tmp_path, json.dumps(row), setup=Setup(num_gpus=32))
    assert (run.setup.num_gpus, run.setup.gpu) == (32, "H200")


def test_a_dictionary_that_was_cut_keeps_what_stands_before_the_cut(tmp_path: Path) -> None:
    line = TRAIN.format(n=0, minute=0)
    run = read_text(tmp_path, line[: line.index("92, 'perf/train_time'")])
    (step,) = run.steps
    assert step.log_prob_s == 71.13
    assert step.train_s is None  # `203.` may be 203.92
    assert run.account is not None
    assert "dictionaries that are cut off" in run.account.ignored


def test_optimizer_steps_are_brought_to_their_rollout(tmp_path: Path) -> None:
    lines = [ROLLOUT.format(n=n, minute=n, time=500.0) for n in (0, 1, 2)]
    step = "(Actor pid=7) model.py:90 - step {n}: {{'train/entropy_loss': 0.{m}, 'train/step': {n}}}"
    lines += [step.format(n=n, m=n + 1) for n in range(6)]
    run = read_text(tmp_path, "\n".join(lines))
    assert [step.step for step in run.steps] == [0, 1, 2]
    assert [step.entropy_nats for step in run.steps] == pytest.approx([0.15, 0.35, 0.55])
    assert run.account is not None
    assert "2 optimizer steps per rollout" in run.account.ignored


def test_rows_of_a_tracker_are_joined_on_the_steps_they_name(tmp_path: Path) -> None:
    # W&B counts every call in `_step`, so that it differs between the two rows of one rollout.
    rows = [
        {"_step": 10, "rollout/step": 0, "perf/rollout_time": 500.0, "rollout/response_len/mean": 900.0},
        {"_step": 11, "train/step": 0, "train/entropy_loss": 0.4},
        {"_step": 12, "train/step": 1, "train/entropy_loss": 0.6},
        {"_step": 13, "rollout/step": 0, "perf/train_wait_time": 510.0, "perf/train_time": 90.0},
    ]
    (step,) = read_text(tmp_path, "\n".join(map(json.dumps, rows))).steps
    assert (step.step, step.generation_s, step.generation_wait_s) == (0, 500.0, 510.0)
    assert step.entropy_nats == pytest.approx(0.5)
