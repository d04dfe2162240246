"""Data: loads scenarios and laws, turns the page's knobs into overrides, runs and keeps reports. No Streamlit here."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.engine import Answered, Embedded, Engine, Progress
from dashboard.kept import Kept
from dashboard.uploads import Upload, on_disk
from simulator.config import FixedAcceptance, LawAcceptance, Scenario, TraceAcceptance
from simulator.errors import ScenarioError
from simulator.scenario_file import MAX_FILE_BYTES, list_scenarios, load_scenario, parse_scenario
from traces.acceptance import AcceptanceTrace
from traces.base import canonical_hash
from traces.console import ExitCode, explain
from traces.importers import read_log
from traces.report import RunReport
from traces.store import find_trace, list_traces, load_trace

DEFAULT_LAWS = "bebop-paper"
"""Acceptance trace whose laws are offered to an arm that names none."""

MAX_ENTROPY_POINTS = 20
"""Points of an entropy trajectory that a table shows and a link carries."""

MAX_REPORTS = 32
"""Reports kept by a server, over all its visitors."""

MAX_UNASKED_SEQUENCES = 20_000_000
"""Simulated by a run that starts by itself, because a link may come from anybody: about twice what the largest bundled
scenario needs, each turn of a sequence counted."""


EMBEDDED = Embedded()


@dataclass(frozen=True, slots=True)
class Source:
    """A bundled scenario by its name, or the text of an uploaded one."""

    name: str
    text: str | None = None

    @property
    def key(self) -> str:
        """Same scenario, same key: widgets keep their values by it."""
        return self.name if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Question:
    """What the controls ask for."""

    source: Source
    overrides: tuple[str, ...]
    scenario: Scenario
    """The source's, with the overrides."""

    @property
    def command(self) -> str:
        """The same run on the command line."""
        sets = " ".join(f"--set {shlex.quote(override)}" for override in self.overrides)
        return f"bebop simulate {shlex.quote(self.source.name)} {sets}".strip()


@dataclass(frozen=True, slots=True)
class Law:
    """One fitted acceptance law that an arm may use."""

    recipe: str
    fit: str
    trace: str


def bundled_scenarios() -> list[tuple[str, str]]:
    """Return (name, question) of every scenario that is shipped."""
    return list_scenarios()


def uploaded(name: str, content: bytes) -> Source:
    """Return an upload as a source.

    Raises:
        ScenarioError: Too large, or not text.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ScenarioError(
            f"{name}: {len(content)} bytes are above the limit of {MAX_FILE_BYTES}; a scenario is a short TOML file"
        )
    try:
        return Source(name=name, text=content.decode())
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from None


def load(source: Source, overrides: Sequence[str] = ()) -> Scenario:
    """Return a source's scenario with the page's overrides; raises ScenarioError with the command line's text."""
    if source.text is None:
        return load_scenario(source.name, overrides)
    return parse_scenario(source.text, source.name, overrides)


def laws(trace: str) -> list[Law]:
    """Return the laws of an acceptance trace in the order of the file; raises TraceError."""
    found = load_trace(find_trace(trace, "acceptance"), AcceptanceTrace)
    return [Law(law.recipe, law.fit, trace) for law in found.laws]


def override_k(arm: str, num_draft_tokens: int) -> str:
    """Return the override that sets an arm's k."""
    return f"arms.{_key(arm)}.k={num_draft_tokens}"


def override_text(path: str, value: str) -> str:
    """Return the override that sets a field to a text."""
    return f"{path}={json.dumps(value, ensure_ascii=False)}"  # a JSON string is a TOML string


def override_entropy(points: Sequence[tuple[int, float]]) -> str:
    """Return the override that gives the run an entropy trajectory of (rl_step, nats) points."""
    listed = ", ".join(f"[{step}, {nats:g}]" for step, nats in points)
    return f'entropy={{kind = "piecewise", points = [{listed}]}}'


def override_latency(trace: str | None) -> str:
    """Return the override that takes step latencies from a shipped trace, or from the roofline."""
    if trace is None:
        return 'latency={kind = "roofline"}'
    return f'latency={{kind = "trace", trace = {json.dumps(trace)}}}'


def latency_traces(model: str, gpu: str) -> list[str]:
    """Return the shipped latency traces of a model on a GPU; their names begin with both."""
    prefix = f"{model}-{gpu}-tp".lower()
    return [entry.name for entry in list_traces("latency") if entry.name.startswith(prefix)]


def override_law(arm: str, law: Law) -> str:
    """Return the override that gives an arm a fitted law."""
    # A JSON string is a TOML string, whatever quotes the name holds.
    recipe, fit, trace = (json.dumps(text, ensure_ascii=False) for text in (law.recipe, law.fit, law.trace))
    table = f'kind = "law", recipe = {recipe}, fit = {fit}, trace = {trace}'
    return f"arms.{_key(arm)}.acceptance={{{table}}}"


def override_rates(arm: str, cumulative: Sequence[float]) -> str:
    """Return the override that gives an arm fixed cumulative rates."""
    return f'arms.{_key(arm)}.acceptance={{kind = "fixed", cumulative = {list(cumulative)}}}'


def parse_rates(text: str) -> list[float]:
    """Return the numbers of `0.9, 0.8 0.7`.

    Raises:
        ScenarioError: A word that is no number.
    """
    words = text.replace(",", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        raise ScenarioError(f"rates: {text!r} is not a list of numbers; write e.g. 0.90, 0.78, 0.65") from None


def logged_entropy(name: str, content: bytes) -> list[tuple[int, float]]:
    """Return the (rl_step, nats) points of a training log of any framework that can be imported.

    Raises:
        ScenarioError: The log holds no entropy.
        TraceError: It cannot be read.
    """
    with on_disk([Upload(name, content)]) as paths:
        run = read_log(paths)
    logged = {step.step: step.entropy_nats for step in run.steps if step.entropy_nats is not None}
    points = sorted(logged.items())  # after a restart the later reading of a step stands
    if not points:
        raise ScenarioError(
            f"{name}: {len(run.steps)} steps of {run.framework}, none with the policy's entropy; log it"
        )
    return thinned(points)


def thinned(points: Sequence[tuple[int, float]], most: int = MAX_ENTROPY_POINTS) -> list[tuple[int, float]]:
    """Return evenly chosen points, the first and the last among them, if there are more than `most`."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def acceptance_words(acceptance: LawAcceptance | FixedAcceptance | TraceAcceptance | None) -> str:
    """Return where an arm's acceptance comes from, in words."""
    if acceptance is None:
        return "none"
    if isinstance(acceptance, LawAcceptance):
        return f"law {acceptance.recipe}, fit {acceptance.fit}"
    if isinstance(acceptance, FixedAcceptance):
        return "fixed " + ", ".join(f"{rate:.2f}" for rate in acceptance.cumulative)
    return f"trace {acceptance.trace}, loss {acceptance.loss}"


def _key(name: str) -> str:
    """A name as one part of a dotted path; TOML's quotes keep a dot inside it."""
    return f'"{name}"' if "." in name else name


def mistake(error: Exception) -> str | None:
    """Return the command line's text for a mistake in the input, None for anything else."""
    code, message = explain(error)
    return None if code == ExitCode.UNEXPECTED else message


_first_looks: Kept[dict[str, float]] = Kept(most=100)
"""Of all visitors; the launcher puts the first one here before anybody comes."""


class ReportCache:
    """The latest reports by scenario; safe among the threads of a server."""

    def __init__(self, max_reports: int = MAX_REPORTS) -> None:
        self._reports: Kept[RunReport] = Kept(max_reports)

    def run(
        self,
        scenario: Scenario,
        progress: Progress,
        engine: Engine = EMBEDDED,
        answered: Answered | None = None,
    ) -> RunReport:
        """Return the scenario's report, simulated only if it is not here yet; see `Engine.run`."""
        return self._reports.take(key_of(scenario, engine.address), lambda: engine.run(scenario, progress, answered))

    def holds(self, scenario: Scenario, engine: Engine = EMBEDDED) -> bool:
        """Return whether the scenario's report is here."""
        return self._reports.get(key_of(scenario, engine.address)) is not None


def first_look(scenario: Scenario, engine: Engine = EMBEDDED, progress: Progress = lambda _: None) -> dict[str, float]:
    """Return every arm's speedup in one short run, worked out only if it is not here yet; see `Engine.first_look`."""
    key = key_of(scenario, engine.address)
    return _first_looks.take(key, lambda: engine.first_look(scenario, progress))


def known_first_look(scenario: Scenario, engine: Engine = EMBEDDED) -> dict[str, float] | None:
    """Return the same if it is here."""
    return _first_looks.get(key_of(scenario, engine.address))


def starts_by_itself(asked: Question) -> bool:
    """Return whether a question is answered as soon as it is opened: a bundled scenario's, of bounded size."""
    return asked.source.text is None and num_sequences(asked.scenario) <= MAX_UNASKED_SEQUENCES


def num_sequences(scenario: Scenario) -> float:
    """Return how many sequences, each turn of one counted, the arms of a scenario and plain decoding generate.

    Those of a workload that is a trace are not known before it is read, and not counted.
    """
    workload, run = scenario.workload, scenario.run
    if workload.kind != "synthetic":
        return 0.0
    turns = max(workload.turns.num_turns.mean_after_cut, 1.0) if workload.turns is not None else 1.0
    per_step = scenario.generated_groups_per_step * workload.group_size * turns
    return per_step * run.num_steps * run.replications * (1 + len(scenario.arms))


def key_of(scenario: Scenario, *more: object) -> str:
    """Return what tells a scenario, and whatever else a result depends on, from any other."""
    return canonical_hash([scenario.model_dump(mode="json"), [str(each) for each in more]])
