import tomllib

import pytest

from simulator.calibration.toml import to_toml
from simulator.scenario_file import list_scenarios, parse_scenario, read_scenario


@pytest.mark.parametrize("name", [name for name, _ in list_scenarios()])
def test_a_bundled_scenario_survives_being_written(name: str) -> None:
    text, path = read_scenario(name)
    content = tomllib.loads(text)
    assert tomllib.loads(to_toml(content)) == content
    question = parse_scenario(text, path.name).question
    assert parse_scenario(to_toml(content | {"question": question}), path.name) == parse_scenario(text, path.name)


def test_odd_keys_and_texts_survive() -> None:
    content = {"a.b": 'say "no"\\', "table": {"": "line\nbreak\x01", "e": [1, 2.5, True, {"x": []}], "none": {}}}
    assert tomllib.loads(to_toml(content, "two\nlines")) == content
