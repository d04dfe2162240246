"""One log per framework in the form its source prints, and the trap that comes with it."""

import json
from pathlib import Path

import pytest

from tests.traces.importers.logs import read_text
from traces.importers import read_log
from traces.measured import Quality, Setup

NEMO = """\
========================= Step {step}/100 =========================
(pid=88) ▶ Preparing for generation...
📊 Training Results:
  • Loss: 0.0125
  • Avg Reward: 0.3100
  • Avg Trajectory Age: 0.75 steps
⏱️  Timing:
  • Total step time: 66.55s
  • {generation}: 32.52s (48.9%)
  • policy_training: 25.05s (37.6%)
  • policy_and_reference_logprobs: 6.10s (9.2%)
  • weight_sync: 2.05s (3.1%)
"""


def test_the_console_of_nemo_rl_is_read_step_by_step(tmp_path: Path) -> None:
    run = read_text(
        tmp_path, NEMO.format(step=3, generation="generation") + NEMO.format(step=4, generation="generation")
    )
    assert run.framework == "nemo_rl"
    assert [step.step for step in run.steps] == [3, 4]
    assert run.setup.is_asynchronous is False
    step = run.steps[0]
    assert (step.step_s, step.generation_s, step.generation_wait_s, step.train_s) == (66.55, 32.52, 32.52, 25.05)
    assert (step.log_prob_s, step.sync_s, step.reward_mean) == (6.10, 2.05, 0.31)


def test_exposed_generation_of_nemo_rl_is_waiting(tmp_path: Path) -> None:
    run = read_text(tmp_path, NEMO.format(step=3, generation="exposed_generation"))
    assert run.setup.is_asynchronous is True
    assert (run.steps[0].generation_s, run.steps[0].generation_wait_s) == (None, 32.52)
    assert run.steps[0].staleness_mean_versions == 0.75


def test_positions_of_nemo_rl_count_from_zero_and_of_skyrl_from_one(tmp_path: Path) -> None:
    nemo = {"train/vllm/spec_acceptance_rate-pos-0": 0.9, "train/vllm/spec_acceptance_rate-pos-1": 0.7}
    nemo |= {"train/vllm/spec_num_drafts": 100.0, "train/vllm/spec_acceptance_length": 2.6}
    skyrl = {"vllm/train/draft_acceptance_rate_pos_1": 0.9, "vllm/train/draft_acceptance_rate_pos_2": 0.7}
    skyrl |= {"timing/step": 9.0, "generate/avg_num_tokens": 50.0}
    for numbers in (nemo | {"timing/train/total_step_time": 9.0}, skyrl):
        (step,) = read_text(tmp_path, json.dumps({"step": 1, **numbers})).steps
        assert step.speculation is not None
        assert step.speculation.per_position == (0.9, 0.7)
        assert not step.speculation.is_request_weighted


def test_a_position_that_is_missing_leaves_out_all(tmp_path: Path) -> None:
    row = {"step": 1, "timing/step": 9.0, "generate/avg_num_tokens": 5.0, "vllm/train/draft_acceptance_rate_pos_2": 0.7}
    assert read_text(tmp_path, json.dumps(row)).steps[0].speculation is None


SKYRL = """\
(skyrl_entrypoint pid=4242) 2026-08-01 10:00:00.123 | INFO     | skyrl.train.utils.tracking:log:189 - Step {step}:
(skyrl_entrypoint pid=4242) {{'generate/avg_num_tokens': '1200.5000',
(skyrl_entrypoint pid=4242)  'generate/avg_assistant_tokens': '1000.5000',
(skyrl_entrypoint pid=4242)  'generate/batch_num_seq': 512,
(skyrl_entrypoint pid=4242)  'policy/policy_entropy': '0.2500',
(skyrl_entrypoint pid=4242)  'timing/generate': '80.1000',
(skyrl_entrypoint pid=4242)  'timing/policy_train': '40.0000',
(skyrl_entrypoint pid=4242)  'timing/step': '130.0000'}}
"""


def test_the_dictionaries_that_skyrl_prints_over_many_lines_are_read(tmp_path: Path) -> None:
    run = read_text(tmp_path, SKYRL.format(step=1) + "(autoscaler +1m) noise\n" + SKYRL.format(step=2))
    assert run.framework == "skyrl"
    assert [step.step for step in run.steps] == [1, 2]
    step = run.steps[0]
    assert (step.step_s, step.generation_s, step.train_s, step.num_sequences) == (130.0, 80.1, 40.0, 512)


def test_tokens_of_the_assistant_are_not_those_of_the_sequence(tmp_path: Path) -> None:
    (step,) = read_text(tmp_path, SKYRL.format(step=1)).steps
    assert (step.response_tokens_mean, step.observation_tokens_mean) == (1000.5, 200.0)


AREAL = """\
20260101-10:00:00.000 StatsLogger INFO: Epoch 1/1 Step {step}/50 Train step {step}/50 done.
20260101-10:00:00.001 StatsLogger INFO: Stats (1/1):
20260101-10:00:00.002 StatsLogger INFO:
╒════════════════════════════╤════════════╤═════════════════════╤════════════╕
│ ppo_actor/task_reward/avg  │ 5.0000e-01 │ timeperf/rollout    │ 4.0000e+01 │
├────────────────────────────┼────────────┼─────────────────────┼────────────┤
│ ppo_actor/seq_len/avg      │ 1.3000e+03 │ timeperf/train_step │ 3.0000e+01 │
├────────────────────────────┼────────────┼─────────────────────┼────────────┤
│ ppo_actor/prompt_len/avg   │ 3.0000e+02 │ ppo_actor/version_stats/sample_staleness_theta_max │ {age} │
╘════════════════════════════╧════════════╧═════════════════════╧════════════╛
"""


def test_the_tables_of_areal_are_read_and_rollout_is_waiting(tmp_path: Path) -> None:
    run = read_text(tmp_path, AREAL.format(step=1, age="0.0000e+00") + AREAL.format(step=2, age="2.0000e+00"))
    assert run.framework == "areal"
    assert run.setup.is_asynchronous is True
    assert [step.step for step in run.steps] == [1, 2]
    step = run.steps[1]
    assert (step.generation_s, step.generation_wait_s, step.train_s) == (None, 40.0, 30.0)
    assert step.response_tokens_mean == 1000.0  # seq_len holds the prompt
    assert step.staleness_max_versions == 2.0


def test_rollout_of_areal_is_generation_where_the_user_says_nothing_overlaps(tmp_path: Path) -> None:
    run = read_text(tmp_path, AREAL.format(step=1, age="0.0"), setup=Setup(is_asynchronous=False))
    assert run.steps[0].generation_s == 40.0


def test_trainer_and_orchestrator_of_prime_rl_are_joined_without_mixing_their_steps(tmp_path: Path) -> None:
    trainer = tmp_path / "trainer.jsonl"
    orchestrator = tmp_path / "orchestrator.jsonl"
    rows = [{"perf/throughput_per_gpu": 900.0}, {"entropy/all/mean": 0.3}]
    rows.append({"time/step": 60.0, "time/wait_for_batch": 20.0, "time/forward_backward": 35.0})
    trainer.write_text("".join(json.dumps({"step": 4, "time": 1.8e9, **row}) + "\n" for row in rows))
    row = {"time/step": 71.0, "time/wait_for_policy": 3.0, "progress/rollouts": 128, "off_policy/max": 4.0}
    orchestrator.write_text(json.dumps({"step": 4, "time": 1.8e9, **row}) + "\n")
    for paths in ([trainer, orchestrator], [orchestrator, trainer]):
        run = read_log(paths)
        (step,) = run.steps
        assert run.framework == "prime_rl"
        assert (step.step_s, step.generation_wait_s, step.train_s) == (60.0, 20.0, 35.0)
        assert (step.num_sequences, step.staleness_max_versions, step.entropy_nats) == (128, 4.0, 0.3)
        assert step.logged["orchestrator:time/step"] == 71.0


def test_the_console_of_prime_rl_gives_what_it_prints(tmp_path: Path) -> None:
    line = "10:00:00 SUCCESS Step 7 |   1m 5s | Loss 0.0120 | Entropy 0.3100 | LR 1.00e-06 | Throughput 9000 tokens/s"
    (step,) = read_text(tmp_path, line + " | MFU 31.5% | Peak Mem. 60.1 GiB\n").steps
    assert (step.step, step.step_s, step.entropy_nats) == (7, 65.0, 0.31)
    assert step.logged["console/MFU"] == pytest.approx(0.315)


def roll_line(step: int, total: float) -> str:
    metrics = {"time/step_total": total, "time/step_generate": 50.0 + step, "time/step_train": 20.0, "system/tps": 9.0}
    return f"[2026-08-01 10:00:00] [roll INFO] metrics_tag: {json.dumps({'step': step, 'metrics': metrics})}\n"


def test_the_total_that_roll_logs_is_that_of_the_step_before(tmp_path: Path) -> None:
    run = read_text(tmp_path, roll_line(0, 0.0) + roll_line(1, 90.0) + roll_line(2, 91.0))
    assert run.framework == "roll"
    assert [step.step_s for step in run.steps] == [90.0, 91.0, None]
    assert [step.generation_s for step in run.steps] == [50.0, 51.0, 52.0]


def test_generation_of_roll_is_waiting_where_the_user_says_so(tmp_path: Path) -> None:
    run = read_text(tmp_path, roll_line(0, 0.0) + roll_line(1, 90.0), setup=Setup(is_asynchronous=True))
    assert [(step.generation_s, step.generation_wait_s) for step in run.steps] == [(None, 50.0), (None, 51.0)]


OPENRLHF = (
    "2026-08-13 10:00:0{step} INFO ppo_trainer.py:547 -- ✨ Global step {step}: {{'policy_loss': -0.01, "
    "'response_length': 900.0, 'timing/make_experience': 10.0, 'timing/ppo_train': 30.0, 'timing/broadcast': 2.0, "
    "'rollout/response_length_mean': 910.5, 'rollout/truncated_rate': 0.01, 'rollout/num_samples': 1024.0, "
    "'timing/generation': 50.0, 'timing/step_total': {total}}}\n"
)


def test_parts_of_openrlhf_that_add_up_were_synchronous(tmp_path: Path) -> None:
    run = read_text(tmp_path, OPENRLHF.format(step=1, total=92.0) + OPENRLHF.format(step=2, total=92.0))
    assert run.framework == "openrlhf"
    assert run.setup.is_asynchronous is False
    assert [step.generation_wait_s for step in run.steps] == [50.0, 50.0]
    assert (run.steps[0].response_tokens_mean, run.steps[0].num_sequences) == (910.5, 1024)


def test_parts_of_openrlhf_that_exceed_the_step_have_overlapped(tmp_path: Path) -> None:
    run = read_text(tmp_path, OPENRLHF.format(step=1, total=60.0) + OPENRLHF.format(step=2, total=61.0))
    assert run.setup.is_asynchronous is True
    assert [(step.generation_s, step.generation_wait_s) for step in run.steps] == [(50.0, 18.0), (50.0, 19.0)]


def test_the_history_in_a_trainer_state_is_read_whole(tmp_path: Path) -> None:
    history = [
        {"completions/mean_length": 100.0 + n, "entropy": 0.4, "epoch": 0.1 * n, "step": n, "step_time": 7.5}
        for n in (1, 2)
    ]
    history.append({"eval_loss": 0.1, "eval_runtime": 5.0, "epoch": 0.2, "step": 2})
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"best_metric": None, "global_step": 2, "log_history": history}, indent=2))
    run = read_log(path)
    assert run.framework == "trl"
    assert [step.step_s for step in run.steps] == [7.5, 7.5]
    assert [step.response_tokens_mean for step in run.steps] == [101.0, 102.0]
    assert run.steps[1].quality == (Quality.VALIDATION,)


def test_dictionaries_of_trl_that_name_no_step_are_not_aligned_by_position(tmp_path: Path) -> None:
    from traces import TraceFormatError

    line = "{'loss': '0.1', 'completions/mean_length': '120.0', 'step_time': '7.5', 'epoch': '0.01'}\n"
    with pytest.raises(TraceFormatError, match="no step of any known framework in 3 lines"):
        read_text(tmp_path, line * 3)
