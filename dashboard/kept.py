"""Kept: the latest results by key, shared by all visitors of a server. Does not know what they are."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """At most so many results, the least used dropped first; safe among threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._results: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """Return a result, None if it is not here."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def take(self, key: str, make: Callable[[], T]) -> T:
        """Return a result, made only if it is not here yet; two at once may both make it."""
        found = self.get(key)
        if found is not None:
            return found
        made = make()
        with self._lock:
            self._results[key] = made
            while len(self._results) > self._most:
                self._results.popitem(last=False)
        return made
