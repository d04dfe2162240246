"""OpenAPI: what the service says of itself, exactly enough for a fuzzer to hold it to."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from simulator.service.gate import OPEN_PATHS
from simulator.service.problems import MEDIA_TYPE, Problem
from simulator.service.requests import MODELS

_WORDS: Final = {
    400: "Not JSON",
    401: "No token",
    403: "The token may not",
    404: "Not there",
    405: "No such method",
    408: "The body came too slowly",
    409: "Not yet",
    413: "The body is too large",
    415: "Not this content type",
    421: "Not this host",
    422: "Cannot be done as asked",
    429: "Too much at a time",
    500: "A defect",
    503: "Not ready",
    507: "The disk is full",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how a route may say no."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {status: {"description": _WORDS[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses}


PROBLEMS: Final = problems(400, 401, 403, 405, 408, 413, 421, 429, 500, 507)
"""How any route may."""


def body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the body that a route reads itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def upload_body() -> dict[str, Any]:
    """Return the body of an upload."""
    content = {
        "application/json": {"schema": {"type": "object", "description": "As `bebop schema` describes traces."}},
        "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
    }
    return {"requestBody": {"required": True, "content": content}}


def schema(app: FastAPI) -> dict[str, Any]:
    """Return the description of the whole service."""
    found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: tuple[type[BaseModel], ...] = (Problem, *MODELS.values())
    for model in models:
        own = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"token": []}]
    for path in OPEN_PATHS:
        for operation in found["paths"][path].values():
            operation["security"] = []
            for status in ("401", "403"):
                operation["responses"].pop(status, None)
    return found
