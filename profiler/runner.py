"""Runner: measures the points of a profile in shuffled sweeps, coarse first, then where it helps, then held-out ones.

Every sample goes into the ledger first; what a trace says is computed from the ledger alone (`profiler.result`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from profiler.device import Device
from profiler.errors import DeviceError
from profiler.grid import SURFACES, coarse_grid, held_out, is_fine, leave_one_out, refinement, surfaces
from profiler.ledger import COMPOSED, GRID, HELD_OUT, Ledger
from profiler.memory import bytes_needed
from profiler.models.rank import Rank
from profiler.point import Point
from profiler.request import ProfileRequest
from profiler.sampler import Sampler
from profiler.statistics import collect
from profiler.sweeps import Crew, Sweeps
from traces.latency import Operation


@dataclass(slots=True)
class Runner:
    """One profile on one device."""

    request: ProfileRequest
    rank: Rank
    device: Device
    ledger: Ledger
    crew: Crew | None = None
    """Who takes the samples; None: the device itself."""
    _sweeps: Sweeps = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        crew = self.crew or Sampler(request, self.rank, self.device)
        self._sweeps = Sweeps(self.ledger, crew, request.num_sweeps, request.budget_s, request.seed)

    def run(self) -> None:
        """Measure everything that the ledger does not hold yet.

        Raises:
            DeviceError: The model or every point is too large, or a time is faster than physics allows.
        """
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

    def _limits(self, coarse: Sequence[Point]) -> list[Point]:
        """Return, where the longest context of a batch does not fit, the longest that does, in steps of 256 tokens."""
        limits = []
        usable, precision = self.device.usable_bytes(), self.request.precision
        for point in coarse:
            if point.operation in SURFACES and bytes_needed(point, self.rank, precision) > usable:
                empty = bytes_needed(Point(point.operation, point.tokens_per_seq, point.batch), self.rank, precision)
                per_token = (bytes_needed(point, self.rank, precision) - empty) / max(point.context_tokens, 1)
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

    def _points(self, purpose: str) -> set[Point]:
        return {sample.point for sample in self.ledger.of(purpose)}

    def _first_reason(self) -> str:
        return next((sample.reason or "" for sample in self.ledger.samples if sample.latency_s is None), "no samples")
