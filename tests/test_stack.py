"""The services of docker-compose.yml, run for real on loopback without containers: a sweep goes through all of them."""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from simulator.client import Client
from simulator.config import UncertaintyConfig
from simulator.sweep import parse_design, run_sweep
from simulator.sweep.point import Base, evaluate
from tests.simulator.service.serving import body, outside, wait_for
from tests.simulator.small_scenario import SMALL
from tests.simulator.sweep.in_process import InProcess

pytest.importorskip("ray", reason="the stack spreads sweeps with Ray")
pytest.importorskip("streamlit", reason="the stack has a dashboard")

ROOT = Path(__file__).resolve().parent.parent
HERE = "127.0.0.2"
"""Loopback that Ray does not replace by the machine's address on its network."""
GRID = ["arms.*.k=1..3"]

pytestmark = pytest.mark.slow


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own, and end all of that at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            yield process
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                except ProcessLookupError:
                    break
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    continue
            process.wait(10)


def says(log: Path, words: str) -> Callable[[], bool]:
    return lambda: words in log.read_text(errors="replace")


def test_a_sweep_goes_through_the_api_to_ray_and_back(tmp_path: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:
        (tmp_path / "ray-token").write_text(secrets.token_hex(32))
        ray_variables = {
            **services["ray-head"]["environment"],
            "RAY_AUTH_TOKEN_PATH": str(tmp_path / "ray-token"),
            "RAY_TMPDIR": short,
        }
        environment = {**os.environ, **ray_variables, "PYTHONPATH": str(ROOT)}
        ray = str(Path(sys.executable).parent / "ray")
        here = [f"--node-ip-address={HERE}"]
        port = 20_000 + os.getpid() % 10_000
        # The commands of docker-compose.yml, with the addresses of this machine.
        head = [part.replace("6379", str(port)) for part in services["ray-head"]["command"]]
        worker = [part.replace("ray-head:6379", f"{HERE}:{port}") for part in services["ray-worker"]["command"]]
        logs = [tmp_path / f"{name}.log" for name in ("head", "worker", "dashboard")]
        stack.enter_context(running([ray, *head, *here, f"--temp-dir={short}/ray"], logs[0], environment))
        page = 30_000 + os.getpid() % 10_000
        dashboard = [part.replace("8501", str(page)) for part in services["dashboard"]["command"]]
        dashboard[dashboard.index("0.0.0.0")] = "127.0.0.1"
        stack.enter_context(running([sys.executable, str(ROOT / "bebop.py"), *dashboard], logs[2], environment))
        wait_for(says(logs[0], "runtime started"), 60)
        stack.enter_context(running([ray, *worker, *here, "--num-cpus=1"], logs[1], environment))

        (tmp_path / "wrong").write_text(secrets.token_hex(32))
        check = [ray, *services["ray-head"]["healthcheck"]["test"][2:-1], f"{HERE}:{port}"]
        asked = []
        for token in ("ray-token", "wrong"):
            given = {**environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / token)}
            asked.append(subprocess.Popen(check, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        sweep = [sys.executable, str(ROOT / "bebop.py"), "sweep", "--grid", GRID[0], "--out", str(tmp_path / "none")]
        stranger = subprocess.Popen(
            [*sweep, "--executor", "ray", "--address", f"{HERE}:{port}"], env=given, stderr=subprocess.PIPE, text=True
        )

        with pytest.MonkeyPatch.context() as patch:
            for name, value in ray_variables.items():
                patch.setenv(name, value)
            (serve,) = services["api"]["command"]
            assert re.search(r"exec bebop serve .*--ray ray-head:6379", serve)
            assert subprocess.run(["sh", "-n", "-c", serve], check=False).returncode == 0
            api = stack.enter_context(outside(tmp_path / "data", "--workers", "1", "--ray", f"{HERE}:{port}"))
        assert [process.wait(60) for process in asked] == [0, 1]
        wait_for(says(logs[1], "runtime started"), 60)
        client = Client(api.url, api.token)
        job = client.wait(client.submit("sweep", {"scenario": body(), "grid": GRID}), timeout_s=120)
        assert (job.answer["points"], job.answer["failed"]) == (3, 0)
        client.save_sweep(job, tmp_path / "results.parquet")
        assert pq.read_table(tmp_path / "results.parquet").num_rows == 12
        assert "session_" in " ".join(path.name for path in (Path(short) / "ray").iterdir())

        _, said = stranger.communicate(timeout=120)
        assert stranger.returncode == 5
        last = said.splitlines()[-1]  # after Ray's own, one a second
        assert f"--address {HERE}:{port}: no Ray cluster answers there" in last
        assert "check the address and the token" in last

        with urllib.request.urlopen(f"http://127.0.0.1:{page}/_stcore/health", timeout=10) as response:
            assert response.read() == b"ok"


def test_the_service_and_the_command_line_have_the_same_numbers(tmp_path: Path) -> None:
    with outside(tmp_path / "data", "--workers", "1") as api:
        job = api.client.wait(api.client.submit("sweep", {"scenario": body(), "grid": GRID}), timeout_s=240)
    text = (ROOT / "simulator" / "scenarios" / "bebop-reasoning.toml").read_text()
    fixed = (
        *SMALL,
        "run.replications=1",
        *(f"uncertainty.{name}=0.0" for name in UncertaintyConfig.model_fields),
    )
    sweep = run_sweep(
        Base(text, "bebop-reasoning.toml", fixed), parse_design(GRID), InProcess(evaluate), tmp_path / "own"
    )
    assert sweep.digest == job.answer["digest"]
