"""Cluster: whether the Ray cluster on which a service runs its sweeps is there. Imports no Ray; any thread may ask."""

import socket
import threading
import time
from typing import Final

from simulator.service.problems import RefusalError

ASK_EVERY_S: Final = 2.0
TIMEOUT_S: Final = 1.0


class Cluster:
    """A cluster by its head's address; None is no cluster, which is always there."""

    def __init__(self, address: str | None) -> None:
        self._address, self._lock = address, threading.Lock()
        self._asked_s, self._complaint = -ASK_EVERY_S, ""

    def check(self) -> None:
        """Ask the head, not too often, whether it is there.

        Raises:
            RefusalError: It is not (503).
        """
        if self._address is None:
            return
        with self._lock:
            if time.monotonic() - self._asked_s >= ASK_EVERY_S:
                self._complaint = _complaint(self._address)
                self._asked_s = time.monotonic()
            complaint = self._complaint
        if complaint:
            said = f"the Ray cluster of this service does not answer ({complaint}); runs and plans need none"
            raise RefusalError(503, "no-cluster", said, headers={"Retry-After": "10"})


def _complaint(address: str) -> str:
    """Return why nothing answers at an address; empty: something does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((_met(host.strip("[]")), int(port)), timeout=TIMEOUT_S).close()
    except (OSError, OverflowError, ValueError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _met(host: str) -> str:
    """Return the address that Ray takes: that of the machine on its network instead of 127.0.0.1."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 53))  # sends nothing; as Ray finds it
            return str(probe.getsockname()[0])
        except OSError:
            return host
