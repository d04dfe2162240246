"""Local executor: worker processes on this machine. A worker that dies or hangs costs its point, not the sweep."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from simulator.sweep.executor import Broken, Event, Returned, Task, attempt
from simulator.sweep.point import evaluate
from simulator.workers import Ended, Handle, Workers

POINT_TIMEOUT_S: Final = 600.0
"""A point that takes longer hangs, by default."""


class LocalExecutor:
    """Processes of this machine, which load the kernels from the cache that the driver has filled."""

    def __init__(
        self,
        num_workers: int,
        *,
        timeout_s: float = POINT_TIMEOUT_S,
        memory_bytes: int | None = None,
        function: Callable[[str], str] = evaluate,
    ) -> None:
        """Start nothing yet; `function` must be importable by name, `memory_bytes` is what a worker may hold."""
        self._timeout_s = timeout_s
        self._workers: Workers[int] = Workers(
            num_workers, partial(_prepare, function), item_s=timeout_s, memory_bytes=memory_bytes
        )

    @property
    def num_workers(self) -> int:
        return self._workers.num_workers

    @property
    def num_free(self) -> int:
        return self._workers.num_free

    def submit(self, batch: Sequence[Task]) -> None:
        self._workers.submit([(task[0], task) for task in batch])

    def wait(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for found in self._workers.wait(timeout_s):
            if isinstance(found, Ended):
                events += [self._broken(found), *(Returned(index, alone=False) for index in found.behind)]
            else:
                events.append(found.content)
        return events

    def close(self) -> None:
        self._workers.close()

    def _broken(self, ended: Ended[int]) -> Broken:
        match ended.cause:
            case "late":
                return Broken(ended.key, late(self._timeout_s), retry=False)
            case "memory":
                return Broken(ended.key, f"out of memory: its worker {ended.reason}; raise --memory", retry=False)
            case "died":
                return Broken(ended.key, f"its worker {ended.reason}")


def late(timeout_s: float) -> str:
    """Return what is said of a point that hangs."""
    return f"no answer within {timeout_s:g} s; raise --timeout if it needs longer"


def _prepare(function: Callable[[str], str]) -> Handle:
    return partial(_handle, function)


def _handle(function: Callable[[str], str], task: Task, _send: Callable[[Any], None]) -> Event:
    return attempt(function, *task)
