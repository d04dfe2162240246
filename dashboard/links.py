"""Links: a view's state as query parameters: scenario, arm, and the overrides that `--set` would take.

A link may come from anybody. What is unknown, too long, names a file or makes the scenario invalid is left out, with a
line that says so. What it makes this machine simulate is bounded (`data.starts_by_itself`); it cannot carry an upload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboard import data
from simulator.config import Scenario
from simulator.errors import ScenarioError

SCENARIO = "scenario"
ARM = "arm"
SET = "set"
DRAFT_TOKENS = "k"
"""Of the arm, or, in a link that names none, of every arm that drafts."""
BATCH = "batch"
BATCH_FIELD = "engine.max_running_seqs"
MAX_SETS = 24
MAX_LENGTH = 400
"""Characters of one parameter."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link asks for, as far as it makes sense."""

    source: data.Source
    arm: str | None
    overrides: tuple[str, ...]
    scenario: Scenario
    ignored: tuple[str, ...]
    """One line per part that was left out; not escaped."""


def read(parameters: Mapping[str, Sequence[str]]) -> Link | None:
    """Return what query parameters ask for; None if they name no scenario and nothing to change."""
    if not any(parameters.get(name) for name in (SCENARIO, ARM, SET, DRAFT_TOKENS, BATCH)):
        return None
    names = [name for name, _ in data.bundled_scenarios()]
    asked = (parameters.get(SCENARIO) or names[:1])[0]
    if asked not in names:
        return Link(data.Source(names[0]), None, (), data.load(data.Source(names[0])), (_unknown(asked),))
    source = data.Source(asked)
    stated = data.load(source)
    arm = (parameters.get(ARM) or [""])[0] or None
    ignored = []
    if arm is not None and arm not in stated.arms:
        ignored.append(f"arm {_short(arm)} is not in {asked}")
        arm = None
    wanted = [*_shorthands(parameters, stated, arm, ignored), *(parameters.get(SET) or ())]
    if len(wanted) > MAX_SETS:
        ignored.append(f"{len(wanted) - MAX_SETS} settings beyond the first {MAX_SETS}")
    kept = [override for override in wanted[:MAX_SETS] if _is_harmless(override, ignored)]
    overrides, scenario = _valid(source, stated, kept, ignored)
    return Link(source, arm, tuple(overrides), scenario, tuple(ignored))


def write(asked: data.Question, arm: str | None) -> dict[str, list[str]]:
    """Return the query parameters that lead back to this state; an upload's contents stay here.

    Those of the default scenario as it is bundled are none, so that opening the page and going back need no detour.
    """
    if asked.source.text is not None:
        return {}
    arm = arm if arm in asked.scenario.arms else None
    rest = list(asked.overrides)
    short = {
        ARM: arm,
        DRAFT_TOKENS: _taken(rest, _drafts_of(asked, arm)),
        BATCH: _taken(rest, [f"{BATCH_FIELD}={asked.scenario.engine.max_running_seqs}"]),
    }
    stated = {name: [value] for name, value in short.items() if value is not None} | ({SET: rest} if rest else {})
    is_default = asked.source.name == data.bundled_scenarios()[0][0]
    return stated if is_default and not stated else {SCENARIO: [asked.source.name], **stated}


def _shorthands(
    parameters: Mapping[str, Sequence[str]], stated: Scenario, arm: str | None, ignored: list[str]
) -> list[str]:
    """Return `k` and `batch` as overrides."""
    overrides = []
    for name in (DRAFT_TOKENS, BATCH):
        text = (parameters.get(name) or [""])[0]
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            ignored.append(f"{name}={_short(text)} is not a whole number")
        elif name == BATCH:
            overrides.append(f"{BATCH_FIELD}={int(text)}")
        else:
            arms = [arm] if arm is not None else [each for each, config in stated.arms.items() if config.k > 0]
            overrides += [data.override_k(each, int(text)) for each in arms]
    return overrides


def _is_harmless(override: str, ignored: list[str]) -> bool:
    """Return whether an override is short and names no file: a link may not make this machine open one."""
    if len(override) > MAX_LENGTH:
        ignored.append(f"set={_short(override)} is longer than {MAX_LENGTH} characters")
        return False
    if any(mark in override for mark in ("/", "\\", ".json", ".parquet")):
        ignored.append(f"set={_short(override)} names a file; upload a scenario that does")
        return False
    return True


def _valid(
    source: data.Source, stated: Scenario, overrides: Sequence[str], ignored: list[str]
) -> tuple[list[str], Scenario]:
    """Return the overrides that can stand, and the scenario with them: all, or as many as fit one after the other."""
    try:
        return list(overrides), data.load(source, overrides)
    except ScenarioError:
        pass
    kept: list[str] = []
    scenario = stated
    for override in overrides:
        try:
            scenario = data.load(source, [*kept, override])
            kept.append(override)
        except ScenarioError as error:
            ignored.append(str(error))
    return kept, scenario


def _unknown(name: str) -> str:
    return f"scenario {_short(name)} is not bundled here; a link cannot carry an upload"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _drafts_of(asked: data.Question, arm: str | None) -> list[str]:
    """Return the overrides that `k` stands for."""
    if arm is not None:
        return [data.override_k(arm, asked.scenario.arms[arm].k)]
    drafting = [name for name, config in data.load(asked.source).arms.items() if config.k > 0]
    if len({asked.scenario.arms[name].k for name in drafting}) != 1:
        return []
    return [data.override_k(name, asked.scenario.arms[name].k) for name in drafting]


def _taken(overrides: list[str], wanted: Sequence[str]) -> str | None:
    """Take overrides that set the same value out of a list, and return it; None where one of them is not in it."""
    if not wanted or not set(wanted) <= set(overrides):
        return None
    for override in wanted:
        overrides.remove(override)
    return wanted[0].rpartition("=")[2]
