"""An executor without processes, which answers in any order."""

from collections.abc import Callable, Sequence

from simulator.sweep.executor import Done, Event, Task
from tests.simulator.sweep import tasks


class InProcess:
    """Runs points in this process, a few at a time, in the order that `pick` chooses; may tell everything twice."""

    def __init__(
        self, function: Callable[[str], str] = tasks.fine, pick: Callable[[int], int] = lambda n: 0, echo: bool = False
    ) -> None:
        self.num_workers, self.ran = 3, 0
        self._function, self._pick, self._echo = function, pick, echo
        self._batches: list[list[Task]] = []

    @property
    def num_free(self) -> int:
        return self.num_workers - len(self._batches)

    def submit(self, batch: Sequence[Task]) -> None:
        assert self.num_free
        self._batches.append(list(batch))

    def wait(self, timeout_s: float) -> list[Event]:
        batch = self._batches.pop(self._pick(len(self._batches)))
        self.ran += len(batch)
        events: list[Event] = [Done(index, self._function(text)) for index, text in batch]
        return events * 2 if self._echo else events

    def close(self) -> None:
        self._batches.clear()
