"""Designs: which points a sweep has. A point is a list of overrides, as `--set` takes them. Does not know any field."""

import itertools
import json
import re
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from scipy.stats import qmc

from simulator.errors import ScenarioError
from simulator.rng import generator, stream_key
from simulator.scenario_file import field_keys

MAX_POINTS: Final = 1_000_000

ALIASES: Final = {"speculation": "arms.*", "rollout": "engine"}
"""First words of a path that stand for others; `arms.*` is every arm."""

_RANGE: Final = re.compile(r"^\s*(-?[0-9.eE+_]+?)\s*\.\.\s*(-?[0-9.eE+_]+?)\s*(?::\s*([0-9.eE+_]+))?\s*$")


@dataclass(frozen=True, slots=True)
class Axis:
    """One path and the values it takes in turn."""

    path: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """One path and the range it is drawn from; whole numbers where both ends are."""

    path: str
    low: float
    high: float
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Design:
    """Every combination of the axes' values, with every draw from the ranges."""

    axes: tuple[Axis, ...] = ()
    ranges: tuple[Range, ...] = ()
    draws: int = 0
    kind: Literal["random", "sobol"] = "random"
    seed: int = 0

    def __len__(self) -> int:
        count = max(self.draws, 1)
        for axis in self.axes:
            count *= len(axis.values)
        return count

    @property
    def paths(self) -> tuple[str, ...]:
        return (*(axis.path for axis in self.axes), *(part.path for part in self.ranges))

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield path -> value of every point, the last axis fastest; drawn values outermost."""
        for drawn in self._draws():
            for values in itertools.product(*(axis.values for axis in self.axes)):
                yield dict(zip(self.paths, (*values, *drawn), strict=True))

    def _draws(self) -> Iterator[tuple[float, ...]]:
        if not self.ranges:
            yield ()
            return
        if self.kind == "random":
            units = generator("sweep", self.seed).random((self.draws, len(self.ranges)))
        else:
            with warnings.catch_warnings():  # scipy warns where the number is no power of two; any number is as asked
                warnings.simplefilter("ignore", UserWarning)
                source = np.random.default_rng(int(stream_key("sweep", "sobol", self.seed)))
                units = qmc.Sobol(len(self.ranges), seed=source).random(self.draws)
        for row in units:
            yield tuple(_scaled(part, float(unit)) for part, unit in zip(self.ranges, row, strict=True))


def parse_design(
    grid: Sequence[str] = (),
    ranges: Sequence[str] = (),
    *,
    draws: int = 0,
    kind: Literal["random", "sobol"] = "random",
    seed: int = 0,
) -> Design:
    """Return the design that the command line states.

    Args:
        grid: `path=v1,v2,...`, `path=lo..hi` or `path=lo..hi:step`, both ends included.
        ranges: `path=lo..hi`, to draw from.
        draws: How many times.
        kind: Independent draws, or a scrambled Sobol sequence.
        seed: Of the draws.

    Raises:
        ScenarioError: Not of these forms, one path twice, or too many points; one line.
    """
    design = Design(axes=tuple(map(_axis, grid)), ranges=tuple(map(_range, ranges)), draws=draws, kind=kind, seed=seed)
    if bool(ranges) != bool(draws):
        raise ScenarioError("--range and --random N (or --sobol N) belong together: what to draw, and how often")
    if not design.paths:
        raise ScenarioError("nothing to sweep; give --grid PATH=VALUES, or --range PATH=LO..HI with --random N")
    twice = {path for path in design.paths if design.paths.count(path) > 1}
    if twice:
        raise ScenarioError(f"{twice.pop()}: given twice; put all its values into one --grid")
    if len(design) > MAX_POINTS:
        raise ScenarioError(
            f"{len(design)} points are above the limit of {MAX_POINTS}; take fewer values, or --sobol N"
        )
    return design


def overrides(point: dict[str, Any], arms: Sequence[str]) -> list[str]:
    """Return a point as `--set` takes it, `*` replaced by every arm."""
    listed = []
    for path, value in point.items():
        keys = field_keys(path.replace("*", '"*"'))
        keys = [*(field_keys(ALIASES[keys[0]].replace("*", '"*"')) if keys[0] in ALIASES else keys[:1]), *keys[1:]]
        for arm in arms if keys[:2] == ["arms", "*"] else ("",):
            named = [arm if key == "*" else key for key in keys]
            listed.append(f"{'.'.join(map(json.dumps, named))}={toml_value(value)}")
    return listed


def _axis(text: str) -> Axis:
    path, raw = _split(text, "--grid", "arms.to.k=0..8 or engine.max_running_seqs=32,64")
    found = _RANGE.match(raw)
    values = _counted(found, text) if found else _listed(raw)
    if not values:
        raise ScenarioError(f"--grid {text}: no values; give them as 1,2,3 or 1..3")
    if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
        raise ScenarioError(f"--grid {text}: a value stands there twice; keep one of them")
    return Axis(path, tuple(values))


def _range(text: str) -> Range:
    path, raw = _split(text, "--range", "trainer.mfu=0.2..0.4")
    found = _RANGE.match(raw)
    try:
        low, high = (float(end) for end in found.groups()[:2]) if found and not found.group(3) else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not low < high:
        raise ScenarioError(f"--range {text}: not two numbers lo..hi with lo below hi, e.g. trainer.mfu=0.2..0.4")
    assert found is not None
    return Range(path, low, high, is_whole=all(re.fullmatch(r"-?[0-9_]+", end) for end in found.groups()[:2]))


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    path, equals, raw = text.partition("=")
    if not equals or not field_keys(path.strip().replace("*", '"*"')) or not raw.strip():
        raise ScenarioError(f"{option} {text}: not of the form path=values, e.g. {example}")
    return path.strip(), raw.strip()


def _counted(found: re.Match[str], text: str) -> list[Any]:
    """Return lo, lo + step, ... up to hi."""
    try:
        low, high, step = (float(part) if part else 1.0 for part in found.groups())
    except ValueError:
        raise ScenarioError(
            f"--grid {text}: {found.group(0)} is no range of numbers, e.g. 0..8 or 0.1..0.5:0.1"
        ) from None
    if step <= 0 or high < low:
        raise ScenarioError(f"--grid {text}: a range goes up from lo to hi in steps above 0, e.g. 0..8 or 0.1..0.5:0.1")
    count = int((high - low) / step + 1e-9) + 1
    if count > MAX_POINTS:
        raise ScenarioError(f"--grid {text}: {count} values are above the limit of {MAX_POINTS}; take a larger step")
    values = [low + index * step for index in range(count)]
    is_whole = all(part is None or re.fullmatch(r"-?[0-9_]+", part) for part in found.groups())
    return [round(value) for value in values] if is_whole else [float(f"{value:.12g}") for value in values]


def _listed(raw: str) -> list[Any]:
    """Return the items of a TOML list without its brackets; text where they are no TOML."""
    try:
        return list(tomllib.loads(f"v = [{raw}]")["v"])
    except tomllib.TOMLDecodeError:
        return [_value(item.strip()) for item in raw.split(",") if item.strip()]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def toml_value(value: Any) -> str:
    """Return a value as TOML has it; JSON is the same but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML has no surrogate pairs


def _scaled(part: Range, unit: float) -> float:
    if part.is_whole:
        return min(int(part.low + unit * (part.high - part.low + 1)), int(part.high))
    return float(f"{part.low + unit * (part.high - part.low):.12g}")
