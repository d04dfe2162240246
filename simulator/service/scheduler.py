"""Scheduler: takes jobs out of the ledger, gives them to the pool, writes down what becomes of them. Survives both.

What cannot be written (a full disk) is kept and tried again; until then no other job begins.
"""

import contextlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Pipe
from typing import Final

from simulator.service.ledger import FINISHED, Job, Ledger, Status
from simulator.service.pool import Answered, Event, Failed, Lost, Progress, event_of, start_pool
from simulator.service.problems import RefusalError, problem
from simulator.service.requests import Request
from simulator.service.settings import Settings
from simulator.workers import Workers

TICK_S: Final = 0.5
STORAGE_PAUSE_S: Final = 2.0
"""Between two tries on a disk that is full."""

_LOG: Final = logging.getLogger("bebop.service")


class Scheduler:
    """The queue of a service, worked off by a thread of its own."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Take up what an earlier service left; nothing runs before `start`."""
        self._settings, self._ledger = settings, ledger
        self._progress: dict[str, float] = {}
        self._stop = threading.Event()
        self._submitting = threading.Lock()
        self._wake_reader, self._wake_writer = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._unwritten: deque[Callable[[], None]] = deque()
        self._to_end: deque[str] = deque()
        self._pool: Workers[str] | None = None
        self.storage_complaint: str | None = None
        """What the disk said when something could not be written; None: all is written."""
        for job in ledger.running():
            self._try_again(job, "the service ended while it ran")

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [] if self._pool is None else self._pool.pids

    @property
    def num_up(self) -> int:
        """Workers that are ready."""
        return 0 if self._pool is None else self._pool.num_up

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._pool = start_pool(self._settings)
        self._thread.start()

    def close(self) -> None:
        """End all work; jobs under way go back into the queue of the next service."""
        self._stop.set()
        self._wake()
        self._thread.join()
        if self._pool is not None:
            self._pool.close()
        for job in self._ledger.running():
            with contextlib.suppress(OSError):
                self._ledger.requeue(job.id, undo_attempt=True)

    def has(self, request: Request) -> bool:
        """Return whether a job, or its answer, is there already."""
        known = self._ledger.job(request.id)
        if known is None or known.status != "done":
            return known is not None and known.status in ("queued", "running")
        return self._ledger.answer(request.id) is not None

    def submit(self, request: Request, caller: str) -> bool:
        """Queue a job for a caller; return False if it, or its answer, is there already.

        Raises:
            RefusalError: The queue is full, or this caller's part of it.
            OSError: The disk is full.
        """
        limits = self._settings.limits
        with self._submitting:
            if self.has(request):
                return False
            _check_room(self._ledger.count("queued"), limits.queued, "jobs wait")
            own = self._ledger.count("queued", caller)
            _check_room(own, limits.queued_per_token, f"jobs of token {caller} wait")
            for job_id in self._ledger.forget_oldest(limits.kept - 1):
                self._remove_files(job_id)
            self._ledger.add(request, caller)
        self._wake()
        return True

    def progress(self, job: Job) -> float:
        """Return the share of a job that is done, 0..1."""
        return 1.0 if job.status == "done" else self._progress.get(job.id, 0.0)

    def cancel(self, job: Job) -> None:
        """End a job that has not finished; its worker a moment later."""
        if job.status in FINISHED:
            return
        self._ledger.finish(job.id, "cancelled")
        self._end(job.id)

    def delete(self, job: Job) -> None:
        """Forget a job, its answer and its files, ending it first."""
        self._ledger.delete(job.id)
        self._end(job.id)
        self._remove_files(job.id)

    def _end(self, job_id: str) -> None:
        self._to_end.append(job_id)
        self._wake()

    def _remove_files(self, job_id: str) -> None:
        shutil.rmtree(self._settings.sweep_folder / job_id, ignore_errors=True)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send_bytes(b".")

    def _run(self) -> None:
        assert self._pool is not None
        while not self._stop.is_set():
            try:
                self._tick(self._pool)
            except Exception:
                _LOG.exception("the scheduler stumbled; it goes on")
                self._stop.wait(TICK_S)

    def _tick(self, pool: Workers[str]) -> None:
        while self._to_end:
            job_id = self._to_end.popleft()
            pool.end(job_id)
            self._progress.pop(job_id, None)
        self._write()
        while not self._unwritten and pool.num_free and (found := self._take()):
            job, body = found
            self._progress[job.id] = 0.0
            pool.submit([(job.id, (job.id, job.kind, body))])
        for event in pool.wait(TICK_S, [self._wake_reader]):
            self._note(event_of(event, self._settings.limits))
        while self._wake_reader.poll():
            self._wake_reader.recv_bytes()

    def _take(self) -> tuple[Job, str] | None:
        try:
            return self._ledger.take()
        except OSError as error:
            self._complain(error)
            return None

    def _note(self, event: Event) -> None:
        match event:
            case Progress(job_id, share):
                if job_id in self._progress:
                    self._progress[job_id] = share
                return
            case Answered(job_id, answer):
                self._unwritten.append(lambda: self._finish(job_id, "done", answer=answer))
            case Failed(job_id, found):
                self._unwritten.append(lambda: self._finish(job_id, "failed", problem=found))
            case Lost(job_id, reason):
                self._unwritten.append(lambda: self._lose(job_id, reason))
        self._progress.pop(event.job_id, None)
        self._write()

    def _finish(self, job_id: str, status: Status, **what: object) -> None:
        job = self._ledger.job(job_id)
        if job is not None and job.status == "running":  # neither cancelled nor deleted meanwhile
            self._ledger.finish(job_id, status, **what)  # type: ignore[arg-type]

    def _lose(self, job_id: str, reason: str) -> None:
        job = self._ledger.job(job_id)
        if job is not None and job.status == "running":
            self._try_again(job, reason)

    def _try_again(self, job: Job, reason: str) -> None:
        """Put a job back into the queue, unless it has taken too many workers down."""
        limit = self._settings.limits.attempts
        if job.attempts < limit:
            self._ledger.requeue(job.id)
            return
        said = f"{reason}, {job.attempts} times in a row; not tried again"
        self._ledger.finish(
            job.id, "failed", problem=problem(500, said, "interrupted", limit=limit, value=job.attempts)
        )

    def _write(self) -> None:
        """Write what has happened, in order; on a full disk later."""
        while self._unwritten:
            try:
                self._unwritten[0]()
            except OSError as error:
                self._complain(error)
                return
            self._unwritten.popleft()
        self.storage_complaint = None

    def _complain(self, error: OSError) -> None:
        if self.storage_complaint is None:
            _LOG.error("%s: %s; tried again every %g s", error.filename, error.strerror, STORAGE_PAUSE_S)
        self.storage_complaint = os.strerror(error.errno) if error.errno else str(error)
        self._stop.wait(STORAGE_PAUSE_S)


def _check_room(waiting: int, limit: int, what: str) -> None:
    if waiting >= limit:
        said = f"{waiting} {what}, which is the limit; try again when some are done"
        raise RefusalError(429, "queue-full", said, limit=limit, value=waiting, headers={"Retry-After": "10"})


def wait_until_up(scheduler: Scheduler, timeout_s: float) -> bool:
    """Return whether every worker is ready within the time."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if scheduler.num_up and scheduler.is_alive:
            return True
        time.sleep(0.05)
    return False
