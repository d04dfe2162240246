"""A neighbour: a process on another core that trains while something is timed on this one, and tells how long it took.

It does what the trainer of a run does, over and over, from the same policy. Does not know what is timed.
"""

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Literal

from profiler.errors import DeviceError
from profiler.testbed.actors import one_thread, pin
from profiler.testbed.engine import Finished, Request
from profiler.testbed.parts import Sums
from profiler.testbed.train_times import TrainTimes
from traces.testbed import TestbedConfig

Role = Literal["rollout", "trainer"]
PATIENCE_S = 120.0
CORE_OF = {"rollout": 0, "trainer": 1}
"""As the actors of a run are bound."""


@dataclass(slots=True)
class Beside:
    """What a neighbour did in the time that it was there; empty until it is gone."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def take_core(role: Role) -> None:
    """Compute on the core of a role, on one thread."""
    pin(CORE_OF[role])
    one_thread()


@contextlib.contextmanager
def training_beside(config: TestbedConfig, finished: Sequence[Finished]) -> Iterator[Beside]:
    """Let another process train for as long as the block lasts; what it yields is filled when it ends.

    Args:
        config: Of the run.
        finished: Responses that it trains on.

    Raises:
        DeviceError: It died.
    """
    context = multiprocessing.get_context("spawn")
    is_busy, is_over = context.Event(), context.Event()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(config, finished, is_busy, is_over, theirs), daemon=True)
    process.start()
    theirs.close()  # so that ours ends with the process
    beside = Beside()
    try:
        if not is_busy.wait(PATIENCE_S):
            raise DeviceError(f"the neighbour that trains is not busy after {PATIENCE_S:.0f} s; repeat")
        yield beside
        is_over.set()
        try:
            beside.tokens, beside.seconds = ours.recv()
        except EOFError:
            raise DeviceError("the neighbour that trains died; free memory and repeat") from None
    finally:
        is_over.set()
        process.join(10)
        process.kill()


def _train(
    config: TestbedConfig, finished: Sequence[Finished], is_busy: Event, is_over: Event, answer: Connection
) -> None:
    take_core("trainer")
    times = TrainTimes(config, finished)
    is_busy.set()
    parent = multiprocessing.parent_process()
    while not times.seconds or (not is_over.is_set() and parent is not None and parent.is_alive()):
        times.take()
    answer.send((times.tokens, times.seconds))


def requests_of(config: TestbedConfig, num_groups: int) -> list[Request]:
    """Return the first groups that a run of the config would ask for."""
    task = Sums(config)
    return [request for group in range(num_groups) for request in task.requests(group, group * config.group_size)]
