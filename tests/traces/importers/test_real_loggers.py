"""Files that the frameworks' own loggers wrote (real/README.md says how)."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from traces import TraceFormatError
from traces.importers import read_log
from traces.importers.tensorboard import masked_crc32c
from traces.measured import MeasuredRun

REAL = Path(__file__).parent / "real"
EVENTS = REAL / "verl-tensorboard" / "events.out.tfevents.1"


def test_the_three_loggers_of_verl_tell_the_same_run() -> None:
    console, lines, events = (read_log(REAL / name) for name in ("verl.log", "verl.jsonl", "verl-tensorboard"))
    assert [run.framework for run in (console, lines, events)] == ["verl"] * 3
    for one, other, rounded in zip(console.steps, lines.steps, events.steps, strict=True):
        assert one == other
        assert one.logged == pytest.approx(rounded.logged, rel=1e-6)  # event files hold 32 bits
    rows = [json.loads(line) for line in (REAL / "verl.jsonl").read_text().splitlines()]
    assert [step.logged for step in lines.steps] == [row["data"] for row in rows]


def test_verl_says_of_the_made_up_batch_what_went_in() -> None:
    run = read_log(REAL / "verl.log")
    assert run.setup.num_gpus == 4
    assert [step.num_sequences for step in run.steps] == [16, 16, 16]
    assert [step.generation_s for step in run.steps] == [41.0, 42.0, 43.0]
    assert [step.entropy_nats for step in run.steps] == pytest.approx([0.29, 0.28, 0.27])


def test_the_history_and_the_events_of_trl_tell_the_same_run() -> None:
    history, events = read_log(REAL / "trl-trainer_state.json"), read_log(REAL / "trl-tensorboard")
    assert history.framework == events.framework == "trl"
    for one, other in zip(history.steps, events.steps, strict=True):
        assert one.step_s == pytest.approx(other.step_s)
        assert one.response_tokens_mean == pytest.approx(other.response_tokens_mean)
        assert one.entropy_nats == pytest.approx(other.entropy_nats)
        shared = {key: value for key, value in one.logged.items() if f"train/{key}" in other.logged}
        assert len(shared) >= len(one.logged) - 1  # all but the epoch, maybe
        assert shared == pytest.approx({key: other.logged[f"train/{key}"] for key in shared}, rel=1e-6)


def test_steps_of_a_real_console_import_and_the_one_that_was_cut_says_so() -> None:
    run = read_log(REAL / "verl-excerpt.log")
    assert [step.step for step in run.steps] == [1, 9, 11]
    assert run.account is not None
    assert run.account.dropped == (
        "verl-excerpt.log:4: step 10 holds validation numbers only: the rest of its line was cut off",
    )
    for step in run.steps:
        assert len(step.logged) > 75
        assert step.num_sequences == 512
        parts = (step.generation_s, step.reference_s, step.log_prob_s, step.train_s)
        assert sum(part or 0.0 for part in parts) == pytest.approx(step.step_s, rel=0.02)


FIRST_STEPS = {
    "areal": (["areal.log"], 1, {"generation_wait_s": 40.0, "train_s": 30.5, "response_tokens_mean": 1000.25}),
    "skyrl": (["skyrl.log"], 1, {"step_s": 131.5, "generation_s": 80.125, "observation_tokens_mean": 199.25}),
    "prime_rl": (
        ["prime-orchestrator.jsonl", "prime-trainer.jsonl"],
        1,
        {"step_s": 61.0, "generation_wait_s": 20.5, "staleness_max_versions": 4.0, "num_sequences": 128},
    ),
    "roll": (["roll.log"], 0, {"step_s": 91.0, "generation_s": 50.0, "log_prob_s": 6.0, "entropy_nats": 0.3}),
}


@pytest.mark.parametrize("framework", FIRST_STEPS)
def test_what_a_frameworks_own_logger_wrote_is_read_back(framework: str) -> None:
    names, number, expected = FIRST_STEPS[framework]
    run = read_log([REAL / name for name in names])
    first = run.steps[0]
    assert (run.framework, len(run.steps), first.step) == (framework, 3, number)
    assert {name: getattr(first, name) for name in expected} == expected
    assert run.account is not None
    assert run.account.num_dropped == 0


def damaged(folder: Path, content: bytes) -> MeasuredRun:
    path = folder / "events.out.tfevents.7"
    path.write_bytes(content)
    return read_log(path)


def test_an_event_file_that_was_cut_off_keeps_what_stands_before(tmp_path: Path) -> None:
    whole = read_log(EVENTS)
    run = damaged(tmp_path, EVENTS.read_bytes()[:-20])
    assert run.steps[:2] == whole.steps[:2]
    assert len(run.steps[2].logged) == len(whole.steps[2].logged) - 1
    assert run.account is not None
    assert "is cut off or damaged here" in run.account.dropped[0]


def test_a_bit_that_flipped_in_an_event_is_found(tmp_path: Path) -> None:
    content = bytearray(EVENTS.read_bytes())
    content[-30] ^= 1
    run = damaged(tmp_path, bytes(content))
    assert run.account is not None
    assert "is cut off or damaged here" in run.account.dropped[0]


def test_checksums_are_those_of_castagnoli() -> None:
    # RFC 3720, B.4: 32 bytes of zeros; TFRecord rotates by 15 and adds 0xa282ead8.
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_step_below_zero_is_dropped(tmp_path: Path) -> None:
    scalar = b"\x0a\x0dtiming_s/step\x15" + struct.pack("<f", 3.0)
    summary = b"\x0a" + bytes([len(scalar)]) + scalar
    event = b"\x10" + b"\xff" * 9 + b"\x01" + b"\x2a" + bytes([len(summary)]) + summary  # step -1
    length = struct.pack("<Q", len(event))
    frame = length + struct.pack("<I", masked_crc32c(length)) + event + struct.pack("<I", masked_crc32c(event))
    with pytest.raises(TraceFormatError, match="step -1 is negative"):
        damaged(tmp_path, frame)


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copy(EVENTS, tmp_path / f"events.out.tfevents.{number}")
    run = read_log(tmp_path)
    assert len(run.steps) == 3  # the second file tells the same, and is counted
    assert run.account is not None
    assert run.account.num_dropped == 3
