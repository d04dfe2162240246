import json
from pathlib import Path

import pytest
from pydantic import BaseModel

import simulator
from simulator.config import Scenario
from traces.schema import FORMATS, SCHEMA_FOLDER, TRACES, schema_text

COMMITTED: list[tuple[Path, type[BaseModel]]] = [
    *((SCHEMA_FOLDER / f"{kind}.json", model) for kind, model in FORMATS.items()),
    (Path(simulator.__file__).parent / "schemas" / "scenario.json", Scenario),
]


@pytest.mark.parametrize(("path", "model"), COMMITTED, ids=[path.stem for path, _ in COMMITTED])
def test_the_committed_schema_is_the_generated_one(path: Path, model: type[BaseModel]) -> None:
    folder = path.parent.relative_to(path.parents[2])
    assert path.read_text() == schema_text(model), f"run `bebop schema {path.stem} --write {folder}`"


def test_no_schema_is_left_over() -> None:
    assert {path.stem for path in SCHEMA_FOLDER.iterdir()} == set(FORMATS)


@pytest.mark.parametrize("model", [*FORMATS.values(), Scenario], ids=[*FORMATS, "scenario"])
def test_every_object_of_a_schema_refuses_unknown_keys(model: type[BaseModel]) -> None:
    schema = json.loads(schema_text(model))
    objects = [schema, *(each for each in schema["$defs"].values() if each.get("type") == "object")]
    assert all(each["additionalProperties"] is False for each in objects)


def test_every_field_of_a_trace_file_is_described() -> None:
    for name in TRACES:
        schema = json.loads((SCHEMA_FOLDER / f"{name}.json").read_text())
        assert "sha256" in schema["properties"]
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
