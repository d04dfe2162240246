"""Devices: what a machine without a GPU answers, and how a GPU finds its datasheet."""

import os
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from profiler.device import gpu_name, open_device  # noqa: E402
from profiler.errors import DeviceError  # noqa: E402
from profiler.telemetry import Telemetry  # noqa: E402
from traces.hardware import list_gpus  # noqa: E402


@pytest.fixture
def _same_cores_afterwards() -> Iterator[None]:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not pin")
@pytest.mark.usefixtures("_same_cores_afterwards")
def test_a_cpu_is_pinned_to_as_many_cores_as_threads() -> None:
    device = open_device("cpu", 1)
    assert len(os.sched_getaffinity(0)) == torch.get_num_threads() == 1
    assert device.name.endswith(", 1 thread")
    assert device.gpu is None
    assert 0 < device.usable_bytes() < 1e15


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_answer_names_the_way_out() -> None:
    with pytest.raises(DeviceError, match="--device cpu") as caught:
        open_device("cuda")
    assert caught.value.exit_code == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_telemetry_says_so() -> None:
    pytest.importorskip("pynvml")
    with pytest.raises(DeviceError, match="NVML"):
        Telemetry()


@pytest.mark.parametrize(
    ("driver_name", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA Z9", "NVIDIA Z9"),
    ],
)
def test_a_gpu_is_named_as_in_its_datasheet(driver_name: str, name: str) -> None:
    assert gpu_name(driver_name) == name
    assert name in list_gpus() or name == driver_name
