"""A real engine asked from outside: llama.cpp with forced acceptance, held against the times that it counts itself."""

import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler.sources.engine.measure import measure
from tests.profiler.test_engine import request, simulated
from traces.latency import Operation

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
pytest.importorskip("profiler.sources.llamacpp.session")

ACCEPTANCE = (0.8, 0.5, 0.2)
BATCHES, CONTEXTS_TOKENS = (1, 2), (128, 384)
SERVER = """
import sys
from importlib.resources import files
from pathlib import Path
from profiler.models.hf_config import architecture_of
from profiler.sources.llamacpp.session import EngineSession, EngineSettings
from profiler.sources.llamacpp.weights_file import WeightsRequest, weights_file
from traces.strict_json import parse_object

name = "tiny-qwen3.5"
config = parse_object(files("profiler").joinpath("data", f"{name}.json").read_bytes(), name)
path = weights_file(WeightsRequest(architecture_of(config, name, name)), Path(sys.argv[1]))
settings = EngineSettings(str(path), num_slots=2, slot_tokens=1024, num_draft_tokens=3, acceptance=ACCEPTANCE)
print(EngineSession(settings).address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = SERVER.replace("ACCEPTANCE", str(ACCEPTANCE))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path_factory.mktemp("weights"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.kill()


def own_step_s(url: str, context_tokens: int) -> float:
    """Return seconds of a verify step of one sequence as llama.cpp's timings tell them: no stream, no client."""
    body = {"prompt": [300 + i for i in range(context_tokens - 32)], "max_tokens": 64, "ignore_eos": True}
    wanted = urllib.request.Request(f"{url}/completion", json.dumps(body).encode())
    with urllib.request.urlopen(wanted) as reply:
        timings = json.loads(reply.read())["timings"]
    num_steps = timings["predicted_n"] - 1 - timings["draft_n_accepted"]
    return float(timings["predicted_ms"]) * 1e-3 / num_steps


def test_llama_cpps_own_step_times_are_found_from_outside(url: str, tmp_path: Path) -> None:
    wanted = request(
        url, gpu="cpu", batches=BATCHES, contexts_tokens=CONTEXTS_TOKENS, num_tokens=96, num_sweeps=3, precision=None
    )
    written = measure(wanted, tmp_path / "k3.json")
    trace = written.trace
    assert (trace.engine.split()[0], trace.precision) == ("llama.cpp", "fp32")
    verify = {(row.batch, row.context_tokens) for row in trace.rows if row.operation is Operation.VERIFY}
    assert verify == {(batch, context) for batch in BATCHES for context in CONTEXTS_TOKENS}
    step_s = simulated(trace, 3)
    for context in CONTEXTS_TOKENS:
        own_s = statistics.median(own_step_s(url, context) for _ in range(5))
        assert step_s(1, context) == pytest.approx(own_s, rel=0.35)  # two small measurements on a machine in use
    assert written.acceptance is not None
    (row,) = written.acceptance.rows
    assert row.num_steps is not None
    assert row.num_steps > 300
    assert row.cumulative == pytest.approx(ACCEPTANCE, abs=0.09)  # four standard errors
