"""The client against what is no service, and against one that says no: one line each. Answers: tests/test_stack.py."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulator.client import Client, RequestRefusedError
from simulator.errors import ServiceError


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Serve one answer to everything; yield the address and the paths that were asked for."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8420", "file:///etc/passwd", "ftp://x"])
def test_only_http_addresses_are_taken(url: str) -> None:
    with pytest.raises(ServiceError, match="not the address of a service"):
        Client(url, "token")


@pytest.mark.parametrize("token", ["", "a\nb", "ä"])
def test_a_token_that_would_break_a_header_is_refused(token: str) -> None:
    with pytest.raises(ServiceError, match="no token"):
        Client("http://127.0.0.1:1", token)


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ServiceError, match=r"no service answers there \(.*refused.*\); is `bebop serve` running\?"):
        Client("http://127.0.0.1:1", "token").job("run", "x")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"3"])
def test_another_kind_of_server_is_one_line(body: bytes) -> None:
    with answering(200, body) as (url, _), pytest.raises(ServiceError, match=r"^[^\n]*$"):
        Client(url, "token").job("run", "x")


def test_a_problem_is_told_with_its_status_and_when_to_come_again() -> None:
    problem = b'{"title": "Too Many Requests", "detail": "wait\\n2 s", "status": 429}'
    with (
        answering(429, problem, Retry_After="2") as (url, _),
        pytest.raises(RequestRefusedError, match="Too Many Requests: wait 2 s") as caught,
    ):
        Client(url, "token").job("run", "x")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 2.0)


def test_no_redirect_takes_the_token_along() -> None:
    with answering(200, b"{}") as (elsewhere, seen_there), answering(302, b"", Location=elsewhere) as (url, seen):
        with pytest.raises(RequestRefusedError, match="status 302"):
            Client(url, "token").job("run", "x")
        assert (len(seen), seen_there) == (1, [])
