"""Sampler: times single points on one device, with a model that is built when the first of them needs it.

Does not know the plan, nor where samples are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from profiler import plausibility
from profiler.device import Device
from profiler.errors import DeviceError, UsageError
from profiler.grid import coarse_grid
from profiler.ledger import COMPOSED, Sample
from profiler.memory import bytes_needed, weight_bytes
from profiler.models.decoder import Decoder, build_decoder
from profiler.models.experts import AnyRouting, Routing
from profiler.models.glue import Glue
from profiler.models.rank import Rank
from profiler.models.recorded_routing import load_routing, sha256_of
from profiler.models.weights import WeightMaker
from profiler.ops.bench import Bench
from profiler.ops.composed import speculative_step
from profiler.ops.registry import PREPARE, UNGRAPHED
from profiler.request import ProfileRequest
from profiler.sweeps import Task


@dataclass(slots=True)
class Sampler:
    """One device and one model."""

    request: ProfileRequest
    rank: Rank
    device: Device
    _bench: Bench | None = None

    def measure(self, tasks: Iterator[Task]) -> Iterator[Sample]:
        """Yield the samples of tasks, one after another."""
        return map(self.sample, tasks)

    def sample(self, task: Task) -> Sample:
        """Return the time of a point, or the reason why it has none.

        Raises:
            DeviceError: The weights do not fit, or the time is shorter than physics allows.
        """
        purpose, point, sweep = task.purpose, task.point, task.sweep
        needed = bytes_needed(point, self.rank, self.request.precision)
        if needed > self.device.usable_bytes():
            reason = f"needs {needed / 1e9:.1f} GB, {self.device.usable_bytes() / 1e9:.1f} GB may be used"
            return Sample(purpose, point, sweep, None, reason)
        prepare = speculative_step if purpose == COMPOSED else PREPARE[point.operation]
        bench = self._built()
        try:
            with torch.no_grad():
                work = prepare(bench, point.batch, point.context_tokens, point.tokens_per_seq)
                timed = self.device.timer.measure(work, as_graph=point.operation not in UNGRAPHED)
        except (MemoryError, RuntimeError) as error:
            return Sample(purpose, point, sweep, None, why_infeasible(error, self.device))
        finally:
            work = None  # type: ignore[assignment]  # the next point needs its memory
            self.device.release()
        if purpose != COMPOSED:
            plausibility.check(point, timed.latency_s, self.rank, self.request.precision, self.device.gpu)
        reading: dict[str, Any] | None = self.device.telemetry.read().as_dict() if self.device.telemetry else None
        return Sample(purpose, point, sweep, timed.latency_s, None, timed.num_repeats, timed.host_gap_s, reading)

    def _built(self) -> Bench:
        """Return the model, made when the first point needs it: a finished ledger needs none."""
        if self._bench is None:
            weights = weight_bytes(self.rank, self.request.precision)
            if weights > self.device.usable_bytes():
                raise DeviceError(
                    f"{self.rank.whole.name}: its weights take {weights / 1e9:.1f} GB of one GPU, "
                    f"{self.device.usable_bytes() / 1e9:.1f} GB may be used; raise --tp or choose a smaller model"
                )
            if self.request.precision == "fp8" and not self.device.has_fp8():
                raise DeviceError(f"{self.device.name} has no fp8 products; use --precision bf16")
            try:
                self._bench = Bench(self._decoder(), self.request.verify_rule, self.request.sync_to)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise DeviceError(
                    f"{self.rank.whole.name}: no room for its weights of {weights / 1e9:.1f} GB ({_line(error)}); free "
                    "the memory, raise --tp or choose a smaller model, then repeat"
                ) from None
        return self._bench

    @torch.no_grad()
    def _decoder(self) -> Decoder:
        on_gpu = self.device.torch_device.type == "cuda"
        return build_decoder(
            self.rank,
            WeightMaker.seeded(self.device.torch_device, self.request.precision, self.request.seed),
            glue=Glue.fused() if on_gpu and self.request.fuses_glue else Glue.eager(),
            routing=open_routing(self.request),
            max_tokens=max(point.batch * point.tokens_per_seq for point in coarse_grid(self.request.grid)),
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was short; torch says so of a CPU in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def why_infeasible(error: BaseException, device: Device) -> str:
    """Return the reason of a point that cannot be timed.

    Raises:
        DeviceError: The GPU itself failed, and no later point would be better off.
        RuntimeError: On a CPU, what is neither memory nor the point's own: a defect of ours.
    """
    if is_out_of_memory(error):
        return f"out of memory: {_line(error)}"[:300]
    if isinstance(error, torch.AcceleratorError):
        raise DeviceError(
            f"the GPU failed ({_line(error)}); look at nvidia-smi and the kernel log, then repeat the command to go on"
        ) from error
    if device.torch_device.type == "cpu":
        raise error
    # A kernel that refuses one shape must not cost the others.
    return f"refused: {_line(error)}"[:300]


def _line(error: BaseException) -> str:
    """Return what an error says, on one line, before the advice that torch adds."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def open_routing(request: ProfileRequest) -> AnyRouting:
    """Return which experts tokens visit.

    Raises:
        UsageError: The recorded file is not the one that was asked for.
    """
    if request.routing_file is None:
        return Routing(request.expert_skew, request.seed)
    path = Path(request.routing_file)
    routing = load_routing(path, request.model)
    if sha256_of(path) != request.routing_sha256:
        raise UsageError(f"--routing {path}: has changed since the profile began; restore it, or choose another -o")
    return routing
