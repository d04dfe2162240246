"""What is asked: identity, limits, estimates, lists; without workers, so that jobs stay queued."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from simulator.service import cluster
from simulator.service.requests import read_request
from simulator.service.settings import Limits
from simulator.service.tokens import add_token
from tests.simulator.service.serving import Inside, body, inside


def post(service: Inside, path: str, content: Any) -> Any:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return service.client.post(path, headers={**service.writer, "Content-Type": "application/json"}, content=text)


def test_the_same_question_is_one_job(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        first, again = post(service, "/v1/runs", body()), post(service, "/v1/runs", body())
        other = post(service, "/v1/runs", body("run.seed=1"))
        assert (first.status_code, again.status_code, other.status_code) == (202, 200, 202)
        assert first.json()["id"] == again.json()["id"] != other.json()["id"]
        listed = service.client.get("/v1/runs", headers=service.reader).json()["jobs"]
        assert [job["id"] for job in listed] == [other.json()["id"], first.json()["id"]]


def test_lists_go_on_where_they_ended(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        ids = [post(service, "/v1/runs", body(f"run.seed={seed}")).json()["id"] for seed in range(5)]
        seen, before = [], ""
        while True:
            page = service.client.get(f"/v1/runs?limit=2{before}", headers=service.reader).json()
            seen += [job["id"] for job in page["jobs"]]
            if page["before"] is None:
                break
            before = f"&before={page['before']}"
        assert seen == ids[::-1]
        assert service.client.get("/v1/runs?status=done", headers=service.reader).json()["jobs"] == []
        assert service.client.get("/v1/sweeps", headers=service.reader).json()["jobs"] == []


def test_a_full_queue_says_so_with_its_numbers(tmp_path: Path) -> None:
    with inside(tmp_path, queued=2) as service:
        found = [post(service, "/v1/runs", body(f"run.seed={seed}")) for seed in range(3)]
        assert [answer.status_code for answer in found] == [202, 202, 429]
        assert found[2].json()["limit"] == found[2].json()["value"] == 2
        assert int(found[2].headers["retry-after"]) > 0
        assert post(service, "/v1/runs", body("run.seed=0")).status_code == 200  # what waits already may be asked again


def test_one_token_does_not_fill_the_queue_alone(tmp_path: Path) -> None:
    with inside(tmp_path, queued=3, queued_per_token=2) as service:
        other = {"Authorization": f"Bearer {add_token(tmp_path / 'tokens.json', 'other', 'write')}"}

        def submitted(seed: int, token: dict[str, str]) -> Any:
            return service.client.post("/v1/runs", headers=token, json=body(f"run.seed={seed}"))

        found = [submitted(seed, service.writer) for seed in range(3)]
        assert [answer.status_code for answer in found] == [202, 202, 429]
        assert found[2].json()["detail"].startswith("2 jobs of token writer wait, which is the limit")
        assert submitted(1, other).status_code == 200  # somebody else's, who pays for it
        assert submitted(2, other).status_code == 202
        assert submitted(3, other).json()["detail"].startswith("3 jobs wait, which is the limit")


def test_a_sweep_whose_cluster_is_away_is_refused_and_the_rest_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ASK_EVERY_S", 0.0)
    head = socket.create_server(("127.0.0.2", 0))
    address = f"127.0.0.2:{head.getsockname()[1]}"
    with inside(tmp_path, ray_address=address) as service:
        first, second = ({"scenario": body(), "grid": [f"run.seed=0..{last}"]} for last in (1, 2))
        known = post(service, "/v1/sweeps", first)
        assert known.status_code == 202
        head.close()
        found = post(service, "/v1/sweeps", second)
        assert (found.status_code, found.json()["type"]) == (503, "urn:bebop:problem:no-cluster")
        assert found.json()["detail"].startswith("the Ray cluster of this service does not answer")
        assert address not in found.json()["detail"]  # /readyz says the same to anybody
        assert int(found.headers["retry-after"]) > 0
        assert post(service, "/v1/sweeps", first).json()["id"] == known.json()["id"]
        assert post(service, "/v1/runs", body()).status_code == 202


def test_cancelled_and_deleted_jobs_make_room(tmp_path: Path) -> None:
    with inside(tmp_path, queued=1) as service:
        one = post(service, "/v1/runs", body()).json()["id"]
        assert service.client.post(f"/v1/runs/{one}/cancel", headers=service.writer).json()["status"] == "cancelled"
        two = post(service, "/v1/runs", body("run.seed=1")).json()["id"]
        assert service.client.delete(f"/v1/runs/{two}", headers=service.writer).status_code == 204
        assert service.client.get(f"/v1/runs/{two}", headers=service.reader).status_code == 404
        assert post(service, "/v1/runs", body()).status_code == 202  # a cancelled one may be asked for anew


def test_a_job_is_not_found_under_another_kind(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        job_id = post(service, "/v1/runs", body()).json()["id"]
        assert service.client.get(f"/v1/plans/{job_id}", headers=service.reader).status_code == 404


def test_only_so_many_finished_jobs_are_kept(tmp_path: Path) -> None:
    with inside(tmp_path, kept=3) as service:
        for seed in range(6):
            job_id = post(service, "/v1/runs", body(f"run.seed={seed}")).json()["id"]
            service.client.post(f"/v1/runs/{job_id}/cancel", headers=service.writer)
        assert len(service.client.get("/v1/runs", headers=service.reader).json()["jobs"]) == 3


def test_the_estimate_grows_with_the_work_and_bounds_it(tmp_path: Path) -> None:
    with inside(tmp_path, sequences=100_000, points=50) as service:
        small = post(service, "/v1/runs", body()).json()["estimate"]
        # 8 prompts x 8 responses x 6 steps; 2 replications x 4 arms x 5 runs of each.
        assert (small["runs"], small["sequences"]) == (40, 40 * 384)
        large = post(service, "/v1/runs", body("run.replications=20"))
        assert (large.status_code, large.json()["value"], large.json()["limit"]) == (422, 400 * 384, 100_000)
        points = post(service, "/v1/sweeps", {"scenario": body(), "grid": ["run.seed=0..99"]})
        assert (points.status_code, points.json()["value"], points.json()["limit"]) == (422, 100, 50)
        plans = post(service, "/v1/plans", {"scenario": body(), "num_plans": 5000})
        assert (plans.status_code, plans.json()["value"]) == (422, 5000)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b'{"name": "a", "name": "b"}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"run": ' + b"9" * 5000 + b"}", 400),
        (b'{"name": NaN}', 422),
        (b'{"name": 1e999}', 422),
        (b'{"nmae": "x"}', 422),
        (b'{"name": "\\ud800"}', 422),
    ],
)
def test_hostile_bodies_are_one_line(tmp_path: Path, text: bytes, status: int) -> None:
    with inside(tmp_path) as service:
        for path in ("/v1/runs", "/v1/sweeps", "/v1/plans"):
            found = post(service, path, text)
            assert found.status_code == status, found.text
            assert "\n" not in found.json()["detail"]


def test_nan_is_refused_even_where_a_field_takes_any_value(tmp_path: Path) -> None:
    text = json.dumps({**body(), "setups": {"odd": {"trainer.mfu": float("nan")}}}).encode()
    with inside(tmp_path) as service:
        assert post(service, "/v1/runs", text).status_code == 422


PATHS = ["/etc/passwd.json", "../secret.json", "secret.parquet", "./x.json", f"{'0' * 64}.json", "x/../y.json"]


@pytest.mark.parametrize("name", PATHS)
def test_no_scenario_names_a_file_of_the_server(tmp_path: Path, name: str) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    plain = {**body(), "measured": []}
    scenarios = [
        {**plain, "latency": {"kind": "trace", "trace": name}},
        {**plain, "entropy": {"kind": "trace", "trace": name}},
        {**plain, "workload": {"kind": "trace", "trace": name}},
        {**plain, "arms": {"x": {"k": 1, "acceptance": {"kind": "trace", "trace": name, "loss": "ce"}}}},
        {**plain, "setups": {"s": {"latency.trace": name}}},
        {**plain, "setups": {"s": {"latency": {"kind": "trace", "trace": name}}}},
    ]
    with inside(tmp_path) as service:
        for scenario in scenarios:
            for path, content in (
                ("/v1/runs", scenario),
                ("/v1/sweeps", {"scenario": scenario, "grid": ["run.seed=0..1"]}),
                ("/v1/plans", {"scenario": scenario}),
            ):
                found = post(service, path, content)
                assert found.status_code == 422, (path, found.text)
                assert "no trace of this service" in found.json()["detail"]
        for axis in (f'latency.trace="{name}"', f"latency.trace={name}", f"latency={{kind='trace', trace='{name}'}}"):
            found = post(service, "/v1/sweeps", {"scenario": plain, "grid": [axis]})
            assert found.status_code == 422, found.text
            assert "no trace of this service" in found.json()["detail"]
            assert str(tmp_path) not in found.text


def test_words_of_a_scenario_may_look_like_files(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        assert post(service, "/v1/runs", {**body(), "question": "what does runs/a.json say"}).status_code == 202


def test_another_version_of_the_model_is_another_job(tmp_path: Path) -> None:
    text = json.dumps(body()).encode()
    ids = {read_request("run", text, tmp_path, Limits(), version).id for version in ("1", "1", "2")}
    assert len(ids) == 2


def test_a_sweep_needs_a_design(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        assert post(service, "/v1/sweeps", {"scenario": body()}).status_code == 422
        assert post(service, "/v1/sweeps", {"scenario": body(), "grid": ["nonsense"]}).status_code == 422


def test_a_table_comes_when_its_sweep_is_done(tmp_path: Path) -> None:
    with inside(tmp_path) as service:
        job_id = post(service, "/v1/sweeps", {"scenario": body(), "grid": ["run.seed=0..1"]}).json()["id"]
        found = service.client.get(f"/v1/sweeps/{job_id}/results", headers=service.reader)
        assert (found.status_code, found.json()["type"]) == (409, "urn:bebop:problem:not-done")
