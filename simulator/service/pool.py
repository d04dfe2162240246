"""Pool: the workers of a service, and what becomes of the jobs that they are given. Does not know the ledger."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from simulator import workers
from simulator.errors import ClusterError
from simulator.service.problems import Problem, problem
from simulator.service.requests import Kind
from simulator.service.settings import Limits, Settings
from simulator.workers import Ended, Handle, Workers
from traces.console import ExitCode, explain

PROGRESS_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """A job has got on."""

    job_id: str
    share: float
    """0..1."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A job has its answer."""

    job_id: str
    answer: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A job came to nothing, and would again."""

    job_id: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died under a job."""

    job_id: str
    reason: str


Event = Progress | Answered | Failed | Lost


def start_pool(settings: Settings) -> Workers[str]:
    """Start the workers of a service; they load the kernels while the first request is on its way. An item is a job."""
    limits = settings.limits
    prepare = partial(_prepare, settings)
    return Workers(settings.num_workers, prepare, item_s=limits.job_s, memory_bytes=limits.worker_bytes, keep_warm=True)


def event_of(found: workers.Event[str], limits: Limits) -> Event:
    """Return what it means for a job that a worker said something, or ended."""
    if not isinstance(found, Ended):
        event: Event = found.content
        return event
    match found.cause:
        case "late":
            said = f"no answer within {limits.job_s:g} s; ask for fewer steps or replications"
            late = problem(504, said, "too-slow", limit=limits.job_s, value=round(found.value, 1))
            return Failed(found.key, late)
        case "memory":
            said = f"its worker {found.reason}; simulate fewer steps"
            full = problem(507, said, "out-of-memory", limit=limits.worker_bytes, value=found.value)
            return Failed(found.key, full)
        case "died":
            return Lost(found.key, f"its worker {found.reason}")


def _prepare(settings: Settings) -> Handle:
    from simulator.service.work import prepare

    prepare(settings.trace_folder)
    return partial(_handle, settings)


def _handle(settings: Settings, job: tuple[str, Kind, str], send: Callable[[Progress], None]) -> Event:
    from simulator.service.work import work_out

    job_id, kind, body = job
    try:
        return Answered(job_id, work_out(settings, kind, job_id, body, _Sender(job_id, send).send))
    except Exception as error:
        return Failed(job_id, _problem_of(error))


class _Sender:
    """Sends progress, not too often."""

    def __init__(self, job_id: str, send: Callable[[Progress], None]) -> None:
        self._job_id, self._send, self._last_s = job_id, send, 0.0

    def send(self, share: float) -> None:
        if time.monotonic() - self._last_s >= PROGRESS_EVERY_S:
            self._last_s = time.monotonic()
            self._send(Progress(self._job_id, share))


def _problem_of(error: Exception) -> Problem:
    """Return what a client hears: mistakes of its own word by word, of what is ours the kind alone."""
    code, message = explain(error)
    if code == ExitCode.USAGE:
        return problem(422, message, "invalid")
    logging.getLogger("bebop.service").error("a job failed", exc_info=error)
    if isinstance(error, MemoryError):
        return problem(507, "out of memory; simulate fewer steps", "out-of-memory")
    if isinstance(error, ClusterError):
        return problem(503, message, "no-cluster")
    if code == ExitCode.STORAGE:
        return problem(507, "the service's disk is full or cannot be written; ask its operator", "storage")
    if code == ExitCode.ENVIRONMENT:
        return problem(501, message, "not-installed")
    return problem(500, f"unexpected: {type(error).__name__}; the service's log says more", "unexpected")
