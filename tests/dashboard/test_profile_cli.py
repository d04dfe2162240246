"""`bebop profile show` and `compare`: the printed numbers are the trace's, and the picture needs nothing else."""

import json
import re
import shutil
import struct
from pathlib import Path

import pytest

from bebop import main as bebop
from dashboard.figures.step_latency import step_latency
from dashboard.latency_tables import render_trace
from profiler.step_times import step_times
from tests.profiler.test_step_times import row, trace_of
from traces.latency import ComposedStep, ErrorSummary, InfeasiblePoint, LatencyTrace, Measurement, Operation
from traces.store import find_trace, load_trace

SHIPPED = "qwen3-8b-h200-tp1"


@pytest.fixture(scope="module")
def trace() -> LatencyTrace:
    return load_trace(find_trace(SHIPPED, "latency"), LatencyTrace)


@pytest.mark.parametrize("dark", [False, True])
def test_every_q_has_a_line_of_the_rows_and_one_under_it(trace: LatencyTrace, dark: bool) -> None:
    figure = step_latency(trace, step_times(trace), (128, 8192), dark=dark)
    lines = [line for line in figure.data if line.mode == "lines+markers"]
    assert len(lines) == 2 * 9
    rows = {(r.operation, r.tokens_per_seq, r.batch, r.context_tokens): r.latency_s for r in trace.rows}
    third = next(line for line in lines if line.name == "q = 3")
    assert list(third.y) == [pytest.approx(1e3 * rows[Operation.VERIFY, 3, batch, 128]) for batch in third.x]
    floors = [line for line in figure.data if line.line.dash == "dot" and line.x[0] is not None]
    for line, floor in zip(lines, floors, strict=True):
        assert line.line.color == floor.line.color
        assert all(low < high for low, high in zip(floor.y, line.y, strict=True))
    assert [line.name for line in lines if line.showlegend] == ["decode, q = 1", *(f"q = {q}" for q in range(2, 10))]
    assert len({line.line.color for line in lines}) == 9


def test_both_axes_are_logarithmic_and_carry_units(trace: LatencyTrace) -> None:
    figure = step_latency(trace, step_times(trace), (128, 8192, 131072))
    assert {axis.type for axis in (*figure.select_xaxes(), *figure.select_yaxes())} == {"log"}
    assert figure.layout.xaxis.title.text == "batch (sequences)"
    assert figure.layout.yaxis.title.text == "one pass of the target (ms)"


def test_without_peaks_no_line_is_drawn_under_and_the_picture_says_why() -> None:
    rows = [row(Operation.DECODE, 1, batch, 64, 0.01) for batch in (1, 4)]
    made_up = trace_of(*rows, gpu="some <b>CPU</b>")
    figure = step_latency(made_up, step_times(made_up), (64,))
    assert not [line for line in figure.data if line.line.dash == "dot" and line.x]
    assert "least time unknown: no datasheet peaks of some &lt;b&gt;" in figure.layout.title.subtitle.text


def test_a_trace_without_passes_says_so() -> None:
    made_up = trace_of(row(Operation.DRAFT, 1, 1, 64, 0.01))
    found = step_times(made_up)
    assert "No decode or verify rows" in step_latency(made_up, found, ()).layout.annotations[0].text
    assert "no decode or verify rows" in render_trace(made_up, found, ())


def test_the_table_shows_latency_ratio_origin_and_the_traces_own_errors() -> None:
    measurement = Measurement(
        num_sweeps=3,
        num_samples=57,
        noisy_spread=0.05,
        num_noisy=2,
        held_out=ErrorSummary(num_points=8, median=0.021, p90=0.06, worst=0.09),
        infeasible=(
            InfeasiblePoint(
                operation=Operation.VERIFY, batch=512, context_tokens=9, tokens_per_seq=4, reason="needs 200 GB"
            ),
        ),
        composed=(
            ComposedStep(num_draft_tokens=3, batch=8, context_tokens=512, measured_s=0.02, sum_of_parts_s=0.019),
        ),
    )
    rows = (row(Operation.DECODE, 1, 8, 512, 0.010), row(Operation.VERIFY, 4, 8, 512, 0.013))
    made_up = trace_of(*rows).model_copy(update={"measurement": measurement})
    text = render_trace(made_up, step_times(made_up), (512,))
    assert re.search(r"^ +8 +10\.0 +13\.0 1\.30x +3\.\d\d +measured$", text, re.MULTILINE)
    assert "57 samples, at least 3 of every point; 2 points noisy" in text
    assert "held-out points: median 2.1%, p90 6.0%, worst 9.0% of 8" in text
    assert "k 3, batch 8, context 512: 20 ms, sum of its parts -5.0%" in text
    assert "infeasible: verify, batch 512, context 9, q 4: needs 200 GB" in text


def test_show_prints_and_writes_a_page_that_asks_no_other_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bebop(["profile", "show", SHIPPED, "--contexts", "4096"]) == 0
    out, err = capsys.readouterr()
    assert "context 4096 tokens" in out
    assert "context 512 tokens" not in out
    assert err == f"picture: {SHIPPED}.html\n"
    page = (tmp_path / f"{SHIPPED}.html").read_text()
    assert "Plotly.newPlot" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page.replace("<\\/", "</")[:2000])
    assert 'src="http' not in page


def test_json_holds_every_pass_and_draws_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: LatencyTrace
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bebop(["profile", "show", SHIPPED, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["times"]) == len(step_times(trace).times)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_png_is_as_wide_as_asked(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    path = tmp_path / "x.png"
    assert bebop(["profile", "show", SHIPPED, "-o", str(path), "--width", "800"]) == 0
    assert struct.unpack(">II", path.read_bytes()[16:24])[0] == 1600


def test_a_png_without_a_browser_is_one_line_and_code_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    assert bebop(["profile", "show", SHIPPED, "-o", str(tmp_path / "x.png")]) == 5
    out, err = capsys.readouterr()
    assert SHIPPED in out
    assert re.fullmatch(r"bebop: .*x\.png: a browser draws png files, and none starts here.*\n", err)
    assert list(tmp_path.iterdir()) == []


def test_compare_prints_regions_and_what_lies_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop(["profile", "compare", SHIPPED, "qwen3-8b-h100-tp1"]) == 0
    out = capsys.readouterr().out
    assert "not the same gpu: H200 and H100" in out
    assert "Each covers all points of the other." in out
    assert bebop(["profile", "compare", SHIPPED, SHIPPED, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {(region["lowest"], region["highest"]) for region in answer["regions"]} == {(1.0, 1.0)}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show", "nothing"], "latency trace 'nothing' is neither shipped"),
        (["show", SHIPPED, "-o", "x.gif"], "end it in .html, .png, .svg"),
        (["show", SHIPPED, "--contexts", "7"], "--contexts 7: qwen3-8b-h200-tp1 has no pass there; it has 128"),
        (["show", SHIPPED, "--contexts", "a"], "neither `all` nor whole numbers"),
        (["show", SHIPPED, "--width", "10"], "--width 10 is outside 320..8000"),
        (["show", SHIPPED, "--tp", "8"], "no rows of --tp 8"),
        (["show"], "the following arguments are required: TRACE"),
        (["compare", SHIPPED], "the following arguments are required: B"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bebop(["profile", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
