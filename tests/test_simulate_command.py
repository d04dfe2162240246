"""`bebop simulate` and `bebop scenarios` from outside: what is printed where, and every way to be refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bebop
from simulator.scenario_file import list_scenarios, load_scenario, parse_scenario
from tests.simulator import made_up
from traces.report import RunReport
from traces.store import save_trace

BEBOP = [sys.executable, "-m", "bebop"]


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    """Return the path of a scenario that takes no time."""
    save_trace(made_up.trace(), tmp_path / "trace.json")
    path = tmp_path / "made-up.toml"
    path.write_text(made_up.SCENARIO.format(trace=str(tmp_path / "trace.json")))
    return str(path)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = bebop.main([*arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def outside(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*BEBOP, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


# ---------------------------------------------------------------- answers


def test_json_is_one_line_and_nothing_else(scenario: str) -> None:
    texts = [outside("simulate", scenario, "--json", PYTHONHASHSEED=seed) for seed in ("1", "2")]
    for result in texts:
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count("\n") == 1
        assert result.stdout.endswith("}\n")
    assert texts[0].stdout == texts[1].stdout
    content = json.loads(texts[0].stdout)
    arm = content["arms"]["spec"]
    assert set(arm["end_to_end_speedup"]) == set(arm["rollout_speedup"]) == {"mean", "low", "high"}
    for number in (arm["accept_length"], arm["step_s"], content["baseline"]["step_s"]):
        assert isinstance(number, float)
    assert isinstance(content["provenance"], list)
    assert isinstance(content["warnings"], list)
    assert content["scenario"] == "made-up"


def test_people_get_a_sentence_and_tables_without_colour(scenario: str) -> None:
    result = outside("simulate", scenario, COLUMNS="60", FORCE_COLOR="1", TERM="xterm-256color")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(
        "made-up: How much faster is a run whose numbers are all known?\n\nWith spec (k = 3) "
    )
    assert "\x1b" not in result.stdout
    for title in (
        "Speedup over plain decoding",
        "Where the gain was lost",
        "Where the time goes",
        "Inputs: ",
        "Warnings",
    ):
        assert title in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 118
    assert all(line == line.rstrip() for line in result.stdout.splitlines())
    assert result.stdout.endswith("err as `uncertainty` says.\n")


def test_the_default_scenario_has_a_name(command: Command) -> None:
    short = ("--json", "--set", "run.num_steps=3", "--replications", "1")
    code, out, _ = command("simulate", *short)
    assert code == 0
    assert json.loads(out)["scenario"] == "bebop-reasoning"
    assert command("simulate", "bebop-reasoning", *short)[1] == out


def test_set_seed_and_replications_change_what_they_say(scenario: str, command: Command) -> None:
    arguments = ("--set", "arms.spec.k=2", "--set", "run.num_steps=4", "--seed", "5", "--replications", "3")
    code, out, err = command("simulate", scenario, "--json", *arguments)
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert (content["seed"], content["replications"], content["num_steps"]) == (5, 3, 4)
    assert content["arms"]["spec"]["num_draft_tokens"] == 2
    assert command("simulate", scenario, "--json", *arguments)[1] == out
    assert command("simulate", scenario, "--json", *arguments, "--seed", "6")[1] != out


@pytest.mark.parametrize("option", ["--out", "-o"])
def test_out_writes_what_json_prints(scenario: str, option: str, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    code, out, err = command("simulate", scenario, "--json", option, str(path))
    assert (code, err) == (0, "")
    assert path.read_text() == out
    assert RunReport.model_validate_json(out, strict=True).scenario == "made-up"
    code, out, _ = command("simulate", scenario, option, str(path))
    assert out.startswith("made-up: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made-up.toml", "report.json", "trace.json"]


def test_a_reader_that_goes_away_is_no_error(scenario: str) -> None:
    line = f"{' '.join(BEBOP)} simulate {scenario} | head -c 8; echo; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True)
    assert (result.stdout, result.stderr) == ("made-up:\n0\n", "")


# ---------------------------------------------------------------- bundled scenarios


def test_scenarios_lists_names_and_questions(command: Command) -> None:
    code, out, err = command("scenarios")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [name for name, _ in list_scenarios()]
    assert all(line.endswith("?") for line in lines)
    code, out, _ = command("scenarios", "--json")
    assert out.count("\n") == 1
    assert [[row["name"], row["question"]] for row in json.loads(out)] == [line.split(maxsplit=1) for line in lines]


@pytest.mark.parametrize("name", ["bebop-reasoning", "bebop-swe", "skyrl-qwen3.5-9b", "areal"])
def test_a_printed_scenario_loads_again(name: str, command: Command, tmp_path: Path) -> None:
    code, out, err = command("scenarios", name)
    assert (code, err) == (0, "")
    assert out.startswith("# ")
    copy = tmp_path / "copy.toml"
    copy.write_text(out)
    assert load_scenario(str(copy)) == load_scenario(name)
    code, out, _ = command("scenarios", name, "--json")
    assert out.count("\n") == 1
    assert json.loads(out) == load_scenario(name).model_dump(mode="json")


def test_a_file_is_printed_as_it_is_whatever_its_name_says(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "mine.toml"
    text = made_up.SCENARIO.format(trace="x.json").replace('name = "made-up"', 'name = "bebop-swe"')
    path.write_text(text)
    assert command("scenarios", str(path)) == (0, text, "")
    assert parse_scenario(text, "x").name == "bebop-swe"


def test_an_unknown_scenario_is_one_line(command: Command) -> None:
    for verb in ("simulate", "scenarios"):
        code, out, err = command(verb, "bebop-sw")
        assert (code, out, err) == (2, "", "bebop: bebop-sw: no such scenario or file; did you mean bebop-swe?\n")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "engine.max_runing_seqs=9",
            "made-up.toml: engine.max_runing_seqs: unknown key; did you mean `max_running_seqs`?",
        ),
        (
            "weight_sync.seconds=-1",
            "made-up.toml: weight_sync.seconds: -1 is not at least 0; `bebop schema scenario` list",
        ),
        (
            "weight_sync.seconds=nan",
            "made-up.toml: weight_sync.seconds: nan is not a finite number; `bebop schema scen",
        ),
        (
            "weight_sync.seconds=2026-01-01",
            "made-up.toml: weight_sync.seconds: 2026-01-01 is a date or a time; no field ",
        ),
        (
            "engine.kv_cache_tokens=500",
            "engine.kv_cache_tokens: the KV cache of a replica holds 496 tokens (arm baseline",
        ),
        (
            "engine.gpu_memory_utilization=0.01",
            "engine.max_running_seqs: 16 sequences of Qwen3-8B need 16 GB of weights",
        ),
        ("latency.trace=qwen3-8b-h20-tp1", "latency.trace: latency trace 'qwen3-8b-h20-tp1' is neither shipped nor a "),
        ("arms.spec.acceptance.cumulative=[0.9,0.8,0.7,0.6,0.5]", None),
        (
            "arms.spec.k=4",
            "arms.spec.k: 4 is above the 3 rates of arms.spec.acceptance.cumulative; lower k or give more",
        ),
        (
            "cluster.tp_size=2",
            "cluster.tp_size, cluster.ep_size: (2, 1) is not in latency trace made-up, which has [(1",
        ),
        ("x", "--set x: not of the form path.to.field=value, e.g. --set arms.to.k=2"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_nothing_written(
    override: str, line: str | None, scenario: str, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "report.json"
    more = ["--set", "arms.spec.k=5"] if line is None else []
    line = (
        line or "arms.spec.k: 5 needs verify at 6 tokens per sequence, but latency trace made-up covers k up to 4; lo"
    )
    code, out, err = command("simulate", scenario, "--json", "--out", str(path), "--set", override, *more)
    assert (code, out) == (2, "")
    assert err.startswith(f"bebop: {line}")
    assert err.count("\n") == 1
    assert not path.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made-up.toml", "trace.json"]


def test_a_mistake_from_outside_has_no_traceback_unless_asked(scenario: str) -> None:
    result = outside("simulate", scenario, "--set", "arms.spec.k=9")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in result.stderr
    result = outside("simulate", scenario, "--set", "arms.spec.k=9", "--debug")
    assert result.returncode == 2
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--seed", "x"], "argument --seed: invalid int value: 'x'; see `bebop simulate --help`"),
        (["--seed", "-1"], "made-up.toml: run.seed: -1 is not at least 0; `bebop schema scenario` lists all fields"),
        (["--replications", "0"], "made-up.toml: run.replications: 0 is not at least 1; `bebop schema scenario` lists"),
        (["--jsn"], "unrecognized arguments: --jsn; see `bebop simulate --help`"),
        (["--set"], "argument --set: expected one argument; see `bebop simulate --help`"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], line: str, scenario: str, command: Command) -> None:
    code, out, err = command("simulate", scenario, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"bebop: {line}")
    assert err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    scenario: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.run.simulate", lambda *_, **__: pytest.fail("work was done before the complaint"))
    missing = tmp_path / "none" / "report.json"
    assert command("simulate", scenario, "-o", str(missing)) == (
        2,
        "",
        f"bebop: {missing}: no such file or directory; check the path\n",
    )
    assert command("simulate", scenario, "-o", str(tmp_path)) == (
        2,
        "",
        f"bebop: {tmp_path}: is a directory; check the path\n",
    )
    monkeypatch.setattr("os.access", lambda *_: False)
    assert command("simulate", scenario, "-o", str(tmp_path / "report.json")) == (
        4,
        "",
        f"bebop: permission denied at {tmp_path}/report.json; make room or choose another place, then repeat\n",
    )
