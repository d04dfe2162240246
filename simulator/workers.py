"""Workers: processes of this machine that work out items, each one at a time, with kernels of its own.

One that dies, hangs or holds too much memory is ended; that costs the item it had, and no other. Does not know what an
item is. One thread uses them.
"""

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
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

Key = TypeVar("Key", int, str)
"""Names an item."""

Handle = Callable[[Any, Callable[[Any], None]], Any]
"""Works out an item in a worker: (item, what to call with news of it) -> its answer. What it raises ends the worker."""

Cause = Literal["died", "late", "memory"]
"""`late`: the item took longer than it may; `memory`: the worker held more than it may."""

START_TIMEOUT_S: Final = 300.0
"""A worker that takes longer to import the kernels, which are compiled before, will not come."""


@dataclass(frozen=True, slots=True)
class Said(Generic[Key]):
    """News of an item, or its answer."""

    key: Key
    content: Any


@dataclass(frozen=True, slots=True)
class Ended(Generic[Key]):
    """The worker of an item ended, or was ended."""

    key: Key
    cause: Cause
    reason: str
    """As one says it of a worker: `ended with exit code 9`."""
    value: float
    """Seconds since the item began, or bytes that the worker held."""
    behind: tuple[Key, ...]
    """Items of the same batch that had not begun."""


Event = Said[Key] | Ended[Key]


@dataclass(slots=True)
class _Worker(Generic[Key]):
    process: BaseProcess
    connection: Connection
    since_s: float
    """When its item began, or it was started."""
    keys: deque[Key] = field(default_factory=deque)
    """Items of its batch without an answer; the first one is being worked out."""
    is_up: bool = False
    """Whether it has imported everything; the time of an item begins then."""


class Workers(Generic[Key]):
    """A number of processes; one that ended is replaced, at once or when it is wanted."""

    def __init__(
        self,
        num_workers: int,
        prepare: Callable[[], Handle],
        *,
        item_s: float,
        memory_bytes: int | None = None,
        keep_warm: bool = False,
    ) -> None:
        """Start the workers, or nothing yet.

        Args:
            num_workers: At most so many at a time.
            prepare: Called once in each worker; it, and what it is bound to, can be imported by name.
            item_s: An item that takes longer ends its worker.
            memory_bytes: A worker that holds more in the middle of an item is ended; None: whatever there is.
            keep_warm: Have all of them up before there is work, not each at its first batch.
        """
        self.num_workers = num_workers
        self._prepare, self._item_s, self._memory_bytes, self._keep_warm = prepare, item_s, memory_bytes, keep_warm
        self._context = multiprocessing.get_context("spawn")  # threads of this process must not be copied
        self._workers: list[_Worker[Key]] = []
        self._fill()

    @property
    def num_free(self) -> int:
        """Batches that can be submitted now."""
        return self.num_workers - sum(bool(worker.keys) for worker in self._workers)

    @property
    def num_up(self) -> int:
        """Workers that have imported everything."""
        return sum(worker.is_up for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid or 0 for worker in self._workers]

    def submit(self, batch: Sequence[tuple[Key, Any]]) -> None:
        """Begin a batch of (key, item); only while `num_free` is above 0."""
        idle = [worker for worker in self._workers if not worker.keys]
        worker = idle[0] if idle else self._start()
        worker.keys.extend(key for key, _ in batch)
        worker.since_s = time.monotonic()
        with contextlib.suppress(OSError):  # it died since; `wait` finds out
            worker.connection.send([item for _, item in batch])

    def end(self, key: Key) -> None:
        """End the worker that has an item, if one has."""
        for worker in [worker for worker in self._workers if key in worker.keys]:
            self._remove(worker)
        self._fill()

    def wait(self, timeout_s: float, others: Sequence[Connection] = ()) -> list[Event[Key]]:
        """Return what happened, as soon as something did, or `others` can be read, or the time has passed."""
        ready = set(wait([*(worker.connection for worker in self._workers), *others], timeout_s))
        events: list[Event[Key]] = []
        for worker in list(self._workers):
            if worker.connection in ready:
                events += self._read(worker)
        for worker in list(self._workers):
            events += self._check(worker)
        self._fill()
        return events

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        while self._workers:
            self._remove(self._workers[-1])

    def _fill(self) -> None:
        while self._keep_warm and len(self._workers) < self.num_workers:
            self._start()

    def _start(self) -> _Worker[Key]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._prepare))
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic()))
        return self._workers[-1]

    def _remove(self, worker: _Worker[Key]) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)

    def _read(self, worker: _Worker[Key]) -> list[Event[Key]]:
        """Return all messages that are there; the pipe's end says that the worker died."""
        events: list[Event[Key]] = []
        try:
            while worker.connection.poll():
                is_answer, content = worker.connection.recv()
                if not worker.is_up:
                    worker.is_up, worker.since_s = True, time.monotonic()
                    continue
                events.append(Said(worker.keys[0], content))
                if is_answer:
                    worker.keys.popleft()
                    worker.since_s = time.monotonic()
        except (EOFError, OSError):
            worker.process.join()
            events += self._lose(worker, "died", _ending(worker.process.exitcode), 0.0)
        return events

    def _check(self, worker: _Worker[Key]) -> list[Event[Key]]:
        """End a worker that goes on for too long or holds too much."""
        passed_s = time.monotonic() - worker.since_s
        if not worker.is_up and passed_s > START_TIMEOUT_S:
            return self._lose(worker, "died", f"did not start within {START_TIMEOUT_S:g} s", passed_s)
        if not worker.is_up or not worker.keys:
            return []
        if passed_s > self._item_s:
            return self._lose(worker, "late", f"gave no answer within {self._item_s:g} s", passed_s)
        if self._memory_bytes is not None and (held := _memory_bytes(worker.process.pid)) > self._memory_bytes:
            return self._lose(worker, "memory", f"held {held} bytes, the limit is {self._memory_bytes}", held)
        return []

    def _lose(self, worker: _Worker[Key], cause: Cause, reason: str, value: float) -> list[Event[Key]]:
        self._remove(worker)
        if worker.keys:
            return [Ended(worker.keys[0], cause, reason, value, tuple(worker.keys)[1:])]
        if not worker.is_up:
            time.sleep(1.0)  # something is wrong with this machine: do not spin
        return []


def _work(connection: Connection, prepare: Callable[[], Handle]) -> None:
    """Answer batches until whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and a stop are the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    handle = prepare()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send((False, None))  # it is up
        while True:
            for item in connection.recv():
                connection.send((True, handle(item, lambda news: connection.send((False, news)))))


def _end_with_parent() -> None:
    """Leave no orphan, not even one that hangs in an item."""
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
