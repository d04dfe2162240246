"""Pool: worker processes, one job at a time each. A worker that dies, hangs or eats the memory costs its job at most.

Does not know the ledger. One thread uses it.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from simulator.service.problems import Problem, problem
from simulator.service.requests import Kind
from simulator.service.settings import Settings
from traces.console import ExitCode, explain

START_TIMEOUT_S: Final = 300.0
"""A worker that takes longer to load the kernels will not come."""
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


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    job_id: str | None = None
    since_s: float = 0.0
    """When its job began, or the worker before it was up."""
    is_up: bool = False


class Pool:
    """Processes of this machine, each with its own kernels."""

    def __init__(self, settings: Settings) -> None:
        """Start the workers; they load the kernels while the first request is on its way."""
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")  # threads of the service must not be copied
        self._workers = [self._start() for _ in range(settings.num_workers)]

    @property
    def num_free(self) -> int:
        return sum(worker.job_id is None for worker in self._workers)

    @property
    def num_up(self) -> int:
        """Workers that have loaded everything."""
        return sum(worker.is_up for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid or 0 for worker in self._workers]

    def submit(self, job_id: str, kind: Kind, body: str) -> None:
        """Begin a job; only while `num_free` is above 0."""
        worker = next(worker for worker in self._workers if worker.job_id is None)
        worker.job_id, worker.since_s = job_id, time.monotonic()
        with contextlib.suppress(OSError):  # it died since; `wait` finds out
            worker.connection.send((job_id, kind, body))

    def end(self, job_id: str) -> bool:
        """End a job's worker, whatever it does; False if no worker has the job."""
        for index, worker in enumerate(self._workers):
            if worker.job_id == job_id:
                self._replace(index)
                return True
        return False

    def wait(self, others: Sequence[Connection], timeout_s: float) -> list[Event]:
        """Return what happened, as soon as something did, or `others` can be read, or the time has passed."""
        connections = [worker.connection for worker in self._workers]
        ready = set(wait([*connections, *others], timeout_s))
        events: list[Event] = []
        for index, worker in enumerate(self._workers):
            if worker.connection in ready:
                events += self._read(index)
        for index in range(len(self._workers)):
            events += self._check(index)
        return events

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._settings))
        process.start()
        theirs.close()
        return _Worker(process, ours, since_s=time.monotonic())

    def _replace(self, index: int) -> None:
        worker = self._workers[index]
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers[index] = self._start()

    def _read(self, index: int) -> list[Event]:
        """Return all messages that are there; the pipe's end says that the worker died."""
        worker = self._workers[index]
        events: list[Event] = []
        try:
            while worker.connection.poll():
                event: Event | None = worker.connection.recv()
                if event is None:
                    worker.is_up, worker.since_s = True, time.monotonic()
                    continue
                if not isinstance(event, Progress):
                    worker.job_id = None
                events.append(event)
        except (EOFError, OSError):
            worker.process.join()
            job_id, ending = worker.job_id, _ending(worker.process.exitcode)
            if job_id is None and not worker.is_up:
                time.sleep(1.0)  # something is wrong with this machine: do not spin
            self._replace(index)
            if job_id is not None:
                events.append(Lost(job_id, f"its worker {ending}"))
        return events

    def _check(self, index: int) -> list[Event]:
        """End a worker that has gone on for too long or holds too much."""
        worker, limits = self._workers[index], self._settings.limits
        passed_s = time.monotonic() - worker.since_s
        if not worker.is_up and passed_s > START_TIMEOUT_S:
            job_id = worker.job_id
            self._replace(index)
            return [] if job_id is None else [Lost(job_id, f"its worker did not start within {START_TIMEOUT_S:g} s")]
        if worker.job_id is None or not worker.is_up:
            return []
        job_id, num_bytes = worker.job_id, _memory_bytes(worker.process.pid)
        if passed_s > limits.job_s:
            self._replace(index)
            said = f"no answer within {limits.job_s:g} s; ask for fewer steps or replications"
            return [Failed(job_id, problem(504, said, "too-slow", limit=limits.job_s, value=round(passed_s, 1)))]
        if num_bytes > limits.worker_bytes:
            self._replace(index)
            said = f"{num_bytes} bytes of memory are above the limit of {limits.worker_bytes}; simulate fewer steps"
            return [Failed(job_id, problem(507, said, "out-of-memory", limit=limits.worker_bytes, value=num_bytes))]
        return []


def _work(connection: Connection, settings: Settings) -> None:
    """Answer jobs until the service is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and a stop are the service's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_service, daemon=True).start()
    from simulator.service.work import prepare, work_out

    prepare(settings.trace_folder)
    with contextlib.suppress(EOFError, OSError):
        connection.send(None)
        while True:
            job_id, kind, body = connection.recv()
            sender = _Sender(connection, job_id)
            try:
                event: Event = Answered(job_id, work_out(settings, kind, job_id, body, sender.send))
            except Exception as error:
                event = Failed(job_id, _problem_of(error))
            connection.send(event)


class _Sender:
    """Sends progress, not too often."""

    def __init__(self, connection: Connection, job_id: str) -> None:
        self._connection, self._job_id, self._last_s = connection, job_id, 0.0

    def send(self, share: float) -> None:
        if time.monotonic() - self._last_s >= PROGRESS_EVERY_S:
            self._last_s = time.monotonic()
            self._connection.send(Progress(self._job_id, share))


def _problem_of(error: Exception) -> Problem:
    """Return what a client hears: mistakes of its own word by word, of what is ours the kind alone."""
    code, message = explain(error)
    if code == ExitCode.USAGE:
        return problem(422, message, "invalid")
    logging.getLogger("bebop.service").error("a job failed", exc_info=error)
    if code == ExitCode.STORAGE:
        return problem(507, "the service's disk is full or cannot be written; ask its operator", "storage")
    if code == ExitCode.ENVIRONMENT:
        return problem(501, message, "not-installed")
    return problem(500, f"unexpected: {type(error).__name__}; the service's log says more", "unexpected")


def _end_with_service() -> None:
    """Leave no orphan, not even one in the middle of a job."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _memory_bytes(pid: int | None) -> int:
    """Return what a process holds in memory; 0 where nobody tells (no /proc)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"
