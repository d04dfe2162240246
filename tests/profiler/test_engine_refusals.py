"""What goes wrong with a running engine: one line, exit code 2 or 5, and the samples so far are kept."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bebop
from tests.profiler.engine_server import PlayedEngine, VirtualClock, playing

GRID = ["--batches", "1", "--contexts", "128,256", "--prefills", "16", "--sweeps", "1", "--held-out", "0"]
SMALL = ["--gpu", "H200", "--precision", "bf16", "--tokens", "32", *GRID]
Change = Callable[[PlayedEngine], object]


def law(batch: int, context_tokens: float, tokens_per_seq: int) -> float:
    return 0.005


def engine(**changes: object) -> PlayedEngine:
    """Return an engine whose clock nobody reads: its steps take no time at all."""
    return PlayedEngine(law, clock=VirtualClock(num_reads=10**12), **changes)  # type: ignore[arg-type]


class Run:
    """`bebop profile --source engine` in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = folder / "x.json", capsys

    def __call__(self, url: str, *options: str) -> tuple[int, str]:
        """Return the exit code and the last line on stderr."""
        argv = [
            "profile",
            "--source",
            "engine",
            "--url",
            url,
            *SMALL,
            "-o",
            str(self.path),
            "--timeout-s",
            "2",
            *options,
        ]
        code = bebop.main(argv)
        self.printed = self.capsys.readouterr()
        return code, (self.printed.err.splitlines() or [""])[-1]

    @property
    def num_samples(self) -> int:
        ledger = self.path.with_name("x.samples.jsonl")
        return len(ledger.read_text().splitlines()) - 1 if ledger.exists() else 0


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, capsys)


def test_what_was_measured_is_said_on_one_screen(run: Run) -> None:
    with playing(engine(k=2, acceptance=(1.0, 0.0))) as url:
        assert run(url)[0] == 0
    plan, answer = run.printed.err, run.printed.out
    assert "vllm 0.32.0, Qwen/Qwen3-8B, k = 2" in plan
    assert "3 points, 1 times each: 5 requests" in plan
    assert "Qwen3-8B on H200, bf16" in answer
    assert "accepted by position 1.000, 0.000" in answer
    with playing(engine()) as url:
        run.path = run.path.with_name("plain.json")
        assert run(url, "--json")[0] == 0
    assert json.loads(run.printed.out)["rows"] == 3


def test_nobody_answers(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code, line = run(f"http://127.0.0.1:{port}")
    assert (code, run.num_samples) == (5, 0)
    assert (
        line
        == f"bebop: http://127.0.0.1:{port}: does not answer (Connection refused); start the server, or check --url"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "ftp://x"], "not http://host:port"),
        (["--url", "http://[::1"], "not a URL"),
        (["--url", "http://me:secret@x:1"], "--api-key-env"),
        (["--url", "http://x:1?key=secret"], "--api-key-env"),
        (["--api-key-env", "BEBOP_NO_SUCH_VARIABLE"], "this variable is not set"),
        (["--k", "99"], "--k 99 is outside 0..15"),
        (["--tokens", "1"], "--tokens 1 is outside 32..4096"),
        (["--batches", "5000"], "--batches 5000 is outside 1..1024"),
        (["--timeout-s", "nan"], "--timeout-s nan is outside"),
        (["--plain", "no-such.json"], "no-such.json: cannot be read"),
        (["-o", "x.txt"], "end it in .parquet or .json"),
        (["--gpu", ""], "--gpu is needed"),
    ],
)
def test_a_mistake_in_the_options_is_found_before_anybody_is_asked(run: Run, options: list[str], words: str) -> None:
    code, line = run("http://127.0.0.1:9", *options)
    assert code == 2
    assert words in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ({"/v1/models": (404, "")}, "/v1/models: names no model"),
        ({"/v1/models": (200, "<html>hello</html>")}, "answers no JSON object"),
        ({"/v1/models": (302, "http://127.0.0.2:9/")}, "a redirect, which is not followed"),
        ({"/v1/models": (401, "secret")}, "--api-key-env NAME"),
        ({"/metrics": (200, "<html>")}, "not a sample of Prometheus text"),
        ({"/metrics": (404, "")}, "neither vLLM, SGLang nor llama.cpp answers"),
        ({"/v1/completions": (429, "")}, "answers 429, too many requests; lift its limit or lower --batches"),
        ({"/v1/completions": (500, '{"error": {"message": "CUDA\\nerror"}}')}, "answers 500: CUDA error"),
        ({"/v1/completions": (200, "hello")}, "answers without server-sent events"),
        ({"/v1/completions": (200, "data: {}\n\n")}, "a stream ended before its [DONE]"),
    ],
)
def test_an_answer_that_is_no_engines_is_named(run: Run, statuses: dict[str, tuple[int, str]], words: str) -> None:
    with playing(engine(statuses=statuses)) as url:
        code, line = run(url)
    assert code == 5
    assert words in line
    assert not run.path.exists()


def after(number: int, change: Change) -> Callable[[PlayedEngine, int], object]:
    """Return a hook that changes the engine when a request of this number comes."""
    return lambda played, count: change(played) if count == number else None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda played: played.restart(), "the server restarted while it was measured"),
        (lambda played: played.counts.clear(), "restart"),
        (lambda played: setattr(played, "k", 1), "k changed: 1"),
        (lambda played: setattr(played, "k", 0), "k"),
        (lambda played: played.count("generated", 500), "profile a server that nobody else uses"),
        (lambda played: setattr(played, "is_stalled", True), "silent for 2 s"),
        (lambda played: played.statuses.update({"/v1/completions": (500, "gone")}), "answers 500: gone"),
    ],
)
def test_what_happens_midway_ends_the_profile_and_keeps_the_samples(run: Run, change: Change, words: str) -> None:
    played = engine(k=2, acceptance=(0.5, 0.3), on_request=after(4, change))
    with playing(played) as url:
        code, line = run(url)
        assert code == 5
        assert words in line
        assert run.num_samples >= 1
        assert "repeat the command to go on" in run.printed.err
    assert not run.path.exists()
    kept = run.num_samples
    with playing(engine(k=2, acceptance=(0.5, 0.3))):
        pass  # another server, another address: the ledger belongs to the one that was asked
    assert run.num_samples == kept


def test_the_same_command_goes_on_after_the_server_came_back(run: Run) -> None:
    played = engine(on_request=after(4, lambda one: one.restart()))
    with playing(played) as url:
        assert run(url)[0] == 5
        kept = run.num_samples
        assert run(url)[0] == 0
    assert "continuing" in run.printed.err
    assert run.num_samples > kept


def test_a_server_that_serves_somebody_else_is_not_measured(run: Run) -> None:
    with playing(engine(num_foreign_running=3)) as url:
        code, line = run(url)
    assert code == 5
    assert "3 requests of somebody else are there" in line


def test_a_prompt_that_the_server_refuses_is_infeasible(run: Run) -> None:
    with playing(engine(statuses={"/v1/completions": (400, '{"message": "too\\nlong"}')})) as url:
        code, line = run(url)
    assert code == 5
    assert "no step could be measured" in line
    assert "answers 400: too long" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speculative_eagle_topk": 4}, "drafts a tree"),
        ({"speculative_adaptive": True}, "changes k by itself"),
        ({"dp_size": 2}, "profile one (--dp-size 1)"),
    ],
)
def test_sglang_in_a_form_that_no_trace_holds_is_refused(run: Run, changes: dict[str, object], words: str) -> None:
    played = engine(dialect="sglang", k=3)
    info = {**(played.answer("/get_server_info") or {}), **changes}
    played.statuses["/get_server_info"] = (200, json.dumps(info))
    with playing(played) as url:
        code, line = run(url)
    assert code == 2
    assert words in line


def test_sglang_without_metrics_cannot_tell_its_steps(run: Run) -> None:
    with playing(engine(dialect="sglang", k=3, statuses={"/metrics": (404, "")})) as url:
        code, line = run(url)
    assert code == 2
    assert "--enable-metrics" in line


def test_another_k_than_the_servers_is_refused(run: Run) -> None:
    with playing(engine(k=3)) as url:
        code, line = run(url, "--k", "2")
    assert code == 2
    assert "--k 2: the server drafts 3 tokens" in line


def test_the_key_travels_in_its_header_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEBOP_TEST_KEY", "sk-very-secret")
    played = engine(k=1, acceptance=(0.5,))
    with playing(played) as url:
        assert run(url, "--api-key-env", "BEBOP_TEST_KEY")[0] == 0
        assert {headers.get("Authorization") for headers in played.headers} == {"Bearer sk-very-secret"}
        played.statuses["/v1/models"] = (400, "bad key sk-very-secret")
        run_out = run.printed
        assert "***" in run(url, "--api-key-env", "BEBOP_TEST_KEY")[1]
    written = "".join(path.read_text() for path in run.path.parent.iterdir())
    assert "secret" not in written + run_out.err + run_out.out + run.printed.err


def test_interrupted_it_ends_at_once_and_keeps_its_samples(tmp_path: Path) -> None:
    played = engine(on_request=after(4, lambda one: setattr(one, "is_stalled", True)))
    with playing(played) as url:
        argv = ["-m", "bebop", "profile", "--source", "engine", "--url", url, *SMALL, "-o", str(tmp_path / "x.json")]
        process = subprocess.Popen([sys.executable, *argv], stderr=subprocess.PIPE, text=True)
        stalled = threading.Event()
        deadline = time.monotonic() + 30
        while not played.is_stalled and time.monotonic() < deadline:
            stalled.wait(0.05)
        stalled.wait(0.2)
        process.send_signal(2)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "bebop: interrupted"
    assert "samples are kept in" in said
