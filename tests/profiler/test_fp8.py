"""fp8 projections: the product of what was quantized, near the product that was meant, and no other tensor touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.errors import UnsupportedModelError  # noqa: E402
from profiler.memory import weight_bytes  # noqa: E402
from profiler.models.decoder import Decoder, build_decoder  # noqa: E402
from profiler.models.glue import Glue, quantize  # noqa: E402
from profiler.models.projection import Fp8Matrix, project  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.step import Step  # noqa: E402
from profiler.models.weights import WeightMaker, num_bytes, tensors_of  # noqa: E402
from profiler.plausibility import Floor  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.architecture import Architecture  # noqa: E402
from traces.hardware import load_gpu  # noqa: E402
from traces.latency import LatencyTrace  # noqa: E402
from traces.store import load_trace  # noqa: E402

CPU = torch.device("cpu")
DENSE = (shapes.DENSE, shapes.HYBRID)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def built(shape: Architecture, precision: str) -> Decoder:
    return build_decoder(slice_rank(shape), WeightMaker.seeded(CPU, precision), max_tokens=64)


def test_quantized_values_are_within_half_a_step_of_e4m3() -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 4, 64)[:, None]
    values, scales = quantize(x)
    assert values.dtype == torch.float8_e4m3fn
    assert scales.shape == (64, 1)
    back = values.float() * scales
    # Three bits of mantissa: half a step is 1/16 of a value, or of the smallest normal one, 2^-6.
    assert ((back - x).abs() <= x.abs() / 16 + scales * 2**-10).all()
    assert quantize(torch.zeros(2, 16))[0].float().abs().max() == 0


@pytest.mark.parametrize("num_tokens", [1, 3, 33])
def test_a_projection_is_the_product_of_the_quantized_factors(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_tokens, 2, 128, generator=generator).bfloat16()
    weight = torch.randn(48, 128, generator=generator).bfloat16()
    matrix = Fp8Matrix.of(weight)
    found = project(x, matrix, Glue.eager())
    assert (found.shape, found.dtype) == ((num_tokens, 2, 48), torch.bfloat16)
    values, scales = quantize(x)
    exact = (values.float() * scales) @ (matrix.values_OI.float() * matrix.scales_1O.t()).t()
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=1e-3)
    meant = x.float() @ weight.float().t()
    assert (found.float() - meant).norm() / meant.norm() < 0.05


@pytest.mark.parametrize("shape", DENSE, ids=lambda shape: shape.name)
def test_a_decoder_in_fp8_computes_nearly_what_it_does_in_bf16(shape: Architecture) -> None:
    logits = []
    for precision in ("bf16", "fp8"):
        model = built(shape, precision)
        tokens = torch.arange(12).view(2, 6)
        hidden = model.forward(tokens, None, Step(0, 6))
        logits.append(model.logits(model.draft(hidden, tokens, None, Step(0, 6))).float())
    error = ((logits[0] - logits[1]).norm() / logits[0].norm()).item()
    # Errors of a few percent per product add up through the layers and the normed heads of 16 of gated DeltaNet;
    # logits of unrelated weights would be 1.4 off.
    assert 0.001 < error < (0.2 if shape is shapes.DENSE else 0.4)


@pytest.mark.parametrize("shape", DENSE, ids=lambda shape: shape.name)
def test_the_weights_of_layers_are_one_byte_and_the_rest_two(shape: Architecture) -> None:
    model = built(shape, "fp8")
    dtypes = {id(weight): weight.dtype for weight in tensors_of(model)}
    assert dtypes[id(model.embedding_VH)] == dtypes[id(model.head_VH)] == torch.bfloat16
    assert model.new_mtp_cache(1, 8).k_BKLD.dtype == torch.bfloat16
    assert torch.float8_e4m3fn in dtypes.values()
    # Scales, norms and small products are above the count; on real shapes they vanish.
    assert 1.0 <= num_bytes(model) / weight_bytes(slice_rank(shape), "fp8") < 1.3


def test_sizes_that_the_kernel_cannot_take_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"divisible by 16, a weight here is \(24, 20\)"):
        Fp8Matrix.of(torch.zeros(24, 20))


def test_the_least_time_in_fp8_is_that_of_the_fp8_peak() -> None:
    gpu = load_gpu("H200")
    work = Floor(0.0, 1e15)
    assert work.seconds(gpu, "bf16") / work.seconds(gpu, "fp8") == pytest.approx(2.0, rel=1e-3)
    old = load_gpu("A100")
    assert old.fp8_flops is None
    assert work.seconds(old, "fp8") == work.seconds(old, "bf16")


def test_a_profile_in_fp8_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    path = tmp_path / "x.json"
    options = [
        "--batches",
        "1,2",
        "--contexts",
        "8,16",
        "--prefills",
        "8",
        "--max-draft-tokens",
        "1",
        "--budget-s",
        "0",
    ]
    assert bebop(["profile", "--device", "cpu", "--precision", "fp8", "--threads", "1", *options, "-o", str(path)]) == 0
    trace = load_trace(path, LatencyTrace)
    assert trace.precision == "fp8"
    assert "Projections are e4m3" in (trace.provenance.notes or "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "Qwen3-30B-A3B"], "not for experts or MLA; use --precision bf16"),
        (["--train-tokens", "64"], "--train-tokens trains in bf16 or fp32"),
    ],
)
def test_what_fp8_is_not_built_for_is_refused_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bebop(["profile", "--device", "cpu", "--precision", "fp8", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
