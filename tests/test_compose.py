"""The containers: the files are what Compose and Docker take, and keep the rules that matter."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tests" / "compose" / "compose-spec.json"
"""compose-spec/compose-spec at 170098ba (23 June 2026), Apache-2.0: LICENSE beside it."""


@pytest.fixture(scope="module")
def stack() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_takes_the_file(stack: Any) -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(stack)


def test_the_stack_has_its_services(stack: Any) -> None:
    assert set(stack["services"]) == {"api", "dashboard", "ray-head", "ray-worker", "profiler"}
    assert stack["services"]["profiler"]["profiles"] == ["gpu"]
    (device,) = stack["services"]["profiler"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "container_name" not in stack["services"]["ray-worker"]  # or it could not be scaled


def test_every_service_is_hardened(stack: Any) -> None:
    for name, service in stack["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service, name
        assert service["pids_limit"] > 0, name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service), name
        assert all(re.fullmatch(r"[a-z-]+:/[a-z]+(:ro)?", volume) for volume in service.get("volumes", ())), name
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", service["image"]), name


def test_only_loopback_is_published_and_nothing_of_ray(stack: Any) -> None:
    for name, service in stack["services"].items():
        ports = service.get("ports", [])
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), name
        assert not ports or not name.startswith("ray")
    assert stack["networks"]["cluster"]["internal"] is True


def test_whoever_speaks_to_ray_has_its_token_from_a_file(stack: Any) -> None:
    for name in ("api", "ray-head", "ray-worker"):
        service = stack["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray-token"
        assert service["secrets"] == ["ray-token"]
    assert "ray-token" in (ROOT / ".gitignore").read_text().split()
    assert not re.search(r"RAY_AUTH_TOKEN[:=]", (ROOT / "docker-compose.yml").read_text())


def test_named_volumes_are_declared(stack: Any) -> None:
    used = {volume.split(":")[0] for service in stack["services"].values() for volume in service.get("volumes", ())}
    assert used == set(stack["volumes"])


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint for this platform")
    found = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_is_pinned_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    stages = [line.split() for line in lines if line.startswith("FROM")]
    known = {words[3] for words in stages if len(words) > 2}
    images = [words[1] for words in stages if words[1] not in known]
    assert images
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", image) for image in images)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
