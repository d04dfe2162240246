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
from profiler.models.decoder import build_decoder
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

OutOfMemory = (torch.OutOfMemoryError, MemoryError)


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
        try:
            with torch.no_grad():
                work = prepare(self._built(), point.batch, point.context_tokens, point.tokens_per_seq)
                timed = self.device.timer.measure(work, as_graph=point.operation not in UNGRAPHED)
        except OutOfMemory as error:
            return Sample(purpose, point, sweep, None, _reason("out of memory", error))
        except RuntimeError as error:
            # A kernel that refuses one shape must not cost the others; on a CPU it is a defect of ours.
            if self.device.torch_device.type == "cpu":
                raise
            return Sample(purpose, point, sweep, None, _reason("refused", error))
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
            on_gpu = self.device.torch_device.type == "cuda"
            model = build_decoder(
                self.rank,
                WeightMaker.seeded(self.device.torch_device, self.request.precision, self.request.seed),
                glue=Glue.fused() if on_gpu and self.request.fuses_glue else Glue.eager(),
                routing=open_routing(self.request),
                max_tokens=max(point.batch * point.tokens_per_seq for point in coarse_grid(self.request.grid)),
            )
            self._bench = Bench(model, self.request.verify_rule, self.request.sync_to)
        return self._bench


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


def _reason(what: str, error: BaseException) -> str:
    return " ".join(f"{what}: {error}".split())[:300]
