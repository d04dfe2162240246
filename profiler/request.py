"""Request: everything that decides what a profile measures. Two equal requests share a ledger. Does not know torch."""

from dataclasses import asdict, dataclass
from typing import Any

from profiler.errors import UsageError
from profiler.grid import GridRequest
from traces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to measure, and how."""

    name: str
    """Name of the trace."""
    model: Architecture
    device: str
    """`cpu` or `cuda`."""
    precision: str
    grid: GridRequest
    tp_size: int = 1
    ep_size: int = 1
    num_threads: int | None = None
    num_sweeps: int = 3
    num_held_out: int = 24
    budget_s: float = 480.0
    """Samples stop when it is used up; the first sweep over the coarse grid is taken in any case."""
    verify_rule: str = "rejection"
    sync_to: str = "device"
    expert_skew: float = 1.01
    routing_file: str | None = None
    """Recorded routing instead of the skew."""
    routing_sha256: str | None = None
    """Of that file: what is measured depends on its content, not on where it lies."""
    fuses_glue: bool = True
    """On a GPU, whether pointwise work is compiled into single kernels."""
    is_shared: bool = False
    """Whether others may compute on the GPU meanwhile."""
    seed: int = 0
    command: str = "bebop profile"
    num_workers: int | None = None
    """Processes that share the work, one per GPU; None: this one alone. No part of what is measured."""

    def identity(self) -> dict[str, Any]:
        """Return what a ledger must agree on: all but the budget, the workers and the way it was typed."""
        content = asdict(self)
        for field in ("budget_s", "command", "name", "num_workers", "routing_file"):
            del content[field]
        # Options that came later leave the ledgers of those who do not use them alone.
        for field, unused in (("routing_sha256", None), ("is_shared", False)):
            if content[field] == unused:
                del content[field]
        content["model"] = self.model.model_dump(mode="json")
        content["grid"]["extra"] = [str(point) for point in self.grid.extra]
        return content


def check_range(flag: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless the value of an option lies inside its range."""
    if not low <= value <= high:
        raise UsageError(f"{flag} {value:g} is outside {low:g}..{high:g}; choose a value inside")
