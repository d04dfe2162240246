"""The views that a scenario goes through: every state of each, drawn without a browser."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, state, words
from dashboard.axes import axes, prepared
from simulator.scenario_file import DEFAULT_SCENARIO
from simulator.what_if import speedup_at
from tests.dashboard.pages import APP, held
from tests.dashboard.test_app import markdown, open_page, press_run, upload
from tests.dashboard.tiny_scenario import TINY

VERL_LOG = Path(__file__).parents[1] / "traces" / "importers" / "real" / "verl.log"
SMALL = "run.num_steps=8\nrun.replications=1\nworkload.prompts_per_step=16"
SOURCE = data.Source("tiny.toml", TINY)


def open_view(name: str, scenario: str | None = TINY) -> AppTest:
    page = open_page()
    if scenario is not None:
        upload(page, scenario)
    page.switch_page(f"views/{name}.py").run()
    assert not page.exception
    return page


def shown(page: AppTest) -> str:
    return "\n".join([markdown(page), *(element.value for element in (*page.caption, *page.info, *page.warning))])


def charts(page: AppTest) -> int:
    return len(page.get("plotly_chart"))


@pytest.mark.parametrize("name", ["predict", "what_if", "acceptance", "profiles", "measured", "timeline"])
def test_every_view_opens_on_the_default_scenario(name: str) -> None:
    page = open_view(name, scenario=None)
    assert not page.error


def test_one_knob_shows_the_number_of_the_simulator_and_follows_the_slider() -> None:
    page = open_view("what_if")
    scenario = data.load(SOURCE)
    axis = axes(scenario, "to")["drafts"]
    for value in (axis.now, 1):
        slider = next(each for each in page.select_slider if each.label == axis.knob.title)
        slider.set_value(value).run()
        assert not page.exception
        expected = speedup_at(prepared(scenario, axis), "to", [(axis.knob.path, value)])
        assert f"**{words.times(expected)}** the speed of plain decoding" in markdown(page)
    assert charts(page) == 2


def test_the_whole_curve_is_drawn_on_demand() -> None:
    page = open_view("what_if", TINY.replace("num_steps = 6", "num_steps = 7"))
    page.button(key="whole_curve").click().run()
    assert not page.exception
    assert "whole_curve" not in [button.key for button in page.button]


def test_two_knobs_must_differ() -> None:
    page = open_view("what_if")
    page.selectbox(key="what_if_up").set_value("batch").run()
    assert not page.exception
    assert "two different knobs" in shown(page)
    page.selectbox(key="what_if_up").set_value("staleness").run()
    assert not page.exception
    assert "two different knobs" not in shown(page)


def test_a_cancelled_map_waits_to_be_asked_again() -> None:
    page = upload(open_page(), TINY.replace("replications = 2", "replications = 1"))
    page.session_state[state.keyed("_cancelled", "map")] = True
    page.switch_page("views/what_if.py").run()
    assert "The map was cancelled" in shown(page)
    page.button(key="draw_map").click().run()
    assert not page.exception
    assert "The map was cancelled" not in shown(page)


def test_what_matters_most_is_named() -> None:
    page = open_view("what_if")
    page.button(key="find_sensitivity").click().run()
    assert not page.exception
    assert "Measure **" in markdown(page) or "nothing is uncertain" in page.error[0].value


@pytest.mark.parametrize(
    ("work", "button"), [("plans", "Search plans"), ("sensitivity", "Find what matters")], ids=["plans", "sensitivity"]
)
def test_cancelled_plans_and_sensitivities_say_so(work: str, button: str) -> None:
    page = upload(open_page(), TINY.replace("num_steps = 6", "num_steps = 9"))
    page.session_state[state.keyed("_cancelled", work)] = True
    page.switch_page("views/what_if.py").run()
    assert any(f"was cancelled; press **{button}**" in info.value for info in page.info)


def test_plans_are_searched_only_on_demand() -> None:
    page = open_view("what_if")
    assert "Recommended" not in markdown(page)
    page.selectbox(key="what_if_plans").set_value(40)
    page.button(key="search_plans").click().run()
    assert not page.exception
    assert "Recommended on at most 4 GPUs" in markdown(page)


def test_a_scenario_that_cannot_be_asked_shows_its_complaint_once_in_every_view() -> None:
    for name in ("predict", "what_if"):
        page = open_view(name, TINY.replace("max_running_seqs = 32", "max_running_seqs = -1"))
        assert len(page.error) == 1
        assert not charts(page)


def test_acceptance_draws_every_side_and_carries_a_law_to_predict() -> None:
    page = open_view("acceptance")
    assert charts(page) == 5
    page.selectbox(key="acceptance_fit/bebop-paper/").set_value("all_runs").run()
    page.selectbox(key="carry_recipe").set_value("rs_e2e_tv").run()
    page.button(key="carry").click().run()
    assert not page.exception
    assert "now drafts by law" in page.success[0].value
    page.switch_page("views/predict.py").run()
    choice = page.selectbox(key=state.keyed(state.ACCEPTANCE, SOURCE.key, "to"))
    assert choice.value == "law rs_e2e_tv, fit all_runs"


def test_a_trace_of_another_family_shows_its_counted_rows() -> None:
    page = open_view("acceptance")
    page.selectbox(key="acceptance_trace").set_value("mtp-study-quick-entropy").run()
    assert not page.exception
    assert not page.error
    assert charts(page) == 5


def test_a_link_sets_the_controls_and_says_what_it_left_out() -> None:
    page = held(AppTest.from_file(str(APP), default_timeout=120))
    page.query_params["scenario"] = "verl-fully-async"
    page.query_params["set"] = ["engine.max_running_seqs=33", "latency.trace=/etc/passwd"]
    page.run()
    assert not page.exception
    assert page.selectbox(key=state.SCENARIO).value == "verl-fully-async"
    assert page.number_input(key=state.keyed("engine.max_running_seqs", "verl-fully-async")).value == 33
    assert any("names a file" in warning.value.replace("\\", "") for warning in page.warning)


def test_the_controls_write_the_link_that_leads_back() -> None:
    page = open_page()
    page.slider(key=state.keyed(state.NUM_DRAFT_TOKENS, DEFAULT_SCENARIO, "to")).set_value(2).run()
    assert page.query_params["scenario"] in (DEFAULT_SCENARIO, [DEFAULT_SCENARIO])
    assert page.query_params["set"] in ("arms.to.k=2", ["arms.to.k=2"])
    page.slider(key=state.keyed(state.NUM_DRAFT_TOKENS, DEFAULT_SCENARIO, "to")).set_value(3).run()
    assert dict(page.query_params) == {}, "the default scenario as it stands needs no parameters"


def test_going_back_sets_every_control_and_view_as_the_address_says_and_leaves_the_address_alone() -> None:
    page = open_view("what_if", scenario=None)
    first = dict(page.query_params)
    drafts = state.keyed(state.NUM_DRAFT_TOKENS, DEFAULT_SCENARIO, "to")
    page.slider(key=drafts).set_value(1).run()
    page.selectbox(key="what_if_knob").set_value("staleness").run()
    assert page.query_params["knob"] in ("staleness", ["staleness"])
    for parameters, k, knob in (({"arm": "to", "k": "2", "knob": "batch"}, 2, "batch"), (first, 3, "drafts")):
        page.query_params.clear()
        page.query_params.update(parameters)
        page.run()
        assert not page.exception
        assert page.slider(key=drafts).value == k
        assert page.selectbox(key="what_if_knob").value == knob
        assert dict(page.query_params) == parameters


def test_another_gpu_brings_latencies_that_fit_it() -> None:
    page = upload(open_page(), TINY)
    page.selectbox(key=state.keyed("cluster.gpu", SOURCE.key)).set_value("H100").run()
    assert not page.error
    press_run(page)
    assert not page.exception
    assert not page.error
    assert "qwen3-8b-h100-tp1" in page.code[0].value
    page.selectbox(key=state.keyed("cluster.gpu", SOURCE.key)).set_value("L40S").run()
    assert not page.error
    assert "roofline" in page.selectbox(key=state.keyed(state.LATENCY, SOURCE.key, "Qwen3-8B/L40S")).value


def test_any_other_setting_reaches_the_run() -> None:
    page = upload(open_page(), TINY)
    page.text_area(key=state.keyed(state.OTHER_SETTINGS, SOURCE.key)).set_value("trainer.mfu=0.2").run()
    press_run(page)
    assert page.code[0].value == "bebop simulate tiny.toml --set trainer.mfu=0.2"


def test_entropy_is_read_from_a_real_log() -> None:
    points = data.logged_entropy("verl.log", VERL_LOG.read_bytes())
    assert points == sorted(points)
    assert 1 <= len(points) <= data.MAX_ENTROPY_POINTS
    page = upload(open_page(), TINY)
    uploader = next(each for each in page.file_uploader if each.label.startswith("From a training log"))
    uploader.set_value(("verl.log", VERL_LOG.read_bytes(), "text/plain"))
    page.run()
    assert not page.error
    page.button(key=state.keyed("entropy_use", SOURCE.key)).click().run()
    assert not page.exception
    press_run(page)
    assert "entropy={kind" in page.code[0].value


def test_a_log_without_entropy_is_complained_about() -> None:
    with pytest.raises(data.ScenarioError, match="none with the policy's entropy"):
        data.logged_entropy("x.jsonl", b'{"step": 1, "timing_s/step": 9.5, "actor/grad_norm": 0.5}\n')


def test_a_run_goes_into_the_basket_once() -> None:
    page = press_run(upload(open_page(), TINY))
    assert page.button(key="open_basket").disabled
    page.button(key="add_to_basket").click().run()
    assert page.button(key="add_to_basket").disabled
    assert "1 of 6" in page.button(key="open_basket").label
    page.button(key="open_basket").click().run()
    assert not page.exception
    assert any("tiny" in table.value.to_string() for table in page.table)
    page.button(key="remove_run/0").click().run()
    assert not page.exception
    assert "0 of 6" in page.button(key="open_basket").label


def test_the_basket_holds_six_runs() -> None:
    report = data.ReportCache().run(data.load(SOURCE), lambda _: None)
    page = open_page()
    page.session_state["_basket"] = [report.model_copy(update={"seed": seed}) for seed in range(6)]
    page.run()
    assert "6 of 6" in page.button(key="open_basket").label
    press_run(upload(page, TINY))
    assert page.button(key="add_to_basket").disabled


def test_only_predict_runs_and_the_other_views_lead_there() -> None:
    page = open_page()
    page.text_area(key=state.keyed(state.OTHER_SETTINGS, DEFAULT_SCENARIO)).set_value(SMALL).run()
    page.switch_page("views/acceptance.py").run()
    assert state.RUN not in [button.key for button in page.button]
    page.switch_page("views/predict.py").run()
    press_run(page)
    assert not page.exception
    scenario = data.load(data.Source(DEFAULT_SCENARIO), SMALL.splitlines())
    report = data.ReportCache().run(scenario, lambda _: None)
    assert words.answer(report, report.best_arm) in markdown(page)
