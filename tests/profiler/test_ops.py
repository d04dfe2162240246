"""Operations run on every family, again and again, and do the work that their names say."""

import time
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from profiler.models.decoder import build_decoder  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.weights import WeightMaker, num_bytes, tensors_of  # noqa: E402
from profiler.mtp.rejection import VERIFIERS  # noqa: E402
from profiler.ops.bench import Bench  # noqa: E402
from profiler.ops.composed import speculative_step  # noqa: E402
from profiler.ops.registry import PREPARE  # noqa: E402
from profiler.timing import MAX_REPEATS, MIN_REPEATS, CpuTimer, num_repeats  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.architecture import Architecture  # noqa: E402
from traces.latency import Operation  # noqa: E402

by_family = pytest.mark.parametrize("shape", shapes.ALL, ids=lambda shape: shape.name)
PASSES = (Operation.PREFILL, Operation.DECODE, Operation.VERIFY, Operation.DRAFT, Operation.LM_HEAD)


def bench_of(shape: Architecture, **changes: str) -> Bench:
    maker = WeightMaker.seeded(torch.device("cpu"), "fp32")
    return Bench(build_decoder(slice_rank(shape), maker, max_tokens=256), **changes)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@by_family
@pytest.mark.parametrize("operation", PASSES)
def test_a_pass_can_be_repeated_and_stays_finite(shape: Architecture, operation: Operation) -> None:
    num_new = {Operation.PREFILL: 20, Operation.VERIFY: 4, Operation.DRAFT: 4}.get(operation, 1)
    work = PREPARE[operation](bench_of(shape), 3, 24, num_new)
    for _ in range(20):
        out = work()
    assert torch.isfinite(out).all()
    expected = {
        Operation.PREFILL: (3, shape.vocab_size),
        Operation.DRAFT: (3, 4, shape.hidden_size),
    }
    assert out.shape == expected.get(operation, (3, num_new, shape.vocab_size))


@by_family
def test_verify_of_the_same_tokens_gives_the_same_logits_each_time(shape: Architecture) -> None:
    work = PREPARE[Operation.VERIFY](bench_of(shape), 2, 24, 4)
    torch.testing.assert_close(work(), work())


@pytest.mark.parametrize("rule", list(VERIFIERS))
@pytest.mark.parametrize("num_drafts", [1, 3])
def test_sampling_covers_every_position_and_the_whole_vocabulary(rule: str, num_drafts: int) -> None:
    tokens, accepted = PREPARE[Operation.SAMPLE](bench_of(shapes.DENSE, verify_rule=rule), 50, 0, num_drafts + 1)()
    assert tokens.shape == (50, num_drafts + 1)
    assert ((accepted >= 0) & (accepted <= num_drafts)).all()
    drawn = PREPARE[Operation.SAMPLE](bench_of(shapes.DENSE), 5000, 0, 1)()
    assert drawn.max() == shapes.DENSE.vocab_size - 1


@by_family
@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_a_speculative_step_drafts_k_tokens_per_sequence(shape: Architecture, rule: str) -> None:
    drafts = speculative_step(bench_of(shape, verify_rule=rule), 3, 24, 4)()
    assert drafts.shape == (3, 3)
    assert ((drafts >= 0) & (drafts < shape.vocab_size)).all()


@by_family
def test_a_train_step_reaches_every_weight(shape: Architecture) -> None:
    bench = bench_of(shape)
    before = [weight.clone() for weight in tensors_of(bench.model)]
    PREPARE[Operation.TRAIN_STEP](bench, 4, 0, 40)()
    changed = [not torch.equal(old, new) for old, new in zip(before, tensors_of(bench.model), strict=True)]
    assert all(changed)
    assert not any(weight.requires_grad for weight in tensors_of(bench.model))


@pytest.mark.parametrize("target", ["device", "host"])
def test_a_weight_sync_copies_every_byte(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(shapes.HYBRID_MOE, sync_to=target)
    moved = []
    copy = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda to, of, **_: moved.append(copy(to, of).nbytes))
    PREPARE[Operation.WEIGHT_SYNC](bench, 1, 0, 1)()
    assert sum(moved) == num_bytes(bench.model)


def test_the_cpu_timer_measures_what_a_call_takes() -> None:
    calls = []
    x = torch.randn(300, 300)

    def work() -> None:
        calls.append(1)
        for _ in range(20):
            x @ x

    timed = CpuTimer().measure(work)
    assert len(calls) == timed.num_repeats + 3
    assert 1e-5 < timed.latency_s < 1


def test_time_without_the_core_does_not_count_on_a_cpu() -> None:
    assert CpuTimer().measure(lambda: time.sleep(0.01)).latency_s < 0.005


@pytest.mark.parametrize(("once_s", "repeats"), [(0.0, MAX_REPEATS), (0.002, 10), (1.0, MIN_REPEATS)])
def test_short_work_is_repeated_more_often(once_s: float, repeats: int) -> None:
    assert num_repeats(once_s) == repeats
