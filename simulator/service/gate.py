"""Gate: what every request passes before any route sees it. Closed unless stated: a new route needs no line here.

In this order: Host, token and scope, rate, body. Nobody without a token makes the service hold a body in memory.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from simulator.service.problems import RefusalError, problem, problem_response
from simulator.service.settings import Limits
from simulator.service.tokens import Scope, Token

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_PATHS: Final = ("/healthz", "/readyz")
"""The only ones without a token."""
UPLOAD_PATH: Final = "/v1/traces"

CALLER: Final = "bebop.caller"
"""Where a request's scope names the token that it came with."""

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; no CORS header on any."""

_LOG: Final = logging.getLogger("bebop.service")

MAX_CALLERS: Final = 10_000
"""Of whom the gate remembers how often they called."""


class Tokens(Protocol):
    """Whoever knows tokens."""

    def find(self, text: str) -> Token | None:
        """Return what is known of a token; None: nobody made it."""


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(self, app: App, *, tokens: Tokens, hosts: tuple[str, ...], limits: Limits) -> None:
        self._app, self._tokens, self._hosts, self._limits = app, tokens, hosts, limits
        self._rate = _Rate(limits.requests_per_s, limits.burst)
        self._buffered = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, or say why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        sender = _Sender(send)
        held = 0
        try:
            headers = _headers(scope)
            self._check_host(headers.get("host", ""))
            if scope["path"] not in OPEN_PATHS:
                self._admit(scope, headers)
            body = await self._body(scope, headers, receive)
            held = len(body)
        except RefusalError as refusal:
            refused = {**refusal.headers, "Connection": "close"}  # the rest of its body is not read
            await problem_response(refusal.problem, refused)(scope, receive, sender.send)
            return
        try:
            await self._app(scope, _replay(body, receive), sender.send)
        except Exception as error:
            _LOG.exception("a request failed")
            if sender.has_begun:
                raise
            found = problem(500, f"unexpected: {type(error).__name__}; the service's log says more", "unexpected")
            await problem_response(found)(scope, receive, sender.send)
        finally:
            self._buffered -= held

    def _check_host(self, host: str) -> None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.lower() not in self._hosts:
            known = ", ".join(self._hosts)
            raise RefusalError(421, "wrong-host", f"Host {host[:100]!r} is none of {known}; --allow-host adds one")

    def _admit(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        kind, _, text = headers.get("authorization", "").partition(" ")
        token = self._tokens.find(text.strip()) if kind.lower() == "bearer" else None
        caller = f"token {token.name}" if token is not None else f"address {(scope.get('client') or ('?',))[0]}"
        wait_s = self._rate.wait_s(caller)
        if wait_s > 0:
            raise RefusalError(
                429,
                "too-many-requests",
                f"more than {self._limits.requests_per_s:g} requests a second; wait {wait_s:.1f} s",
                limit=self._limits.requests_per_s,
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        if token is None:
            said = "no token, or none of this service; send it as `Authorization: Bearer TOKEN`"
            raise RefusalError(401, "no-token", said, headers={"WWW-Authenticate": 'Bearer realm="bebop"'})
        needed: Scope = "read" if scope["method"] in ("GET", "HEAD") else "write"
        if not token.allows(needed):
            said = f"token {token.name} may read only; `bebop serve --new-token NAME --scope write` makes one for this"
            raise RefusalError(403, "scope", said)
        scope[CALLER] = token.name

    async def _body(self, scope: MutableMapping[str, Any], headers: dict[str, str], receive: Receive) -> bytes:
        """Return the whole body: not longer than it may be, not slower, and not more of all callers than fits."""
        limits = self._limits
        limit = limits.upload_bytes if scope["path"] == UPLOAD_PATH else limits.body_bytes
        stated = headers.get("content-length", "0")
        if stated.isdigit() and int(stated[:20]) > limit:
            raise _too_large(int(stated[:20]), limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_s):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    size += len(part)
                    self._buffered += len(part)
                    if size > limit:
                        raise _too_large(size, limit)
                    if self._buffered > limits.buffered_bytes:
                        said = "too many bodies are being received; try again"
                        raise RefusalError(429, "busy", said, headers={"Retry-After": "5"})
                    parts.append(part)
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            self._buffered -= size
            said = f"{size} bytes came within {limits.body_s:g} s, and not all; send faster"
            raise RefusalError(408, "slow-body", said, limit=limits.body_s) from None
        except BaseException:
            self._buffered -= size
            raise


class _Rate:
    """A bucket of permits per caller, filled at a constant rate."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: dict[str, tuple[float, float]] = {}
        """Caller -> permits left, and when that was."""

    def wait_s(self, caller: str) -> float:
        """Take a permit; return how long to wait where there is none."""
        now_s = time.monotonic()
        left, at_s = self._buckets.pop(caller, (float(self._burst), now_s))
        left = min(self._burst, left + (now_s - at_s) * self._per_s)
        self._buckets[caller] = (max(left - 1.0, left if left < 1.0 else 0.0), now_s)
        if len(self._buckets) > MAX_CALLERS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if left >= 1.0 else (1.0 - left) / self._per_s


def _too_large(size: int, limit: int) -> RefusalError:
    said = f"the body has {size} bytes or more, above the limit of {limit}; send less"
    return RefusalError(413, "too-large", said, limit=limit, value=size)


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Return the headers by their name in lower case; one that comes twice with different values is none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in ("authorization", "host", "content-length") and found.get(key, text) != text:
            raise RefusalError(400, "two-headers", f"{key} is given twice, with different values; send it once")
        found[key] = text
    return found


class _Sender:
    """Adds the security headers."""

    _added: Final = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

    def __init__(self, send: Send) -> None:
        self._send, self.has_begun = send, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            names = {name for name, _ in self._added}
            own = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*own, *self._added]}
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body, then whatever still comes: that the client has gone."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
