"""What Measured vs predicted shows is what the command line says of the same files."""

import json
from pathlib import Path

import pytest

from bebop import main as bebop
from dashboard import measured, measured_tables, scorecard_tables
from dashboard.data import Source
from dashboard.figures.forecast import forecast_by_step
from dashboard.figures.scorecard import scorecard
from dashboard.figures.step_difference import step_difference
from dashboard.uploads import Upload
from simulator.run import simulate
from simulator.scenario_file import parse_scenario
from simulator.scorecard.cli import shipped_entries
from simulator.scorecard.score import Scored, as_json
from tests.dashboard.tiny_scenario import TINY
from traces.errors import TraceError

LOG = measured.EXAMPLES / measured.EXAMPLE_LOG
SCENARIO = measured.EXAMPLES / measured.EXAMPLE_SCENARIO


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert bebop([*arguments, "--json"]) == 0
    content: dict[str, object] = json.loads(capsys.readouterr().out)
    return content


def test_the_forecast_is_the_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    report = measured.forecast_of(measured.example_log(), "auto", 0.2)
    assert json.loads(report.model_dump_json()) == said(capsys, "forecast", str(LOG))
    table = measured_tables.forecast_table(report)
    assert table["term"][0] == "**step**"
    assert table["mean error"][0] == f"**{100 * report.mape['step']:.3g} %**"
    assert measured_tables.share(report.mape["step"]) in measured_tables.forecast_sentence(report)


def test_the_calibration_is_the_command_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report, text = measured.calibration_of(measured.example_log(), "auto", measured.example_scenario())
    out = tmp_path / "new.toml"
    expected = said(capsys, "calibrate", str(LOG), "--scenario", str(SCENARIO), "-o", str(out))
    assert json.loads(report.model_dump_json()) == expected
    assert text == out.read_text()
    assert measured_tables.calibration_table(report)["field"] == [
        one.path.replace(".", "\\.").replace("_", "\\_") for one in report.fields
    ]


def test_a_comparison_is_the_command_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = simulate(parse_scenario(TINY, "tiny.toml"))
    path = tmp_path / "tiny.json"
    path.write_text(report.to_json())
    expected = said(capsys, "compare", str(LOG), str(path), "--arm", "to")
    run = measured.read(measured.example_log(), "auto")
    other = measured.read_other((Upload("tiny.json", path.read_bytes()),))
    found = measured.comparison_of(run, other, (LOG.name, path.name), ["to"])
    assert json.loads(found.to_json()) == expected
    (bars,) = step_difference(found).data
    assert sum(effect.seconds for effect in found.waterfall) == pytest.approx(bars.x[-1] - bars.x[0])
    assert len(bars.y) == len(found.waterfall) + 2


def test_every_term_has_a_panel_with_the_logged_seconds_inside_its_unit() -> None:
    report = measured.forecast_of(measured.example_log(), "auto", 0.2)
    figure = forecast_by_step(report)
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert titles[0] == "step<br>(s)"
    assert len(titles) == len({term for step in report.steps for term in step.terms})
    logged = next(line for line in figure.data if line.name == "measured")
    assert list(logged.y) == [step.terms["step"].measured_s for step in report.steps]
    band = next(line for line in figure.data if line.name == "80 % band")
    assert len(band.x) == 2 * len(report.steps)


def test_a_forecast_of_one_step_is_still_a_picture() -> None:
    report = measured.forecast_of(measured.example_log(), "auto", 0.2)
    alone = report.model_copy(update={"steps": report.steps[:1], "num_first_steps": 1})
    figure = forecast_by_step(alone)
    assert next(line for line in figure.data if line.name == "predicted from lengths").mode == "lines+markers"
    assert figure.layout.xaxis.range[0] < figure.layout.xaxis.range[1]


def test_what_was_understood_missing_and_left_out_is_all_there() -> None:
    run = measured.read(measured.example_log(), "auto")
    assert run.account is not None
    table = measured_tables.understood_table(run)
    assert len(table["field"]) == len(run.account.understood)
    assert set(table["steps that have it"]) <= {"all", *(f"{n} of {len(run.steps)}" for n in range(len(run.steps)))}
    assert len(measured_tables.ignored_table(run)["left out"]) == len(run.account.ignored)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "is empty"), (b"hello\n" * 5, "no step of any known framework"), (b"\x00\x01\xff" * 400, "")],
)
def test_a_file_that_is_no_log_is_one_line_without_a_folder(content: bytes, complaint: str) -> None:
    with pytest.raises(TraceError) as caught:
        measured.read((Upload("some/where/x.log", content),), "auto")
    text = str(caught.value)
    assert complaint in text
    assert text.startswith("x.log")
    assert "bebop-upload" not in text
    assert "\n" not in text


def test_the_example_is_the_run_that_its_scenario_states() -> None:
    run = measured.read(measured.example_log(), "auto")
    assert (run.framework, len(run.steps)) == ("verl", 16)
    docs = Path(__file__).parents[2] / "docs" / measured.EXAMPLE_SCENARIO
    assert measured.example_scenario() == Source(measured.EXAMPLE_SCENARIO, docs.read_text())


def test_the_scorecard_is_the_command_lines_and_draws_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    entries = shipped_entries(with_runs=False)
    assert json.loads(json.dumps(as_json(entries))) == said(capsys, "scorecard", "--no-runs")
    rows = [entry for entry in entries if isinstance(entry, Scored)]
    drawn = [line for line in scorecard(rows).data if line.mode == "markers"]
    assert sum(len(line.x) for line in drawn) == len(rows)
    assert sum(len(line.x) for line in drawn if line.name == "decided a fit") == sum(
        row.fitted is not None for row in rows
    )
    classes = scorecard_tables.classes_table(entries)
    assert sum(map(int, classes["rows"])) == sum(row.fitted is None for row in rows)
