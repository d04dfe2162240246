"""`bebop trace` from outside."""

import json
from pathlib import Path

import pytest

import bebop

SMALL = ["--set", "run.num_steps=6", "--set", "run.warmup_steps=1"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_file_is_named_after_scenario_and_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["trace", "areal", "--arm", "baseline", *SMALL]) == 0
    path = tmp_path / "areal-baseline.perfetto.json"
    events = json.loads(path.read_text())["traceEvents"]
    assert capsys.readouterr().out.startswith(f"{path.name}: {len(events)} events of arm baseline, ")


def test_json_is_one_line_that_counts_the_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["trace", "areal", "--steps", "2", "-o", "x.json", "--json", *SMALL]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["events"] == len(json.loads((tmp_path / "x.json").read_text())["traceEvents"])
    assert answer["num_replicas"] == answer["num_shown"] == 4


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--arm", "mtp"], "bebop: no arm 'mtp'; the arms are baseline, "),
        (["--steps", "7"], "bebop: 7 RL steps are outside 1..6"),
        (["-o", "no/folder/x.json"], "bebop: no/folder"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["trace", "areal", *SMALL, *arguments]) == 2
    assert capsys.readouterr().err.startswith(line)
