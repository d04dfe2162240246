"""`bebop compare` from outside: which files it takes, what it prints, every way to be refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import bebop
from simulator.compare import Comparison
from tests.dashboard.report_fixture import make_report
from tests.simulator.compare.runs import changed, drafting, run
from tests.traces.examples import latency_trace
from traces.store import save_trace

SHARED_LOGS = Path(__file__).parents[3].parent / "shared" / "data" / "rl_logs"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process: (exit code, stdout, stderr)."""

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        code = bebop.main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return execute


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    save_trace(run(), tmp_path / "plain.json")
    return tmp_path / "plain.json"


@pytest.fixture
def mtp(tmp_path: Path) -> Path:
    save_trace(changed(lambda _: drafting(2.5, 50.0), name="mtp"), tmp_path / "mtp.parquet")
    return tmp_path / "mtp.parquet"


def test_two_measured_runs_are_compared_in_words(command: Command, plain: Path, mtp: Path) -> None:
    code, out, err = command(plain, mtp)
    assert (code, err) == (0, "")
    assert out.startswith("mtp against plain: rollout 2.00x faster, but 41 % of the step was not generation: 1.42x end")
    assert "20 RL steps compared, paired by number" in out


def test_json_is_one_line_and_the_same_in_a_file(command: Command, plain: Path, mtp: Path, tmp_path: Path) -> None:
    code, out, _ = command(plain, mtp, "--json", "-o", tmp_path / "out.json")
    assert code == 0
    assert out.count("\n") == 1
    assert (tmp_path / "out.json").read_text() == out
    assert Comparison.model_validate_json(out, strict=True).step_speedup.mean == pytest.approx(170 / 120)


def test_a_report_stands_beside_a_measured_run(command: Command, plain: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(make_report().to_json() + "\n")
    assert command(plain, report)[1].startswith("report (baseline) against plain: a step of ")
    assert command(plain, report, "--arm", "TO")[1].startswith("report (TO) against plain: a step of ")
    assert command(report, report, "--arm", "TO")[1].startswith(
        "bebop-reasoning (TO) against bebop-reasoning (baseline)"
    )


def _broken_report(path: Path) -> None:
    content = json.loads(make_report().to_json())
    content["baseline"]["step_s"] = "fast"
    path.write_text(json.dumps(content))


BAD = {
    "a report of the wrong types": (_broken_report, "baseline.step_s: 'fast' is not a number; make the report again"),
    "a report cut off": (lambda path: path.write_text(make_report().to_json()[:900]), "not JSON"),
    "a report key twice": (
        lambda path: path.write_text('{"kind":"report","kind":"report"}'),
        "key 'kind' appears twice in one object",
    ),
    "another trace": (
        lambda path: save_trace(latency_trace(), path),
        "is a latency, neither a measured run nor a report",
    ),
    "a folder": (lambda path: path.mkdir(), "is a directory; check the path"),
    "nothing": (lambda path: None, "no such file or directory; check the path"),
    "half a Parquet file": (lambda path: path.write_bytes(b"PAR1PAR"), "bad.json"),
    "an empty file": (lambda path: path.write_text(""), "bad.json"),
    "text": (lambda path: path.write_text("hello\nworld\n"), "bad.json"),
    "bytes": (lambda path: path.write_bytes(bytes(range(256)) * 9), "bad.json"),
}


@pytest.mark.parametrize(("write", "complaint"), BAD.values(), ids=BAD.keys())
def test_what_is_no_run_is_refused_in_one_line(
    write: Callable[[Path], None], complaint: str, command: Command, plain: Path, tmp_path: Path
) -> None:
    write(tmp_path / "bad.json")
    code, out, err = command(plain, tmp_path / "bad.json")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert complaint in err


def test_three_arms_are_one_too_many(command: Command, plain: Path) -> None:
    code, _, err = command(plain, plain, *["--arm", "a"] * 3)
    assert code == 2
    assert "--arm given 3 times; there are two sides" in err


@pytest.mark.skipif(not SHARED_LOGS.is_dir(), reason="the published logs are not beside the checkout")
def test_two_published_verl_runs_are_compared_at_equal_tokens(command: Command) -> None:
    names = ("20251130_224918-ry3hgbx5", "20251202_120842-do7bl4gg")
    code, out, err = command(*(SHARED_LOGS / "verl" / f"{name}.log" for name in names), "--json")
    assert (code, err) == (0, "")
    result = Comparison.model_validate_json(out, strict=True)
    assert result.num_steps == 144
    assert result.a.num_unpaired == 18
    # 64 prompts of 16 against 32 of 16, and responses that grew to 2.9x the length.
    facts = {fact.name: (fact.a, fact.b) for fact in result.facts}
    assert facts["num_sequences"] == pytest.approx((1024, 512), rel=0.05)
    assert "1.39x more response tokens, 1.60x slower a step" in result.verdict
    rest = {term.name: term.b_s for term in result.terms}["rest"]
    assert abs(rest) < 0.01 * sum(term.b_s for term in result.terms)
