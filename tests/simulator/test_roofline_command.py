"""`bebop profile --source roofline`."""

import json
from pathlib import Path

import pytest

import bebop
from simulator.roofline import roofline_trace
from traces.architecture import load_architecture
from traces.hardware import load_gpu
from traces.latency import LatencyTrace
from traces.store import load_trace


@pytest.mark.parametrize("source", [["--source", "roofline"], ["--source=roofline"]])
def test_it_writes_the_trace_that_a_scenario_with_a_roofline_uses(
    tmp_path: Path, source: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.parquet"
    assert bebop.main(["profile", *source, "--model", "Qwen3-8B", "--gpu", "H200", "-o", str(path), "--json"]) == 0
    written = load_trace(path, LatencyTrace)
    assert json.loads(capsys.readouterr().out)["sha256"] == written.content_hash()
    assert written.rows == roofline_trace(load_architecture("Qwen3-8B"), load_gpu("H200")).rows


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--model", "Qwen3-8B", "--gpu", "H2000"], "bebop: no GPU named 'H2000'"),
        (["--model", "Qwen3-8B", "--gpu", "H200", "--tp", "3"], "bebop: "),
        (["--model", "Qwen3-8B", "--gpu", "H200", "--precision", "fp1"], "bebop: precision 'fp1': known are"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["profile", "--source", "roofline", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
