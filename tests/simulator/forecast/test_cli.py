import json
from pathlib import Path

import pytest

from simulator.forecast.cli import main
from tests.simulator.forecast.logs import EXCERPT, made_up_run
from traces.console import run_command
from traces.store import save_trace


def test_the_text_says_the_errors_beside_both_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXCERPT)]) == 0
    text = capsys.readouterr().out
    assert "linear in length" in text
    assert "last value" in text
    assert all(len(line) <= 118 for line in text.splitlines())


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXCERPT), "--train-fraction", "0.4", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["num_first_steps"] == 6


def test_a_log_that_is_too_short_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_trace(made_up_run(3), tmp_path / "short.json")
    assert run_command(lambda: main([str(tmp_path / "short.json")])) == 2
    assert capsys.readouterr().err.count("\n") == 1
