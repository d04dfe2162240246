"""Jobs: work that cannot say how far it is, done in a thread of its own so that a page can wait, or stop waiting.

A thread cannot be ended: work that nobody waits for any more goes on to its end, and only its result is dropped. So
what is done here takes seconds, not minutes.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def start(function: Callable[[], T]) -> "Future[T]":
    """Return the future of a function that has begun; the thread does not keep the server from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # whoever waits for it decides
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def is_done(future: "Future[T]", timeout_s: float) -> bool:
    """Return whether a function has come to its end, having waited for it so long at most."""
    wait([future], timeout_s)
    return future.done()
