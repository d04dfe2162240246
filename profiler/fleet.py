"""Fleet: spreads the samples of one profile over the GPUs of this machine, one worker process each (Ray).

The driver plans, leases a few tasks at a time and is the only one who writes the ledger. A worker that dies loses
nothing: what it was leased is leased again, each task alone, and a task that kills its worker again is infeasible.
Does not know the plan, nor how Ray is started (`local_ray`).
"""

import contextlib
import dataclasses
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Self

from profiler.device import Device, open_device
from profiler.errors import DeviceError
from profiler.ledger import Sample
from profiler.local_ray import import_ray, local_ray
from profiler.models.rank import Rank
from profiler.request import ProfileRequest
from profiler.sampler import Sampler
from profiler.sweeps import Task

LEASE_TASKS = 4
"""Tasks that a worker has at once: so many samples at most are taken again when it dies."""
MAX_DEATHS_ALONE = 2
"""Deaths of a worker that held one task alone before the task counts as infeasible."""
MAX_FAILED_STARTS = 3
"""Deaths of a worker in a row without a sample or a device before it is given up."""
PATIENCE_S = 10.0
"""How long a worker that follows a dead one waits for the driver to clear the GPU."""
MakeSampler = Callable[[int], Sampler]
"""Opens the device of worker number n and returns its sampler."""


@dataclass(frozen=True, slots=True)
class OpenSampler:
    """Opens the device of a worker."""

    request: ProfileRequest
    rank: Rank
    num_workers: int

    def __call__(self, number: int) -> Sampler:
        """Return the sampler of worker `number`; CPU workers share out the cores."""
        if self.request.device == "cpu" and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[number % len(cores) :: self.num_workers])
        request = self.request
        device = open_device(request.device, request.num_threads, is_shared=request.is_shared)
        return Sampler(request, self.rank, device)


class Worker:
    """Takes samples in a process of its own."""

    def __init__(self, make: MakeSampler, number: int, patience_s: float) -> None:
        """Take nothing yet: what goes wrong with a device is said when it is asked for."""
        self._make, self._number, self._patience_s = make, number, patience_s
        self._sampler: Sampler | None = None

    def device(self) -> Device:
        """Return the device without what only this process can use.

        Raises:
            DeviceError: It cannot be opened.
        """
        deadline_s = time.monotonic() + self._patience_s
        while self._sampler is None:
            try:
                self._sampler = self._make(self._number)
            except DeviceError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(1.0)
        device = self._sampler.device
        return dataclasses.replace(device, telemetry=None, limit_bytes=device.usable_bytes())

    def measure(self, tasks: list[Task]) -> list[Sample]:
        """Return one sample of every task."""
        assert self._sampler is not None
        return list(self._sampler.measure(iter(tasks)))


@dataclass(slots=True)
class Fleet:
    """Workers of one profile, from `with` to its end."""

    make: MakeSampler
    num_workers: int
    on_gpus: bool
    _workers: dict[int, Any] = field(default_factory=dict)
    """Number -> Ray actor; those given up are left out."""
    _running: dict[Any, tuple[int, list[Task]]] = field(default_factory=dict)
    """What a worker was asked for -> its number and its lease, empty while it opens its device."""
    _idle: deque[int] = field(default_factory=deque)
    _again: deque[list[Task]] = field(default_factory=deque)
    _deaths: Counter[Task] = field(default_factory=Counter)
    _failed_starts: Counter[int] = field(default_factory=Counter)
    _device: Device | None = None
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Start Ray, apart from any other, and the workers.

        Raises:
            ImportError: Ray is not installed.
            DeviceError: No worker can open its device, or they have different ones.
        """
        with contextlib.ExitStack() as undo:
            undo.enter_context(local_ray(self.num_workers, self.num_workers if self.on_gpus else 0))
            for number in range(self.num_workers):
                self._start(number, patience_s=0.0)
            while len(self._idle) < len(self._workers):
                self._collect(*self._next_ready())
            if not self._workers:
                raise DeviceError("no worker of the fleet could start; see the lines above")
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers and Ray; nothing of them stays."""
        self._undo.close()

    @property
    def device(self) -> Device:
        """The device that every worker has, for everything but timing."""
        assert self._device is not None
        return self._device

    def measure(self, tasks: Iterator[Task]) -> Iterator[Sample]:
        """Yield one sample of every task as they come.

        Raises:
            DeviceError: A time is faster than physics allows, or no worker is left.
        """
        while True:
            while self._idle and (lease := self._next_lease(tasks)):
                number = self._idle.popleft()
                self._running[self._workers[number].measure.remote(lease)] = (number, lease)
            # Idle now means that there is nothing left to lease; without one idle, some may only be starting again.
            if self._idle and not any(lease for _, lease in self._running.values()):
                return
            yield from self._collect(*self._next_ready())

    def _start(self, number: int, patience_s: float) -> None:
        ray = import_ray()
        remote = ray.remote(num_cpus=1, num_gpus=1 if self.on_gpus else 0, max_restarts=0, max_task_retries=0)(Worker)
        worker: Any = remote.remote(self.make, number, patience_s)
        self._workers[number] = worker
        self._running[worker.device.remote()] = (number, [])

    def _next_lease(self, tasks: Iterator[Task]) -> list[Task]:
        return self._again.popleft() if self._again else list(islice(tasks, LEASE_TASKS))

    def _next_ready(self) -> tuple[Any, int, list[Task]]:
        ray = import_ray()
        if not self._running:
            raise DeviceError("no worker of the fleet is left; see the lines above, then repeat the command to go on")
        (ready,), _ = ray.wait(list(self._running), num_returns=1)
        return ready, *self._running.pop(ready)

    def _collect(self, ready: Any, number: int, lease: list[Task]) -> list[Sample]:
        """Return what a worker brought; let it have the next lease, or replace it."""
        ray = import_ray()
        try:
            result = ray.get(ready)
        except ray.exceptions.RayActorError as error:
            return self._replace(number, lease, _cause(error))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DeviceError) and not lease and len(self._workers) > 1:
                self._give_up(number, str(error.cause))
                return []
            raise error.cause from error
        self._failed_starts[number] = 0
        self._idle.append(number)
        if lease:
            return list(result)
        self._meet(result)
        return []

    def _meet(self, device: Device) -> None:
        """Take the first device as everybody's; refuse another."""
        if self._device is None:
            self._device = device
        elif (device.name, device.versions) != (self._device.name, self._device.versions):
            raise DeviceError(
                f"a fleet needs GPUs of one kind, here are {self._device.name} and {device.name}; choose some of them "
                "with CUDA_VISIBLE_DEVICES"
            )

    def _replace(self, number: int, lease: list[Task], cause: str) -> list[Sample]:
        """Start a new worker for a dead one, and lease its tasks again, each alone; return those that are at fault."""
        self._failed_starts[number] += not lease
        if self._failed_starts[number] >= MAX_FAILED_STARTS:
            self._give_up(number, cause)
        else:
            _say(f"worker {number} died ({cause}); {len(lease)} samples are taken again by another")
            self._start(number, PATIENCE_S)
        if len(lease) == 1:
            (task,) = lease
            self._deaths[task] += 1
            if self._deaths[task] >= MAX_DEATHS_ALONE:
                reason = f"killed its worker {self._deaths[task]} times: {cause}"[:300]
                return [Sample(task.purpose, task.point, task.sweep, None, reason)]
        self._again.extend([task] for task in lease)
        return []

    def _give_up(self, number: int, cause: str) -> None:
        _say(f"worker {number} is given up: {cause}")
        del self._workers[number]


def _cause(error: Exception) -> str:
    """Return why an actor died, in a few words, from Ray's page about it."""
    _, _, detail = str(error).partition("Worker exit detail: ")
    return " ".join(detail.split())[:100].partition(". ")[0] or type(error).__name__


def _say(text: str) -> None:
    print(f"fleet: {text}", file=sys.stderr)
