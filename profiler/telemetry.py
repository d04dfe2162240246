"""Telemetry: clocks and power of a GPU at the moment of a sample, through NVML. Reads only, changes no setting."""

import importlib
import os
from dataclasses import asdict, dataclass
from typing import Any

from profiler.errors import DeviceError


@dataclass(frozen=True, slots=True)
class Reading:
    """What NVML says."""

    sm_clock_hz: float
    memory_clock_hz: float
    power_w: float
    temperature_c: float
    throttle_reasons: int
    """NVML's bit mask; 0 and 1 (idle) mean that nothing holds the clocks down."""

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OtherProcess:
    """Somebody else on the GPU."""

    pid: int
    used_bytes: int | None
    """None where the driver does not say."""

    def __str__(self) -> str:
        used = "memory unknown" if self.used_bytes is None else f"{self.used_bytes / 1e9:.1f} GB"
        return f"pid {self.pid} ({used})"


class Telemetry:
    """NVML of one GPU."""

    def __init__(self, visible_devices: str = "0", nvml: Any = None) -> None:
        """Open NVML for the first of CUDA's visible devices, an index or a UUID; `nvml` None imports pynvml.

        Raises:
            DeviceError: No package, no driver or no such GPU.
        """
        try:
            self._nvml: Any = nvml if nvml is not None else importlib.import_module("pynvml")
        except ImportError:
            raise DeviceError(
                "nvidia-ml-py is not installed, and clocks belong to every sample; "
                "run `pip install '.[torch]'` in the checkout"
            ) from None
        try:
            self._nvml.nvmlInit()
            first = visible_devices.split(",")[0].strip()
            by_uuid = first.startswith(("GPU-", "MIG-"))
            find = self._nvml.nvmlDeviceGetHandleByUUID if by_uuid else self._nvml.nvmlDeviceGetHandleByIndex
            self._handle = find(first if by_uuid else int(first))
        except (self._nvml.NVMLError, ValueError) as error:
            raise DeviceError(
                f"NVML, device {visible_devices}: {error}; check the driver with nvidia-smi, or use --device cpu"
            ) from None

    def driver(self) -> str:
        """Return the driver's version."""
        return str(self._nvml.nvmlSystemGetDriverVersion())

    def read(self) -> Reading:
        """Return clocks, power, temperature and throttle reasons now."""
        nvml, handle = self._nvml, self._handle
        return Reading(
            sm_clock_hz=1e6 * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            memory_clock_hz=1e6 * nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            power_w=1e-3 * nvml.nvmlDeviceGetPowerUsage(handle),
            temperature_c=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            throttle_reasons=int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        )

    def others(self) -> list[OtherProcess]:
        """Return who else computes on the GPU; none where a virtual machine hides them. Ask before using CUDA."""
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return []
        return [OtherProcess(each.pid, each.usedGpuMemory) for each in found if each.pid != os.getpid()]

    def check_alone(self) -> None:
        """Raise DeviceError where another process computes on the GPU, unless the user shares it on purpose."""
        others = self.others()
        if others:
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise DeviceError(
                f"the GPU is not free: {', '.join(map(str, others[:5]))}{more}; timings would be those of both; "
                "end it, choose another GPU with CUDA_VISIBLE_DEVICES, or add --shared"
            )
