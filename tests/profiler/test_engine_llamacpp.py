"""A real engine asked from outside: llama.cpp with forced acceptance, held against the times that it counts itself."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler.sources.engine.http import Endpoint
from profiler.sources.engine.load import parse_answer, steady_part
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
session = EngineSession(settings)
print(session.address, flush=True)
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


def test_a_step_seen_from_outside_is_as_long_as_llama_cpp_says_it_is(url: str) -> None:
    """Both clocks look at the same request, so nothing else on the machine can part them."""
    body = {"prompt": [300 + i for i in range(96)], "max_tokens": 128, "ignore_eos": True, "stream": True}
    endpoint = Endpoint.parse(url, timeout_s=30)
    sent_s, events = endpoint.stream("/v1/completions", body | {"timings_per_token": True}, time.perf_counter, 200)
    answer, own = parse_answer(sent_s, events), json.loads(events[-1].payload)["timings"]
    num_steps = own["predicted_n"] - 1 - own["draft_n_accepted"]
    part = steady_part([answer], num_steps / (answer.num_tokens - 1), num_steps)
    assert part is not None
    assert answer.num_tokens == 128
    assert part.step_s == pytest.approx(own["predicted_ms"] * 1e-3 / num_steps, rel=0.1)


def test_llama_cpp_is_profiled_through_its_api(url: str, tmp_path: Path) -> None:
    grid = {"batches": BATCHES, "contexts_tokens": CONTEXTS_TOKENS, "num_tokens": 96, "num_sweeps": 3}
    written = measure(request(url, gpu="cpu", precision=None, **grid), tmp_path / "k3.json")
    trace = written.trace
    assert (trace.engine.split()[0], trace.precision) == ("llama.cpp", "fp32")
    verify = {(row.batch, row.context_tokens) for row in trace.rows if row.operation is Operation.VERIFY}
    assert verify == {(batch, context) for batch in BATCHES for context in CONTEXTS_TOKENS}
    assert all(simulated(trace, 3)(*point) > 1e-4 for point in verify)
    assert written.acceptance is not None
    (row,) = written.acceptance.rows
    assert row.num_steps is not None
    assert row.num_steps > 300
    assert row.cumulative == pytest.approx(ACCEPTANCE, abs=0.1)  # four standard errors
