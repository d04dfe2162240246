"""The service does what its own description says: schemathesis, which makes requests from it, finds nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from simulator.service import openapi
from tests.simulator.service.serving import Inside, inside

NUM_EXAMPLES = 4
"""Requests of each sort for each operation."""

OPERATIONS = [
    (method, path)
    for kind in ("runs", "sweeps", "plans")
    for method, path in (
        ("POST", f"/v1/{kind}"),
        ("GET", f"/v1/{kind}"),
        ("GET", f"/v1/{kind}/{{job_id}}"),
        ("DELETE", f"/v1/{kind}/{{job_id}}"),
        ("POST", f"/v1/{kind}/{{job_id}}/cancel"),
        ("GET", f"/v1/{kind}/{{job_id}}/events"),
    )
] + [
    ("GET", "/v1/sweeps/{job_id}/results"),
    ("GET", "/v1/traces"),
    ("POST", "/v1/traces"),
    ("DELETE", "/v1/traces/{name}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
]

FUZZED = [operation for operation in OPERATIONS if operation[1] != "/readyz"]
"""Without workers it is not ready, and says so with a 503, which a fuzzer takes for a defect."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(
        tmp_path_factory.mktemp("service"), requests_per_s=1e6, burst=10**6, queued=10**6, queued_per_token=10**6
    ) as found:
        yield found


@pytest.fixture(scope="module")
def described(service: Inside) -> Any:
    app = _without_lifespan(service.app)
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=_headers(service))


def test_the_description_has_every_operation_and_no_other(service: Inside) -> None:
    found = openapi.schema(service.app)
    listed = [(method.upper(), path) for path, operations in found["paths"].items() for method in operations]
    assert sorted(listed) == sorted(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), FUZZED)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_schemathesis_finds_nothing(
    service: Inside, described: Any, method: str, path: str, mode: GenerationMode
) -> None:
    operation = described[path][method]
    # What must hold between fields of a scenario no JSON Schema can say: a body that fits it may be refused.
    excluded = [positive_data_acceptance] if method == "POST" and "{" not in path else []

    @settings(
        max_examples=NUM_EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold_to_it(case: Any) -> None:
        case.call_and_validate(headers=_headers(service), excluded_checks=excluded)

    if mode is GenerationMode.NEGATIVE and "{" not in path and method == "GET" and not path.endswith("s"):
        pytest.skip("takes nothing that could be wrong")
    hold_to_it()


def test_all_checks_of_schemathesis_are_loaded() -> None:
    names = {check.__name__ for check in CHECKS.get_all()}
    assert names >= {"not_a_server_error", "response_schema_conformance", "ignored_auth", "negative_data_rejection"}


def _without_lifespan(app: Any) -> Any:
    """Schemathesis would start and stop the workers around every request."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for said in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{said}.complete"})

    return plain


def _headers(service: Inside) -> dict[str, str]:
    return {**service.writer, "Host": "testserver"}


def test_the_description_needs_a_token_but_health_does_not(service: Inside, tmp_path: Path) -> None:
    found = openapi.schema(service.app)
    assert found["security"] == [{"token": []}]
    open_ones = [path for path, operations in found["paths"].items() if operations.get("get", {}).get("security") == []]
    assert open_ones == ["/healthz", "/readyz"]
