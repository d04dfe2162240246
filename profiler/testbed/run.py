"""`bebop testbed run`: a run for real, from the start of its Ray to its last process; writes measured.json, verl.log.

The driver asks the trainer for one RL step after the other, a step ahead so that none waits for it, writes down what
comes back, and starts again what died. Does not know rules of admission and sync.
"""

import json
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from profiler.errors import RunError
from profiler.local_ray import import_ray, local_ray
from profiler.testbed.actors import (
    BUFFER,
    MESSAGES,
    PATIENCE_S,
    ROLLOUT,
    TRAINER,
    BufferActor,
    RolloutActor,
    TrainerActor,
)
from profiler.testbed.buffer import AdmissionRule, Buffer
from profiler.testbed.log import StepLog, StepRecord, console_line, measured_run
from profiler.testbed.parts import Parts, PreparedParts
from profiler.testbed.prepared import prepare
from traces.measured import MeasuredRun, MeasuredStep
from traces.store import save_trace
from traces.testbed import TestbedConfig

MAX_DEATHS = 5
"""Of one actor in a run, before it is given up."""
STEPS_ASKED = 2
"""Steps that the trainer has been asked for at once: it begins the next one without a word from the driver."""


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    records: list[StepRecord] = field(default_factory=list)
    account: dict[str, int] = field(default_factory=dict)
    """Of samples, at the end; empty where the run was cut short."""
    num_deaths: dict[str, int] = field(default_factory=dict)
    """By actor."""


def main(config: TestbedConfig, output: Path) -> int:
    """Run a config for real, and write measured.json, verl.log and samples.json into a folder.

    Raises:
        RunError: It cannot go on; what was logged until then is written.
    """
    prepare(config, _say)  # once, before two actors need it
    outcome = run_logged(config, output, PreparedParts())
    (output / "samples.json").write_text(json.dumps(_counts(outcome), indent=1) + "\n")
    steps = outcome.records
    span_s = steps[-1].end_s - steps[0].begin_s
    print(
        f"{output / 'measured.json'}: {len(steps)} RL steps in {span_s:.1f} s, "
        f"{outcome.account['given_samples']} samples trained on, {outcome.account['lost_samples']} lost"
    )
    return 0


def run_logged(config: TestbedConfig, output: Path, parts: Parts) -> Outcome:
    """Run a config and write its logs as it goes; also where it is interrupted or ends early."""
    outcome, steps = Outcome(), StepLog(config)
    console = output / "verl.log"
    console.unlink(missing_ok=True)

    def note() -> None:
        step = steps.add(outcome.records[-1])
        with console.open("a") as file:
            file.write(console_line(step) + "\n")
        _say(f"step {step.step} of {config.num_steps}, {step.step_s:.2f} s")

    try:
        drive(config, parts, outcome, note)
    finally:
        if steps.steps:
            save_trace(_measured(config, outcome, steps.steps), output / "measured.json")
    return outcome


def drive(config: TestbedConfig, parts: Parts, outcome: Outcome, on_step: Callable[[], None]) -> None:
    """Run a config from start to end, filling `outcome`; `on_step` is called after every RL step.

    Raises:
        RunError: An actor dies again and again, or a rule of the system is broken.
    """
    with (
        local_ray(num_cpus=2) as (ray, folder),
        _actors(ray, config, parts, folder) as actors,
    ):
        loop = actors[ROLLOUT].run.remote()
        asked: deque[Any] = deque()
        is_resumed = False
        while len(outcome.records) < config.num_steps:
            while len(asked) < min(STEPS_ASKED, config.num_steps - len(outcome.records)):
                asked.append(actors[TRAINER].step.remote(len(outcome.records) + len(asked) + 1, is_resumed))
                is_resumed = False
            (ready, *_), _ = ray.wait([asked[0], loop], num_returns=1)
            try:
                record = ray.get(ready)
            except ray.exceptions.RayError as error:
                name = ROLLOUT if ready == loop else TRAINER
                _revive(actors[name], name, error, outcome)
                if ready == loop:
                    loop = actors[ROLLOUT].run.remote()
                else:
                    asked.clear()
                    is_resumed = True
                continue
            asked.popleft()
            outcome.records.append(record)
            on_step()
        outcome.account = ray.get(actors[BUFFER].account.remote())


@contextmanager
def _actors(ray: Any, config: TestbedConfig, parts: Parts, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the actors once all of them are ready; end them at once at the end."""
    rule = AdmissionRule.of(config.policy, config.prompts_per_step)
    options = {"max_restarts": MAX_DEATHS, "max_task_retries": 0}
    makers: dict[str, tuple[type, dict[str, Any], tuple[Any, ...]]] = {
        BUFFER: (BufferActor, {"num_cpus": 0}, (Buffer(rule, config.prompts_per_step, config.group_size),)),
        ROLLOUT: (RolloutActor, {"num_cpus": 1, "concurrency_groups": {MESSAGES: 2}, **options}, (parts, config)),
        TRAINER: (
            TrainerActor,
            {"num_cpus": 1, "concurrency_groups": {MESSAGES: 1}, **options},
            (parts, config, folder),
        ),
    }
    actors = {}
    try:
        for name, (kind, more, arguments) in makers.items():
            actors[name] = ray.remote(**more)(kind).options(name=name).remote(*arguments)
        _begin(actors)
        yield actors
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    finally:
        for actor in actors.values():
            ray.kill(actor)


def _begin(actors: dict[str, Any]) -> None:
    """Wait until engine and learner are there.

    Raises:
        RunError: One of them cannot be made; the message is its complaint.
    """
    ray = import_ray()
    try:
        ray.get([actors[ROLLOUT].ready.remote(), actors[TRAINER].ready.remote()])
    except ray.exceptions.RayActorError as error:
        *_, last = str(error).strip().splitlines()
        raise RunError(f"an actor could not start: {last.strip()}") from None


def _revive(actor: Any, name: str, error: Exception, outcome: Outcome) -> None:
    """Wait until Ray has started a dead actor again.

    Raises:
        RunError: It is given up.
        Exception: What was raised in the actor, where it did not die.
    """
    ray = import_ray()
    if isinstance(error, ray.exceptions.RayTaskError):
        raise error.cause from error
    outcome.num_deaths[name] = outcome.num_deaths.get(name, 0) + 1
    _say(f"the {name} actor died and is started again")
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            ray.get(actor.ready.remote())
            return
        except ray.exceptions.ActorUnavailableError:
            time.sleep(0.05)
        except ray.exceptions.RayActorError:
            break
    raise RunError(f"the {name} actor died {outcome.num_deaths[name]} times and is given up; repeat the run") from None


def _measured(config: TestbedConfig, outcome: Outcome, steps: Sequence[MeasuredStep]) -> MeasuredRun:
    versions = {"python": platform.python_version(), "ray": version("ray"), "torch": version("torch")}
    deaths = ", ".join(f"{name} actor {count}x" for name, count in outcome.num_deaths.items())
    notes = f"{len(outcome.records)} of {config.num_steps} RL steps" + (f"; died: {deaths}" if deaths else "")
    return measured_run(config, steps, versions, notes, command=f"bebop testbed run {config.name}")


def _counts(outcome: Outcome) -> dict[str, int]:
    return outcome.account | {f"deaths_of_{name}": count for name, count in outcome.num_deaths.items()}


def _say(text: str) -> None:
    print(f"testbed: {text}", file=sys.stderr)
