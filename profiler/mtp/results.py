"""What a study measures, and the file it is kept in: JSON lines, one unit of work each, written as they end.

A unit is one part of the study under one seed. Nothing in it is derived, so that tables, laws and pictures can be made
from the file without measuring again. Does not know how anything is measured or judged.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from profiler.errors import UsageError
from profiler.mtp.acceptance import Acceptance

LOSSES_COMPARED = ("ce", "kl", "reverse_kl", "tv", "e2e_tv")
"""Rows of the paper's table 2."""
TEMPERATURES = (0.1, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
"""Of the paper's fig. 12a."""
TEMPERATURE_CURVES = (("ce", "greedy_draft"), ("ce", "rejection"), ("e2e_tv", "rejection"), ("e2e_tv", "block"))
"""Losses and verify rules measured at every temperature."""
RECIPES = {
    "to": ("ce", "greedy_draft"),
    "rs_ce": ("ce", "rejection"),
    "rs_tv": ("tv", "rejection"),
    "rs_e2e_tv": ("e2e_tv", "rejection"),
}
"""Loss of the head and verify rule, by the names that acceptance laws have."""
ONLINE = {
    "start_ce_online_ce": ("ce", "ce", "greedy_draft"),
    "start_tv_online_tv": ("e2e_tv", "e2e_tv", "rejection"),
    "start_tv_online_ce": ("e2e_tv", "ce", "rejection"),
}
"""Strategies of fig. 9a beside the frozen heads: loss before RL, loss during it, verify rule."""
NARROW = "rs_tv_narrow"
"""A frozen TV head under rejection sampling that saw the policy at temperature 1 only before RL."""
NUM_DRAFTS = 3
FILE_NAME = "measured.jsonl"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a study is."""

    name: str
    hidden_size: int
    num_layers: int
    stream_tokens: int
    target_batches: int
    start_batches: int
    """Cross-entropy batches that all heads of a target have in common."""
    head_batches: int
    """Batches of each loss after that."""
    num_rollouts: int
    num_measured: int
    """Sequences that acceptance is counted on."""
    response_tokens: int
    policy_batches: int
    """Batches of worked sums that the policy learns its task from before RL."""
    largest_number: int
    """In the sums of RL: small policies learn small tables only."""
    rl_steps: int
    rl_measured_every: int
    """RL steps from one measurement of all heads to the next."""
    seeds: tuple[int, ...]
    """Each trains targets, heads and policies of its own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: under which conditions, and what was counted."""

    domain: str
    loss: str
    verify_rule: str
    temperature: float
    seed: int
    found: Acceptance
    entropy_bins: tuple[Acceptance, ...] = ()
    place_bins: tuple[tuple[int, Acceptance], ...] = ()
    """First position of the bin, from the start of the response."""


@dataclass(frozen=True, slots=True)
class RlPoint:
    """Acceptance of every head before one step of reinforcement learning."""

    seed: int
    step: int
    entropy_nats: float
    """Of the policy, mean over the tokens that the step rolled out."""
    reward: float
    kl_nats: float
    """KL(policy || policy at the start) over the same tokens."""
    found: dict[str, Acceptance]
    """By recipe, and by strategy of online training."""


@dataclass(frozen=True, slots=True)
class Unit:
    """All that one part measured under one seed."""

    part: str
    seed: int
    target_values: int
    head_values: int
    target_nats: float
    """Next-token loss that the target reached."""
    seconds: float
    """From its begin to its end, on one core that others may have used too."""
    cells: tuple[Cell, ...] = ()
    rl: tuple[RlPoint, ...] = ()
    entropy_by_temperature: tuple[tuple[float, float], ...] = ()
    """(temperature, nats): entropies of the rollouts that RL's frozen heads were trained on."""


@dataclass(slots=True)
class Results:
    """All that a study measured."""

    size: Size
    cells: list[Cell] = field(default_factory=list)
    rl: list[RlPoint] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)

    @classmethod
    def of(cls, size: Size, units: Iterable[Unit]) -> "Results":
        """Gather units, seed by seed and each in the order of its parts' names."""
        ordered = sorted(units, key=lambda unit: (unit.seed, unit.part))
        cells = [cell for unit in ordered for cell in unit.cells]
        return cls(size, cells, [point for unit in ordered for point in unit.rl], ordered)

    @property
    def seconds(self) -> float:
        """Seconds of all units, which ran side by side."""
        return sum(unit.seconds for unit in self.units)


class ResultsFile:
    """The file of a study in a folder; a study that was killed goes on behind its last whole unit."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def begin(self, size: Size) -> list[Unit]:
        """Return the units that are there already; make the file if it is not.

        Raises:
            UsageError: The file is of a study of another size.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(_line({"size": asdict(size)}))
            return []
        found = self.read()
        if found.size != size:
            raise UsageError(f"{self.path}: of a study of another size or build ({found.size.name}); name a new folder")
        # A last line that was cut off is written again, not continued.
        self.path.write_text(_line({"size": asdict(size)}) + "".join(map(_line_of, found.units)))
        return found.units

    def add(self, unit: Unit) -> None:
        """Append a unit."""
        with self.path.open("a") as file:
            file.write(_line_of(unit))

    def read(self) -> Results:
        """Return what the file holds; a last line that was cut off is left out.

        Raises:
            UsageError: No such file, or another kind of file.
        """
        if not self.path.exists():
            raise UsageError(f"{self.path}: not there; name a folder that `bebop study mtp -o` wrote")
        first, *rest = self.path.read_text().split("\n")
        try:
            size = TypeAdapter(Size).validate_python(json.loads(first)["size"])
            # Every whole line ends in a line break: what stands behind the last one is empty, or was cut off.
            units = [_UNIT.validate_json(line) for line in rest[:-1]]
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self.path}: not what `bebop study mtp -o` writes; run the study again") from error
        return Results.of(size, units)


_UNIT = TypeAdapter(Unit)


def _line_of(unit: Unit) -> str:
    return _line(asdict(unit))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
