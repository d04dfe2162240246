"""Scenario files: what loads, and one line for everything that does not."""

from pathlib import Path

import pytest

from simulator.config import FixedAcceptance, Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import (
    BUNDLED_FOLDER,
    DEFAULT_SCENARIO,
    MAX_FILE_BYTES,
    list_scenarios,
    load_scenario,
    parse_scenario,
)
from tests.simulator.made_up import SCENARIO
from traces.base import Origin

TEXT = SCENARIO.format(trace="made-up.json")
FIELDS = "; `bebop schema scenario` lists all fields"


def refusal(text: str | bytes, folder: Path, *overrides: str) -> str:
    path = folder / "bad.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ScenarioError) as error:
        load_scenario(str(path), overrides)
    assert error.value.exit_code == 2
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 300 + len(str(folder))
    return line.removeprefix("bad.toml: ")


# ---------------------------------------------------------------- finding and overriding


def test_the_bundled_scenarios_are_listed_with_their_questions_the_default_first() -> None:
    listed = dict(list_scenarios())
    assert next(iter(listed)) == DEFAULT_SCENARIO
    assert {"bebop-swe", "skyrl-qwen3.5-9b", "areal", "prime-rl"} < set(listed)
    assert list(listed)[1:] == sorted(listed.keys() - {DEFAULT_SCENARIO})
    assert all(question.endswith("?") and len(question) < 200 for question in listed.values())
    for name in listed:
        assert load_scenario(name) == load_scenario(str(BUNDLED_FOLDER / f"{name}.toml"))
        assert load_scenario(name).name == name


def test_the_first_comment_is_the_question_unless_there_is_one() -> None:
    assert parse_scenario("# What now?\n# More.\n" + TEXT, "x").question.startswith("How much faster is a run")
    text = TEXT.replace("question = ", "# ")
    assert parse_scenario("# What now?\n# More.\n" + text, "x").question == "What now?"


def test_an_unknown_name_is_answered_with_the_closest(tmp_path: Path) -> None:
    for name, hint in (("bebop-swe2", "did you mean bebop-swe?"), ("zzz", "bundled ones are areal, bebop-reasoning, ")):
        with pytest.raises(ScenarioError) as error:
            load_scenario(name)
        assert str(error.value).startswith(f"{name}: no such scenario or file; {hint}")
    with pytest.raises(ScenarioError, match="no such scenario or file"):
        load_scenario(str(tmp_path))
    with pytest.raises(ScenarioError, match="no such scenario or file"):
        load_scenario("../scenarios/bebop-swe")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("arms.spec.k=2", "arms.spec.k", 2),
        ("  arms.spec.k =  2 ", "arms.spec.k", 2),
        ("run.seed=0x10", "run.seed", 16),
        ("policy.switch_s=1e1", "policy.switch_s", 10.0),
        ("name=other", "name", "other"),
        ('name="other"', "name", "other"),
        ("latency.trace=../data/a=b.json", "latency.trace", "../data/a=b.json"),
        ("latency.allow_extrapolation=true", "latency.allow_extrapolation", True),
        ("engine.max_live_trajectories=99", "engine.max_live_trajectories", 99),
    ],
)
def test_an_override_sets_one_field(override: str, path: str, value: object) -> None:
    plain = parse_scenario(TEXT, "x").model_dump(mode="json")
    changed = parse_scenario(TEXT, "x", [override]).model_dump(mode="json")
    *tables, field = path.split(".")
    for content in (plain, changed):
        table = content
        for key in tables:
            table = table[key]
        if content is changed:
            assert table[field] == value
        table[field] = None
    assert plain == changed


def test_overrides_set_tables_and_lists_and_the_last_one_wins() -> None:
    acceptance = 'arms.spec.acceptance={kind="fixed", cumulative=[0.9, 0.9]}'
    scenario = parse_scenario(TEXT, "x", ["arms.spec.k=1", acceptance, "arms.spec.k=2"])
    assert scenario.arms["spec"].acceptance == FixedAcceptance(cumulative=(0.9, 0.9))
    assert scenario.arms["spec"].k == 2


def test_a_quoted_key_of_an_override_may_hold_dots() -> None:
    text = TEXT.replace("[arms.spec]", '[arms."v1.5"]')
    assert parse_scenario(text, "x", ['arms."v1.5".k=2']).arms["v1.5"].k == 2


def test_an_overridden_field_loses_the_origin_that_spoke_of_it() -> None:
    text = TEXT + '[origins]\n"engine" = { origin = "stated", source = "a paper" }\n'
    scenario = parse_scenario(text, "x", ["engine.max_running_seqs=8"])
    assert scenario.origins["engine"].origin is Origin.STATED
    assert scenario.origins["engine.max_running_seqs"].origin is Origin.ASSUMED


@pytest.mark.parametrize("override", ["x", "=3", "a..b=3", ".a=3", "arms.spec.k", "a b=3", "", "a.=1"])
def test_an_override_that_is_no_assignment_is_refused(override: str, tmp_path: Path) -> None:
    expected = f"--set {override}: not of the form path.to.field=value, e.g. --set arms.to.k=2"
    assert refusal(TEXT, tmp_path, override) == expected


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("run.seed.x=3", f"run.seed: {{'x': 3}} is not a whole number{FIELDS}"),
        ("name.x=3", "--set name.x=3: name is a value, not a table; choose one of its own fields"),
        ("engine.seqs=3", "engine.seqs: unknown key; did you mean"),
        ("arms.spec.k=", f"arms.spec.k: '' is not a whole number{FIELDS}"),
        ("run.seed=1\nx = 2", rf"run.seed: '1\nx = 2' is not a whole number{FIELDS}"),
        ("arms.spec=3", f"arms.spec: 3 is not an object{FIELDS}"),
        ("arms.new.k=1", "arms.new.acceptance: missing, though k is 1; give a law, a trace or fixed rates"),
    ],
)
def test_an_override_that_breaks_the_scenario_is_refused(override: str, line: str, tmp_path: Path) -> None:
    if override.startswith("engine"):
        assert refusal(TEXT, tmp_path, override).startswith("engine.seqs: unknown key")
    else:
        assert refusal(TEXT, tmp_path, override) == line


# ---------------------------------------------------------------- files that are no scenario


def test_broken_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(TEXT + "\n[x", tmp_path).startswith("not TOML: Expected ']' at the end of a table declaration (at")
    assert refusal("name = \n", tmp_path) == "not TOML: Invalid value (at line 1, column 8); mend that line"


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = TEXT.replace("[workload]\n", '[workload]\nkind = "trace"\n')
    assert "not TOML: Cannot overwrite a value (at line " in refusal(text, tmp_path)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    line = refusal(b"# caf\xe9\n" + TEXT.encode(), tmp_path)
    assert line.endswith("bad.toml: not UTF-8 text (invalid continuation byte at byte 5); save it as UTF-8")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    assert refusal("#" * (MAX_FILE_BYTES + 1), tmp_path).endswith(
        "bad.toml: 1000001 bytes are above the limit of 1000000; a scenario is a short text, put data into traces"
    )
    path = tmp_path / "full.toml"
    path.write_text(TEXT + "#" * (MAX_FILE_BYTES - len(TEXT)))
    assert load_scenario(str(path)).name == "made-up"


@pytest.mark.parametrize("depth", [150, 5000])
def test_nesting_without_end_is_refused(depth: int, tmp_path: Path) -> None:
    refusal(TEXT.replace("seconds = 0.25", f"seconds = {'[' * depth}{']' * depth}"), tmp_path)


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    assert refusal("", tmp_path).startswith("name: missing (and ")


def test_the_scenario_survives_a_round_trip_through_json() -> None:
    scenario = parse_scenario(TEXT, "x")
    assert Scenario.model_validate_json(scenario.model_dump_json(), strict=True) == scenario
