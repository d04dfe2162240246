"""Worker: sessions of llama.cpp in a process of their own, pinned to cores, so that nothing it does can end ours.

llama.cpp aborts where it finds itself in a state that it did not expect, and does not return from a call for Ctrl-C.
Where the system allows it and a core is left for others, the process has real-time priority: an engine hands each step
from thread to thread, and on a busy machine would wait for a core twice a step (`nice` does not help where sessions
are scheduled as groups, Linux's default). Does not know what is measured.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from profiler.errors import DeviceError
from profiler.sources.llamacpp.session import Answer, Call, EngineSession, EngineSettings

ENGINE_PRIORITY, CALLER_PRIORITY = 1, 2
"""Real-time priorities: calls sent together are all there before the engine takes up the first."""
MAX_WAIT_S = 300.0
"""An engine that says nothing for so long counts as dead."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers to calls that were sent together."""

    answers: tuple[Answer, ...]
    wall_s: float
    """From the first call to the last answer."""
    cpu_s: float
    """Time that the engine's process had a core meanwhile, all threads together."""

    def on_core_share(self, num_threads: int) -> float:
        """Return the share of `wall_s` in which the engine ran: less than 1 where other processes took its core.

        Of one thread, which is busy from the first call to the last answer; several wait for each other: 1.
        """
        return min(self.cpu_s / self.wall_s, 1.0) if num_threads == 1 else 1.0


class Engine(Protocol):
    """What answers calls: a worker, or what a test puts in its place."""

    def complete(self, settings: EngineSettings, calls: Sequence[Call]) -> Batch:
        """Send calls to a server of these settings, which is started when it is needed.

        Raises:
            DeviceError: It dies, does not start, or refuses a call.
        """


class EngineWorker:
    """A process that starts a session for every setting it is asked for and keeps it; use it as a context manager."""

    def __init__(self, cores: tuple[int, ...] = ()) -> None:
        """Pin the engine to these cores; none: wherever the system likes."""
        self._cores = cores
        self._process: Any = None
        self._connection: Connection | None = None
        self._log = tempfile.NamedTemporaryFile(prefix="bebop-llamacpp-", suffix=".log")  # noqa: SIM115  # until close

    def __enter__(self) -> "EngineWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def complete(self, settings: EngineSettings, calls: Sequence[Call]) -> Batch:
        """See `Engine`; after a death the next call starts afresh."""
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((settings, tuple(calls)))
            if not self._connection.poll(MAX_WAIT_S):
                raise DeviceError(f"llama.cpp has not answered for {MAX_WAIT_S:.0f} s; lower the batch or the context")
            result = self._connection.recv()
        except (EOFError, OSError):
            raise DeviceError(self._last_words()) from None
        except BaseException:
            self.close()
            raise
        if isinstance(result, Batch):
            return result
        raise DeviceError(str(result))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._cores, self._log.name), daemon=True)
        self._process.start()
        theirs.close()

    def _last_words(self) -> str:
        """Return what is known of a process that has died."""
        self._process.join(10)
        code = self._process.exitcode
        self.close()
        lines = [line for line in Path(self._log.name).read_text(errors="replace").splitlines() if line.strip()]
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        words = f": {' '.join(lines[-1].split())[:160]}" if lines else ""
        return f"llama.cpp died ({cause}{words}); lower the batch or the context, or report it to llama.cpp"


def _serve(connection: Connection, cores: tuple[int, ...], log: str) -> None:
    """Answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    priority = _take(cores)
    os.environ["GGML_NO_BACKTRACE"] = "1"  # it would start a debugger
    file = os.open(log, os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sessions: dict[EngineSettings, EngineSession] = {}
    while True:
        try:
            settings, calls = connection.recv()
        except EOFError:
            return
        try:
            if settings not in sessions:
                priority(ENGINE_PRIORITY)
                sessions[settings] = EngineSession(settings)
                priority(CALLER_PRIORITY)
            start_s, cpu_s = time.perf_counter(), time.process_time()
            answers = sessions[settings].complete(calls)
            wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
            connection.send(Batch(tuple(answers), wall_s, cpu_s))
        except DeviceError as error:
            connection.send(str(error))


def _take(cores: tuple[int, ...]) -> Callable[[int], None]:
    """Run on these cores only; return what gives this thread, and those it starts, a real-time priority if allowed."""
    leaves_room = False
    if cores and hasattr(os, "sched_setaffinity"):
        leaves_room = bool(os.sched_getaffinity(0) - set(cores))
        os.sched_setaffinity(0, cores)

    def priority(level: int) -> None:
        if leaves_room:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(level))

    return priority
