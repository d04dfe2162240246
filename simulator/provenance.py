"""Provenance: every input of the prediction, its value, and where it comes from."""

from collections.abc import Iterator
from typing import Any

from simulator.config import Scenario
from simulator.errors import ScenarioError
from simulator.evidence import Evidence
from simulator.inputs import Inputs
from traces.base import Origin
from traces.report import InputOrigin

_NOT_INPUTS = ("schema_version", "name", "question", "run", "measured", "origins")
_FROM_EVIDENCE = ("latency", "entropy")


def input_origins(inputs: Inputs) -> Evidence:
    """Return the origin of every field, law and trace, and the warnings that come with them.

    Raises:
        ScenarioError: `origins` names a field that the scenario does not have.
    """
    scenario = inputs.scenario
    leaves = dict(_leaves(scenario.model_dump(mode="json", exclude_none=True)))
    elsewhere = [*_FROM_EVIDENCE, *(f"arms.{name}.acceptance" for name in scenario.arms)]
    for path in scenario.origins:
        if not any(leaf == path or leaf.startswith(f"{path}.") for leaf in [*leaves, *elsewhere]):
            raise ScenarioError(f"origins: {path!r} is no field that this scenario sets; remove it or correct the path")
    rows = [_row(scenario, path, value) for path, value in leaves.items()]
    warnings: list[str] = []
    sources = [inputs.latency.evidence(), inputs.entropy.evidence(inputs.rl_steps)]
    for name, arm in scenario.arms.items():
        acceptance = inputs.acceptance(name)
        if acceptance is not None and arm.k > 0:
            sources.append(acceptance.evidence(arm.k, [inputs.entropy.at(step) for step in inputs.rl_steps]))
    for evidence in sources:
        rows.extend(_stated(scenario, row) for row in evidence.origins)
        warnings.extend(evidence.warnings)
    rows.append(
        InputOrigin(
            name="architecture",
            value=f"{inputs.architecture.name}: {inputs.architecture.num_params / 1e9:.1f} B parameters",
            origin=Origin.STATED,
            source=inputs.architecture.source,
        )
    )
    rows.append(InputOrigin(name="gpu", value=inputs.gpu.name, origin=Origin.STATED, source=inputs.gpu.source))
    return Evidence(tuple(rows), tuple(dict.fromkeys(warnings)))


def _leaves(content: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every field that a person set or that has a default."""
    for key, value in content.items():
        here = f"{path}.{key}" if path else key
        if not path and (key in _NOT_INPUTS or key in _FROM_EVIDENCE):
            continue
        if path.startswith("arms.") and key == "acceptance":
            continue
        if isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value


def _stated(scenario: Scenario, row: InputOrigin) -> InputOrigin:
    """Return the row with the scenario's own word for it, where the source itself has none."""
    entry = scenario.origins.get(row.name)
    if entry is None or row.origin is not Origin.ASSUMED:
        return row
    return InputOrigin(name=row.name, value=row.value, origin=entry.origin, source=entry.source)


def _row(scenario: Scenario, path: str, value: Any) -> InputOrigin:
    said = [known for known in scenario.origins if path == known or path.startswith(f"{known}.")]
    if said:
        entry = scenario.origins[max(said, key=len)]
        return InputOrigin(name=path, value=str(value), origin=entry.origin, source=entry.source)
    return InputOrigin(name=path, value=str(value), origin=Origin.ASSUMED, source="the scenario gives no source")
