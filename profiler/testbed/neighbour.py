"""A neighbour: a process on another core that trains, or generates, while something is timed on this one.

It does what the other role of a run does, over and over, from the same policy. Does not know what is timed.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from typing import Literal

from profiler.errors import DeviceError
from profiler.testbed.actors import one_thread, pin
from profiler.testbed.engine import Finished, Request
from profiler.testbed.parts import PreparedParts, Sums
from profiler.testbed.trainer import Example
from traces.testbed import TestbedConfig

Role = Literal["rollout", "trainer"]
PATIENCE_S = 120.0
CORE_OF = {"rollout": 0, "trainer": 1}
"""As the actors of a run are bound."""


def take_core(role: Role) -> None:
    """Compute on the core of a role, on one thread."""
    pin(CORE_OF[role])
    one_thread()


@contextlib.contextmanager
def neighbour(config: TestbedConfig, role: Role, finished: list[Finished]) -> Iterator[None]:
    """Let another process be busy for as long as the block lasts.

    Args:
        config: Of the run.
        role: What it does.
        finished: Responses that it trains on, or whose prompts it answers.

    Raises:
        DeviceError: It died.
    """
    context = multiprocessing.get_context("spawn")
    is_busy, is_over = context.Event(), context.Event()
    process = context.Process(target=_be_busy, args=(config, role, finished, is_busy, is_over), daemon=True)
    process.start()
    try:
        if not is_busy.wait(PATIENCE_S):
            raise DeviceError(f"the neighbour that plays the {role} is not busy after {PATIENCE_S:.0f} s; repeat")
        yield
        if not process.is_alive():
            raise DeviceError(f"the neighbour that plays the {role} died; free memory and repeat")
    finally:
        is_over.set()
        process.join(10)
        process.kill()


def _be_busy(config: TestbedConfig, role: Role, finished: list[Finished], is_busy: Event, is_over: Event) -> None:
    take_core(role)
    work = _training(config, finished) if role == "trainer" else _generating(config, finished)
    work()
    is_busy.set()
    parent = multiprocessing.parent_process()
    while not is_over.is_set() and parent is not None and parent.is_alive():
        work()


def _training(config: TestbedConfig, finished: list[Finished]) -> Callable[[], object]:
    learner, examples = PreparedParts().learner(config), examples_of(finished, config)
    return lambda: learner.train(examples)


def _generating(config: TestbedConfig, finished: list[Finished]) -> Callable[[], object]:
    engine = PreparedParts().engine(config)
    requests = [one.request for one in finished]

    def step() -> None:
        if engine.num_waiting == 0:
            engine.submit(requests)
        engine.step()

    return step


def examples_of(finished: list[Finished], config: TestbedConfig) -> list[Example]:
    """Return one RL step's worth of responses to train on, every second of them praised."""
    num = config.prompts_per_step * config.group_size
    chosen = [finished[index % len(finished)] for index in range(num)]
    return [
        Example(one.request.prompt, one.tokens, one.log_probs, 1.0 if index % 2 else -1.0)
        for index, one in enumerate(chosen)
    ]


def requests_of(config: TestbedConfig, num_groups: int) -> list[Request]:
    """Return the first groups that a run of the config would ask for."""
    task = Sums(config)
    return [request for group in range(num_groups) for request in task.requests(group, group * config.group_size)]
