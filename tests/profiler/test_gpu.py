"""What only a GPU can show: fused kernels compute what the CPU does, graphs are timed truly, a profile runs through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.device import open_device  # noqa: E402
from profiler.models.decoder import build_decoder  # noqa: E402
from profiler.models.glue import Glue  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.step import Step  # noqa: E402
from profiler.models.weights import WeightMaker, tensors_of  # noqa: E402
from profiler.ops.bench import Bench  # noqa: E402
from profiler.ops.composed import speculative_step  # noqa: E402
from profiler.ops.registry import PREPARE, UNGRAPHED  # noqa: E402
from profiler.timing import CudaTimer  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.architecture import Architecture  # noqa: E402
from traces.latency import LatencyTrace, Operation  # noqa: E402
from traces.store import load_trace  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
by_family = pytest.mark.parametrize("shape", shapes.ALL, ids=lambda shape: shape.name)
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@by_family
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("num_cached", "num_new"), [(0, 70), (20, 1), (20, 4), (20, 40)])
def test_a_gpu_computes_what_the_cpu_computes(shape: Architecture, fused: bool, num_cached: int, num_new: int) -> None:
    reference = build_decoder(slice_rank(shape), WeightMaker.seeded(torch.device("cpu"), "fp32"), max_tokens=512)
    glue = Glue.fused() if fused else Glue.eager()
    model = build_decoder(slice_rank(shape), WeightMaker.seeded(CUDA, "bf16"), glue=glue, max_tokens=512)
    step = Step(num_cached, num_new, keeps_states=num_new == 4)
    tokens = reference.maker.tokens(3, num_new, below=shape.vocab_size)
    caches = [one.new_caches(3, num_cached + num_new, num_new) for one in (reference, model)]
    for ours, theirs in ((reference, model), *zip(*caches, strict=True)):
        for value, copy in zip(tensors_of(ours), tensors_of(theirs), strict=True):
            copy.copy_(value)
    expected = reference.logits(reference.forward(tokens, caches[0], step))
    found = model.logits(model.forward(tokens.to(CUDA), caches[1], step)).float().cpu()
    assert (found - expected).norm() / expected.norm() < 0.05


@by_family
@pytest.mark.parametrize("operation", list(PREPARE))
def test_every_operation_can_be_captured_and_timed(shape: Architecture, operation: Operation) -> None:
    bench = Bench(build_decoder(slice_rank(shape), WeightMaker.seeded(CUDA, "bf16"), max_tokens=512))
    num_new = {Operation.PREFILL: 80, Operation.VERIFY: 4, Operation.DRAFT: 4, Operation.SAMPLE: 4}.get(operation, 1)
    work = PREPARE[operation](bench, 3, 24, num_new)
    timed = CudaTimer().measure(work, as_graph=operation not in UNGRAPHED)
    assert 1e-6 < timed.latency_s < 1
    assert (timed.host_gap_s is not None) == (operation not in UNGRAPHED)


@by_family
def test_a_whole_speculative_step_can_be_captured(shape: Architecture) -> None:
    bench = Bench(build_decoder(slice_rank(shape), WeightMaker.seeded(CUDA, "bf16"), max_tokens=512))
    assert 1e-6 < CudaTimer().measure(speculative_step(bench, 3, 24, 4)).latency_s < 1


def test_a_product_runs_near_the_peak_and_not_above() -> None:
    device = open_device("cuda")
    if device.gpu is None:
        pytest.skip(f"no datasheet of {device.name}")
    x = torch.randn(8192, 8192, device=CUDA, dtype=torch.bfloat16)
    rate = 2 * 8192**3 / CudaTimer().measure(lambda: x @ x).latency_s
    assert 0.4 * device.gpu.bf16_flops < rate < device.gpu.bf16_flops


def test_a_small_profile_runs_through(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    options = [
        "--batches",
        "1,4",
        "--contexts",
        "16,256",
        "--max-draft-tokens",
        "1",
        "--held-out",
        "2",
        "--sweeps",
        "1",
    ]
    assert bebop(["profile", "--device", "cuda", "--model", "Qwen3.5-4B", "-o", str(path), *options]) == 0
    trace = load_trace(path, LatencyTrace)
    assert trace.measurement is not None
    assert trace.measurement.infeasible == ()
    assert trace.measurement.sm_clock_hz is not None
    assert any(row.operation is Operation.HOST_GAP for row in trace.rows)
