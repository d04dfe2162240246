"""Curves of acceptance, the figures that draw them, and the axes of What if: against the simulator's own rules."""

import pytest

from dashboard import curves
from dashboard.axes import axes, mean_entropy, prepared
from dashboard.figures.acceptance import RECIPE_NAMES, recipes
from dashboard.figures.one_knob import one_knob
from dashboard.figures.trajectory import trajectory
from profiler.mtp.entropy_bounds import least_top_probability
from simulator.scenario_file import list_scenarios, load_scenario, with_fields
from simulator.what_if import Knob

PAPER = "bebop-paper"


@pytest.fixture(scope="module")
def laws() -> list[curves.AcceptanceLaw]:
    return curves.laws_of(curves.load_trace(PAPER), "reasoning")


def test_accept_length_over_entropy_is_the_law(laws: list[curves.AcceptanceLaw]) -> None:
    for law, curve in zip(laws, curves.over_entropy(laws, 1.0), strict=True):
        middle = len(curve.x) // 2
        assert curve.y[middle] == pytest.approx(law.intercept + law.slope_per_nat * curve.x[middle])
        assert (curve.low, curve.high) == (law.entropy_low_nats, law.entropy_high_nats)


def test_positions_add_up_to_the_accept_length(laws: list[curves.AcceptanceLaw]) -> None:
    for law, curve in zip(laws, curves.over_positions(PAPER, laws, 3, 0.4), strict=True):
        assert 1 + sum(curve.y) == pytest.approx(law.accept_length(0.4), abs=1e-9)
        assert list(curve.y) == sorted(curve.y, reverse=True)


def test_temperature_one_and_a_fresh_head_change_nothing(laws: list[curves.AcceptanceLaw]) -> None:
    hot = curves.over_temperature(PAPER, laws, 3, 0.4)
    old = curves.over_rl_steps(PAPER, laws, 3, 0.4)
    for law, by_temperature, by_step in zip(laws, hot, old, strict=True):
        assert by_temperature.y[by_temperature.x.index(1.0)] == pytest.approx(law.accept_length(0.4), abs=1e-9)
        assert by_step.y[0] == pytest.approx(law.accept_length(0.4), abs=1e-9)
        assert list(by_step.y) == sorted(by_step.y, reverse=True)


def test_counted_rows_are_drawn_where_they_were_counted() -> None:
    trace = curves.load_trace("mtp-study-quick-entropy")
    found = curves.rows_over_entropy(trace)
    assert {dots.recipe for dots in found} <= set(RECIPE_NAMES)
    counted = [row for row in trace.rows if row.entropy_nats is not None]
    assert 0 < sum(len(dots.x) for dots in found) <= len(counted)
    first = curves.rows_over_entropy(trace, first_only=True)
    assert all(0 <= share <= 1 for dots in first for share in dots.y)


def test_a_line_is_solid_where_data_stand_under_it_and_dashed_elsewhere(laws: list[curves.AcceptanceLaw]) -> None:
    (curve,) = curves.over_entropy(laws[:1], 1.0)
    bounds = (("least", least_top_probability),)
    figure = recipes([curve], x_title="nats", y_title="tokens", bounds=bounds, marked=0.4)
    bound, dashed, solid = figure.data
    assert list(bound.y) == [least_top_probability(x) for x in curve.x]
    for x, y in zip(solid.x, solid.y, strict=True):
        assert (y is not None) == (curve.low <= x <= curve.high)
    assert all(a is not None or b is not None for a, b in zip(dashed.y, solid.y, strict=True))


def test_figures_say_why_there_is_nothing_to_draw() -> None:
    assert "no law" in recipes([], x_title="x", y_title="y").layout.annotations[0].text
    assert "no entropy" in trajectory([], 0, 10).layout.annotations[0].text
    knob = Knob("arms.to.k", "draft tokens k", (1, 2))
    assert "can run" in one_knob(knob, [None, None], 1, None).layout.annotations[0].text


def test_one_point_is_drawn() -> None:
    knob = Knob("arms.to.k", "draft tokens k", (1, 2))
    figure = one_knob(knob, [None, 1.25], 2, 1.25)
    assert list(figure.data[0].y) == [1.25]
    assert "1.25×" in figure.layout.annotations[0].text
    flat = trajectory([(10, 0.4)], 0, 100)
    assert set(flat.data[0].y) == {0.4}
    assert (min(flat.data[0].x), max(flat.data[0].x)) == (0, 99)


@pytest.mark.parametrize("name", [name for name, _ in list_scenarios()])
def test_every_axis_of_every_bundled_scenario_holds_its_own_value_and_can_be_set(name: str) -> None:
    scenario = load_scenario(name)
    for arm in scenario.arms:
        for axis in axes(scenario, arm).values():
            assert list(axis.knob.values) == sorted(set(axis.knob.values))
            assert min(axis.knob.values) <= axis.now <= max(axis.knob.values)
            with_fields(prepared(scenario, axis), [(axis.knob.path, axis.knob.values[0])])


def test_the_mean_entropy_is_that_of_the_run() -> None:
    scenario = with_fields(
        load_scenario("bebop-reasoning"),
        [("entropy", {"kind": "piecewise", "points": [[0, 0.2], [100, 1.2]]}), ("run.first_step", 0)],
    )
    assert mean_entropy(with_fields(scenario, [("run.num_steps", 101)])) == pytest.approx(0.7)
