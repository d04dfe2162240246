"""The formats by name, and their JSON Schemas. Does not know how files are stored."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from traces.acceptance import AcceptanceTrace
from traces.base import Trace
from traces.latency import LatencyTrace
from traces.measured import MeasuredRun
from traces.report import RunReport
from traces.testbed import TestbedProfile
from traces.workload import WorkloadTrace

TRACES: dict[str, type[Trace]] = {
    "latency": LatencyTrace,
    "acceptance": AcceptanceTrace,
    "workload": WorkloadTrace,
    "measured": MeasuredRun,
    "testbed_profile": TestbedProfile,
}
"""Every trace format by its `kind`."""

FORMATS: dict[str, type[BaseModel]] = {**TRACES, "report": RunReport}
"""Every format of this package by its `kind`."""

SCHEMA_FOLDER = Path(__file__).parent / "schemas"
"""Where the generated schemas are committed."""

_SHA256 = {
    "description": "Content hash written by `save_trace` and checked on load; leave it out of a file made by hand.",
    "pattern": "^[0-9a-f]{64}$",
    "title": "Sha256",
    "type": "string",
}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a file that holds `model`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    if issubclass(model, Trace):
        schema["properties"] = {**schema["properties"], "sha256": _SHA256}
    return schema


def schema_text(model: type[BaseModel]) -> str:
    """Return the schema as the text of its committed file."""
    return json.dumps(json_schema(model), indent=2, sort_keys=True) + "\n"
