"""Local executor: worker processes on this machine. A worker that dies or hangs costs its point, not the sweep."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from simulator.sweep.executor import Broken, Event, Returned, Task, attempt
from simulator.sweep.point import evaluate

POINT_TIMEOUT_S: Final = 600.0
"""A point that takes longer hangs, by default."""
START_TIMEOUT_S: Final = 300.0
"""A worker that takes longer to import the kernels, which the driver has compiled, will not come."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    waiting: deque[int] = field(default_factory=deque)
    """Points of its batch without an answer; the first one is being run."""
    since_s: float = 0.0
    """When the first of them began, or the worker before its first one."""
    is_up: bool = False
    """Whether it has imported everything; the time of a point begins then."""


class LocalExecutor:
    """Processes of this machine, each with its own kernels, loaded from the cache that the driver has filled."""

    def __init__(
        self,
        num_workers: int,
        *,
        timeout_s: float = POINT_TIMEOUT_S,
        function: Callable[[str], str] = evaluate,
    ) -> None:
        """Start nothing yet; `function` must be importable by name."""
        self._num_workers, self._timeout_s, self._function = num_workers, timeout_s, function
        self._context = multiprocessing.get_context("spawn")  # threads of the driver must not be copied
        self._workers: list[_Worker] = []

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def num_free(self) -> int:
        return self._num_workers - sum(bool(worker.waiting) for worker in self._workers)

    def submit(self, batch: Sequence[Task]) -> None:
        idle = [worker for worker in self._workers if not worker.waiting]
        worker = idle[0] if idle else self._start()
        worker.waiting.extend(index for index, _ in batch)
        worker.since_s = time.monotonic()
        with contextlib.suppress(OSError):  # it died since; `wait` finds out
            worker.connection.send(list(batch))

    def wait(self, timeout_s: float) -> list[Event]:
        busy = [worker for worker in self._workers if worker.waiting]
        ready = set(wait([worker.connection for worker in busy], timeout_s))
        events: list[Event] = []
        for worker in busy:
            if worker.connection in ready:
                events += self._read(worker)
            limit_s = self._timeout_s if worker.is_up else START_TIMEOUT_S
            if worker.waiting and time.monotonic() - worker.since_s > limit_s:
                reason = f"no answer within {limit_s:g} s; raise --timeout if it needs longer"
                events += self._lose(worker, reason, retry=not worker.is_up)
        return events

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _read(self, worker: _Worker) -> list[Event]:
        """Return all answers that are there; the pipe's end says that the worker died."""
        events: list[Event] = []
        try:
            while worker.waiting and worker.connection.poll():
                event: Event | None = worker.connection.recv()
                worker.since_s = time.monotonic()
                if event is None:
                    worker.is_up = True
                else:
                    worker.waiting.popleft()
                    events.append(event)
        except (EOFError, OSError):
            worker.process.join()
            events += self._lose(worker, f"its worker {_ending(worker.process.exitcode)}", retry=True)
        return events

    def _lose(self, worker: _Worker, reason: str, *, retry: bool) -> list[Event]:
        """End a worker; what it was running is broken, the rest of its batch comes back."""
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        culprit, *rest = worker.waiting
        worker.waiting.clear()
        return [Broken(culprit, reason, retry=retry), *(Returned(index, alone=False) for index in rest)]


def _work(connection: Connection, function: Callable[[str], str]) -> None:
    """Answer batches until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_end_with_driver, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        connection.send(None)
        while True:
            for index, text in connection.recv():
                connection.send(attempt(function, index, text))


def _end_with_driver() -> None:
    """Leave no orphan, not even one that hangs in a point."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"
