"""Uploads: what is no trace is refused with a line, what is one gets the name of its content."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.simulator.service.serving import Inside, body, inside
from traces.latency import LatencyTrace
from traces.parquet import HEADER_KEY
from traces.store import find_trace, load_trace, save_trace

NAME = "qwen3.5-9b-h100-tp1"
JSON, PARQUET = "application/json", "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with inside(tmp_path_factory.mktemp("service")) as found:
        yield found


def upload(service: Inside, data: bytes, kind: str = JSON, **headers: str) -> Any:
    return service.client.post("/v1/traces", headers={**service.writer, "Content-Type": kind, **headers}, content=data)


def test_a_trace_is_kept_once_under_its_content_whatever_it_was_called(service: Inside, tmp_path: Path) -> None:
    trace = load_trace(find_trace(NAME, "latency"), LatencyTrace)
    save_trace(trace, tmp_path / "x.parquet")
    save_trace(trace, tmp_path / "x.json")
    evil = {"Content-Disposition": 'attachment; filename="../../evil.json"'}
    first = upload(service, (tmp_path / "x.json").read_bytes(), **evil)
    again = upload(service, (tmp_path / "x.parquet").read_bytes(), PARQUET)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    name = first.json()["name"]
    assert name == f"{trace.content_hash()}.json"
    listed = service.client.get("/v1/traces", headers=service.reader).json()["traces"]
    assert {"name": name, "kind": "latency", "is_uploaded": True, "title": trace.name} in listed
    assert {entry["name"] for entry in listed} > {NAME, "bebop-paper"}
    assert sorted(path.name for path in service.settings.trace_folder.iterdir()) == [name, f"{name}.kind"]
    assert list((service.settings.folder / "incoming").iterdir()) == []

    scenario = {**body(), "latency": {"kind": "trace", "trace": name, "allow_mismatch": True}}
    headers = {**service.writer, "Content-Type": JSON}
    assert service.client.post("/v1/runs", headers=headers, content=json.dumps(scenario)).status_code == 202
    assert service.client.delete(f"/v1/traces/{name}", headers=service.writer).status_code == 204
    assert service.client.delete(f"/v1/traces/{name}", headers=service.writer).status_code == 404
    scenario["run"]["seed"] = 1
    assert service.client.post("/v1/runs", headers=headers, content=json.dumps(scenario)).status_code == 422


def bomb(path: Path) -> bytes:
    """A few kilobytes that say they are a trace and unfold into more rows than any trace has."""
    header = json.dumps({"kind": "workload", "name": "bomb"}).encode()
    schema = pa.schema([("rl_step", pa.int64())], metadata={HEADER_KEY: header})
    pq.write_table(pa.table({"rl_step": pa.array([1] * 5_000_000)}, schema=schema), path, compression="zstd")
    return path.read_bytes()


def test_hostile_files_are_refused_and_leave_nothing(service: Inside, tmp_path: Path) -> None:
    good = find_trace(NAME, "latency").read_bytes() if find_trace(NAME, "latency").suffix == ".json" else b"{}"
    data = bomb(tmp_path / "bomb.parquet")
    assert len(data) < 100_000
    torn = data[:-8] + b"\xff\xff\xff\x7fPAR1"
    before = sorted(service.settings.trace_folder.iterdir())
    for content, kind in (
        (data, PARQUET),
        (torn, PARQUET),
        (b"PK\x03\x04" + b"\0" * 1000, PARQUET),
        (b"", JSON),
        (b"[" * 500_000, JSON),
        (b'{"kind": "latency", "name": "../../evil"}', JSON),
        (good.replace(b'"rows"', b'"rowz"', 1), JSON),
        (b'{"kind": "acceptance", "rows": [{"k": NaN}]}', JSON),
    ):
        found = upload(service, content, kind)
        assert found.status_code == 422, found.text
        assert "\n" not in found.json()["detail"]
        assert str(service.settings.folder) not in found.text
    assert upload(service, b"x", "application/zip").status_code == 415
    assert upload(service, b" " * (service.settings.limits.upload_bytes + 1)).status_code == 413
    assert sorted(service.settings.trace_folder.iterdir()) == before
    assert list((service.settings.folder / "incoming").iterdir()) == []


def test_uploads_have_a_bound(tmp_path: Path) -> None:
    with inside(tmp_path, trace_bytes=10) as service:
        found = upload(service, b" " * 11)
        assert (found.status_code, found.json()["limit"]) == (507, 10)
