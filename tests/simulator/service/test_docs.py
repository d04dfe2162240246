"""docs/service.md: its examples run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.service.serving import ROOT, outside


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_the_examples_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    (script,) = re.findall(r"<!-- examples -->\n```bash\n(.*?)```\n", text, re.DOTALL)
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bebop").write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "bebop.py"} "$@"\n')
    (folder / "bebop").chmod(0o755)
    with outside(tmp_path / "data", "--workers", "1") as service:
        path = f"{folder}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "URL": service.url, "TOKEN": service.token, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert found.returncode == 0, found.stderr
    assert 'event: end\ndata: {"status": "done", "progress": 1.0}' in found.stdout
    assert '"mean": ' in found.stdout
    assert "/v1/sweeps/{job_id}/results" in found.stdout
