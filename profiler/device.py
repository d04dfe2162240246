"""Device: the CPU or GPU that is measured: its name, memory, peaks, and how its clock is read.

The only file that sets threads. Does not know models.
"""

import os
import platform
import re
from dataclasses import dataclass, replace

import torch

from profiler.cpu import cores, cpu_name
from profiler.errors import DeviceError
from profiler.telemetry import Telemetry
from profiler.timing import CpuTimer, CudaTimer, Timer
from traces.hardware import Gpu, list_gpus, load_gpu

RESERVE_SHARE = 0.08
"""Share of a GPU's memory left alone: activations, workspaces, graphs. An assumption."""
FP8_CAPABILITY = (8, 9)
CPU_SHARE = 0.5
"""Share of a machine's memory that weights and caches may take; the rest is other people's. An assumption."""


@dataclass(frozen=True, slots=True)
class Device:
    """What operations run on."""

    torch_device: torch.device
    name: str
    """As in `gpus.csv` where the GPU is known there."""
    gpu: Gpu | None
    """Datasheet peaks; None for CPUs and unknown GPUs."""
    timer: Timer
    versions: dict[str, str]
    telemetry: Telemetry | None = None
    limit_bytes: float | None = None
    """Memory that may be taken, where it is known beforehand: of a fleet's worker, of a shared GPU."""
    shared_with: str | None = None
    """Who else computed on the GPU."""

    def usable_bytes(self) -> float:
        """Return the memory that weights and caches may take together: the same whenever it is asked."""
        if self.limit_bytes is not None:
            return self.limit_bytes
        if self.torch_device.type == "cuda":
            return (1 - RESERVE_SHARE) * float(torch.cuda.get_device_properties(self.torch_device).total_memory)
        return CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def has_fp8(self) -> bool:
        """Return whether it multiplies e4m3: a CPU does, if slowly, a GPU from Ada (sm89) on."""
        return self.torch_device.type == "cpu" or torch.cuda.get_device_capability(self.torch_device) >= FP8_CAPABILITY

    def release(self) -> None:
        """Give unused memory back, so that the next point finds it in one piece."""
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()


def open_device(kind: str, num_threads: int | None = None, *, is_shared: bool = False) -> Device:
    """Return the device, ready to measure.

    Args:
        kind: `cpu` or `cuda`.
        num_threads: CPU threads, pinned to as many cores; None takes all cores of this process.
        is_shared: Take a GPU on which others compute, in the memory that they leave.

    Raises:
        DeviceError: No GPU, no driver, or another process on it.
    """
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if kind == "cpu":
        return Device(torch.device("cpu"), cpu_name(_pin(num_threads)), None, CpuTimer(), versions)
    _check_gpu()
    telemetry = Telemetry(os.environ.get("CUDA_VISIBLE_DEVICES") or "0")
    if not is_shared:
        telemetry.check_alone()
    others = telemetry.others()
    name = gpu_name(torch.cuda.get_device_name())
    gpu = load_gpu(name) if name in list_gpus() else None
    versions |= {"cuda": str(torch.version.cuda), "driver": telemetry.driver()}
    device = Device(torch.device("cuda"), name, gpu, CudaTimer(), versions, telemetry)
    if not others:
        return device
    taken = sum(other.used_bytes or 0 for other in others)
    return replace(device, limit_bytes=device.usable_bytes() - taken, shared_with=", ".join(map(str, others[:5])))


def num_gpus() -> int:
    """Return how many GPUs this process sees; uses none of them.

    Raises:
        DeviceError: None.
    """
    _check_gpu()
    return torch.cuda.device_count()


def gpu_name(driver_name: str) -> str:
    """Return the name in `gpus.csv` that the driver's name holds as a word, else the driver's name."""
    words = re.split(r"[^A-Za-z0-9]+", driver_name)
    return next((name for name in list_gpus() if name in words), driver_name)


def _check_gpu() -> None:
    if not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else (f"torch {torch.__version__} is built without CUDA")
        )
        raise DeviceError(f"no GPU is usable: {built}; check nvidia-smi, install a CUDA build, or use --device cpu")


def _pin(num_threads: int | None) -> int:
    chosen = cores(num_threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)
    torch.set_num_threads(len(chosen))
    return len(chosen)
