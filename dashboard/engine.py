"""Engine: where predictions and plans are worked out: on this machine, or by a service (`bebop serve`). No Streamlit.

Both give the same numbers. What a service does not offer (short runs, sensitivities, timelines, logs) is worked out on
this machine in either case, and the views say so.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import TypeAdapter

from simulator.client import Client, JobKind, JobView, RequestRefusedError
from simulator.config import Scenario, UncertaintyConfig
from simulator.errors import ServiceError
from simulator.optimize import PlanReport, optimize
from simulator.run import simulate
from simulator.scenario_file import with_fields
from simulator.what_if import shortened, speedups
from traces.prices import load_prices
from traces.report import RunReport

Progress = Callable[[float], None]
Answered = Callable[[RunReport], None]
"""Takes a report that still lacks its waterfalls, where whoever works it out has one early."""

TOKEN_VARIABLE: Final = "BEBOP_TOKEN"
"""Environment variable that holds the token unless another is named; a token on a command line is seen by others."""

POLL_S: Final = 0.5
"""Longest pause between two looks at a service's job: only then does a cancelled page notice."""

_PLAN_REPORT: Final = TypeAdapter(PlanReport)


class Engine(Protocol):
    """What works out a prediction or a plan."""

    @property
    def address(self) -> str | None:
        """Of the service; None: this machine."""

    def run(self, scenario: Scenario, progress: Progress, answered: Answered | None = None) -> RunReport:
        """Return the prediction, as `bebop simulate --json`; raises ScenarioError, TraceError or ServiceError."""

    def first_look(self, scenario: Scenario, progress: Progress) -> dict[str, float]:
        """Return every arm's speedup in one short run, inputs as stated; raises as `run` does."""

    def plans(self, scenario: Scenario, arm: str, max_gpus: int, num_plans: int, progress: Progress) -> PlanReport:
        """Return what `bebop plan --json` says; raises as `run` does."""


class Embedded:
    """The simulator in this process."""

    address: Final = None

    def run(self, scenario: Scenario, progress: Progress, answered: Answered | None = None) -> RunReport:
        return simulate(scenario, progress=progress, answered=answered)

    def first_look(self, scenario: Scenario, progress: Progress) -> dict[str, float]:
        del progress  # a second's work
        return speedups(scenario)

    def plans(self, scenario: Scenario, arm: str, max_gpus: int, num_plans: int, progress: Progress) -> PlanReport:
        price = load_prices().get(scenario.cluster.gpu)
        return optimize(scenario, arm, max_gpus=max_gpus, num_plans=num_plans, price=price, progress=progress)


class Remote:
    """A service."""

    def __init__(self, address: str, token: str, variable: str = TOKEN_VARIABLE) -> None:
        """Ask nothing yet; raises ServiceError where the address or the token cannot be one."""
        self._client, self._address, self._variable = Client(address, token), address, variable

    @property
    def address(self) -> str | None:
        return self._address

    def run(self, scenario: Scenario, progress: Progress, answered: Answered | None = None) -> RunReport:
        del answered  # a job has one answer
        answer = self._worked_out("run", _body(scenario), progress)
        return RunReport.model_validate_json(answer, strict=True)

    def first_look(self, scenario: Scenario, progress: Progress) -> dict[str, float]:
        exact = [(f"uncertainty.{name}", 0.0) for name in UncertaintyConfig.model_fields]
        short = with_fields(shortened(scenario), [("run.replications", 1), *exact])
        short = short.model_copy(update={"measured": (), "setups": {}, "origins": {}})
        report = self.run(short, progress)
        return {arm: found.end_to_end_speedup.mean for arm, found in report.arms.items()}

    def plans(self, scenario: Scenario, arm: str, max_gpus: int, num_plans: int, progress: Progress) -> PlanReport:
        asked = {"scenario": _body(scenario), "arm": arm, "max_gpus": max_gpus, "num_plans": num_plans}
        return _PLAN_REPORT.validate_json(self._worked_out("plan", asked, progress))

    def _worked_out(self, kind: JobKind, content: dict[str, Any], progress: Progress) -> str:
        """Return a job's answer as JSON; a page that goes away, or is cancelled, ends the job."""
        try:
            job = self._client.submit(kind, content)
            try:
                job = self._client.wait(job, progress=progress, max_poll_s=POLL_S)
            except ServiceError:
                raise
            except BaseException:
                self._end(job)
                raise
        except RequestRefusedError as error:
            raise ServiceError(self._advised(error)) from None
        return json.dumps(job.answer)

    def _end(self, job: JobView) -> None:
        with contextlib.suppress(ServiceError):  # gone, or finished: nothing is left to end
            self._client.cancel(job)

    def _advised(self, error: RequestRefusedError) -> str:
        if error.status in (401, 403):
            return f"{error}; the token comes from {self._variable}, `bebop ui --token-env NAME` names another variable"
        if error.status == 429 and error.retry_after_s is not None:
            return f"{error}; it asks to wait {error.retry_after_s:g} s"
        return str(error)


def engine_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Engine:
    """Return the engine that `--api URL --token-env NAME` ask for, whatever other words stand beside them.

    Raises:
        ServiceError: No address, or no token in the variable.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--api")
    parser.add_argument("--token-env", default=TOKEN_VARIABLE)
    asked, _ = parser.parse_known_args(list(arguments))
    if asked.api is None:
        return Embedded()
    token = environment.get(asked.token_env, "").strip()
    if not token:
        raise ServiceError(
            f"--token-env {asked.token_env}: no such environment variable, or it is empty; put the token of "
            f"{asked.api} there (`bebop serve --new-token NAME --scope write` makes one)"
        )
    return Remote(asked.api, token, asked.token_env)


def chosen() -> Engine:
    """Return the engine that this process was started with; raises ServiceError."""
    return engine_of(sys.argv[1:], os.environ)


def _body(scenario: Scenario) -> dict[str, Any]:
    """What is not set stays unset: the report tells what was stated from what was left open."""
    return scenario.model_dump(mode="json", exclude_unset=True)
