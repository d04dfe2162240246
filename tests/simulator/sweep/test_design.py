"""What `--grid`, `--range`, `--random` and `--sobol` mean, and how they are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.scenario_file import load_scenario
from simulator.sweep.design import overrides, parse_design


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=0..3", [0, 1, 2, 3]),
        ("a.b=0..8:4", [0, 4, 8]),
        ("a.b=0.1..0.4:0.1", [0.1, 0.2, 0.3, 0.4]),
        ("a.b=-1..1", [-1, 0, 1]),
        ("a.b=32,64, 128", [32, 64, 128]),
        ("a.b=7", [7]),
        ("a.b=0.5,1e-3", [0.5, 1e-3]),
        ("a.b=to,rs_ce", ["to", "rs_ce"]),
        ('a.b="x,y",z', ['"x', 'y"', "z"]),
        ('a.b="x,y","z"', ["x,y", "z"]),
        ("a.b=true,false", [True, False]),
        ('a.b={kind="adaptive"},{kind="table"}', [{"kind": "adaptive"}, {"kind": "table"}]),
    ],
)
def test_a_grid_lists_or_counts(text: str, values: list[Any]) -> None:
    (axis,) = parse_design([text]).axes
    assert (axis.path, list(axis.values)) == ("a.b", values)


def test_every_combination_is_a_point_the_last_axis_fastest() -> None:
    design = parse_design(["a=1,2", "b=3..5"])
    points = list(design.points())
    assert len(design) == len(points) == 6
    assert points[:4] == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 1, "b": 5}, {"a": 2, "b": 3}]


@pytest.mark.parametrize("kind", ["random", "sobol"])
@given(draws=st.integers(1, 70), seed=st.integers(0, 5))
def test_draws_fill_their_range_and_are_the_same_every_time(kind: Any, draws: int, seed: int) -> None:
    design = parse_design(["a=1,2"], ["x=0.2..0.4", "n=1..4"], draws=draws, kind=kind, seed=seed)
    points = list(design.points())
    assert len(design) == len(points) == 2 * draws
    assert points == list(design.points())
    assert all(0.2 <= point["x"] <= 0.4 and point["n"] in (1, 2, 3, 4) for point in points)
    if draws > 60:
        assert {point["n"] for point in points} == {1, 2, 3, 4}


def test_more_draws_begin_with_the_same_ones() -> None:
    few, many = (list(parse_design([], ["x=0..1.0"], draws=count, kind="sobol").points()) for count in (16, 64))
    assert many[:16] == few


def test_a_star_is_every_arm_and_other_names_are_known() -> None:
    assert overrides({"arms.*.k": 2}, ["to", "rs ce"]) == ['"arms"."to"."k"=2', '"arms"."rs ce"."k"=2']
    assert overrides({"speculation.k": 0}, ["to"]) == ['"arms"."to"."k"=0']
    assert overrides({"rollout.max_running_seqs": 32}, []) == ['"engine"."max_running_seqs"=32']


def test_overrides_are_read_as_they_were_meant() -> None:
    point = {"arms.to.draft_length": {"kind": "adaptive"}, "workload.temperature": 0.7, "engine.group_prefix": "shared"}
    scenario = load_scenario("bebop-reasoning", overrides(point, ["to"]))
    assert scenario.arms["to"].draft_length is not None
    assert (scenario.workload.temperature, scenario.engine.group_prefix) == (0.7, "shared")


@pytest.mark.parametrize(
    ("grid", "ranges", "draws", "complaint"),
    [
        ([], [], 0, "nothing to sweep; give --grid"),
        (["a"], [], 0, "--grid a: not of the form path=values"),
        (["=1"], [], 0, "not of the form path=values"),
        (["a b=1"], [], 0, "not of the form path=values"),
        (["a="], [], 0, "not of the form path=values"),
        (["a=1,1"], [], 0, "a value stands there twice"),
        (["a=1", "a=2"], [], 0, "a: given twice; put all its values into one --grid"),
        (["a=5..2"], [], 0, "a range goes up from lo to hi"),
        (["a=0..1:0"], [], 0, "a range goes up from lo to hi"),
        (["a=1.2.3..4"], [], 0, "is no range of numbers"),
        (["a=0..2000000"], [], 0, "2000001 values are above the limit of 1000000"),
        (["a=0..2000", "b=0..2000"], [], 0, "4004001 points are above the limit of 1000000"),
        ([], ["a=1..2"], 0, "--range and --random N"),
        (["a=1"], [], 5, "--range and --random N"),
        ([], ["a=2..1"], 5, "not two numbers lo..hi with lo below hi"),
        ([], ["a=x"], 5, "not two numbers lo..hi"),
        ([], ["a=1..2:1"], 5, "not two numbers lo..hi"),
    ],
)
def test_what_is_no_design_is_refused_in_one_line(grid: Any, ranges: Any, draws: int, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint.replace("(", r"\(")) as refused:
        parse_design(grid, ranges, draws=draws)
    assert "\n" not in str(refused.value)
