"""Prometheus text: the samples that an engine's `/metrics` answers, read with suspicion. Does not know any engine.

Reads the text format 0.0.4 and what OpenMetrics adds to a line (timestamps, exemplars, `# EOF`). Types and help texts
are left out: which sample is a counter is for the reader who knows its name. A counter's `_created` sibling is a sample
of its own name, as are the `_bucket`, `_sum` and `_count` of a histogram.

Source: https://prometheus.io/docs/instrumenting/exposition_formats (text-based format).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from traces.errors import TraceFormatError

MAX_BYTES = 16_000_000
"""Longest text: a server with a hundred engines and all its histograms answers 2 MB."""
MAX_SAMPLES = 200_000
MAX_LINE_CHARS = 20_000
MAX_LABELS = 64

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_WORDS = {"nan": float("nan"), "inf": float("inf"), "+inf": float("inf"), "-inf": float("-inf")}
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One line: a name, its labels, a value that may be NaN or infinite."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class MetricsText:
    """All samples of one reading, in their order."""

    samples: tuple[MetricSample, ...]

    def of(self, name: str) -> tuple[MetricSample, ...]:
        """Return the samples of exactly this name, one per set of labels; none if the text does not hold it."""
        return self._by_name.get(name, ())

    def total(self, *names: str) -> float | None:
        """Return the sum over all label sets of the first of these names that is there, None without any.

        Right for counters of several engines behind one port, and for their numbers of requests; wrong for ratios.
        """
        for name in names:
            samples = self.of(name)
            if samples:
                return sum(sample.value for sample in samples)
        return None

    @cached_property
    def _by_name(self) -> dict[str, tuple[MetricSample, ...]]:
        found: dict[str, list[MetricSample]] = {}
        for sample in self.samples:
            found.setdefault(sample.name, []).append(sample)
        return {name: tuple(samples) for name, samples in found.items()}


def parse_metrics(text: str | bytes, where: str) -> MetricsText:
    """Return the samples of a whole text; `where` opens every complaint.

    Raises:
        TraceFormatError: Not UTF-8, too large, or a line that is not a sample; names the line.
    """
    if len(text) > MAX_BYTES:
        raise TraceFormatError(f"{where}: {len(text)} bytes of metrics are above the limit of {MAX_BYTES}; cut it")
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise TraceFormatError(f"{where}: byte {error.start} is not UTF-8; give a Prometheus text") from None
    return MetricsText(tuple(_samples(text, where)))


def _samples(text: str, where: str) -> Iterator[MetricSample]:
    num_samples = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        num_samples += 1
        if num_samples > MAX_SAMPLES:
            raise TraceFormatError(f"{where}: more than {MAX_SAMPLES} samples; keep those of one engine")
        sample = _sample(line) if len(line) <= MAX_LINE_CHARS else None
        if sample is None:
            raise TraceFormatError(
                f"{where}: line {number}: not a sample of Prometheus text ({line[:80]!r}); give what /metrics answers"
            )
        yield sample


def _sample(line: str) -> MetricSample | None:
    name = _NAME.match(line)
    if name is None:
        return None
    place = name.end()
    labels: dict[str, str] = {}
    if line[place:].lstrip().startswith("{"):
        place = line.index("{", place) + 1
        end = _read_labels(line, place, labels)
        if end is None:
            return None
        place = end
    elif line[place : place + 1] not in (" ", "\t"):
        return None
    rest = line[place:].partition(" # ")[0].split()  # an exemplar follows " # "
    if not 1 <= len(rest) <= 2:  # the second is a timestamp
        return None
    value = _value(rest[0])
    return None if value is None else MetricSample(name.group(), labels, value)


def _read_labels(line: str, place: int, labels: dict[str, str]) -> int | None:
    """Put the labels from `place` into `labels`; return where the brace behind them ends, None if they are broken."""
    while not line[place:].lstrip().startswith("}"):
        label = _LABEL.match(line, place)
        if label is None or label.group(1) in labels or len(labels) == MAX_LABELS:
            return None
        labels[label.group(1)] = re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), label.group(2))
        place = label.end()
        if line[place : place + 1] == ",":
            place += 1
        elif line[place : place + 1] != "}":
            return None
    return line.index("}", place) + 1


def _value(word: str) -> float | None:
    if _NUMBER.fullmatch(word):
        return float(word)
    return _WORDS.get(word.lower())
