"""Set-ups: the same scenario with other settings, for measured numbers that compare policies and not arms.

Does not run anything.
"""

import json
from collections.abc import Sequence

from pydantic import ValidationError

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import field_keys, set_field
from traces.complaint import complaint

Setup = tuple[str, ...]
"""Names of `setups`, applied from the first to the last; empty: the scenario as it stands."""

_PLAIN = {"plain": {"k": 0}}
_NOT_OF_A_SETUP = ("measured", "setups", "origins")


def compared_setups(scenario: Scenario) -> list[Setup]:
    """Return the set-ups that measured rows need beyond the scenario itself, each once."""
    sides = [side for row in scenario.measured if row.setup is not None for side in (row.setup, row.baseline_setup)]
    return list(dict.fromkeys(side for side in sides if side))


def under_setup(scenario: Scenario, setup: Setup) -> Scenario:
    """Return the scenario under a set-up; it decodes plainly, whatever the scenario's arms.

    Raises:
        ScenarioError: The settings do not make a scenario; one line.
    """
    content = scenario.model_dump(mode="json", exclude_unset=True, exclude=set(_NOT_OF_A_SETUP))
    content["arms"] = _PLAIN
    for name in setup:
        for path, value in scenario.setups[name].items():
            keys = field_keys(path)
            if not keys or keys[0] in (*_NOT_OF_A_SETUP, "arms", "name", "question"):
                raise ScenarioError(
                    f"setups.{name}: {path!r} is no field that a set-up changes; name one as --set does"
                )
            set_field(content, keys, value, f"setups.{name}: {path!r}")
    try:
        return Scenario.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ScenarioError(f"setups {in_words(setup)}: {complaint(error, Scenario)}") from None


def in_words(setup: Sequence[str]) -> str:
    """Return a set-up's name."""
    return " + ".join(setup) or "as it stands"
