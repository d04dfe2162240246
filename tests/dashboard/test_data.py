import threading
import tomllib

import pytest

from dashboard import data, words
from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import MAX_FILE_BYTES
from simulator.what_if import speedup_at
from tests.dashboard.tiny_scenario import TINY

SOURCE = data.Source("tiny.toml", TINY)


def test_bundled_scenarios_all_load() -> None:
    names = [name for name, _ in data.bundled_scenarios()]
    assert names
    for name in names:
        assert data.load(data.Source(name)).name == name


def test_every_knob_changes_its_field_and_nothing_else() -> None:
    plain = data.load(SOURCE)
    changed = data.load(
        SOURCE,
        [
            data.override_k("rs-tv", 1),
            "engine.max_running_seqs=16",
            data.override_rates("to", [0.9, 0.7]),
            data.override_law("rs-tv", data.Law("rs_tv", "reasoning", "bebop-paper")),
        ],
    )
    assert changed.arms["rs-tv"].k == 1
    assert changed.engine.max_running_seqs == 16
    assert data.acceptance_words(changed.arms["to"].acceptance) == "fixed 0.90, 0.70"
    assert data.acceptance_words(changed.arms["rs-tv"].acceptance) == "law rs_tv, fit reasoning"
    assert changed.workload == plain.workload
    assert changed.run == plain.run


def test_names_with_quotes_stay_inside_their_string() -> None:
    override = data.override_law("to", data.Law('a" b', "c\\d", "e'f"))
    assert tomllib.loads("value = " + override.partition("=")[2])["value"] == {
        "kind": "law",
        "recipe": 'a" b',
        "fit": "c\\d",
        "trace": "e'f",
    }


def test_the_laws_of_the_paper_are_offered() -> None:
    offered = {(law.recipe, law.fit) for law in data.laws(data.DEFAULT_LAWS)}
    assert {("to", "reasoning"), ("rs_ce", "reasoning"), ("rs_tv", "reasoning")} <= offered


def test_an_upload_above_the_limit_is_refused_before_it_is_read_as_text() -> None:
    with pytest.raises(ScenarioError, match=r"big\.toml: 1000001 bytes are above the limit of 1000000"):
        data.uploaded("big.toml", b"\xff" * (MAX_FILE_BYTES + 1))


def test_an_upload_that_is_not_text_names_the_byte() -> None:
    with pytest.raises(ScenarioError, match=r"x\.toml: byte 2 is not UTF-8"):
        data.uploaded("x.toml", b"ab\xff")


def test_a_mistake_has_the_command_lines_text_and_a_defect_has_none() -> None:
    assert data.mistake(ScenarioError("k: 99 is not at most 16")) == "k: 99 is not at most 16"
    assert data.mistake(RuntimeError("boom")) is None


def test_rates_are_read_with_commas_or_spaces() -> None:
    assert data.parse_rates("0.9, 0.8 0.7,") == [0.9, 0.8, 0.7]
    with pytest.raises(ScenarioError, match=r"rates: '0\.9, x' is not a list of numbers"):
        data.parse_rates("0.9, x")


def test_the_same_scenario_is_simulated_once_and_the_oldest_report_is_dropped() -> None:
    cache = data.ReportCache(max_reports=1)
    calls: list[float] = []
    one, two = data.load(SOURCE), data.load(SOURCE, ["run.seed=1"])
    first = cache.run(one, calls.append)
    assert calls, "a run reports progress"
    calls.clear()
    assert cache.run(one, calls.append) is first
    assert not calls
    cache.run(two, calls.append)
    assert cache.run(one, calls.append) is not first


def test_threads_may_share_the_cache() -> None:
    cache = data.ReportCache()
    scenario: Scenario = data.load(SOURCE)
    threads = [threading.Thread(target=cache.run, args=(scenario, lambda fraction: None)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.run(scenario, lambda fraction: pytest.fail("simulated again")).scenario == scenario.name


def test_the_first_look_is_one_short_run_of_every_arm() -> None:
    scenario = data.load(SOURCE)
    found = data.EMBEDDED.first_look(scenario, lambda _: None)
    assert found == {arm: speedup_at(scenario, arm, []) for arm in scenario.arms}
    said = words.first_look(found) + words.first_look_note(found)
    assert all(words.times(speedup) in said for speedup in found.values())


def test_a_report_is_held_once_it_was_run() -> None:
    cache = data.ReportCache(max_reports=1)
    scenario = data.load(SOURCE, ["run.replications=1"])
    assert not cache.holds(scenario)
    report = cache.run(scenario, lambda _: None)
    assert cache.holds(scenario)
    assert cache.run(scenario, lambda _: None) is report
