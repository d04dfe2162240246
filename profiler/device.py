"""Device: the CPU or GPU that is measured: its name, memory, peaks, and how its clock is read.

The only file that sets threads. Does not know models.
"""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from profiler.errors import DeviceError
from profiler.telemetry import Telemetry
from profiler.timing import CpuTimer, CudaTimer, Timer
from traces.hardware import Gpu, list_gpus, load_gpu

RESERVE_SHARE = 0.08
"""Share of the memory left alone: activations, workspaces, graphs. An assumption."""


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

    def free_bytes(self) -> float:
        """Return memory that may still be taken."""
        if self.torch_device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.torch_device)
            cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            return float(free + cached - RESERVE_SHARE * total)
        available, total_ram = _memory_of_this_machine()
        return available - RESERVE_SHARE * total_ram

    def release(self) -> None:
        """Give unused memory back, so that the next point finds it in one piece."""
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()


def open_device(kind: str, num_threads: int | None = None) -> Device:
    """Return the device, ready to measure.

    Args:
        kind: `cpu` or `cuda`.
        num_threads: CPU threads, pinned to as many cores; None takes all cores of this process.

    Raises:
        DeviceError: No GPU, no driver, or another process on it.
    """
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if kind == "cpu":
        return Device(torch.device("cpu"), _cpu_name(_pin(num_threads)), None, CpuTimer(), versions)
    if not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else (f"torch {torch.__version__} is built without CUDA")
        )
        raise DeviceError(f"no GPU is usable: {built}; check nvidia-smi, install a CUDA build, or use --device cpu")
    telemetry = Telemetry()
    telemetry.check_alone()
    name = gpu_name(torch.cuda.get_device_name())
    gpu = load_gpu(name) if name in list_gpus() else None
    versions |= {"cuda": str(torch.version.cuda), "driver": telemetry.driver()}
    return Device(torch.device("cuda"), name, gpu, CudaTimer(), versions, telemetry)


def gpu_name(driver_name: str) -> str:
    """Return the name in `gpus.csv` that the driver's name holds as a word, else the driver's name."""
    words = re.split(r"[^A-Za-z0-9]+", driver_name)
    return next((name for name in list_gpus() if name in words), driver_name)


def _pin(num_threads: int | None) -> int:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    count = min(num_threads or len(cores), len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:count])
    torch.set_num_threads(count)
    return count


def _cpu_name(num_threads: int) -> str:
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {num_threads} threads"[:100]


def _memory_of_this_machine() -> tuple[float, float]:
    """Return available and total memory, bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = float(page * os.sysconf("SC_PHYS_PAGES"))
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return 1024.0 * int(line.split()[1]), total
    except OSError:
        pass
    return total / 2, total
