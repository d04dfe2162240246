"""Who may call, how often, and with how much."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from simulator.service.gate import SECURITY_HEADERS, Gate
from simulator.service.settings import Limits
from simulator.service.tokens import OneToken, TokenFile, add_token, read_tokens, remove_token
from tests.simulator.service.serving import body, inside

JOB = "0" * 32


def all_routes(routes: Any) -> list[tuple[str, str]]:
    """Return (method, path) of every route, those of included routers too."""
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, Route):
            found += [(method, route.path) for method in route.methods or ()]
        else:
            found += all_routes(route.original_router.routes)
    return found


def filled(path: str) -> str:
    return path.replace("{job_id}", JOB).replace("{name}", f"{'0' * 64}.json")


def test_every_route_but_health_wants_a_token_and_the_scope_that_it_needs(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        routes = all_routes(service.app.routes)
        assert {path for _, path in routes} >= {
            "/v1/runs",
            "/v1/runs/{job_id}/events",
            "/v1/sweeps/{job_id}/results",
            "/v1/plans",
            "/v1/traces/{name}",
            "/openapi.json",
            "/healthz",
        }
        for method, path in [*routes, ("GET", "/nothing"), ("PUT", "/v1/runs"), ("GET", "/docs")]:
            if path in ("/healthz", "/readyz"):
                continue
            for headers in ({}, {"Authorization": "Bearer bebop_wrong"}, {"Authorization": "Basic YTpi"}):
                found = service.client.request(method, filled(path), headers=headers)
                assert found.status_code == 401, (method, path)
            found = service.client.request(method, filled(path), headers=service.reader)
            assert (found.status_code == 403) == (method not in ("GET", "HEAD")), (method, path)


def test_a_token_in_the_query_is_none(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        token = service.writer["Authorization"].removeprefix("Bearer ")
        assert service.client.get(f"/v1/runs?token={token}&access_token={token}").status_code == 401


def test_health_is_open_and_says_nothing_else(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        assert service.client.get("/healthz").json() == {"status": "ok"}
        assert service.client.get("/readyz").status_code == 503  # nothing has started the workers


def test_another_host_is_refused_even_for_health(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        found = service.client.get("/healthz", headers={"Host": "rebound.example"})
        assert (found.status_code, found.json()["type"]) == (421, "urn:bebop:problem:wrong-host")


def test_every_answer_has_the_security_headers_and_no_cors(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        origin = {"Origin": "https://evil.example", **service.reader}
        for found in (
            service.client.get("/healthz", headers=origin),
            service.client.get("/v1/runs"),
            service.client.get("/nothing", headers=origin),
            service.client.options("/v1/runs", headers={**origin, "Access-Control-Request-Method": "POST"}),
        ):
            assert {name: found.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
            assert not [name for name in found.headers if name.startswith("access-control")]


def test_errors_are_problems_without_traceback(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        for found, status in (
            (service.client.get("/nothing", headers=service.reader), 404),
            (service.client.put("/v1/runs", headers=service.writer), 405),
            (service.client.get("/v1/runs?limit=0", headers=service.reader), 422),
            (service.client.get(f"/v1/runs/{JOB}", headers=service.reader), 404),
            (service.client.post("/v1/runs", headers=service.writer, content=b"{"), 400),
        ):
            assert found.status_code == found.json()["status"] == status
            assert found.headers["content-type"] == "application/problem+json"
            assert set(found.json()) <= {"type", "title", "status", "detail", "limit", "value"}
            assert "Traceback" not in found.text


def test_too_many_requests_are_told_when_to_come_again(tmp_path: Path) -> None:
    with inside(tmp_path, requests_per_s=0.5, burst=3) as service:
        found = [service.client.get("/v1/runs", headers=service.reader) for _ in range(5)]
        assert [answer.status_code for answer in found] == [200, 200, 200, 429, 429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 4
        # Each token has its own share, and so has whoever guesses.
        assert service.client.get("/v1/runs", headers=service.writer).status_code == 200
        guesses = [service.client.get("/v1/runs").status_code for _ in range(5)]
        assert guesses == [401, 401, 401, 429, 429]


def test_a_body_above_the_limit_is_refused_by_its_header_and_while_it_comes(tmp_path: Path) -> None:
    with inside(tmp_path, body_bytes=1000) as service:
        stated = service.client.post("/v1/runs", headers=service.writer, content=b" " * 1001)
        streamed = service.client.post("/v1/runs", headers=service.writer, content=iter([b" " * 600] * 5))
        for found in (stated, streamed):
            assert (found.status_code, found.json()["limit"]) == (413, 1000)
            assert found.headers["connection"] == "close"


def call(gate: Gate, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(gate(scope, receive, send))
    return sent


def test_a_body_that_dribbles_is_given_up_and_forgotten() -> None:
    token = OneToken()

    async def app(*_: Any) -> None:
        raise AssertionError("the body never came")

    gate = Gate(app, tokens=token, hosts=("here",), limits=Limits(body_s=0.2))
    headers = [(b"host", b"here"), (b"authorization", f"Bearer {token.text}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/runs", "headers": headers}
    sent = call(gate, scope, [{"type": "http.request", "body": b"x", "more_body": True}])
    assert sent[0]["status"] == 408
    assert gate._buffered == 0


def test_a_header_given_twice_with_different_values_is_refused() -> None:
    async def app(*_: Any) -> None:
        raise AssertionError

    gate = Gate(app, tokens=OneToken(), hosts=("here",), limits=Limits())
    scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [(b"host", b"here"), (b"host", b"there")]}
    assert call(gate, scope, [])[0]["status"] == 400


def test_a_token_file_holds_no_token_and_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token = add_token(path, "ci", "read")
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert len(token) >= 43


def test_a_revoked_and_an_expired_token_end_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    kept, revoked = add_token(path, "kept", "read"), add_token(path, "revoked", "write")
    expired = add_token(path, "expired", "read", num_days=-1)
    tokens = TokenFile(path)
    assert tokens.find(revoked) is not None
    assert tokens.find(expired) is None
    remove_token(path, "revoked")
    assert tokens.find(revoked) is None
    found = tokens.find(kept)
    assert found is not None
    assert (found.name, found.allows("write")) == ("kept", False)
    assert [token.name for token in read_tokens(path)] == ["kept", "expired"]


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": 3}', '{"tokens": [{"name": "a"}]}', "nothing"])
def test_a_broken_token_file_is_one_line(tmp_path: Path, text: str) -> None:
    from simulator.errors import ServiceError

    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ServiceError, match=r"tokens\.json") as caught:
        TokenFile(path)
    assert "\n" not in str(caught.value)


def test_a_submission_is_answered_where_its_job_is(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        found = service.client.post("/v1/runs", headers=service.writer, json=body())
        assert found.status_code == 202
        assert found.headers["location"] == f"/v1/runs/{found.json()['id']}"
