"""Requests: what a client asks to be worked out, read with suspicion; its identity, and how much work it is.

The body of a run is the `Scenario` itself. A request may name shipped and uploaded traces, never a file of the server:
`find_trace` opens whatever has a suffix, so every text of a request that has one must be the name of an upload.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError

from simulator.config import Name, Scenario
from simulator.errors import ScenarioError
from simulator.scenario_file import parse_fields
from simulator.service.problems import RefusalError
from simulator.service.settings import Limits
from traces.base import Strict, canonical_hash, canonical_json
from traces.complaint import complaint
from traces.errors import TraceError, TraceFormatError
from traces.store import load_named
from traces.strict_json import parse_object
from traces.workload import WorkloadTrace

Kind = Literal["run", "sweep", "plan"]

UPLOAD_NAME: Final = re.compile(r"[0-9a-f]{64}\.(json|parquet)")
"""Name of an uploaded trace: its content hash, and how it is stored."""

RUNS_PER_ARM: Final = 5
"""The run itself and the four counterfactual ones of its waterfall."""
RUNS_PER_PLAN: Final = 4
"""A first look and, if the plan is no worse, three more."""
SEQUENCES_PER_S: Final = 100_000
"""For the time in an estimate: two busy cores simulated 50,000 (long responses) to 230,000 in a second."""

_WORDS: Final = ("name", "question", "origins", "measured")
"""Fields of a scenario that are shown and never looked up."""


class SweepRequest(Strict):
    """A scenario at many points, as `bebop sweep` takes it."""

    scenario: Scenario
    grid: Annotated[tuple[Annotated[str, Field(max_length=10_000)], ...], Field(max_length=20)] = ()
    """`path=1,2,3`, `path=0..8` or `path=0.1..0.5:0.1`; every combination is a point."""
    ranges: Annotated[tuple[Annotated[str, Field(max_length=1_000)], ...], Field(max_length=20)] = ()
    """`path=low..high`, drawn from `draws` times."""
    draws: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    kind: Literal["random", "sobol"] = "sobol"
    design_seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    arms: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """Arms to keep; none keeps all."""
    replications: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """With input errors; None: one run of a point without, the middle of the prediction."""


class PlanRequest(Strict):
    """A search for the best use of so many GPUs, as `bebop plan` takes it."""

    scenario: Scenario
    arm: Name | None = None
    """Whose acceptance to draft with; None: the first that drafts."""
    max_gpus: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Budget, both sides together; None: as many as the scenario has."""
    max_staleness: Annotated[int, Field(ge=0, le=1_000)] = 8
    max_draft_tokens: Annotated[int, Field(ge=1, le=16)] | None = None
    """None: the largest k at which acceptance was counted."""
    num_plans: Annotated[int, Field(ge=1, le=10_000)] = 160


class Estimate(Strict):
    """How much work a job is, before any is done."""

    runs: int
    """Simulated runs."""
    sequences: int
    """Sequences of all of them together."""
    seconds: float
    """On two cores, roughly."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job that may be done."""

    id: str
    """The same for the same question, traces and version of the model."""
    kind: Kind
    label: str
    body: str
    """JSON."""
    estimate: Estimate


MODELS: Final[dict[Kind, type[BaseModel]]] = {"run": Scenario, "sweep": SweepRequest, "plan": PlanRequest}


def read_request(kind: Kind, text: bytes, trace_folder: Path, limits: Limits, version: str) -> Request:
    """Return what a body asks.

    Args:
        kind: What is asked for.
        text: JSON.
        trace_folder: Of uploaded traces.
        limits: What may be asked.
        version: Of whoever answers; another version's answer is another one.

    Raises:
        RefusalError: Not JSON (400), no such question, a trace that is not there, or too much work (422).
    """
    try:
        content = parse_object(text, "body")
        canonical_json(content)  # no NaN where a model takes any value
    except TraceFormatError as error:
        raise RefusalError(400, "not-json", str(error)) from None
    except (ValueError, RecursionError):
        raise RefusalError(422, "invalid", "body: holds NaN or an infinity; every number is finite") from None
    try:
        asked = _parsed(kind, content)
        scenario = asked if isinstance(asked, Scenario) else asked.scenario
        _check_traces(asked, trace_folder)
        runs, per_run = _ESTIMATES[kind](asked, _sequences_per_run(scenario, trace_folder), limits)
    except (ScenarioError, TraceError) as error:
        raise RefusalError(422, "invalid", _without(str(error), trace_folder)) from None
    estimate = Estimate(runs=runs, sequences=runs * per_run, seconds=round(runs * per_run / SEQUENCES_PER_S, 1))
    if estimate.sequences > limits.sequences:
        raise RefusalError(
            422,
            "too-much-work",
            f"{runs} runs of {per_run} sequences are {estimate.sequences}, about {estimate.seconds:.0f} s of work and "
            f"above the limit of {limits.sequences}; ask for fewer steps, replications, points or plans, or use the "
            "command line",
            limit=limits.sequences,
            value=estimate.sequences,
        )
    # As it was given: the report tells what was stated from what was left open, and has the arms in their order.
    body = asked.model_dump_json(exclude_unset=True)
    return Request(canonical_hash([kind, version, body])[:32], kind, scenario.name, body, estimate)


def design_of(asked: SweepRequest) -> Any:
    """Return a sweep's design.

    Raises:
        ScenarioError: It is none.
    """
    from simulator.sweep.design import parse_design  # scipy: slow to import

    return parse_design(asked.grid, asked.ranges, draws=asked.draws, kind=asked.kind, seed=asked.design_seed)


def trace_names(content: Any) -> Iterator[str]:
    """Yield every text in some JSON that `find_trace` would take for a file."""
    if isinstance(content, dict):
        for value in content.values():
            yield from trace_names(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from trace_names(value)
    elif isinstance(content, str) and Path(content).suffix in (".json", ".parquet"):
        yield content


def _parsed(kind: Kind, content: dict[str, Any]) -> Any:
    if kind == "run":
        return parse_fields(content, "scenario")
    model = MODELS[kind]
    try:
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ScenarioError(f"{kind}: {complaint(error, model)}; /openapi.json lists all fields") from None


def _check_traces(asked: Any, folder: Path) -> None:
    scenario = asked if isinstance(asked, Scenario) else asked.scenario
    looked_up: list[Any] = [scenario.model_dump(mode="json", exclude=set(_WORDS))]
    if isinstance(asked, SweepRequest):
        looked_up += [axis.values for axis in design_of(asked).axes]
    for name in trace_names(looked_up):
        if not UPLOAD_NAME.fullmatch(name) or not (folder / name).is_file():
            raise ScenarioError(
                f"trace {name[:100]!r}: no trace of this service; name a shipped one, or upload it to /v1/traces and "
                "use the name that you get"
            )


def _without(text: str, folder: Path) -> str:
    """Where the service keeps its files is its own business."""
    return text.replace(f"{folder}/", "")


def _sequences_per_run(scenario: Scenario, folder: Path) -> int:
    workload = scenario.workload
    if workload.kind == "synthetic":
        per_step = round(scenario.generated_groups_per_step * workload.group_size)
        if workload.turns is not None:
            per_step = round(per_step * max(1.0, workload.turns.num_turns.mean_after_cut))
        return max(1, per_step) * scenario.run.num_steps
    name = workload.trace
    trace = load_named(str(folder / name) if UPLOAD_NAME.fullmatch(name) else name, WorkloadTrace)
    num_steps = len({row.rl_step for row in trace.sequences}) or 1
    return max(1, round(len(trace.sequences) / num_steps)) * scenario.run.num_steps


def _estimate_run(scenario: Scenario, per_run: int, _limits: Limits) -> tuple[int, int]:
    return scenario.run.replications * (1 + len(scenario.arms)) * RUNS_PER_ARM, per_run


def _estimate_sweep(asked: SweepRequest, per_run: int, limits: Limits) -> tuple[int, int]:
    num_points = len(design_of(asked))
    if num_points > limits.points:
        raise RefusalError(
            422,
            "too-many-points",
            f"{num_points} points are above the limit of {limits.points}; take fewer values",
            limit=limits.points,
            value=num_points,
        )
    arms = len(asked.arms or asked.scenario.arms)
    return num_points * (asked.replications or 1) * (1 + arms), per_run


def _estimate_plan(asked: PlanRequest, per_run: int, limits: Limits) -> tuple[int, int]:
    if asked.num_plans > limits.plans:
        raise RefusalError(
            422,
            "too-many-plans",
            f"{asked.num_plans} plans are above the limit of {limits.plans}; ask for fewer",
            limit=limits.plans,
            value=asked.num_plans,
        )
    return asked.num_plans * RUNS_PER_PLAN, per_run


_ESTIMATES: Final[dict[Kind, Callable[[Any, int, Limits], tuple[int, int]]]] = {
    "run": _estimate_run,
    "sweep": _estimate_sweep,
    "plan": _estimate_plan,
}
