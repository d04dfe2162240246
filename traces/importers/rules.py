"""Rules from a framework's keys to canonical fields, and how a raw step becomes a MeasuredStep.

A framework is a table of rules plus what only code can say of it (identities between its times, traps). Does not know
any particular one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from traces.importers.records import RawStep
from traces.importers.tally import Tally
from traces.measured import MeasuredStep, Quality, Setup, Speculation

SPECULATION = "speculation."
"""Prefix of rules for fields of Speculation."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One canonical field and the keys that may hold it."""

    field: str
    keys: tuple[str, ...]
    """The first one that a step has is taken; names of earlier versions come last. `*/x` is any key that ends so."""
    zero_is_missing: bool = False
    """0.0 is what the framework logs when it did not measure."""
    scale: float = 1.0
    """Factor from the log's unit to ours."""
    is_sum: bool = False
    """All keys that a step has are added up."""
    note: str = ""
    """What a reader must know of the key."""


SPECULATION_BY_REQUEST = (
    Rule(
        "speculation.accept_length",
        ("rollout/spec_accept_length",),
        zero_is_missing=True,
        note="mean over requests, bonus token counted in",
    ),
    Rule("speculation.accept_rate", ("rollout/spec_accept_rate",), zero_is_missing=True, note="mean over requests"),
)
"""What verl and slime log alike of an engine that drafts."""


@dataclass(slots=True)
class Draft:
    """Canonical values of one step before they are checked."""

    raw: RawStep
    values: dict[str, Any] = field(default_factory=dict)
    speculation: dict[str, Any] = field(default_factory=dict)
    quality: set[Quality] = field(default_factory=set)

    def of(self, key: str) -> float | None:
        """Return a number of the log."""
        return self.raw.numbers.get(key)


@dataclass(slots=True)
class Context:
    """What is shared between the steps of one import."""

    tally: Tally
    setup: dict[str, Any] = field(default_factory=dict)
    """Facts of the run found on the way."""
    understood: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    """Keys that a canonical field was made from."""
    stated: dict[str, Any] = field(default_factory=dict)
    """Facts of the run that the user states."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the first record says beside its numbers: configuration, GPU."""

    def say(self, name: str, sentence: str) -> None:
        """Note how a field was made, once."""
        self.understood.setdefault(name, sentence)


@dataclass(frozen=True, slots=True)
class Framework:
    """How the log of one framework is read."""

    name: str
    signature: tuple[str, ...]
    """Keys, or beginnings of keys that end in `/`, that no other framework logs."""
    rules: tuple[Rule, ...]
    derive: Callable[[list[Draft], Context], None]
    """Fill in what rules cannot say, over all steps in their order."""
    join: Callable[[list[RawStep], Tally], list[RawStep]] = lambda steps, _: steps
    """Bring parts that count steps in another way to the number of the RL step."""
    validation: tuple[str, ...] = ()
    """Keys, or beginnings of them, of a step that holds a validation pass."""
    needed: tuple[str, ...] = ("step_s", "generation_s", "generation_wait_s", "train_s", "response_tokens_mean")
    """A step with none of these fields says nothing of a run."""


def drafts_of(steps: Iterable[RawStep], framework: Framework, context: Context) -> list[Draft]:
    """Return the steps with the values that rules and `derive` give them."""
    drafts = []
    for raw in framework.join(list(steps), context.tally):
        draft = Draft(raw)
        for rule in framework.rules:
            _apply(rule, draft, context)
        if any(_matches(key, framework.validation) for key in raw.numbers):
            draft.quality.add(Quality.VALIDATION)
        if draft.values.get("checkpoint_s"):
            draft.quality.add(Quality.CHECKPOINT)
        drafts.append(draft)
    framework.derive(drafts, context)
    return drafts


def votes(keys: Mapping[str, int] | Counter[str], framework: Framework) -> int:
    """Return how often the log holds keys that only this framework writes."""
    return sum(times for key, times in keys.items() if _matches(key, framework.signature))


def measured_step(draft: Draft, tally: Tally) -> MeasuredStep:
    """Return the step; values beyond a field's limits are left out and counted."""
    values = dict(draft.values)
    speculation = dict(draft.speculation)
    for _ in range(len(values) + len(speculation) + 1):
        try:
            return MeasuredStep(
                step=draft.raw.step,
                segment=draft.raw.segment,
                quality=tuple(quality for quality in Quality if quality in draft.quality),
                time_s=draft.raw.time_s,
                speculation=_speculation(speculation, tally),
                logged=draft.raw.numbers,
                **values,
            )
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            if name not in values:
                raise
            tally.ignore(f"{name} out of its limits", f"a value like {values.pop(name):.6g} is none")
    raise AssertionError("every value was left out")


def setup_of(found: Mapping[str, Any], stated: Setup | None, tally: Tally) -> Setup:
    """Return what the log says of the run, with what the user states on top."""
    known = dict(found)
    known.update(stated.model_dump(exclude_none=True) if stated else {})
    for _ in range(len(known) + 1):
        try:
            return Setup(**known)
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            tally.ignore(f"setup.{name}", f"{str(known.pop(name))[:60]!r} is no value for it")
    raise AssertionError("every fact was left out")


def _speculation(values: dict[str, Any], tally: Tally) -> Speculation | None:
    values = dict(values)
    while any(name != "is_request_weighted" for name in values):
        try:
            return Speculation(**values)
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            tally.ignore(f"speculation.{name} out of its limits", f"a value like {values.pop(name)!s:.40} is none")
    return None


def _apply(rule: Rule, draft: Draft, context: Context) -> None:
    numbers = draft.raw.numbers
    present = [key for pattern in rule.keys for key in _having(numbers, pattern)]
    if not present:
        return
    keys = present if rule.is_sum else present[:1]
    value = rule.scale * sum(numbers[key] for key in keys)
    if rule.zero_is_missing and value == 0.0:
        context.tally.ignore(f"{keys[0]} = 0.0", "stands for not measured")
        return
    context.used.update(keys)
    context.say(rule.field, " + ".join(keys) + (f" ({rule.note})" if rule.note else ""))
    if rule.field.startswith(SPECULATION):
        draft.speculation[rule.field.removeprefix(SPECULATION)] = value
    else:
        draft.values[rule.field] = value


def _having(numbers: Mapping[str, float], pattern: str) -> list[str]:
    if pattern.startswith("*/"):
        return sorted(key for key in numbers if key.endswith(pattern[1:]))[:1]
    return [pattern] if pattern in numbers else []


def positions(draft: Draft, key: str, first: int, context: Context) -> None:
    """Take acceptance by position from keys that end in its number, if none is left out.

    Args:
        draft: The step.
        key: Beginning of the keys; the number follows.
        first: Number of the first position.
        context: Notes that the keys were used.
    """
    found = {int(name.removeprefix(key)): name for name in draft.raw.numbers if _is_position(name, key)}
    rates = [found[number] for number in range(first, first + len(found)) if number in found]
    if rates and len(rates) == len(found):
        draft.speculation["per_position"] = tuple(draft.raw.numbers[name] for name in rates)
        context.used.update(rates)
        context.say("speculation.per_position", f"{key}* (unconditional: of all verify steps)")


def _is_position(name: str, key: str) -> bool:
    number = name.removeprefix(key)
    return name.startswith(key) and number.isascii() and number.isdigit() and len(number) < 4


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(key == pattern or (pattern.endswith("/") and key.startswith(pattern)) for pattern in patterns)
