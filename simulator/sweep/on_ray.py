"""Ray executor: a batch is a Ray task. The only file of the simulator that knows Ray.

A task that dies takes its batch along; the driver sends such points again, one by one, and the culprit gets a name.
"""

import contextlib
import faulthandler
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, TaskCancelledError, WorkerCrashedError

from simulator.errors import ClusterError, SweepError
from simulator.sweep.executor import Broken, Event, Returned, Task, attempt
from simulator.sweep.local import POINT_TIMEOUT_S, late
from simulator.sweep.point import evaluate

START_TIMEOUT_S: Final = 300.0
"""Allowance for a task to find a place, and for its process to start and import the kernels."""
FETCH_TIMEOUT_S: Final = 30.0
"""For a result to come from its node; one that takes longer is worked out again."""
CONNECT_TIMEOUT_S: Final = 10.0
STDERR: Final = 2
HEAD_EVERY_S: Final = 2.0
"""How often the head is asked whether it is there."""
HEAD_PATIENCE_S: Final = 15.0
"""A head that is silent for so long is gone. After 60 s Ray would end this process without a word of ours."""

_REPLACED: Final = ("127.0.0.1", "localhost", "[::1]")
"""Addresses that Ray takes as those of the machine on its network."""


@dataclass(slots=True)
class _Batch:
    indices: list[int]
    since_s: float


class RayExecutor:
    """Tasks on a Ray cluster, or on one of this machine that ends with the sweep."""

    def __init__(
        self,
        address: str | None = None,
        num_workers: int | None = None,
        *,
        timeout_s: float = POINT_TIMEOUT_S,
        function: Callable[[str], str] = evaluate,
    ) -> None:
        """Connect to `address` (`host:port`), or start Ray on this machine's loopback.

        Raises:
            ClusterError: No cluster answers there.
            SweepError: The address is none, or would be spoken to over a network without a token.
        """
        self._timeout_s = timeout_s
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._was_connected = ray.is_initialized()
        if not self._was_connected:
            self._connect(address, num_workers)
        is_client = address is not None and address.startswith("ray://")
        self._head = _Head(address if address and is_client else ray.get_runtime_context().gcs_address)
        slots = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        self._num_workers = max(1, slots if num_workers is None else min(num_workers, slots))
        self._run = ray.remote(num_cpus=1, max_retries=0)(_run_batch)
        self._function = ray.put(function)
        self._batches: dict[Any, _Batch] = {}

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def num_free(self) -> int:
        return self._num_workers - len(self._batches)

    def submit(self, batch: Sequence[Task]) -> None:
        reference = self._run.remote(self._function, self._timeout_s, list(batch))
        self._batches[reference] = _Batch([index for index, _ in batch], time.monotonic())

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._batches:
            return []
        ready, _ = ray.wait(list(self._batches), num_returns=1, timeout=timeout_s)
        events: list[Event] = []
        for reference in ready:
            events += self._collect(reference)
        for reference, batch in list(self._batches.items()):
            # A point ends its own process in time; this is for tasks that never begin, and for nodes that are gone.
            if time.monotonic() - batch.since_s > self._timeout_s * len(batch.indices) + START_TIMEOUT_S:
                with contextlib.suppress(RayError):
                    ray.cancel(reference, force=True)
                del self._batches[reference]
                events += _lost(batch.indices, late(self._timeout_s), retry=False)
        self._head.check()
        return events

    def close(self) -> None:
        for reference in self._batches:
            with contextlib.suppress(RayError):
                ray.cancel(reference, force=True)
        self._batches.clear()
        if not self._was_connected:
            ray.shutdown()
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a process of Ray may still be writing its log
                self._folder.cleanup()

    def _collect(self, reference: Any) -> list[Event]:
        batch = self._batches.pop(reference)
        try:
            events: list[Event] = ray.get(reference, timeout=FETCH_TIMEOUT_S)
            return events
        except (RayError, GetTimeoutError, TaskCancelledError) as error:
            if isinstance(error, WorkerCrashedError) and time.monotonic() - batch.since_s >= self._timeout_s:
                return _lost(batch.indices, late(self._timeout_s), retry=False)
            if isinstance(error, OutOfMemoryError):
                return _lost(batch.indices, f"out of memory: {_first_line(error)}", retry=True)
            name = type(error).__name__
            return _lost(batch.indices, f"its Ray worker was lost ({name}: {_first_line(error)})", retry=True)

    def _connect(self, address: str | None, num_workers: int | None) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(dict.fromkeys([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "bebop-sweep"}
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
        if address is None:
            self._folder = tempfile.TemporaryDirectory(prefix="bebop-ray-")
            options |= {"num_cpus": num_workers or os.cpu_count() or 1, "include_dashboard": False}
            options |= {"_temp_dir": self._folder.name, "_node_ip_address": "127.0.0.1", "address": "local"}
        else:
            _check_address(address)
            options["address"] = address
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, RayError) as error:
            raise ClusterError(
                f"--address {address}: no Ray cluster answers there ({_first_line(error)}); check the address and the "
                "token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH), or use --executor local"
            ) from None


class _Head:
    """The node without which no task ends; Ray itself waits for it in silence."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._asked_s = self._heard_s = time.monotonic()

    def check(self) -> None:
        """Ask, not too often, whether it is there.

        Raises:
            ClusterError: It has not been for HEAD_PATIENCE_S.
        """
        if time.monotonic() - self._asked_s < HEAD_EVERY_S:
            return
        self._asked_s = time.monotonic()
        with contextlib.suppress(OSError):
            socket.create_connection(self._address, timeout=HEAD_EVERY_S).close()
            self._heard_s = time.monotonic()
        silent_s = time.monotonic() - self._heard_s
        if silent_s > HEAD_PATIENCE_S:
            host, port = self._address
            raise ClusterError(
                f"the Ray cluster at {host}:{port} has not answered for {silent_s:.0f} s; what was finished is kept, "
                "--resume goes on when it is back"
            )


def _run_batch(function: Callable[[str], str], timeout_s: float, batch: list[Task]) -> list[Event]:
    """Run a batch in a worker. A point that hangs, even in a compiled loop, ends the process and shows where it was."""
    try:
        events = []
        for index, text in batch:
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)
            events.append(attempt(function, index, text))
        return events
    finally:
        faulthandler.cancel_dump_traceback_later()


def _lost(indices: list[int], reason: str, *, retry: bool) -> list[Event]:
    """Return what is known of a batch that did not come back: of one point everything, of many nothing."""
    if len(indices) == 1:
        return [Broken(indices[0], reason, retry=retry)]
    return [Returned(index, alone=True) for index in indices]


def _check_address(address: str) -> None:
    """Find out in seconds what takes Ray minutes; speak to another machine only with a token.

    Ray runs whatever it is sent (CVE-2023-48022). It replaces 127.0.0.1 by the machine's address, but no other loopback
    address.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise SweepError(f"--address {address}: not of the form HOST:PORT, e.g. 127.0.0.2:6379")
    is_here = host.startswith("127.") or host in ("localhost", "[::1]")
    if not is_here and os.environ.get("RAY_AUTH_MODE") != "token":
        raise SweepError(
            f"--address {address}: a Ray cluster beyond this machine runs code for anyone who reaches it; start it and "
            "this command with RAY_AUTH_MODE=token"
        )
    is_replaced = host in _REPLACED and not address.startswith("ray://")
    met: str = ray.util.get_node_ip_address() if is_replaced else host  # type: ignore[no-untyped-call]
    try:
        socket.create_connection((met.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        where = f", which Ray takes as {met}" if met != host else ""
        loopback = "start it with --node-ip-address 127.0.0.2 for loopback, " if met != host else ""
        raise ClusterError(
            f"--address {address}{where}: nothing answers there ({_first_line(error)}); check the address, "
            f"{loopback}or use --executor local"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
