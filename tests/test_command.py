"""The `bebop` command from outside: speed, exit codes, one line of complaint."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bebop
from simulator.errors import InvariantError, ScenarioError
from traces import TraceError, doctor
from traces.console import ExitCode, run_command

HEAVY = {"torch", "ray", "streamlit", "numpy", "pydantic", "pyarrow", "numba", "scipy", "simpy", "rich"}
BEBOP = [sys.executable, "-m", "bebop"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BEBOP, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )


def test_help_answers_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert run("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    probe = "import bebop, sys\ntry: bebop.main(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert not loaded & HEAVY
    assert not loaded & {"traces", "simulator", "profiler", "dashboard"}
    for verb in bebop.VERBS:
        assert f"  {verb} " in result.stdout


def test_the_installed_command_is_this_one() -> None:
    script = Path(sys.executable).with_name("bebop")
    if not script.exists():
        pytest.skip("bebop is not installed beside this Python; run `make setup`")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("bebop 0.")


def test_an_unknown_verb_is_one_line_and_exit_code_2() -> None:
    result = run("simulat", "x.toml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "bebop: no verb 'simulat'; did you mean `bebop simulate`?\n"
    assert run("zzz").stderr.startswith("bebop: no verb 'zzz'; the verbs are simulate, scenarios, ")


def test_no_verb_prints_the_help_and_exit_code_2() -> None:
    result = run()
    assert result.returncode == 2
    assert result.stdout == ""
    assert "verbs:" in result.stderr


def test_an_unknown_option_of_a_verb_is_one_line_and_exit_code_2() -> None:
    result = run("doctor", "--jsn")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "bebop: unrecognized arguments: --jsn; see `bebop doctor --help`\n"


@pytest.mark.parametrize("verb", ["simulate", "scenarios", "profile", "study", "ui"])
def test_each_verb_reaches_its_package_with_its_arguments(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(argv)
            return 3

    seen: list[list[str]] = []
    asked: list[str] = []

    def find_module(name: str) -> type[Module]:
        asked.append(name)
        return Module

    monkeypatch.setattr("bebop.importlib.import_module", find_module)
    assert bebop.main([verb, "--json", "--debug", "x"]) == 3
    rest = ["--json", "x"]
    assert seen == [[verb, *rest] if verb in ("simulate", "scenarios") else rest]
    assert asked[0].endswith(".cli")


def raising(error: BaseException) -> Callable[[], int]:
    def function() -> int:
        raise error

    return function


NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "runs/x.json")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TraceError("h200.json: bad"), 2, "h200.json: bad"),
        (ScenarioError("trainer.batch_size: -1\nis bad"), 2, "trainer.batch_size: -1 is bad"),
        (InvariantError("lost"), 1, "unexpected: InvariantError: lost; re-run with --debug for the traceback, please"),
        (NO_SPACE, 4, "no space left at runs/x.json; make room or choose another place, then repeat"),
        (PermissionError(errno.EACCES, "Permission denied", "/r"), 4, "permission denied at /r; make room or choose"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
            2,
            "x: no such file or directory; check the",
        ),
        (
            ModuleNotFoundError("No module named 'ray.x'", name="ray.x"),
            5,
            "ray is not installed; run `pip install '.[ray]'",
        ),
        (
            ModuleNotFoundError("No module named 'plotly'", name="plotly"),
            5,
            "plotly is not installed; run `pip install '.[d",
        ),
        (
            ModuleNotFoundError("No module named 'simpy'", name="simpy"),
            5,
            "No module named 'simpy'; `bebop doctor` shows",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("k"), 1, "unexpected: KeyError: 'k'; re-run with --debug for the traceback, please report this"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_exception_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"bebop: {line}")
    assert captured.err.count("\n") == 1
    assert run_command(raising(error), debug=True) == code
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_code_of_a_verb_is_passed_on() -> None:
    assert run_command(lambda: None) == ExitCode.OK
    assert run_command(lambda: ExitCode.PARTIAL) == 3
    assert run_command(raising(SystemExit(2))) == 2
    assert run_command(raising(SystemExit())) == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{' '.join(BEBOP)} schema report | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "{\n0\n"
    assert result.stderr == ""


def test_no_colour_unless_a_terminal_wants_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\x1b" not in run("simulat").stderr + run("doctor").stdout
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    run_command(raising(TraceError("x")))
    assert capsys.readouterr().err == "\x1b[31mbebop:\x1b[0m x\n"
    monkeypatch.setenv("NO_COLOR", "1")
    run_command(raising(TraceError("x")))
    assert capsys.readouterr().err == "bebop: x\n"


def test_schema_lists_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["schema"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["latency", "acceptance", "workload", "measured", "testbed_profile", "report", "scenario"]
    assert bebop.main(["schema", "--write", str(tmp_path)]) == 0
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(names)
    assert bebop.main(["schema", "latency"]) == 0
    assert capsys.readouterr().out == (tmp_path / "latency.json").read_text()
    assert bebop.main(["schema", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == names
    assert bebop.main(["schema", "latency", "report", "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert list(json.loads(printed)) == ["latency", "report"]
    assert bebop.main(["schema", "latent"]) == 2
    assert capsys.readouterr().err == (
        "bebop: no format 'latent'; the formats are latency, acceptance, workload, measured, testbed_profile, report, "
        "scenario\n"
    )
    assert bebop.main(["schema", "--write", str(tmp_path / "none")]) == 2
    assert (
        capsys.readouterr().err == f"bebop: {tmp_path}/none/latency.json: no such file or directory; check the path\n"
    )


def test_doctor_prints_names_and_one_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("doctor", "--json", HF_TOKEN="secret-value")
    assert result.returncode == 0
    assert result.stdout.count("\n") == 1
    assert "secret-value" not in result.stdout
    findings = json.loads(result.stdout)
    assert set(findings["packages"]) == {"numba", "numpy", "pyarrow", "pydantic", "rich", "scipy", "simpy"}
    assert set(findings["extras"]) >= {"aiconfigurator", "dashboard", "dev", "ray", "service", "torch"}
    assert findings["problems"] == []
    assert findings["cores"] >= 1


def test_doctor_finds_a_broken_requirement(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: (["no_such_package"], {"ray": ["no_such_extra"]}))
    assert doctor.main([]) == ExitCode.ENVIRONMENT
    out = capsys.readouterr().out
    assert "problem    no_such_package does not import (ModuleNotFoundError: No module named 'no_such_package')" in out
    assert "extra      ray: missing, `pip install '.[ray]'` in the checkout (no_such_extra missing)" in out
