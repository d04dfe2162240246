"""`bebop sweep` from outside: what it prints, how it is refused, and what is left when it is killed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import bebop
from tests.simulator.sweep.commands import begun, children_of, finished, stored, wait_for, write_scenario

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    return write_scenario(tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process: (exit code, stdout, stderr)."""

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        code = bebop.main(["sweep", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return execute


def test_json_is_one_line_with_the_digest(command: Command, scenario: str, tmp_path: Path) -> None:
    grid = ["--grid", "arms.spec.k=0..2", "--workers", "1", "--json"]
    code, out, err = command(scenario, *grid, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["points", "failed", "wall_s", "digest"]
    assert (answer["points"], answer["failed"]) == (3, 0)
    code, out, _ = command(scenario, *grid[:2], "--out", tmp_path / "out", "--resume")
    assert code == 0
    assert out.startswith("3 points, 3 of them known before, 0 failed, ")
    assert f"results.parquet, digest {answer['digest']}" in out


def test_failed_points_end_with_the_code_for_them(command: Command, scenario: str, tmp_path: Path) -> None:
    code, out, _ = command(scenario, "--grid", "engine.max_running_seqs=0,4", "--workers", "1", "--out", tmp_path / "o")
    assert code == 3
    assert "2 points, 1 failed" in out
    assert "failed 1x: made-up.toml: engine.max_running_seqs: 0 is not" in out


def test_points_are_the_middle_of_the_prediction_unless_replications_are_asked_for(
    command: Command, scenario: str, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    lows = []
    for more in ([], ["--replications", "2"]):
        folder = tmp_path / str(len(more))
        assert command(scenario, "--grid", "arms.spec.k=2", "--workers", "1", "--out", folder, *more)[0] == 0
        lows.append(pq.read_table(folder / "results.parquet").to_pylist()[1]["end_to_end_low"])
    assert lows[0] is None
    assert lows[1] > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to sweep; give --grid PATH=VALUES"),
        (["--grid", "x"], "--grid x: not of the form path=values"),
        (["--grid", "arms.spec.k=1", "--workers", "0"], "--workers 0 is not between 1 and 1024"),
        (["--grid", "arms.spec.k=1", "--timeout", "0"], "--timeout 0 is not above 0"),
        (["--range", "a=0..1", "--random", "0"], "argument --random: invalid positive_number value"),
        (["--range", "a=0..1", "--random", "2", "--sobol", "2"], "not allowed with argument"),
        (["--grid", "arms.spec.k=1", "--address", "127.0.0.1:1"], "--address is of a Ray cluster; add --executor ray"),
        (["--grid", "arms.spec.k=1", "--set", "run.num_steps=0"], "run.num_steps: 0 is not"),
        (["--grid", "arms.spec.k=1", "--arm", "mtp"], "--arm mtp: made-up.toml has no such arm; it has spec"),
        (["--grid", "arms.spec.q=1,2"], "none of 2 points can be run: made-up.toml: arms.spec.q: unknown key"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], complaint: str, command: Command, scenario: str, tmp_path: Path
) -> None:
    code, out, err = command(scenario, *arguments, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert complaint in err


def test_a_folder_that_cannot_be_made_is_found_before_any_work(command: Command, scenario: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = command(scenario, "--grid", "arms.spec.k=1,2", "--out", tmp_path / "file")
    assert code == 2
    assert err == f"bebop: {tmp_path / 'file'}: is a file, not a folder; choose another --out\n"


# ---------------------------------------------------------------- killed

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@needs_proc
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_driver_leaves_no_orphan_and_loses_no_point(
    sent: signal.Signals, scenario: str, tmp_path: Path
) -> None:
    driver = begun(scenario, tmp_path / "out", "--workers", "2")
    wait_for(lambda: stored(tmp_path / "out") > 0)
    workers = children_of(driver.pid)
    os.kill(driver.pid, sent)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == (130 if sent is signal.SIGINT else -sent)
    assert ("--resume` goes on where it stopped" in err) == (sent is signal.SIGINT)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    resumed = finished(scenario, tmp_path / "out")
    assert resumed.num_reused > 0
    assert resumed.digest == finished(scenario, tmp_path / "whole").digest


@needs_proc
def test_workers_killed_from_outside_are_replaced(scenario: str, tmp_path: Path) -> None:
    driver = begun(scenario, tmp_path / "out", "--workers", "2")
    wait_for(lambda: stored(tmp_path / "out") > 0)
    for pid in children_of(driver.pid):
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    answer = json.loads(driver.communicate(timeout=300)[0])
    assert (answer["points"], answer["failed"]) == (40, 0)
    assert answer["digest"] == finished(scenario, tmp_path / "whole").digest
