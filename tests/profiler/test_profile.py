"""A whole profile: measured, resumed, refused; and from `bebop profile` to an answer of `bebop simulate`."""

import dataclasses
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.all_reduce import load_all_reduce  # noqa: E402
from profiler.device import Device  # noqa: E402
from profiler.errors import DeviceError, UnsupportedModelError  # noqa: E402
from profiler.grid import GridRequest, coarse_grid  # noqa: E402
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.plausibility import check, floor_of  # noqa: E402
from profiler.point import Point  # noqa: E402
from profiler.request import ProfileRequest  # noqa: E402
from profiler.result import make_trace  # noqa: E402
from profiler.runner import Runner  # noqa: E402
from profiler.timing import Timed, Work  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.architecture import load_architecture  # noqa: E402
from traces.base import Origin  # noqa: E402
from traces.hardware import load_gpu  # noqa: E402
from traces.latency import LatencyTrace, Operation  # noqa: E402
from traces.store import load_trace, save_trace  # noqa: E402

ROOT = Path(__file__).parents[2]
GRID_REQUEST = GridRequest((1, 4), (8, 32), 1, (4, 8), (0, 8), (Point(Operation.WEIGHT_SYNC, 1, 1),))
REQUEST = ProfileRequest(
    "test", shapes.HYBRID_MOE, "cpu", "fp32", GRID_REQUEST, num_held_out=3, budget_s=1e6, expert_skew=1.0
)


class CountingTimer:
    """A clock that runs the work once and says a fixed time, or what it was told for the next calls."""

    def __init__(self, *script: float | BaseException) -> None:
        self.script = list(script)
        self.num_calls = 0

    def measure(self, work: Work, *, as_graph: bool = True) -> Timed:
        self.num_calls += 1
        work()
        step = self.script.pop(0) if self.script else 1e-3
        if isinstance(step, BaseException):
            raise step
        return Timed(step, 1)


def device_with(timer: CountingTimer, gpu: str | None = None) -> Device:
    return Device(torch.device("cpu"), gpu or "test CPU", load_gpu(gpu) if gpu else None, timer, {"torch": "test"})


def profile(tmp_path: Path, timer: CountingTimer, request: ProfileRequest = REQUEST) -> LatencyTrace:
    rank, device = slice_rank(request.model, request.tp_size, request.ep_size), device_with(timer)
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", request.identity())
    Runner(request, rank, device, ledger).run()
    return make_trace(request, rank, device, ledger)


def test_every_point_of_the_grid_becomes_a_row(tmp_path: Path) -> None:
    trace = profile(tmp_path, CountingTimer())
    found = {(row.operation, row.tokens_per_seq, row.batch, row.context_tokens) for row in trace.rows}
    wanted = {(p.operation, p.tokens_per_seq, p.batch, p.context_tokens) for p in coarse_grid(GRID_REQUEST)}
    assert found == wanted
    assert {row.origin for row in trace.rows} == {Origin.MEASURED}
    assert {row.relative_spread for row in trace.rows} == {0.0}
    assert trace.measurement is not None
    assert trace.measurement.num_noisy == 0
    assert trace.measurement.held_out is not None
    assert (trace.measurement.held_out.num_points, trace.measurement.held_out.worst) == (3, 0.0)
    assert len(trace.measurement.composed) == 2
    # One step of k = 1: verify, its sampling, draft pass 0, one lm_head, one draw.
    assert trace.measurement.composed[0].sum_of_parts_s == pytest.approx(5e-3)


def test_a_trace_survives_both_file_formats(tmp_path: Path) -> None:
    trace = profile(tmp_path, CountingTimer())
    for name in ("trace.json", "trace.parquet"):
        save_trace(trace, tmp_path / name)
        assert load_trace(tmp_path / name, LatencyTrace) == trace


def test_an_interrupted_profile_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        profile(tmp_path, CountingTimer(*[1e-3] * 30, KeyboardInterrupt()))
    first = Ledger.open(tmp_path / "x.samples.jsonl", REQUEST.identity()).samples
    assert len(first) == 30
    again = CountingTimer()
    trace = profile(tmp_path, again)
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", REQUEST.identity())
    assert again.num_calls == len(ledger.samples) - 30
    assert len({(s.purpose, s.point, s.sweep) for s in ledger.samples}) == len(ledger.samples)
    assert {sample.purpose for sample in ledger.samples} == {GRID, HELD_OUT, COMPOSED}
    done = CountingTimer()
    assert profile(tmp_path, done) == trace
    assert done.num_calls == 0


def test_each_sweep_has_its_own_order(tmp_path: Path) -> None:
    profile(tmp_path, CountingTimer())
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", REQUEST.identity())
    orders = [[s.point for s in ledger.of(GRID) if s.sweep == sweep] for sweep in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != sorted(orders[2])


def test_a_noisy_point_is_measured_again_and_counted(tmp_path: Path) -> None:
    num_points = len(coarse_grid(GRID_REQUEST))
    # The first sweep is three times too slow: every point looks noisy, until two more sweeps settle it.
    trace = profile(tmp_path, CountingTimer(*[3e-3] * num_points))
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", REQUEST.identity())
    assert sum(1 for _ in ledger.of(GRID)) == 5 * num_points
    assert {row.latency_s for row in trace.rows} == {1e-3}
    assert trace.measurement is not None
    assert trace.measurement.num_noisy == 0


def test_what_runs_out_of_memory_is_recorded_not_dropped(tmp_path: Path) -> None:
    trace = profile(tmp_path, CountingTimer(torch.OutOfMemoryError("CUDA out of memory: 3 GiB")))
    assert trace.measurement is not None
    (lost,) = trace.measurement.infeasible
    assert "out of memory" in lost.reason
    assert len(trace.rows) == len(coarse_grid(GRID_REQUEST)) - 1


def test_points_beyond_the_memory_are_not_tried_and_the_longest_context_that_fits_is(tmp_path: Path) -> None:
    grid = dataclasses.replace(GRID_REQUEST, contexts_tokens=(8, 2**40))
    request = dataclasses.replace(REQUEST, model=shapes.DENSE, grid=grid, num_held_out=0)
    longest = 5000

    class Small(Device):
        __slots__ = ()

        def usable_bytes(self) -> float:
            rank = slice_rank(shapes.DENSE)
            weights = 4.0 * (rank.local.num_params + rank.local.mtp_layer_params)
            return weights + longest * rank.local.kv_bytes_per_token("fp32")

    device = device_with(CountingTimer())
    small = Small(device.torch_device, device.name, None, device.timer, device.versions)
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", {})
    rank = slice_rank(shapes.DENSE)
    Runner(request, rank, small, ledger).run()
    trace = make_trace(request, rank, small, ledger)
    assert trace.measurement is not None
    assert {point.context_tokens for point in trace.measurement.infeasible} == {2**40}
    decodes = {(row.batch, row.context_tokens) for row in trace.rows if row.operation is Operation.DECODE}
    assert decodes == {(1, 8), (1, 4864), (4, 8), (4, 1024)}


def test_without_time_every_point_is_still_measured_once(tmp_path: Path) -> None:
    timer = CountingTimer()
    trace = profile(tmp_path, timer, dataclasses.replace(REQUEST, budget_s=0.0))
    assert timer.num_calls == len(trace.rows) == len(coarse_grid(GRID_REQUEST))
    assert trace.measurement is not None
    assert trace.measurement.num_sweeps == 1
    assert {row.relative_spread for row in trace.rows} == {None}
    assert trace.measurement.held_out is None
    # More time later adds what was left out.
    assert profile(tmp_path, CountingTimer()).measurement.num_sweeps == 3


def test_a_model_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    request = dataclasses.replace(REQUEST, model=load_architecture("Qwen3-235B-A22B"))
    with pytest.raises(DeviceError, match="no point could be measured: needs"):
        profile(tmp_path, CountingTimer(), request)


def test_a_time_below_the_physics_of_the_gpu_is_refused() -> None:
    model, gpu = slice_rank(load_architecture("Qwen3-8B")), load_gpu("H200")
    point = Point(Operation.DECODE, 1, 1, 0)
    weights = 2 * (model.whole.num_params - model.whole.lm_head_params)
    assert floor_of(point, model, "bf16").num_bytes == weights
    check(point, 1.01 * weights / gpu.hbm_bytes_per_s, model, "bf16", gpu)
    check(point, 1e-6, model, "bf16", None)
    with pytest.raises(DeviceError, match="faster than H200"):
        check(point, 0.9 * weights / gpu.hbm_bytes_per_s, model, "bf16", gpu)


@pytest.mark.parametrize("name", ["Qwen3-8B", "Qwen3-30B-A3B", "Qwen3.5-27B", "Qwen3.5-35B-A3B"])
@pytest.mark.parametrize("operation", [Operation.DECODE, Operation.VERIFY, Operation.DRAFT, Operation.LM_HEAD])
def test_shipped_latencies_lie_above_the_floors(name: str, operation: Operation) -> None:
    trace = load_trace(ROOT / "traces" / "data" / "latency" / f"{name.lower()}-h200-tp1.parquet", LatencyTrace)
    rank, gpu = slice_rank(load_architecture(name)), load_gpu("H200")
    rows = [row for row in trace.rows if row.operation is operation]
    assert rows
    for row in rows:
        point = Point(operation, row.tokens_per_seq, row.batch, row.context_tokens)
        check(point, row.latency_s * 1.0001, rank, "bf16", gpu)


def test_ranks_of_a_replica_pay_for_what_they_tell_each_other() -> None:
    table = load_all_reduce("H200", 2)
    assert table is not None
    # Straight from the file: 4.4 us for 2^18 values on two GPUs.
    assert table.latency_s(262144) == pytest.approx(4.4e-6)
    rank = slice_rank(load_architecture("Qwen3-8B"), 2)
    decode = table.pass_s(Point(Operation.DECODE, 1, 64, 0), rank)
    gather = table.latency_s(64 * rank.whole.vocab_size / 2)
    assert decode == pytest.approx(73 * table.latency_s(64 * 4096) + gather)
    assert load_all_reduce("anything", 1) is None
    with pytest.raises(UnsupportedModelError, match="known on H200"):
        load_all_reduce("H100", 2)


def test_profile_then_simulate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    options = ["--batches", "1,16", "--contexts", "64,1024", "--sweeps", "1", "--held-out", "4", "--budget-s", "300"]
    assert bebop(["profile", "--device", "cpu", *options, "--threads", "1", "-o", "tiny-qwen3.5.json", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["held_out"]["num_points"] == 4
    assert load_trace(Path("tiny-qwen3.5.json"), LatencyTrace).content_hash() == answer["sha256"]
    assert bebop(["simulate", str(ROOT / "docs" / "tiny.toml"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["arms"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "Qwen3-9B"], "no architecture named"),
        (["--model", "nowhere/config.json"], "cannot be read"),
        (["--sweeps", "0"], "--sweeps 0 is outside 1..100"),
        (["--threads", "0"], "--threads 0 is outside 1..4096"),
        (["--tp", "3"], "not divisible"),
        (["--tp", "2"], "all-reduce is known on H200"),
        (["--gpu", "H200"], "belong to --source"),
        (["-o", "x.csv"], "end it in .parquet or .json"),
        (["--batches", "0,4"], "--batches: 0,4 is not whole numbers from 1 to 10000000, separated by commas"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = bebop(["profile", "--device", "cpu", *options])
    except SystemExit as end:
        code = end.code
    assert code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused_with_exit_code_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bebop(["profile", "--device", "cuda", "--model", "Qwen3-8B"]) == 5
    assert "--device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
