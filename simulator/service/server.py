"""Server: uvicorn around the app, closed to whatever is slow, and to the world unless there are tokens."""

import asyncio
import ipaddress
import socket
from contextlib import closing
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from simulator.errors import ServiceError
from simulator.service.app import create_app
from simulator.service.gate import Tokens
from simulator.service.ledger import Ledger
from simulator.service.settings import Settings

MAX_HEAD_BYTES: Final = 32_768


def serve(settings: Settings, ledger: Ledger, tokens: Tokens, bound: socket.socket, version: str) -> None:
    """Serve on a bound socket until a signal ends it."""
    app = create_app(settings, ledger, tokens, version)
    config = uvicorn.Config(
        app,
        http=_protocol(settings.limits.head_s),
        ws="none",
        lifespan="on",
        access_log=False,  # a token in a query, where it does not belong, would end up in it
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    with closing(bound):
        uvicorn.Server(config).run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """Return a socket on which nobody listens yet.

    Raises:
        ServiceError: The address is none, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServiceError(f"--host {host} --port {port}: {reason.lower()}; give another one") from None
    return bound


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _protocol(head_s: float) -> type[asyncio.Protocol]:
    class Impatient(H11Protocol):
        """Closes a connection on which no request begins in time; uvicorn itself would wait for ever."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            cycle = self.cycle
            self._timer = self.loop.call_later(head_s, lambda: self._close_unless_past(cycle))

        def _close_unless_past(self, cycle: object) -> None:
            if self.cycle is cycle and not self.transport.is_closing():
                self.transport.close()

    return Impatient
