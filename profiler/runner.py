"""Runner: measures the points of a profile in shuffled sweeps, coarse first, then where it helps, then held-out ones.

Every sample goes into the ledger first; what a trace says is computed from the ledger alone (`profiler.result`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from profiler import plausibility
from profiler.device import Device
from profiler.errors import DeviceError
from profiler.grid import SURFACES, coarse_grid, held_out, is_fine, leave_one_out, refinement, surfaces
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger, Sample
from profiler.models.decoder import build_decoder
from profiler.models.experts import Routing
from profiler.models.glue import Glue
from profiler.models.rank import Rank
from profiler.models.weights import WeightMaker
from profiler.ops.bench import Bench
from profiler.ops.composed import speculative_step
from profiler.ops.registry import PREPARE, UNGRAPHED
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.statistics import collect
from profiler.sweeps import Sweeps
from traces.architecture import BYTES_PER_VALUE
from traces.latency import Operation

OutOfMemory = (torch.OutOfMemoryError, MemoryError)


@dataclass(slots=True)
class Runner:
    """One profile on one device."""

    request: ProfileRequest
    rank: Rank
    device: Device
    ledger: Ledger
    _bench: Bench | None = None
    _sweeps: Sweeps = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self._sweeps = Sweeps(self.ledger, self._sample, request.num_sweeps, request.budget_s, request.seed)

    def run(self) -> None:
        """Measure everything that the ledger does not hold yet.

        Raises:
            DeviceError: The model or every point is too large, or a time is faster than physics allows.
        """
        with torch.no_grad():
            coarse = coarse_grid(self.request.grid)
            self.measure(GRID, sorted({*coarse, *self._limits(coarse), *self._points(GRID)}), "grid")
            if not collect(self.ledger.of(GRID)).latencies:
                raise DeviceError(f"no point could be measured: {self._first_reason()}; choose a smaller model or grid")
            self._refine()
            found = surfaces(collect(self.ledger.of(GRID)).latencies.items())
            known = frozenset(self._points(GRID))
            apart = held_out(found, known, self.request.num_held_out, self.request.seed)
            self.measure(HELD_OUT, sorted({*apart, *self._points(HELD_OUT)} - known), "held out")
            self.measure(COMPOSED, self._composed_points(), "composed")

    def measure(self, purpose: str, points: Sequence[Point], phase: str) -> None:
        """Take the samples of these points that are missing."""
        self._sweeps.measure([(purpose, point) for point in points], phase)

    def _refine(self) -> None:
        while not self._sweeps.is_late(GRID):
            found = surfaces(collect(self.ledger.of(GRID)).latencies.items())
            new = [] if is_fine(leave_one_out(found)) else refinement(found, frozenset(self._points(GRID)))
            if not new:
                return
            self.measure(GRID, new, "refinement")

    def _sample(self, purpose: str, point: Point, sweep: int) -> Sample:
        needed = self._bytes_needed(point)
        if needed > self.device.usable_bytes():
            reason = f"needs {needed / 1e9:.1f} GB, {self.device.usable_bytes() / 1e9:.1f} GB may be used"
            return Sample(purpose, point, sweep, None, reason)
        prepare = speculative_step if purpose == COMPOSED else PREPARE[point.operation]
        try:
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
            weights = self._weight_bytes()
            if weights > self.device.usable_bytes():
                raise DeviceError(
                    f"{self.rank.whole.name}: its weights take {weights / 1e9:.1f} GB of one GPU, "
                    f"{self.device.usable_bytes() / 1e9:.1f} GB may be used; raise --tp or choose a smaller model"
                )
            on_gpu = self.device.torch_device.type == "cuda"
            model = build_decoder(
                self.rank,
                WeightMaker.seeded(self.device.torch_device, self.request.precision, self.request.seed),
                glue=Glue.fused() if on_gpu and self.request.fuses_glue else Glue.eager(),
                routing=Routing(self.request.expert_skew, self.request.seed),
                max_tokens=self._max_tokens(),
            )
            self._bench = Bench(model, self.request.verify_rule, self.request.sync_to)
        return self._bench

    def _weight_bytes(self) -> float:
        a = self.rank.local
        return float(a.num_params + a.mtp_layer_params) * BYTES_PER_VALUE[self.request.precision]

    def _bytes_needed(self, point: Point) -> float:
        """Return weights, caches and logits of a point; activations are in the reserve."""
        a, q = self.rank.local, point.tokens_per_seq
        length = point.context_tokens + q
        layers = 1 if point.operation is Operation.DRAFT else a.num_full_attention_layers
        caches = point.batch * length * layers * a.kv_bytes_per_token_per_layer(self.request.precision)
        states = a.state_bytes_per_seq * point.batch * (1 + q if point.operation is Operation.VERIFY else 1)
        num_logits = point.batch * (1 if point.operation is Operation.PREFILL else q) * a.vocab_size
        width = BYTES_PER_VALUE[self.request.precision]
        return self._weight_bytes() + caches + states + width * num_logits

    def _limits(self, coarse: Sequence[Point]) -> list[Point]:
        """Return, where the longest context of a batch does not fit, the longest that does, in steps of 256 tokens."""
        limits = []
        usable = self.device.usable_bytes()
        for point in coarse:
            if point.operation in SURFACES and self._bytes_needed(point) > usable:
                empty = self._bytes_needed(Point(point.operation, point.tokens_per_seq, point.batch))
                per_token = (self._bytes_needed(point) - empty) / max(point.context_tokens, 1)
                context = int((usable - empty) / per_token) // 256 * 256 if per_token else 0
                if context > 0:
                    limits.append(Point(point.operation, point.tokens_per_seq, point.batch, context))
        return limits

    def _composed_points(self) -> list[Point]:
        """Return whole steps at measured batches and contexts, so that their parts are rows."""
        k, grid = self.request.grid.max_draft_tokens, self.request.grid
        if k == 0:
            return []
        middle = grid.contexts_tokens[len(grid.contexts_tokens) // 2]
        drafts = {k, (k + 1) // 2}
        batches = {grid.batches[0], grid.batches[len(grid.batches) // 2], grid.batches[-1]}
        return sorted(Point(Operation.VERIFY, n + 1, batch, middle) for n in drafts for batch in batches)

    def _max_tokens(self) -> int:
        points = [*coarse_grid(self.request.grid)]
        return max(point.batch * point.tokens_per_seq for point in points)

    def _points(self, purpose: str) -> set[Point]:
        return {sample.point for sample in self.ledger.of(purpose)}

    def _first_reason(self) -> str:
        return next((sample.reason or "" for sample in self.ledger.samples if sample.latency_s is None), "no samples")


def _reason(what: str, error: BaseException) -> str:
    return " ".join(f"{what}: {error}".split())[:300]
