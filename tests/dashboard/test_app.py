import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, state, tables, words
from simulator.run import simulate
from simulator.scenario_file import DEFAULT_SCENARIO
from tests.dashboard.pages import APP, held, written
from tests.dashboard.tiny_scenario import TINY

SMALL = ["run.num_steps=8", "run.replications=1", "workload.prompts_per_step=16"]


def open_page() -> AppTest:
    return held(AppTest.from_file(str(APP), default_timeout=120)).run()


def follow_link(*overrides: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=120)
    page.query_params["scenario"] = DEFAULT_SCENARIO
    page.query_params["set"] = list(overrides)
    return page.run()


def upload(page: AppTest, text: str, name: str = "tiny.toml") -> AppTest:
    page.file_uploader(key=state.UPLOAD).set_value((name, text.encode(), "application/toml"))
    return page.run()


def press_run(page: AppTest) -> AppTest:
    return page.button(key=state.RUN).click().run()


def markdown(page: AppTest) -> str:
    return "\n".join(element.value for element in page.markdown)


def test_a_link_to_a_bundled_scenario_is_answered_without_a_press_of_run() -> None:
    page = follow_link(*SMALL)
    assert not page.exception
    assert not page.error
    report = simulate(data.load(data.Source(DEFAULT_SCENARIO), SMALL))
    assert words.answer(report, report.best_arm) in markdown(page)
    assert "First look" not in written(page)
    arm = next(iter(report.arms))
    page.slider(key=state.keyed(state.NUM_DRAFT_TOKENS, DEFAULT_SCENARIO, arm)).set_value(1).run()
    assert any("inputs changed" in warning.value for warning in page.warning), "a changed knob waits for Run"


def test_a_link_that_asks_for_much_work_waits_for_run() -> None:
    page = follow_link("run.replications=1000")
    assert not page.exception
    assert "Press **Run**" in page.info[0].value
    assert [chart.key for chart in page.get("plotly_chart")] == ["trajectory"]


def test_every_bundled_scenario_is_small_enough_to_answer_by_itself_and_no_upload_is() -> None:
    for name, _ in data.bundled_scenarios():
        assert data.starts_by_itself(data.Question(data.Source(name), (), data.load(data.Source(name))))
    tiny = data.Source("tiny.toml", TINY)
    assert not data.starts_by_itself(data.Question(tiny, (), data.load(tiny)))


def test_a_cancelled_run_waits_to_be_asked_again() -> None:
    page = open_page()
    assert not page.exception
    assert not page.error
    assert page.selectbox(key=state.SCENARIO).value == DEFAULT_SCENARIO
    assert "The run was cancelled" in page.warning[0].value
    assert not page.button(key=state.RUN).disabled
    assert [chart.key for chart in page.get("plotly_chart")] == ["trajectory"]


def test_every_bundled_scenario_shows_its_question_and_its_own_knobs() -> None:
    page = open_page()
    for name, _ in data.bundled_scenarios():
        page.selectbox(key=state.SCENARIO).set_value(name).run()
        assert not page.exception
        scenario = data.load(data.Source(name))
        assert words.escape_markdown(scenario.question) in markdown(page)
        limit = page.number_input(key=state.keyed("engine.max_running_seqs", name))
        assert limit.value == scenario.engine.max_running_seqs
        for arm, config in scenario.arms.items():
            assert page.slider(key=state.keyed(state.NUM_DRAFT_TOKENS, name, arm)).value == config.k


def test_run_shows_the_answer_of_simulate_and_every_figure() -> None:
    page = press_run(upload(open_page(), TINY))
    assert not page.exception
    assert not page.error
    report = simulate(data.load(data.Source("tiny.toml", TINY)))
    assert words.answer(report, report.best_arm) in markdown(page)
    drawn = [chart.key for chart in page.get("plotly_chart")]
    assert drawn == ["trajectory", "waterfall", "steps", "breakdown", "measured", "staleness"]
    assert page.code[0].value == "bebop simulate tiny.toml"
    assert [warning.value for warning in page.warning] == [tables.bullets(report.warnings)]


def test_a_changed_k_marks_the_answer_out_of_date_until_the_next_run() -> None:
    page = press_run(upload(open_page(), TINY))
    key = state.keyed(state.NUM_DRAFT_TOKENS, data.Source("tiny.toml", TINY).key, "to")
    page.slider(key=key).set_value(0).run()
    assert any("inputs changed" in warning.value for warning in page.warning)
    press_run(page)
    assert not page.exception
    assert not any("inputs changed" in warning.value for warning in page.warning)
    assert page.code[0].value == "bebop simulate tiny.toml --set arms.to.k=0"
    arms = page.table[0].value
    assert arms["k"].tolist() == ["0", "0", "3"]


def test_fixed_rates_reach_the_run() -> None:
    page = upload(open_page(), TINY)
    source = data.Source("tiny.toml", TINY)
    page.selectbox(key=state.keyed(state.ACCEPTANCE, source.key, "to")).set_value("fixed rates").run()
    page.text_input(key=state.keyed(state.RATES, source.key, "to")).set_value("1.0, 1.0, 1.0").run()
    press_run(page)
    assert not page.exception
    assert not page.error
    report = simulate(data.load(source, [data.override_rates("to", [1.0, 1.0, 1.0])]))
    assert page.table[0].value["accept length"].tolist()[1] == f"{report.arms['to'].accept_length:.2f}"


def test_another_arm_can_be_explained() -> None:
    page = press_run(upload(open_page(), TINY))
    report = simulate(data.load(data.Source("tiny.toml", TINY)))
    (other,) = set(report.arms) - {report.best_arm}
    page.button_group(key=state.keyed(state.EXPLAINED_ARM, report.scenario_hash)).set_value(other).run()
    assert not page.exception
    assert words.answer(report, other) in markdown(page)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = ", "tiny"),
        (TINY.replace("max_running_seqs = 32", "max_running_seqs = -1"), "engine"),
        (TINY.replace("k = 3", "k = 99"), "99"),
        (TINY + "\nsurprise = 1\n", "surprise"),
    ],
)
def test_a_wrong_upload_shows_the_command_lines_text_and_cannot_be_run(text: str, complaint: str) -> None:
    page = upload(open_page(), text)
    assert not page.exception
    with pytest.raises(data.ScenarioError) as caught:
        data.load(data.Source("tiny.toml", text))
    (error,) = page.error
    assert error.value == words.escape_markdown(str(caught.value))
    assert complaint in str(caught.value)
    assert page.button(key=state.RUN).disabled


def test_rates_that_are_no_numbers_are_complained_about() -> None:
    page = upload(open_page(), TINY)
    source = data.Source("tiny.toml", TINY)
    page.selectbox(key=state.keyed(state.ACCEPTANCE, source.key, "to")).set_value("fixed rates").run()
    page.text_input(key=state.keyed(state.RATES, source.key, "to")).set_value("0.9, many").run()
    assert not page.exception
    assert "is not a list of numbers" in page.error[0].value.replace("\\", "")


def test_text_of_an_upload_is_escaped() -> None:
    page = press_run(upload(open_page(), TINY))
    assert r"a tiny \<b\>run\<\/b\> finish?" in markdown(page)
