"""Answers: what the service sends back. A run's answer is the `RunReport` that `bebop simulate --json` prints."""

import datetime
import json
from typing import Annotated, Any

from pydantic import Field

from simulator.service.ledger import Job, Status
from simulator.service.problems import Problem
from simulator.service.requests import Estimate, Kind
from simulator.service.work import SweepReport
from traces.base import Strict
from traces.report import RunReport


class JobStatus(Strict):
    """A job and where it stands."""

    id: str
    """The same for the same question: what is asked twice is worked out once."""
    kind: Kind
    label: str
    """The scenario's name."""
    status: Status
    progress: Annotated[float, Field(ge=0, le=1)]
    """Share of the work that is done."""
    attempts: int
    """Above 1: a worker, or the service, died under it."""
    estimate: Estimate
    submitted: datetime.datetime
    started: datetime.datetime | None
    finished: datetime.datetime | None
    problem: Problem | None
    """Why it failed."""


class RunJob(JobStatus):
    """A run, with its report once there is one."""

    answer: RunReport | None = None


class SweepJob(JobStatus):
    """A sweep, with what became of it; its numbers are under `/results`."""

    answer: SweepReport | None = None


class PlanJob(JobStatus):
    """A search, with what `bebop plan --json` prints."""

    answer: dict[str, Any] | None = None


class JobList(Strict):
    """Jobs, the newest first."""

    jobs: tuple[JobStatus, ...]
    before: int | None
    """Give it as `before` for the next ones; None: these are the last."""


class TraceEntry(Strict):
    """A trace that scenarios may name."""

    name: str
    """As a scenario names it."""
    kind: str
    is_uploaded: bool
    title: str
    """The name that its maker gave it."""


class TraceList(Strict):
    """All of them."""

    traces: tuple[TraceEntry, ...]


class Health(Strict):
    """That the service is there."""

    status: str = "ok"


class Readiness(Strict):
    """That it takes jobs."""

    status: str
    workers: int
    """That are up."""
    queued: int


JOB_MODELS: dict[Kind, type[JobStatus]] = {"run": RunJob, "sweep": SweepJob, "plan": PlanJob}


def job_status(job: Job, progress: float) -> JobStatus:
    """Return a job as a client sees it."""
    return JobStatus(
        id=job.id,
        kind=job.kind,
        label=job.label,
        status=job.status,
        progress=min(max(progress, 0.0), 1.0),
        attempts=job.attempts,
        estimate=job.estimate,
        submitted=_utc(job.submitted_s),
        started=None if job.started_s is None else _utc(job.started_s),
        finished=None if job.finished_s is None else _utc(job.finished_s),
        problem=job.problem,
    )


def job_text(job: Job, progress: float, answer: str | None) -> str:
    """Return a job with its answer as JSON; the answer's own bytes are kept."""
    status = job_status(job, progress).model_dump_json()
    return status[:-1] + f',"answer":{answer if answer is not None else json.dumps(None)}}}'


def _utc(at_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_s, tz=datetime.UTC)
