"""Faults, injected into a real service: nothing is lost, no wrong number, and what is refused is refused with a line.

The table in docs/service.md lists them.
"""

import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.client import Client, JobView
from simulator.errors import ServiceError
from simulator.run import simulate
from tests.simulator.service.impatient import BODY_S, HEAD_S
from tests.simulator.service.serving import ROOT, Outside, body, children, outside, small, wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks at processes through /proc")

SECONDS = ("run.num_steps=60", "run.replications=5")
"""A run of a few seconds."""
IMPATIENT = ROOT / "tests" / "simulator" / "service" / "impatient.py"
MINUTES = ("run.num_steps=750", "run.replications=100")


def workers(service: Outside) -> list[int]:
    """Return the worker processes (spawn also has one that tracks resources)."""
    found = []
    for pid in children(service.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if "spawn_main" in command:
            found.append(pid)
    return found


def until(client: Client, job: JobView, status: str, timeout_s: float = 120.0) -> JobView:
    seen = [job]

    def is_there() -> bool:
        seen[0] = client.job(job.kind, job.id)
        return seen[0].status == status

    wait_for(is_there, timeout_s)
    return seen[0]


def test_a_killed_worker_costs_time_and_a_poison_job_itself_alone(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1") as service:
        client = service.client
        job = until(client, client.submit("run", body(*SECONDS)), "running")
        wait_for(lambda: client.job("run", job.id).progress > 0, 120)
        os.kill(workers(service)[0], signal.SIGKILL)
        done = client.wait(job, timeout_s=240)
        assert done.answer == json.loads(simulate(small(*SECONDS)).to_json())  # F1, F33: as if nothing had been
        status, shown = service.ask(f"/v1/runs/{job.id}")
        assert (status, shown["attempts"]) == (200, 2)

        poison = client.submit("run", body(*MINUTES))  # F2
        for attempt in (1, 2, 3):
            wait_for(lambda: service.ask(f"/v1/runs/{poison.id}")[1]["attempts"] == attempt, 60)  # noqa: B023
            wait_for(lambda: len(workers(service)) == 1, 60)
            os.kill(workers(service)[0], signal.SIGKILL)
        failed = until(client, poison, "failed")
        assert failed.problem == "its worker was ended by signal 9 (SIGKILL), 3 times in a row; not tried again"
        assert client.run(small()).scenario == "bebop-reasoning"


def test_a_killed_service_goes_on_where_it_was_and_leaves_no_orphans(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1") as service:
        client = service.client
        known = client.wait(client.submit("run", body()))
        second = subprocess.run(  # F11
            [sys.executable, str(ROOT / "bebop.py"), "serve", "--data", str(service.folder), "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert f"another service is at work there (process {service.process.pid})" in second.stderr
        job = until(client, client.submit("run", body(*SECONDS)), "running")
        queued = client.submit("run", body("run.seed=7"))
        pids = workers(service)
        service.kill()  # F3, F27
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30)
    with outside(tmp_path / "data", "--workers", "1") as service:
        client = service.client
        assert client.job("run", known.id).answer == known.answer
        assert client.wait(job, timeout_s=240).answer == json.loads(simulate(small(*SECONDS)).to_json())
        assert client.wait(queued, timeout_s=120).status == "done"


def test_a_hung_job_is_ended_and_a_cancelled_one_makes_room(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1", "--timeout", "8") as service:
        client = service.client
        failed = until(client, client.submit("run", body(*MINUTES)), "failed")  # F7
        assert failed.problem == "no answer within 8 s; ask for fewer steps or replications"
        job = until(client, client.submit("run", body(*MINUTES, "run.seed=1")), "running")
        assert client.cancel(job).status == "cancelled"
        assert client.run(small()).scenario == "bebop-reasoning"
        events = b"".join(_events(service, client.submit("run", body()).id))
        assert events == b'event: end\ndata: {"status": "done", "progress": 1.0}\n\n'
        with pytest.raises(ServiceError, match="failed"):  # what cannot be run is one line, and no path
            client.run(small("model.name=Qwen3-32B"))


def test_a_job_that_holds_too_much_memory_is_ended(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1", "--memory", "0.1") as service:  # F8: less than a worker's kernels
        client = service.client
        job = until(client, client.submit("run", body(*SECONDS)), "failed")
        status, shown = service.ask(f"/v1/runs/{job.id}")
        problem = shown["problem"]
        assert (status, shown["attempts"], problem["type"]) == (200, 1, "urn:bebop:problem:out-of-memory")
        assert problem["value"] > problem["limit"] == 1e8
        assert problem["detail"].startswith("its worker held ")
        service.wait_until_ready()  # with another worker


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    clock = ROOT / "tests" / "simulator" / "jumping_clock"
    with outside(tmp_path / "data", "--workers", "1", "--timeout", "300", site=clock) as service:
        jobs = [service.client.submit("run", body(f"run.seed={seed}")) for seed in range(3)]
        for seed, job in enumerate(jobs):
            answer = service.client.wait(job, timeout_s=240).answer
            assert answer == json.loads(simulate(small(f"run.seed={seed}")).to_json())
        listed = service.ask("/v1/runs")[1]["jobs"]
        assert [shown["id"] for shown in listed] == [job.id for job in reversed(jobs)]
        assert {shown["attempts"] for shown in listed} == {1}


def _events(service: Outside, job_id: str) -> list[bytes]:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    connection.request("GET", f"/v1/runs/{job_id}/events", headers={"Authorization": f"Bearer {service.token}"})
    found = connection.getresponse()
    assert found.headers["content-type"].startswith("text/event-stream")
    parts = [found.read()]
    connection.close()
    return parts


def test_a_full_disk_refuses_jobs_and_loses_none(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1", file_bytes=250_000) as service:  # F9
        kept = service.client.wait(service.client.submit("run", body()))
        with pytest.raises(ServiceError, match="Insufficient Storage"):
            _submit_many(service)
        assert service.ask("/readyz")[0] == 503
        assert service.ask("/healthz")[0] == 200
        assert service.client.job("run", kept.id).answer == kept.answer
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        service.wait_until_ready()
        assert service.client.job("run", kept.id).answer == kept.answer
        assert service.client.run(small("run.seed=200")).seed == 200


def test_a_torn_ledger_is_set_aside_and_a_damaged_answer_worked_out_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with outside(data, "--workers", "1") as service:
        job = service.client.wait(service.client.submit("run", body()))
        with sqlite3.connect(data / "ledger.sqlite") as database:  # F12
            database.execute("UPDATE answers SET answer = replace(answer, '1', '2')")
        database.close()
        again = service.client.submit("run", body())
        assert again.status in ("queued", "running")
        assert service.client.wait(again).answer == job.answer
    (data / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(9000))
    for suffix in ("-wal", "-shm"):
        (data / f"ledger.sqlite{suffix}").unlink(missing_ok=True)
    with outside(data, "--workers", "1") as service:
        assert "the ledger was damaged; it lies at" in (data / "service.log").read_text()
        assert (data / "ledger.sqlite.damaged-1").exists()
        assert service.client.wait(service.client.submit("run", body())).answer == job.answer


def test_floods_and_slow_and_huge_requests_leave_it_answering(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1", "--queue", "20", program=IMPATIENT) as service:
        service.wait_until_ready()
        begin_s = time.monotonic()
        silent = socket.create_connection(_address(service), timeout=60)  # no head
        dribbling = socket.create_connection(_address(service), timeout=60)
        dribbling.sendall(_head(service, "Content-Length: 1000") + b"{")  # a body that never ends
        with silent:
            assert silent.recv(10) == b""
            assert time.monotonic() - begin_s >= HEAD_S
        with dribbling:
            assert dribbling.recv(100).startswith(b"HTTP/1.1 408")
            assert time.monotonic() - begin_s >= BODY_S

        before = _memory_bytes(service)
        peaks = [before]
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.02):
                peaks.append(_memory_bytes(service))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert _send_chunks(service, 150_000_000) == 413  # F24
        stop.set()
        watcher.join()
        assert max(peaks) - before < 50_000_000

        statuses = [_submit(service, seed) for seed in range(1000)]  # F26
        assert set(statuses) == {202, 429}
        assert statuses.count(202) == 21  # one runs, 20 wait
        asked_s = time.monotonic()
        assert service.ask("/healthz")[0] == 200
        assert time.monotonic() - asked_s < 2.0


def _address(service: Outside) -> tuple[str, int]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return host, int(port)


def _head(service: Outside, *lines: str) -> bytes:
    given = [f"Authorization: Bearer {service.token}", "Content-Type: application/json", *lines]
    return "\r\n".join(["POST /v1/runs HTTP/1.1", "Host: 127.0.0.1", *given, "", ""]).encode()


def _send_chunks(service: Outside, num_bytes: int) -> int:
    """Send a body without a length; return the status that comes back, mostly long before its end."""
    sender = socket.create_connection(_address(service), timeout=30)
    sender.sendall(_head(service, "Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    try:
        while sent < num_bytes:
            sender.sendall(chunk)
            sent += 65536
    except OSError:
        pass
    assert sent < num_bytes, "it took all of it"
    answer = b""
    try:
        answer = sender.recv(200)
    except OSError:  # the answer is lost where the rest of the body meets a closed connection
        answer = b"HTTP/1.1 413"
    sender.close()
    return int(answer.split()[1])


def _submit(service: Outside, seed: int) -> int:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    text = json.dumps(body_of(seed))
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/runs", text, headers)
    found = connection.getresponse()
    found.read()
    connection.close()
    return found.status


_BODY: dict[str, Any] = body(*MINUTES)


def body_of(seed: int) -> dict[str, Any]:
    return {**_BODY, "run": {**_BODY["run"], "seed": seed}}


def _submit_many(service: Outside) -> None:
    for seed in range(100):
        service.client.submit("run", body(f"run.seed={seed + 1}"))


def _memory_bytes(service: Outside) -> int:
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
