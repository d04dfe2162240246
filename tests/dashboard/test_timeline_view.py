import io

import pytest

from dashboard import data, state, timelines
from dashboard.figures.timeline import timeline_figure
from dashboard.views import timeline as view
from simulator.timeline import watch
from tests.dashboard.pages import charts, open_view, written
from tests.dashboard.tiny_scenario import TINY
from traces.timeline import Timeline, write_perfetto

SOURCE = data.Source("tiny.toml", TINY)


@pytest.fixture(scope="module")
def tiny() -> Timeline:
    return watch(data.load(SOURCE), "to", num_steps=3)


def test_the_file_is_the_one_that_trace_writes_and_the_run_is_watched_once(tiny: Timeline) -> None:
    scenario = data.load(SOURCE)
    assert timelines.watched(scenario, "to", 3) is None
    found = timelines.watch_arm(scenario, "to", 3)
    assert found == tiny
    assert timelines.watched(scenario, "to", 3) is found is timelines.watch_arm(scenario, "to", 3)
    assert timelines.watched(scenario, "baseline", 3) is None
    expected = io.StringIO()
    write_perfetto(tiny, expected)
    assert timelines.perfetto_file(found) == expected.getvalue()


@pytest.mark.parametrize("dark", [False, True])
def test_chosen_counters_are_drawn_under_the_tracks_inside_the_window(tiny: Timeline, dark: bool) -> None:
    batch = next(counter for counter in tiny.counters if counter.track == "replica 0")
    figure = timeline_figure(tiny, dark=dark, counters=[batch], window_s=(1.0, 2.5))
    (line,) = [one for one in figure.data if one.type == "scatter"]
    assert list(line.y)[:-1] == list(batch.values)
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert titles[-1] == "replica 0<br>batch"
    assert tuple(figure.layout.xaxis.range) == (1.0, 2.5)
    assert not [one for one in timeline_figure(tiny, counters=[]).data if one.type == "scatter"]


def test_the_view_watches_the_first_steps_of_the_scenarios_arm() -> None:
    page = open_view("timeline", tiny=True)
    assert not page.exception
    assert not page.error
    assert page.number_input(key=state.keyed(view.STEPS, SOURCE.key)).value == 6, "all of a short run"
    assert charts(page) == 1
    end_s = watch(data.load(SOURCE), "to", num_steps=6).end_s
    assert f"{end_s:.1f} s of the run, all replicas" in written(page) or f"{end_s:,.0f} s of the run" in written(page)
    assert "bebop trace tiny.toml --arm to --steps 6" in [code.value for code in page.code]


def test_another_arm_one_step_and_a_shorter_window() -> None:
    page = open_view("timeline", tiny=True)
    page.selectbox(key=state.keyed(view.ARM, SOURCE.key)).set_value("baseline").run()
    page.number_input(key=state.keyed(view.STEPS, SOURCE.key)).set_value(1).run()
    assert not page.exception
    assert (page.query_params["watch"], page.query_params["steps"]) == ("baseline", "1")
    window = next(slider for slider in page.slider if slider.key and slider.key.startswith(view.WINDOW))
    window.set_value((window.max / 4, window.max / 2)).run()
    assert not page.exception
    assert charts(page) == 1


def test_without_counters_the_tracks_alone_are_drawn() -> None:
    page = open_view("timeline", tiny=True)
    counters = next(box for box in page.multiselect if box.key and box.key.startswith(view.COUNTERS))
    assert len(counters.value) == 3
    counters.set_value([]).run()
    assert not page.exception
    assert charts(page) == 1


def test_a_run_that_became_shorter_than_what_is_watched_is_watched_whole() -> None:
    page = open_view("timeline", tiny=True)
    page.number_input(key=state.keyed("run.num_steps", SOURCE.key)).set_value(4).run()
    assert not page.exception
    assert page.number_input(key=state.keyed(view.STEPS, SOURCE.key)).value == 4


def test_a_scenario_that_cannot_run_shows_one_line() -> None:
    page = open_view("timeline", tiny=True)
    page.text_area(key=state.keyed(state.OTHER_SETTINGS, SOURCE.key)).set_value(
        "engine.gpu_memory_utilization=0.05"
    ).run()
    assert not page.exception
    assert page.error
    assert charts(page) == 0
