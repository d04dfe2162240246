"""`bebop report`: one file that says what the report says, runs nothing of a user's, and asks nobody for anything."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

import bebop
from dashboard.report.export import as_csv, as_json, as_parquet, rows_of
from dashboard.report.page import Section, page
from dashboard.words import times
from simulator.break_even import BreakEven
from simulator.optimize import PlanReport, Scored
from simulator.plan_space import Layout, Plan
from simulator.sensitivity import FactorResult, Sensitivity
from simulator.what_if import Knob, SpeedupMap
from tests.dashboard.report_fixture import make_report
from traces.report import Interval, RunReport
from traces.timeline import Counter, Span, Timeline

CHROMIUM = shutil.which("chromium")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028=1+1"


def full_section(report: RunReport) -> Section:
    plan = Plan(16, 8, Layout(1, 1, None), 3, 0, 64, 1, None)
    one = Interval(mean=2.0, low=1.5, high=2.5)
    scored = Scored(plan, one, 100.0, 10.0, 1.0, one, 3.0)
    even = BreakEven(0.4, 1.6, False, None, 1000.0, 3.0)
    factor = FactorResult(f"x.{HOSTILE}", HOSTILE, 1.0, 2.0, HOSTILE, 1.4, 1.8)
    spans = (
        Span(track="trainer", name="training", begin_s=0, end_s=5, rl_step=0),
        Span(track="replica 0", name="generating", begin_s=0, end_s=9),
    )
    counters = (Counter(track="run", name="buffer", unit="groups", times_s=(0.0, 4.0), values=(0.0, 3.0)),)
    return Section(
        report,
        timeline=Timeline(
            scenario="x",
            arm=HOSTILE,
            end_s=9,
            sample_s=0.1,
            num_replicas=1,
            num_shown=1,
            spans=spans,
            counters=counters,
        ),
        what_if=SpeedupMap(
            "x", HOSTILE, Knob("a", HOSTILE, (1, 2)), Knob("b", "k", (1, 2)), ((0.9, 1.2), (1.1, None)), {}
        ),
        plans=PlanReport("x", "to", 16, 8, 3, 10, 1, 1, {}, (scored,), scored, HOSTILE, scored, even),
        sensitivity=Sensitivity("x", "to", 1.6, None, None, 3, (factor,)),
    )


@pytest.mark.parametrize("num_runs", [0, 1, 2, 7])
def test_any_number_of_runs_is_a_page_with_their_answers(num_runs: int) -> None:
    text = page([Section(make_report()) for _ in range(num_runs)])
    assert text.count("<details") == num_runs
    assert ("All runs" in text) == (num_runs > 1)
    if num_runs == 0:
        assert "No runs were given" in text
    for arm in make_report().arms.values() if num_runs else ():
        assert text.count(times(arm.end_to_end_speedup.mean)) >= num_runs


def test_a_report_without_arms_is_a_page_too() -> None:
    assert "What it rests on" in page([Section(make_report(0, measured=False))])


def test_no_text_of_a_user_becomes_markup() -> None:
    report = make_report()
    arms = {HOSTILE: next(iter(report.arms.values()))}
    hostile = report.model_copy(
        update={"scenario": HOSTILE, "question": HOSTILE, "arms": arms, "warnings": (HOSTILE,), "measured": ()}
    )
    text = page([full_section(hostile)])
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "\u2028" not in text.split("const figures")[1]
    assert text.count("</script>") == 2


def test_what_other_tools_add_is_shown() -> None:
    text = page([full_section(make_report())])
    for title in ("What if", "Plans", "What to measure first", "Timeline"):
        assert f"<h3>{title}</h3>" in text
    assert "8 + 8 GPUs, tp 1, batch 64, k = 3, staleness 1" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_it_and_asks_nobody(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    path = tmp_path / "report.html"
    path.write_text(page([full_section(make_report())]), encoding="utf-8")
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        opened.goto(path.as_uri())
        figures = opened.locator(".figure").count()
        expect(opened.locator(".figure:has(svg.main-svg)")).to_have_count(figures, timeout=60_000)
        wider = opened.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        browser.close()
    assert said == []
    assert figures > 5
    assert not wider


def test_csv_has_a_row_per_arm_and_no_formulas() -> None:
    report = make_report()
    arms = {"=SUM(A1)": next(iter(report.arms.values())), **report.arms}
    rows = list(csv.DictReader(io.StringIO(as_csv([report.model_copy(update={"arms": arms})]))))
    assert [row["arm"] for row in rows] == ["baseline", "'=SUM(A1)", *report.arms]
    assert float(rows[2]["end_to_end_speedup"]) == next(iter(report.arms.values())).end_to_end_speedup.mean


def test_json_and_parquet_hold_what_the_report_holds(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    reports = [make_report(), make_report(1)]
    assert [RunReport.model_validate(each) for each in json.loads(as_json(reports))] == reports
    path = tmp_path / "x.parquet"
    path.write_bytes(as_parquet(reports))
    assert pq.read_table(path).to_pylist() == rows_of(reports)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".svg", b"<svg")])
def test_a_picture_is_a_picture(tmp_path: Path, suffix: str, head: bytes) -> None:
    run, out = tmp_path / "run.json", tmp_path / f"x{suffix}"
    run.write_text(make_report().to_json())
    assert bebop.main(["report", str(run), "-o", str(out)]) == 0
    assert out.read_bytes().startswith(head)


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run.json", tmp_path / "report.html"
    run.write_text(make_report().to_json())
    assert bebop.main(["report", str(run), str(run), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(out), "runs": 2, "bytes": out.stat().st_size}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"kind": "report"}', "make the report again with `bebop simulate -o`"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(
    tmp_path: Path, content: str | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.json"
    if content is not None:
        run.write_text(content)
    assert bebop.main(["report", str(run), "-o", str(tmp_path / "x.html")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said


def test_an_unknown_form_or_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop.main(["report", "-o", "x.pdf"]) == 2
    assert capsys.readouterr().err.startswith("bebop: -o x.pdf: the suffix names the form; end it in .html, ")
    assert bebop.main(["report", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("bebop: nothing: neither a .json report nor a scenario")
