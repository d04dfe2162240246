from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, measured, measured_tables, scorecard_tables, state, words
from dashboard.views import measured as view
from dashboard.views import scorecard as scorecard_view
from simulator.forecast import ForecastError
from simulator.run import simulate
from simulator.scorecard.cli import shipped_entries
from simulator.scorecard.score import Scored, Unpredictable, scored
from tests.dashboard.pages import charts, open_view, written
from tests.dashboard.tiny_scenario import TINY

REAL = Path(__file__).parents[1] / "traces" / "importers" / "real"


OWN_ROWS = """id,source,engine,hw,model,precision,tp,method,k,concurrency,isl,osl,tpot_ms
mine,my log,vLLM,H100x1,Qwen3-8B,bf16,1,AR,0,8,1000,500,9.0
"""


def error_of(row: Scored) -> float:
    return abs(row.error)


def with_example(**parameters: str) -> AppTest:
    return open_view("measured", **parameters).button(key=view.EXAMPLE).click().run()


def drop(page: AppTest, name: str, content: bytes) -> AppTest:
    page.file_uploader(key=view.UPLOAD).set_value([(name, content, "text/plain")])
    return page.run()


def tables_of(page: AppTest, column: str) -> list[list[str]]:
    return [table.value[column].tolist() for table in page.table if column in table.value]


def test_without_a_log_the_view_says_what_to_drop_and_offers_an_example() -> None:
    page = open_view("measured")
    assert not page.exception
    assert "Or try the example" in page.info[0].value
    assert page.button(key=view.FORGET).disabled
    assert charts(page) == 0


def test_the_example_is_understood_and_forecast_as_on_the_command_line() -> None:
    page = with_example()
    assert not page.exception
    assert not page.error
    report = measured.forecast_of(measured.example_log(), "auto", 0.2)
    assert measured_tables.forecast_sentence(report) in written(page)
    assert tables_of(page, "mean error") == [measured_tables.forecast_table(report)["mean error"]]
    run = measured.read(measured.example_log(), "auto")
    assert tables_of(page, "read from") == [measured_tables.understood_table(run)["read from"]]
    assert [box.label for box in page.expander if box.label.startswith(("Understood", "Missing", "Left out"))] == [
        "Understood: 26 fields",
        "Missing: 11 fields that no step has",
        "Left out: 12 kinds of keys or lines, 1 step lines",
    ]
    assert "bebop forecast verl-38rf6xe8.log --train-fraction 0.2" in [code.value for code in page.code]


def test_another_share_of_steps_is_another_forecast() -> None:
    page = with_example()
    page.slider(key=view.FRACTION).set_value(50).run()
    report = measured.forecast_of(measured.example_log(), "auto", 0.5)
    assert measured_tables.forecast_sentence(report) in written(page)


def test_a_cancelled_forecast_waits_to_be_asked_again_and_the_rest_stays() -> None:
    page = with_example()
    work = state.keyed("forecast", view._id(measured.example_log(), "auto", 50))
    page.session_state[state.keyed("_cancelled", work)] = True
    page.slider(key=view.FRACTION).set_value(50).run()
    assert [info.value for info in page.info] == ["Fitting the first steps: cancelled."]
    assert "**verl: 16 steps**" in written(page)
    page.button(key="again/forecast").click().run()
    assert not page.info
    report = measured.forecast_of(measured.example_log(), "auto", 0.5)
    assert measured_tables.forecast_sentence(report) in written(page)


def test_calibrate_shows_fields_with_intervals_only_once_it_was_asked_for() -> None:
    page = with_example()
    assert not tables_of(page, "verdict")
    page.button(key=view.CALIBRATE).click().run()
    assert not page.exception
    report, _ = measured.calibration_of(measured.example_log(), "auto", measured.example_scenario())
    assert measured_tables.calibration_sentence(report) in written(page)
    assert tables_of(page, "verdict") == [measured_tables.calibration_table(report)["verdict"]]


def test_a_scenario_of_another_run_is_complained_about_and_the_forecast_stays() -> None:
    page = with_example()
    key = next(box.key for box in page.selectbox if box.key and box.key.startswith(view.SCENARIO))
    page.selectbox(key=key).set_value("bebop-reasoning").run()
    page.button(key=view.CALIBRATE).click().run()
    assert not page.exception
    with pytest.raises(ForecastError) as caught:
        measured.calibration_of(measured.example_log(), "auto", data.Source("bebop-reasoning"))
    assert [error.value for error in page.error] == [words.escape_markdown(str(caught.value))]
    assert charts(page) == 1


def test_the_log_stays_while_another_view_is_looked_at_and_can_be_forgotten() -> None:
    page = with_example()
    page.switch_page("views/profiles.py").run()
    page.switch_page("views/measured.py").run()
    assert charts(page) == 1
    page.button(key=view.FORGET).click().run()
    assert charts(page) == 0
    assert page.info


@pytest.mark.parametrize("name", ["verl.log", "skyrl.log", "areal.log", "roll.log", "trl-trainer_state.json"])
def test_any_importers_log_is_understood_even_where_it_is_too_short_to_forecast(name: str) -> None:
    page = drop(open_view("measured"), name, (REAL / name).read_bytes())
    assert not page.exception
    assert name.partition("-")[0].partition(".")[0] in written(page)
    assert all("usable steps" in error.value or "no term" in error.value for error in page.error)


@pytest.mark.parametrize("content", [b"", b"nothing here\n", b"\x00\xff" * 100])
def test_a_file_that_is_no_log_is_one_escaped_line(content: bytes) -> None:
    page = drop(open_view("measured"), "<b>x.log", content)
    assert not page.exception
    (error,) = page.error
    assert "bebop\\-upload" not in error.value
    assert "<b>" not in error.value
    assert charts(page) == 0


def test_a_log_and_a_report_are_compared_as_on_the_command_line() -> None:
    page = with_example(part="compare")
    assert "Drop the other run" in page.info[0].value
    report = simulate(data.load(data.Source("tiny.toml", TINY)))
    content = report.to_json().encode()
    page.file_uploader(key=view.OTHER_UPLOAD).set_value(("tiny.json", content, "application/json")).run()
    assert not page.exception
    assert not page.error
    run = measured.read(measured.example_log(), "auto")
    names = (measured.EXAMPLE_LOG, "tiny.json")
    found = measured.comparison_of(run, report, names, [report.best_arm])
    assert tables_of(page, "B minus A") == [measured_tables.terms_table(found)["B minus A"]]
    assert charts(page) == 1


def test_a_run_of_predict_can_be_compared_with_the_log() -> None:
    page = open_view("predict", tiny=True)
    page.button(key=state.RUN).click().run()
    page.switch_page("views/measured.py").run()
    page.button(key=view.EXAMPLE).click().run()
    page.button_group(key=view.PART).set_value("compare").run()
    (label,) = [option for option in page.selectbox(key=view.OTHER).options if option != view.ANOTHER_FILE]
    page.selectbox(key=view.OTHER).set_value(label).run()
    assert not page.exception
    assert not page.error
    assert charts(page) == 1
    page.radio(key=view.IS_A).set_value(page.radio(key=view.IS_A).options[1]).run()
    assert not page.exception


def test_the_scorecard_shows_the_classes_of_the_command_line() -> None:
    page = open_view("measured", part="scorecard")
    assert charts(page) == 0
    page.button(key=scorecard_view.SCORE).click().run()
    assert not page.exception
    entries = shipped_entries(with_runs=False)
    assert tables_of(page, "median error") == [scorecard_tables.classes_table(entries)["median error"]]
    assert charts(page) == 1
    assert len(tables_of(page, "missing fact")[0]) == sum(isinstance(entry, Unpredictable) for entry in entries)
    rows = scored(entries)
    assert [len(ids) for ids in tables_of(page, "configuration")][:2] == [scorecard_view.MAX_ROWS_SHOWN, len(rows)]
    assert "bebop scorecard --no-runs --json" in [code.value for code in page.code]


def test_a_row_of_the_scorecard_shows_what_the_command_line_says_of_it() -> None:
    page = open_view("measured", part="scorecard")
    page.button(key=scorecard_view.SCORE).click().run()
    worst = max((entry for entry in shipped_entries(with_runs=False) if isinstance(entry, Scored)), key=error_of)
    assert tables_of(page, "of this row") == [scorecard_tables.details_table(worst)["of this row"]]
    assert tables_of(page, "because") == [scorecard_tables.assumptions_table(worst)["because"]]


def test_rows_of_ones_own_are_scored_and_a_wrong_table_is_one_line() -> None:
    page = open_view("measured", part="scorecard")
    page.button_group(key=scorecard_view.ROWS).set_value(scorecard_view.MINE).run()
    assert not [button for button in page.button if button.key == scorecard_view.SCORE]
    for content, error in ((OWN_ROWS, None), ("a,b\n1,2\n", "no column model")):
        page.file_uploader(key=scorecard_view.OWN).set_value(("mine.csv", content.encode(), "text/csv")).run()
        page.button(key=scorecard_view.SCORE).click().run()
        assert not page.exception
        assert [error in one.value for one in page.error] == ([True] if error else [])
        if error is None:
            assert tables_of(page, "median error")
            assert "bebop scorecard --rows mine.csv --json" in [code.value for code in page.code]


def test_rl_rows_that_were_cancelled_say_so() -> None:
    page = open_view("measured", part="scorecard")
    page.button_group(key=scorecard_view.ROWS).set_value(scorecard_view.RUNS).run()
    page.session_state["_measured_scored"] = scorecard_view.RUNS
    page.session_state[state.keyed("_cancelled", f"scorecard/{scorecard_view.RUNS}")] = True
    page.run()
    assert "Scoring was cancelled" in page.info[0].value


def test_an_unknown_part_of_a_link_opens_the_first() -> None:
    page = open_view("measured", part="<script>")
    assert not page.exception
    assert page.button_group(key=view.PART).value == "forecast"
