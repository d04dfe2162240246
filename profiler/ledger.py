"""Ledger: every sample of a profile, one line of JSON each, written before the next one is taken.

A profile that was interrupted goes on from it. A torn last line is dropped; lines of another request are refused.
"""

import json
import os
import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from profiler.errors import UsageError
from profiler.point import Point
from traces.base import canonical_hash
from traces.errors import TraceFormatError
from traces.latency import Operation
from traces.strict_json import parse_object

COMPOSED = "composed"
"""Purpose of samples that time whole speculative steps; `tokens_per_seq` is k + 1, the operation verify."""
GRID = "grid"
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed point, or the reason why it could not be timed."""

    purpose: str
    point: Point
    sweep: int
    latency_s: float | None
    """None: infeasible."""
    reason: str | None = None
    num_repeats: int = 0
    host_gap_s: float | None = None
    telemetry: dict[str, float] | None = None
    """Clocks, power and temperature right after the sample."""
    counters: dict[str, float] | None = None
    """What a running engine counted meanwhile: drafts, and draft tokens accepted."""


@dataclass(slots=True)
class Ledger:
    """Samples in a file."""

    path: Path
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, request: dict[str, Any]) -> "Ledger":
        """Return the samples taken for `request` so far, from a file that takes more.

        Raises:
            UsageError: The file holds samples of another request.
        """
        key = canonical_hash(request)
        ledger = cls(path)
        if path.exists() and path.stat().st_size:
            end = ledger._read(key)
            with path.open("r+b") as file:
                file.truncate(end)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"request_sha256": key, "request": request}) + "\n")
        return ledger

    def add(self, sample: Sample) -> None:
        """Append a sample, on disk when this returns."""
        content = asdict(sample)
        content["point"] = [sample.point.operation.value, *list(content["point"].values())[1:]]
        with self.path.open("a") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.samples.append(sample)

    def of(self, purpose: str) -> Iterator[Sample]:
        """Yield the samples of one purpose, in the order of taking."""
        return (sample for sample in self.samples if sample.purpose == purpose)

    def missing(
        self, purpose: str, points: Collection[Point], sweeps: Iterable[int], seed: int
    ) -> tuple[list[tuple[Point, int]], set[Point]]:
        """Return (point, sweep) of samples to take, each sweep in its own order, and the points known as infeasible."""
        done = {(sample.point, sample.sweep) for sample in self.of(purpose)}
        todo: list[tuple[Point, int]] = []
        for sweep in sweeps:
            order = sorted(points)
            random.Random(f"{seed} {purpose} {sweep}").shuffle(order)
            todo += [(point, sweep) for point in order if (point, sweep) not in done]
        return todo, {sample.point for sample in self.of(purpose) if sample.latency_s is None}

    def _read(self, key: str) -> int:
        """Read what is whole; return where that ends."""
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        lines = data[:end].splitlines()
        try:
            header = parse_object(lines[0], str(self.path)) if lines else {}
            if header.get("request_sha256") != key:
                raise UsageError(
                    f"{self.path}: holds samples of another request; remove it, choose another -o, or repeat the "
                    "command that made it"
                )
            for number, line in enumerate(lines[1:], start=2):
                self.samples.append(_sample(parse_object(line, f"{self.path}: line {number}")))
        except (TraceFormatError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self.path}: not a ledger of samples ({error}); remove it") from None
        return end


def _sample(content: dict[str, Any]) -> Sample:
    operation, *numbers = content.pop("point")
    return Sample(point=Point(Operation(operation), *numbers), **content)
