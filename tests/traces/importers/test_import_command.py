import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.traces.importers.logs import verl_line
from traces import load_trace
from traces.measured import MeasuredRun


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bebop", "import", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "my run.log"
    path.write_text("\n".join(["Training from scratch", verl_line(1), verl_line(1), verl_line(2)]) + "\n")
    return path


def test_the_account_names_what_was_understood_missing_ignored_and_dropped(log: Path) -> None:
    result = run(log.parent, log.name)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "run         my-run: verl, 2 steps, 1 to 2"
    assert lines[1] == "read        4 lines, 3 of them with numbers of a step"
    assert any(line.split()[-2:] == ["generation_s", "timing_s/gen"] for line in lines)
    assert any(line.startswith("missing     train_s, log_prob_s") for line in lines)
    assert "dropped     my run.log:3: step 1 is told twice" in lines
    assert lines[-1] == "written     nothing; -o FILE.json or FILE.parquet writes the trace"


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_the_trace_that_is_written_loads_again(log: Path, suffix: str) -> None:
    output = log.parent / f"trace{suffix}"
    assert run(log.parent, log.name, "-o", output.name, "--set", "setup.gpu=H200").returncode == 0
    trace = load_trace(output, MeasuredRun)
    assert (trace.setup.gpu, len(trace.steps)) == ("H200", 2)
    assert trace.steps[0].logged["timing_s/gen"] == 40.0


def test_json_prints_the_whole_account_in_one_line(log: Path) -> None:
    result = run(log.parent, log.name, "--json", "--set", "setup.num_gpus=8")
    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert (summary["framework"], summary["num_steps"], summary["setup"]["num_gpus"]) == ("verl", 2, 8)
    assert summary["account"]["num_dropped"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.log"], "none.log: cannot be read (no such file or directory); check the path"),
        (["."], ".: a folder without TensorBoard event files; name the log itself"),
        (["my run.log", "--format", "vreal"], "format 'vreal' is not known; the formats are auto, verl, slime,"),
        (["my run.log", "--set", "setup.gpus=4"], "--set setup.gpus: unknown key; did you mean `gpu`?"),
        (["my run.log", "--set", "num_gpus=4"], "--set num_gpus=4: is no setup.FIELD=VALUE; the fields are model, gpu"),
        (["my run.log", "--set", "setup.num_gpus=0"], "--set setup.num_gpus: 0 is not at least 1"),
        (["my run.log", "-o", "my run.log"], "-o my run.log: the suffix names the format"),
        (["my run.log", "--name", "a/b"], "name 'a/b' does not match"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(log: Path, arguments: list[str], complaint: str) -> None:
    result = run(log.parent, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bebop: {complaint}"), result.stderr
    assert result.stderr.count("\n") == 1


def test_a_log_is_never_overwritten_by_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text("{}")
    result = run(tmp_path, path.name, "-o", str(path))
    assert result.returncode == 2
    assert "is the log itself" in result.stderr
    assert path.read_text() == "{}"
