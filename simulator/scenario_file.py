"""Scenarios as files: TOML that people write, bundled ones by name, single fields overridden from the command line.

Does not know what a field means.
"""

import datetime
import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.config import Scenario
from simulator.errors import ScenarioError
from traces.base import Origin
from traces.complaint import complaint

BUNDLED_FOLDER = Path(__file__).parent / "scenarios"
DEFAULT_SCENARIO = "bebop-reasoning"
MAX_FILE_BYTES = 1_000_000


def list_scenarios() -> list[tuple[str, str]]:
    """Return (name, question) of the bundled scenarios, the default first."""
    names = sorted(path.stem for path in BUNDLED_FOLDER.glob("*.toml"))
    names.sort(key=lambda name: name != DEFAULT_SCENARIO)
    return [(name, load_scenario(name).question) for name in names]


def load_scenario(name_or_path: str, overrides: Sequence[str] = ()) -> Scenario:
    """Return a bundled scenario by name, or one from a TOML file; `overrides` are `path.to.field=value`.

    Raises:
        ScenarioError: No such scenario, or one that cannot be run; one line.
    """
    text, path = read_scenario(name_or_path)
    return parse_scenario(text, path.name, overrides)


def read_scenario(name_or_path: str) -> tuple[str, Path]:
    """Return the text of a bundled scenario or of a TOML file, and where it lies.

    Raises:
        ScenarioError: No such scenario, or no text; one line.
    """
    path = BUNDLED_FOLDER / f"{name_or_path}.toml"
    if "/" in name_or_path or name_or_path.endswith(".toml") or not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        names = sorted(bundled.stem for bundled in BUNDLED_FOLDER.glob("*.toml"))
        close = difflib.get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"bundled ones are {', '.join(names)}"
        raise ScenarioError(f"{name_or_path}: no such scenario or file; {hint}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ScenarioError(
            f"{path}: {path.stat().st_size} bytes are above the limit of {MAX_FILE_BYTES}; a scenario is a short text, "
            "put data into traces"
        )
    try:
        return path.read_text(encoding="utf-8"), path
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def parse_scenario(text: str, name: str, overrides: Sequence[str] = ()) -> Scenario:
    """Return the scenario that a TOML text states; its first comment is the question if it gives none.

    Raises:
        ScenarioError: One line with `name`, the field, the value, the limit and the next step.
    """
    return parse_fields(scenario_fields(text, name, overrides), name)


def scenario_fields(text: str, name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a TOML text as they are written, its question and the overrides among them.

    Raises:
        ScenarioError: Not TOML, or an override leads nowhere; one line.
    """
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ScenarioError(f"{name}: not TOML: {error or 'nested too deep'}; mend that line") from None
    if "question" not in content:
        comment = next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")
        if comment:
            content["question"] = comment
    for override in overrides:
        _override(content, override)
    for path, value in _leaves(content):
        if isinstance(value, datetime.date | datetime.time):
            raise ScenarioError(f"{name}: {path}: {value} is a date or a time; no field is one, quote it or remove it")
    return content


def parse_fields(content: dict[str, Any], name: str) -> Scenario:
    """Return the scenario that fields, as TOML or JSON has them, state.

    Raises:
        ScenarioError: One line with `name`, the field, the value, the limit and the next step.
    """
    try:
        # As JSON, because only there strict validation takes a list where the model has a tuple.
        return Scenario.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        text = complaint(error, Scenario)
        next_step = "" if "; " in text else "; `bebop schema scenario` lists all fields"
        raise ScenarioError(f"{name}: {text}{next_step}") from None


def with_fields(scenario: Scenario, fields: Sequence[tuple[str, Any]]) -> Scenario:
    """Return the scenario with other values in some fields; `origins` of what changes may then be out of date.

    Raises:
        ScenarioError: A path leads nowhere, or the parts do not fit.
    """
    content = scenario.model_dump(mode="json")
    for path, value in fields:
        set_field(content, field_keys(path), value, path)
    return parse_fields(content, scenario.name)


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything that is neither a table nor a list."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, content


def _override(content: dict[str, Any], override: str) -> None:
    """Set one `path.to.field=value`; the value is TOML, or text if it is not."""
    path, equals, raw = override.partition("=")
    keys = field_keys(path)
    if not equals or not keys:
        raise ScenarioError(f"--set {override}: not of the form path.to.field=value, e.g. --set arms.to.k=2")
    try:
        parsed = tomllib.loads(f"value = {raw.strip()}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    value = parsed["value"] if len(parsed) == 1 else raw.strip()  # a second line is no value
    set_field(content, keys, value, f"--set {override}")
    _forget_origin(content, ".".join(keys))


def set_field(content: dict[str, Any], keys: Sequence[str], value: Any, said: str) -> None:
    """Set the field that the keys lead to, in a scenario as TOML has it; `said` begins the complaint if none can be."""
    table = content
    for depth, key in enumerate(keys[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ScenarioError(
                f"{said}: {'.'.join(keys[: depth + 1])} is a value, not a table; choose one of its own fields"
            )
    table[keys[-1]] = value


def field_keys(path: str) -> list[str]:
    """Return the keys of a dotted path, quoted ones (`arms."a.b".k`) as TOML has them; empty if it is none."""
    try:
        table: Any = tomllib.loads(f"{path.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys = []
    while isinstance(table, dict):
        ((key, table),) = table.items()
        keys.append(key)
    return keys


def _forget_origin(content: dict[str, Any], path: str) -> None:
    """The value that an origin spoke of is gone: the field is assumed from now on, by whoever set it."""
    origins = content.get("origins")
    if not isinstance(origins, dict):
        return
    for known in [known for known in origins if known.startswith(f"{path}.")]:
        del origins[known]
    if any(path == known or path.startswith(f"{known}.") for known in origins):
        origins[path] = {"origin": Origin.ASSUMED.value, "source": "set on the command line"}
