"""CPU: its name, and the cores that a measurement is pinned to. Does not know what runs there."""

import os
import platform
from pathlib import Path


def cores(num_threads: int | None) -> tuple[int, ...]:
    """Return the first cores of this process, as many as threads; None: all."""
    known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return tuple(known[: num_threads or len(known)])


def cpu_name(num_threads: int) -> str:
    """Return the name of the CPU with the threads in use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name[:80]}, {num_threads} thread{'s' if num_threads > 1 else ''}"
