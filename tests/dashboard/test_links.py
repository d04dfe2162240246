import tomllib

import pytest

from dashboard import data, links
from simulator.scenario_file import DEFAULT_SCENARIO
from tests.dashboard.tiny_scenario import TINY


def test_a_written_link_is_read_back_as_the_same_question() -> None:
    overrides = (data.override_k("to", 2), "engine.max_running_seqs=32", data.override_entropy([(0, 0.5), (100, 0.3)]))
    source = data.Source(DEFAULT_SCENARIO)
    asked = data.Question(source, overrides, data.load(source, overrides))
    written = links.write(asked, "to")
    assert (written["arm"], written["k"], written["batch"]) == (["to"], ["2"], ["32"])
    found = links.read(written)
    assert found is not None
    assert (found.source, found.overrides, found.scenario, found.arm) == (source, overrides, asked.scenario, "to")
    assert not found.ignored


@pytest.mark.parametrize("name", [DEFAULT_SCENARIO, "verl-sync"])
def test_k_is_written_of_all_arms_that_draft_where_no_arm_is_named(name: str) -> None:
    source = data.Source(name)
    overrides = tuple(data.override_k(arm, 2) for arm, config in data.load(source).arms.items() if config.k > 0)
    asked = data.Question(source, overrides, data.load(source, overrides))
    written = links.write(asked, None)
    assert written == {"scenario": [name], "k": ["2"]}
    found = links.read(written)
    assert found is not None
    assert found.overrides == overrides


def test_the_default_scenario_as_it_stands_needs_no_parameters() -> None:
    source = data.Source(DEFAULT_SCENARIO)
    assert links.write(data.Question(source, (), data.load(source)), None) == {}


def test_no_parameters_are_no_link() -> None:
    assert links.read({}) is None
    assert links.read({"utm_source": ["mail"]}) is None


def test_an_upload_is_in_no_link() -> None:
    source = data.Source("tiny.toml", TINY)
    assert links.write(data.Question(source, (), data.load(source)), "to") == {}


def test_k_and_batch_can_be_written_by_hand() -> None:
    found = links.read({"arm": ["to"], "k": ["1"], "batch": ["48"]})
    assert found is not None
    assert {name: arm.k for name, arm in found.scenario.arms.items()} == {"to": 1, "rs_ce": 3, "rs_e2e_tv": 3}
    assert found.scenario.engine.max_running_seqs == 48
    every = links.read({"k": ["2"]})
    assert every is not None
    assert {arm.k for arm in every.scenario.arms.values()} == {2}


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"scenario": ["<script>"]}, "not bundled"),
        ({"scenario": ["../../etc/passwd"]}, "not bundled"),
        ({"arm": ["nobody"]}, "arm 'nobody'"),
        ({"k": ["-1"]}, "k='-1'"),
        ({"k": ["²"]}, "not a whole number"),
        ({"batch": ["9" * 400]}, "not a whole number"),
        ({"k": ["99"]}, "arms.to.k"),
        ({"set": ["latency.trace=/etc/passwd"]}, "names a file"),
        ({"set": ['entropy={kind="trace", trace="x.json"}']}, "names a file"),
        ({"set": ["nonsense"]}, "path.to.field=value"),
        ({"set": ["cluster.surprise=1"]}, "surprise"),
        ({"set": ["name=" + "x" * 500]}, "longer than 400"),
        ({"set": [f"run.seed={i}" for i in range(30)]}, "6 settings beyond the first 24"),
    ],
)
def test_what_makes_no_sense_is_left_out_with_a_line(parameters: dict[str, list[str]], complaint: str) -> None:
    found = links.read(parameters)
    assert found is not None
    assert any(complaint in line for line in found.ignored)
    assert all(len(line) < 500 and "\n" not in line for line in found.ignored)
    assert found.scenario.name == DEFAULT_SCENARIO


def test_one_wrong_setting_leaves_the_others() -> None:
    found = links.read({"set": ["arms.to.k=2", "arms.to.k=-7", "trainer.mfu=0.3"]})
    assert found is not None
    assert found.overrides == ("arms.to.k=2", "trainer.mfu=0.3")
    assert len(found.ignored) == 1


def test_every_override_of_the_page_is_one_line_of_toml() -> None:
    for override in (
        data.override_text("model.name", 'a"b\\c'),
        data.override_entropy([(0, 0.25)]),
        data.override_latency(None),
        data.override_latency("qwen3-8b-h200-tp1"),
    ):
        assert tomllib.loads(override)
