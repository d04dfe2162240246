"""HTTP to one engine: short answers, and streams of server-sent events whose arrivals are timed. Follows no redirect.

Does not know what is asked. The key travels in a header only; no error, log or trace repeats it.
"""

import http.client
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from profiler.errors import EngineError, UsageError

MAX_ANSWER_BYTES = 16_000_000
MAX_EVENT_BYTES = 65_536
"""An event holds a few tokens and the server's own timings: under 2 kB."""
Clock = Callable[[], float]


class RefusedError(EngineError):
    """The server answered, and would not do it."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status for callers that can go on without this answer."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event as it arrived."""

    arrived_s: float
    payload: bytes


@dataclass(slots=True)
class Endpoint:
    """Where an engine listens."""

    host: str
    port: int
    is_tls: bool
    prefix: str
    """Path before `/v1`, without a slash at its end."""
    timeout_s: float
    """Longest wait for the next byte."""
    key: str | None = field(default=None, repr=False)
    _open: set[socket.socket] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def parse(cls, url: str, timeout_s: float, key: str | None = None) -> "Endpoint":
        """Return the endpoint of `http://host:port`; a `/v1` at its end is taken off.

        Raises:
            UsageError: Not such a URL, or one that holds a secret.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UsageError("--url: not a URL; give http://host:port") from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError("--url: holds more than host, port and path; keys belong into --api-key-env NAME")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--url {url}: not http://host:port or https://host:port")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UsageError("--api-key-env: the variable holds characters that no HTTP header may; check its value")
        is_tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, port or (443 if is_tls else 80), is_tls, path, timeout_s, key)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"

    def get(self, path: str) -> bytes:
        """Return the body of an answer.

        Raises:
            RefusedError: Any status but 200.
            EngineError: No answer, or one that is too long.
        """
        with self._asked("GET", path, None) as response:
            body = response.read(MAX_ANSWER_BYTES + 1)
        if len(body) > MAX_ANSWER_BYTES:
            raise EngineError(f"{self}{path}: answers more than {MAX_ANSWER_BYTES} bytes; is this an engine?")
        return body

    def get_json(self, path: str) -> dict[str, Any]:
        """Return an answer that is a JSON object, raising as `get` does."""
        body = self.get(path)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise EngineError(f"{self}{path}: answers no JSON object; is this an engine?")
        return content

    def stream(self, path: str, body: dict[str, Any], clock: Clock, max_events: int) -> tuple[float, list[Event]]:
        """Return when a request was sent and all events of its answer, `[DONE]` left out, by `clock`.

        Raises:
            RefusedError: Any status but 200.
            EngineError: The connection broke or stalled, or the answer is no stream or has no end.
        """
        content = json.dumps(body).encode()
        sent_s = clock()
        with self._asked("POST", path, content) as response:
            return sent_s, self._events(response, clock, max_events)

    def abort(self) -> None:
        """Break all connections: whoever reads from one gets an error at once."""
        with self._lock:
            for open_socket in self._open:
                with suppress(OSError):  # the other side closed it already
                    open_socket.shutdown(socket.SHUT_RDWR)

    def _events(self, response: http.client.HTTPResponse, clock: Clock, max_events: int) -> list[Event]:
        events: list[Event] = []
        while line := response.readline(MAX_EVENT_BYTES + 1):
            if not line.startswith(b"data:"):
                if len(line) > MAX_EVENT_BYTES:
                    break
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                return events
            events.append(Event(clock(), payload))
            if len(line) > MAX_EVENT_BYTES or len(events) > max_events:
                raise EngineError(f"{self}: a stream of more than {max_events} events; does it honour max_tokens?")
        if not events:
            raise EngineError(f"{self}: answers without server-sent events; is this an engine's /v1/completions?")
        raise EngineError(f"{self}: a stream ended before its [DONE]; look at the server's log")

    @contextmanager
    def _asked(self, method: str, path: str, body: bytes | None) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to a request, whose status is 200."""
        kind = http.client.HTTPSConnection if self.is_tls else http.client.HTTPConnection
        headers = {"Accept": "*/*"} | ({"Content-Type": "application/json"} if body is not None else {})
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        own_socket = None
        try:
            with closing(kind(self.host, self.port, timeout=self.timeout_s)) as connection:
                connection.connect()
                own_socket = connection.sock
                with self._lock:
                    self._open.add(own_socket)
                connection.request(method, self.prefix + path, body, headers)
                with connection.getresponse() as response:
                    if response.status != 200:
                        reason = _reason(response).replace(self.key or "\0", "***")
                        raise RefusedError(response.status, f"{self}{path}: {reason}")
                    yield response
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        finally:
            with self._lock:
                self._open.discard(own_socket)

    def _lost(self, error: Exception) -> EngineError:
        if isinstance(error, TimeoutError):
            return EngineError(f"{self}: silent for {self.timeout_s:g} s; look at the server, or raise --timeout-s")
        if isinstance(error, ssl.SSLError):
            return EngineError(f"{self}: no TLS there ({error.reason}); is it http://?")
        what = getattr(error, "strerror", None) or type(error).__name__
        return EngineError(f"{self}: does not answer ({what}); start the server, or check --url")


def wait_until(is_so: Callable[[], bool], patience_s: float, pause_s: float = 0.05) -> bool:
    """Ask until the answer is yes or patience is over; return the last answer."""
    end_s = time.monotonic() + patience_s
    for attempt in range(math.ceil(patience_s / pause_s) + 1):
        if attempt:
            time.sleep(pause_s)
        if is_so():
            return True
        if time.monotonic() > end_s:
            break
    return False


def _reason(response: http.client.HTTPResponse) -> str:
    status = response.status
    if 300 <= status < 400:
        return f"answers {status}, a redirect, which is not followed; give the URL that it leads to"
    if status in (401, 403):
        return f"answers {status}; put its key into an environment variable and name that: --api-key-env NAME"
    if status == 429:
        return "answers 429, too many requests; lift its limit or lower --batches"
    said = _said(response.read(10_000))
    return f"answers {status}{': ' + said if said else ''}"


def _said(body: bytes) -> str:
    """Return the server's own words about an error, on one short line."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = body.decode(errors="replace")
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    words = " ".join(str(content).split())
    return "".join(letter for letter in words if letter.isprintable())[:200]
