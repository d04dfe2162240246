"""Timing: how long a piece of work takes, on a GPU by events around replays of a CUDA graph, on a CPU by the clock.

A graph replay is what engines pay per step: no launch of single kernels. Everything that touches CUDA's graphs and
events is in this file. Does not know what it times.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Work = Callable[[], object]

MIN_REPEATS = 5
MAX_REPEATS = 50
MIN_TIMED_S = 0.02
"""A sample repeats its work until this much was timed."""
MAX_SAMPLE_S = 0.1
"""A CPU sample waits so long for undisturbed calls."""
MAX_OFF_CORE = 0.03
"""Share of a call that its thread may spend off the core before the call counts as disturbed."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One sample: the median of its repeats."""

    latency_s: float
    num_repeats: int
    host_gap_s: float | None = None
    """Of a replayed graph whose result the host waits for: wall time per replay beyond the GPU's own."""


class Timer(Protocol):
    """Times work."""

    def measure(self, work: Work, *, as_graph: bool = True) -> Timed:
        """Return the time of one call of `work`, warmed up; `as_graph` is for timers that know graphs."""


class CpuTimer:
    """Wall clock around each call; calls during which another process took the core do not count.

    Where every call was disturbed, the time that the thread had the core stands for it.
    """

    def measure(self, work: Work, *, as_graph: bool = True) -> Timed:
        """Return the median call; three calls warm up."""
        del as_graph

        def once() -> tuple[float, float]:
            own, start = time.thread_time(), time.perf_counter()
            work()
            return time.perf_counter() - start, time.thread_time() - own

        once()
        enough = num_repeats(min(once()[0], once()[0]))
        on_core: list[float] = []
        undisturbed: list[float] = []
        deadline_s = time.perf_counter() + MAX_SAMPLE_S
        while len(on_core) < MIN_REPEATS or (len(undisturbed) < enough and time.perf_counter() < deadline_s):
            wall_s, own_s = once()
            on_core.append(own_s)
            if own_s > (1 - MAX_OFF_CORE) * wall_s:
                undisturbed.append(wall_s)
        return Timed(statistics.median(undisturbed or on_core), len(on_core))


class CudaTimer:
    """CUDA events around each replay of a graph, or around each call where a graph cannot be captured."""

    num_warm_up = 3

    def measure(self, work: Work, *, as_graph: bool = True) -> Timed:
        """Return the median replay; the graph is dropped afterwards.

        Raises:
            torch.OutOfMemoryError: The work does not fit.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(
            stream
        ):  # capture wants everything lazily initialised beforehand, off the default stream
            for _ in range(self.num_warm_up):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        if not as_graph:
            return self._time(work, replayed=False)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
            for _ in range(self.num_warm_up):
                graph.replay()
            return self._time(graph.replay, replayed=True)
        finally:
            graph.reset()

    def _time(self, work: Work, *, replayed: bool) -> Timed:
        torch.cuda.synchronize()
        first = self._events(work, 1)[0]
        seconds = self._events(work, num_repeats(first))
        gap_s = self._host_gap_s(work, statistics.median(seconds)) if replayed else None
        return Timed(statistics.median(seconds), len(seconds), gap_s)

    @staticmethod
    def _events(work: Work, count: int) -> list[float]:
        pairs: list[tuple[Any, Any]] = []
        for _ in range(count):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return [1e-3 * begin.elapsed_time(end) for begin, end in pairs]

    @staticmethod
    def _host_gap_s(work: Work, device_s: float) -> float:
        """Return wall time per replay beyond the GPU's, the host waiting for each: an engine without overlap."""
        walls = []
        for _ in range(MIN_REPEATS):
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            walls.append(time.perf_counter() - start)
        return max(statistics.median(walls) - device_s, 0.0)


def num_repeats(once_s: float) -> int:
    """Return how often work of `once_s` is repeated for one sample."""
    return max(MIN_REPEATS, min(MAX_REPEATS, int(MIN_TIMED_S / max(once_s, 1e-9))))
