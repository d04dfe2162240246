"""Devices in trouble: what is in the way is named in one line, and no false sample is kept."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from bebop import main as bebop  # noqa: E402
from profiler.errors import DeviceError  # noqa: E402
from profiler.ledger import Ledger  # noqa: E402
from profiler.models.hf_config import architecture_of  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.runner import Runner  # noqa: E402
from profiler.sampler import why_infeasible  # noqa: E402
from profiler.telemetry import Telemetry  # noqa: E402
from profiler.timing import Timed, Work  # noqa: E402
from tests.profiler.test_profile import REQUEST, CountingTimer, device_with  # noqa: E402
from tests.profiler.test_recorded_routing import CONFIG  # noqa: E402


class DriverError(Exception):
    """NVML's own exception."""


class Driver:
    """An NVML of one GPU with these processes on it: (pid, bytes or None)."""

    NVMLError = DriverError

    def __init__(self, *processes: tuple[int, int | None], hides: bool = False, fails: bool = False) -> None:
        self.processes, self.hides, self.fails = processes, hides, fails

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise DriverError("Driver/library version mismatch")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index > 0:
            raise DriverError("Invalid Argument")
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        if self.hides:
            raise DriverError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]


def test_another_process_is_named_with_the_memory_that_it_holds() -> None:
    telemetry = Telemetry("0", Driver((17, 21_500_000_000), (os.getpid(), 10**9), (18, None)))
    with pytest.raises(DeviceError) as caught:
        telemetry.check_alone()
    assert str(caught.value).startswith("the GPU is not free: pid 17 (21.5 GB), pid 18 (memory unknown); timings")
    assert "--shared" in str(caught.value)
    assert caught.value.exit_code == 5


def test_many_processes_are_counted() -> None:
    with pytest.raises(DeviceError, match=r"pid 5 \(1\.0 GB\) and 4 more; timings"):
        Telemetry("0", Driver(*((pid, 10**9) for pid in range(1, 10)))).check_alone()


@pytest.mark.parametrize("driver", [Driver(), Driver((os.getpid(), 10**9)), Driver(hides=True)])
def test_a_gpu_of_our_own_or_one_that_tells_nothing_is_taken(driver: Driver) -> None:
    Telemetry("0", driver).check_alone()


@pytest.mark.parametrize(
    ("visible", "driver", "words"),
    [
        ("0", Driver(fails=True), "NVML, device 0: Driver/library version mismatch; check the driver with nvidia-smi"),
        ("3,4", Driver(), "NVML, device 3,4: Invalid Argument"),
        ("none", Driver(), "NVML, device none: invalid literal"),
    ],
)
def test_a_driver_that_does_not_answer_is_quoted(visible: str, driver: Driver, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        Telemetry(visible, driver)


class Greedy(CountingTimer):
    """A clock whose work asks for more memory than any machine has."""

    def measure(self, work: Work, *, as_graph: bool = True) -> Timed:
        self.num_calls += 1
        if self.num_calls == 1:
            torch.empty(2**55)
        return super().measure(work, as_graph=as_graph)


def test_a_cpu_that_runs_out_of_memory_at_the_first_point_goes_on(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", {})
    request = dataclasses.replace(REQUEST, budget_s=0.0)
    Runner(request, slice_rank(REQUEST.model), device_with(Greedy()), ledger).run()
    lost = [sample for sample in ledger.samples if sample.latency_s is None]
    assert len(lost) == 1
    assert (lost[0].reason or "").startswith("out of memory: ")
    assert len(ledger.samples) > 20


def test_where_every_point_runs_out_of_memory_the_first_reason_is_told(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", {})
    device = device_with(CountingTimer(*[torch.OutOfMemoryError("CUDA out of memory.")] * 200))
    with pytest.raises(DeviceError, match=r"no point could be measured: out of memory: CUDA .*; choose a smaller"):
        Runner(REQUEST, slice_rank(REQUEST.model), device, ledger).run()


def test_weights_without_room_end_the_profile_and_leave_no_false_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*shape: int, **_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.")

    monkeypatch.setattr("torch.empty", full)
    ledger = Ledger.open(tmp_path / "x.samples.jsonl", {})
    with pytest.raises(DeviceError, match=r"hybrid-moe: no room for its weights of 0\.0 GB \(CUDA out of memory"):
        Runner(REQUEST, slice_rank(REQUEST.model), device_with(CountingTimer()), ledger).run()
    assert ledger.samples == []


def test_a_gpu_that_failed_ends_the_profile_instead_of_spoiling_every_later_point() -> None:
    gpu = dataclasses.replace(device_with(CountingTimer()), torch_device=torch.device("cuda"))
    error = torch.AcceleratorError("CUDA error: unspecified launch failure", 719)
    with pytest.raises(DeviceError, match=r"the GPU failed .*unspecified launch failure"):
        why_infeasible(error, gpu)
    assert why_infeasible(RuntimeError("no kernel for\n this head"), gpu) == "refused: no kernel for this head"
    with pytest.raises(RuntimeError, match="ours"):
        why_infeasible(RuntimeError("ours"), device_with(CountingTimer()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("options", [[], ["--shared"], ["--fleet"], ["--precision", "fp8"]])
def test_without_a_gpu_every_way_to_ask_for_one_is_refused_in_one_line(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bebop(["profile", "--device", "cuda", "--model", "Qwen3-8B", *options]) == 5
    error = capsys.readouterr().err
    assert "no GPU is usable" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba2"}, "model_type 'mamba2' is not one of"),
        ({"num_hidden_layers": "three"}, "a size is not of its type"),
        ({"layer_types": 7}, "a size is not of its type"),
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_key_value_heads": 3}, "4 query heads do not share 3 key/value heads evenly"),
        ({"head_dim": 7}, "a head has 7 values"),
        ({"moe_intermediate_size": 5}, "experts of 64 x 5 are no multiples of 8"),
    ],
)
def test_a_config_that_no_layer_can_be_built_of_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        architecture_of({**CONFIG, **changes}, "x", "x.json")
    assert getattr(caught.value, "exit_code", None) == 2
    assert "\n" not in str(caught.value)
