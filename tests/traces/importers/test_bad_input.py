"""Whatever is given: a run, or one TraceError of one line; nothing lost in silence, memory bounded."""

import gzip
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.traces.importers.logs import read_text, verl_line
from traces import TraceError, TraceFormatError
from traces.importers import read_log
from traces.importers.text import MAX_LINE_CHARS
from traces.measured import MeasuredRun, Quality

GOOD = verl_line(1) + "\n" + verl_line(2) + "\n"


def account_of(run: MeasuredRun) -> dict[str, str]:
    assert run.account is not None
    return run.account.ignored


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "run.log: is empty; give the log of a run"),
        (b"hello\nworld\n", "run.log: no step of any known framework in 2 lines"),
        (bytes(range(256)) * 50, r"run.log: is binary \(50 zero bytes at its head\)"),
        (b"PK\x03\x04" + bytes(100), "run.log: is a zip archive, which is not read here; unpack it"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "run.log: is zstd"),
        (b"\x1f\x8b\x08\x00" + b"not deflate", "run.log: cannot be unpacked"),
        (b"step:1 - foo/bar:1.0\n", "run.log: 1 steps with keys like foo/bar, which no known framework logs"),
        (
            b"step:0 - val/acc:1.0 - timing_s/testing:3.0\n",
            "1 lines were dropped, the first: run.log:1: step 0",
        ),
    ],
)
def test_what_cannot_be_imported_says_why_in_one_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=complaint) as error:
        read_text(tmp_path, content)
    assert "\n" not in str(error.value)


def test_two_frameworks_in_one_file_are_not_one_run(tmp_path: Path) -> None:
    slime = {"step": 1, "perf/rollout_time": 5.0, "perf/train_wait_time": 3.0, "rollout/response_len/mean": 9.0}
    text = GOOD + json.dumps(slime) + "\n"
    with pytest.raises(TraceFormatError, match=r"holds steps of verl \(4 values\) and of slime \(3\)"):
        read_text(tmp_path, text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_other_encodings_are_told_by_their_bytes(encoding: str, tmp_path: Path) -> None:
    assert len(read_text(tmp_path, GOOD.encode(encoding)).steps) == 2


def test_bytes_that_are_no_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    run = read_text(tmp_path, "élan vital\n".encode("latin-1") + GOOD.encode())
    assert len(run.steps) == 2
    assert account_of(run)["bytes that are not utf-8"] == "replaced by \ufffd; once"


def test_gzip_is_unpacked_and_a_cut_one_keeps_what_came_before(tmp_path: Path) -> None:
    text = "".join(verl_line(step, actor__entropy=step / 7) + "\n" for step in range(1, 400)).encode()
    packed = gzip.compress(text)
    assert len(read_text(tmp_path, packed).steps) == 399
    run = read_text(tmp_path, packed[: len(packed) // 2])
    assert 50 < len(run.steps) < 399
    assert run.account is not None
    assert "the file is cut off or damaged after" in run.account.dropped[-1]


def test_a_line_without_end_is_dropped_and_counted(tmp_path: Path) -> None:
    run = read_text(tmp_path, verl_line(1) + "\n" + "x" * (10 * MAX_LINE_CHARS) + "\n" + verl_line(2) + "\n")
    assert [step.step for step in run.steps] == [1, 2]
    assert run.account is not None
    assert run.account.dropped == (f"run.log:2: line of more than {MAX_LINE_CHARS} characters",)


def test_values_that_are_no_numbers_are_left_out_and_counted(tmp_path: Path) -> None:
    run = read_text(tmp_path, verl_line(1, actor__entropy="nan", loss="np.float64(inf)", a="1e999", b="٣", c="1_0"))
    assert set(run.steps[0].logged) == {"response_length/mean", "timing_s/gen", "timing_s/step"}
    assert account_of(run)["actor/entropy"] == "NaN or infinite; once"
    assert account_of(run)["items without a number"].endswith("2 times")


def test_values_beyond_a_fields_limits_stay_in_logged_only(tmp_path: Path) -> None:
    run = read_text(tmp_path, verl_line(1, timing_s__update_actor=-3.0, response_length__clip_ratio=7.0))
    assert run.steps[0].train_s is None
    assert run.steps[0].logged["timing_s/update_actor"] == -3.0
    assert {"train_s out of its limits", "clipped_fraction out of its limits"} <= account_of(run).keys()


HOSTILE = [
    '=cmd|"/C calc"!A1:1.0',
    "../../etc/passwd:2.0",
    "\x1b]0;title\x07key:3.0",
    "a\x00b\x08c:4.0",
    "timing_s/gen:" + "9" * 10_000,
    "k" * 5000 + ":1.0",
]


@pytest.mark.parametrize("item", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_items_reach_neither_terminal_nor_limit(item: str, tmp_path: Path) -> None:
    run = read_text(tmp_path, f"{verl_line(1)} - {item} - last:1.0\n")
    text = run.model_dump_json()
    assert len(text) < 20_000
    for key in run.steps[0].logged:
        assert key.isprintable()
        assert len(key) <= 300
    assert run.account is not None
    assert all(word.isprintable() for pair in run.account.ignored.items() for word in pair)


def test_keys_of_json_are_made_printable(tmp_path: Path) -> None:
    row = {"step": 1, "timing_s/gen": 4.0, "timing_s/step": 9.0, "\x1b[31mred\ud800": 1.0, "\u202e": 2.0}
    run = read_text(tmp_path, json.dumps(row))
    assert all(key.isprintable() for key in run.steps[0].logged)


def test_deep_and_wide_objects_end_somewhere(tmp_path: Path) -> None:
    deep = '{"step": 1, "a": ' + '{"a": ' * 100_000 + "1" + "}" * 100_001
    python = "perf 1: " + "{'a': " * 100_000 + "1" + "}" * 100_000
    wide = json.dumps({"step": 3, **{f"timing_s/{n}": 1.0 for n in range(50_000)}})
    run = read_text(tmp_path, "\n".join([deep, python, wide, GOOD]))
    assert [step.step for step in run.steps] == [1, 2]  # the wide one has no time that is known
    assert account_of(run)["keys of a step"].startswith("more than 4000 on one line")


def test_a_restart_begins_a_segment_and_a_duplicate_does_not(tmp_path: Path) -> None:
    first = [verl_line(step, actor__lr=0.5) for step in (1, 2, 3, 4)]
    again = [verl_line(step, actor__lr=0.7) for step in (3, 4, 5)]
    run = read_text(tmp_path, "\n".join([*first, first[-1], *again]))
    assert [(step.segment, step.step) for step in run.steps] == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (1, 5)]
    assert [step.step for step in run.steps if Quality.RESTARTED in step.quality] == [3]
    assert run.account is not None
    assert run.account.dropped == ("run.log:5: step 4 is told twice",)


def test_steps_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    run = read_text(tmp_path, "\n".join(verl_line(step) for step in (1, 3, 2, 4)))
    assert [(step.segment, step.step) for step in run.steps] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert account_of(run)["steps out of order"] == "sorted by their number; once"


def test_a_second_report_of_a_step_is_dropped_and_the_first_kept(tmp_path: Path) -> None:
    run = read_text(tmp_path, verl_line(1, actor__lr=0.5) + "\n" + verl_line(1, actor__lr=0.7))
    assert [step.logged["actor/lr"] for step in run.steps] == [0.5]
    assert run.account is not None
    assert run.account.dropped == ("run.log:2: step 1 is told again with other numbers",)


PIECES = [
    b"step:",
    b"step:1 - timing_s/gen:",
    verl_line(1).encode(),
    b"\n",
    b"\r",
    b"perf 3: {",
    b"'perf/rollout_time': 5.0,",
    b"'a': tensor(1.5, device='cuda:0'), 'b': [1, {",
    b"}",
    b'{"step": 1, "data": {"timing_s/gen": 3.0}}',
    b'{"log_history": [',
    b"Step 3: \n{'generate/avg_num_tokens': '7.0'",
    b"========================= Step 3/100 =========================\n  \xe2\x80\xa2 Total step time: 6.5s",
    b"Train step 3/50 done.\n\xe2\x94\x82 timeperf/rollout \xe2\x94\x82 4.0e+01 \xe2\x94\x82",
    b"Step 7 |   1m 5s | Loss 0.1 | Entropy 0.3",
    b"Global step 2: {'timing/generation': 3.0}",
    b"# HELP vllm:x y\nvllm:spec_decode_num_drafts_total 1e999",
    b"SpecDecoding metrics: Mean acceptance length: 2.7, Per-position acceptance rate: 0.9, 0.7,",
    b"Decode batch, accept len: 2.1,",
    b"| task 7 | draft acceptance = 0.5 (  1 accepted /   2 generated)",
    b"\xff\xfe",
    b"\x00",
    b"\x1f\x8b",
    b"np.float64(1.0)",
    b"\x1b[31m",
    b"1e999999",
]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=12).map(b"".join))
@example(b"step:1 - timing_s/gen:1" + b"\xf0" * 50)
@example(b"# HELP vllm:x y\nvllm:spec_decode_num_drafts_total NaN\n")
@example(b'[{"step": 1e308, "timing_s/gen": 1e308}]')
@example(b'{"step": true, "timing_s/gen": 1}\n{"step": -1, "timing_s/gen": 1}')
def test_any_bytes_are_a_run_or_one_line(tmp_path: Path, content: bytes) -> None:
    try:
        run = read_text(tmp_path, content)
    except TraceError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(error).isprintable() or "\ufffd" in str(error)  # noqa: PT017
    else:
        assert run.steps


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_to_a_real_file_is_a_run_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    folder = Path(__file__).parent / "real"
    source = data.draw(st.sampled_from(["verl.log", "verl.jsonl", "trl-trainer_state.json"]))
    content = bytearray((folder / source).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=5))
    path = tmp_path / source
    path.write_bytes(content)
    try:
        assert read_log(path).steps
    except TraceError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_large_log_is_read_in_bounded_memory_and_time(tmp_path: Path) -> None:
    path = tmp_path / "large.log"
    noise = ("(Worker pid=7) INFO some chatter of a worker that is no step at all " + "z" * 140 + "\n") * 5000
    with path.open("w") as file:
        for step in range(1, 201):  # 200 MB
            file.write(noise)
            file.write(verl_line(step) + "\n")
    assert path.stat().st_size > 200_000_000
    limit = 700_000_000  # of address space: the interpreter with pydantic takes half of it
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "bebop", "import", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["num_steps"] == 200
    assert time.perf_counter() - start < 150  # 4 s of CPU
