"""Drafts as the command line states them: `k=3`, and an acceptance law, counted rows or rates."""

from typing import Any, Final

from pydantic import ValidationError

from simulator.config import ArmConfig
from simulator.errors import ScenarioError
from traces.complaint import complaint

_FIELDS: Final = {"k": int, "train_overhead": float, "dispersion": float}
FORMS: Final = (
    "RECIPE/FIT of the paper's laws (rs_e2e_tv/reasoning), TRACE:LOSS[:VERIFY_RULE[:TASK]] of an acceptance trace, or "
    "rates c_1,c_2,.. (0.89,0.77,0.66)"
)


def arm_of(spec: str, acceptance: str) -> ArmConfig:
    """Return the arm that `--spec` and `--acceptance` state.

    Raises:
        ScenarioError: One line: which part is of no known form.
    """
    fields: dict[str, Any] = {}
    for part in spec.split(","):
        name, equals, raw = part.partition("=")
        name = name.strip()
        if not equals or name not in _FIELDS:
            raise ScenarioError(
                f"--spec {spec}: {part!r} is not NAME=VALUE with a name of {', '.join(_FIELDS)}; try k=3"
            )
        try:
            fields[name] = _FIELDS[name](raw)
        except ValueError:
            raise ScenarioError(f"--spec {spec}: {raw!r} is no number; try {name}=3") from None
    if fields.get("k") != 0:
        fields["acceptance"] = _acceptance(acceptance)
    try:
        return ArmConfig.model_validate(fields)
    except ValidationError as error:
        raise ScenarioError(f"--spec {spec} --acceptance {acceptance}: {complaint(error, ArmConfig)}") from None


def _acceptance(text: str) -> dict[str, Any]:
    try:
        return {"kind": "fixed", "cumulative": tuple(float(rate) for rate in text.split(","))}
    except ValueError:
        pass
    name, *rest = text.split(":")
    if rest and len(rest) <= 3:
        keys = ("loss", "verify_rule", "task")
        return {"kind": "trace", "trace": name, **dict(zip(keys, rest, strict=False))}
    recipe, slash, fitted = text.partition("/")
    if slash and "/" not in fitted and not text.startswith((".", "/")):
        return {"kind": "law", "recipe": recipe, "fit": fitted}
    raise ScenarioError(f"--acceptance {text}: of no known form; give {FORMS}")
