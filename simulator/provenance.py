"""Provenance: every input of the prediction, its value, and where it comes from."""

import difflib
from collections.abc import Iterator
from typing import Any

from simulator.config import OriginConfig, Scenario
from simulator.draft_head import head_evidence
from simulator.errors import ScenarioError
from simulator.evidence import Evidence
from simulator.inputs import Inputs
from traces.base import Origin
from traces.report import InputOrigin

_NOT_INPUTS = ("schema_version", "name", "question", "run", "measured", "origins")
_NO_SOURCE = "the scenario gives no source"
_DEFAULT = "the default"
_FROM_EVIDENCE = ("latency", "entropy")


def input_origins(inputs: Inputs) -> Evidence:
    """Return the origin of every field, law and trace, and the warnings that come with them."""
    scenario = inputs.scenario
    check_origins(scenario)
    stated = {path for path, _ in _leaves(_content(scenario, exclude_defaults=True))}
    rows = [
        _row(scenario, path, value, _NO_SOURCE if path in stated else _DEFAULT)
        for path, value in _leaves(_content(scenario))
        if not _has_evidence(path)
    ]
    if inputs.workload_trace is not None:
        trace = inputs.workload_trace
        said = f"workload trace {trace.name}: {trace.provenance.source}"
        rows = [row if row.name != "workload.trace" else _stated(scenario, _with_source(row, said)) for row in rows]
    warnings: list[str] = []
    sources = [inputs.latency.evidence(), inputs.entropy.evidence(inputs.rl_steps)]
    for name, arm in scenario.arms.items():
        rates = inputs.rates(name)
        if rates is not None and arm.k > 0:
            sources.append(rates.evidence(arm.k, [inputs.entropy.at(step) for step in inputs.rl_steps]))
            sources.append(head_evidence(arm, name, inputs.architecture))
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


def check_origins(scenario: Scenario) -> None:
    """Raise ScenarioError if `origins` names a field that the scenario does not have."""
    leaves = [path for path, _ in _leaves(_content(scenario))]
    for path in scenario.origins:
        if not any(_is_within(leaf, path) for leaf in leaves):
            close = difflib.get_close_matches(path, leaves, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "remove it or correct the path"
            raise ScenarioError(f"origins: {path!r} is no field that this scenario sets; {hint}")


def _content(scenario: Scenario, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """Return the fields that are inputs, those included that evidence speaks of."""
    return scenario.model_dump(
        mode="json", exclude_none=True, exclude_defaults=exclude_defaults, exclude=set(_NOT_INPUTS)
    )


def _leaves(content: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every field that a person set or that has a default."""
    for key, value in content.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value


def _has_evidence(path: str) -> bool:
    """Return whether a source of its own, not the scenario, says where the field comes from."""
    keys = path.split(".")
    return keys[0] in _FROM_EVIDENCE or (keys[0] == "arms" and keys[2] == "acceptance")


def _is_within(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")


def _with_source(row: InputOrigin, source: str) -> InputOrigin:
    return row.model_copy(update={"source": source})


def _stated(scenario: Scenario, row: InputOrigin) -> InputOrigin:
    """Return the row with the scenario's own word for it, where the source itself has none."""
    entry = _entry(scenario, row.name)
    if entry is None or row.origin is not Origin.ASSUMED:
        return row
    return InputOrigin(name=row.name, value=row.value, origin=entry.origin, source=entry.source)


def _row(scenario: Scenario, path: str, value: Any, otherwise: str) -> InputOrigin:
    entry = _entry(scenario, path)
    if entry is not None:
        return InputOrigin(name=path, value=str(value), origin=entry.origin, source=entry.source)
    return InputOrigin(name=path, value=str(value), origin=Origin.ASSUMED, source=otherwise)


def _entry(scenario: Scenario, path: str) -> OriginConfig | None:
    """Return the closest entry of `origins` that speaks of this field, or of a field inside it."""
    around = [known for known in scenario.origins if _is_within(path, known)]
    inside = [known for known in scenario.origins if _is_within(known, path)]
    return scenario.origins[max(around, key=len)] if around else scenario.origins[inside[0]] if inside else None
