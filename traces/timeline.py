"""Timeline: what every replica and the trainer did and when, and its form for Perfetto.

Perfetto (ui.perfetto.dev) opens the JSON of Chrome's trace events: complete events for spans, counters beside them.
Does not know where a timeline comes from.
"""

import json
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from traces.base import SCHEMA_VERSION, Strict

Seconds = Annotated[float, Field(ge=0)]

_PROCESSES = ("run", "trainer", "weight sync", "rollout")
"""Order of the groups of tracks on the screen."""


class Span(Strict):
    """Something that lasted."""

    track: str
    """`trainer`, `weight sync`, or `replica N`."""
    name: str
    """What was done: `training`, `waiting`, `generating`, ..."""
    begin_s: Seconds
    end_s: Seconds
    rl_step: int | None = None
    """RL step that the trainer was in."""


class Counter(Strict):
    """A number over time: each value holds until the next time."""

    track: str
    """A track of spans, or `run`."""
    name: str
    unit: str
    times_s: tuple[Seconds, ...]
    values: tuple[float, ...]


class Timeline(Strict):
    """One arm of one run."""

    kind: Literal["timeline"] = "timeline"
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    scenario: str
    arm: str
    end_s: Seconds
    sample_s: Seconds
    """Replicas are looked at so often: what lasts less may be missing, and their spans begin and end by that grid."""
    num_replicas: int
    num_shown: int
    """Replicas with a track of their own, the first ones."""
    spans: tuple[Span, ...]
    counters: tuple[Counter, ...]


def write_perfetto(timeline: Timeline, file: IO[str]) -> int:
    """Write Chrome's JSON trace events, which Perfetto opens; return how many events there are."""
    events = list(_events(timeline))
    about = {name: getattr(timeline, name) for name in ("scenario", "arm", "sample_s", "num_replicas", "num_shown")}
    head = json.dumps({"displayTimeUnit": "ms", "otherData": about})
    file.write(head[:-1] + ', "traceEvents": [\n')
    file.write(",\n".join(json.dumps(event, separators=(",", ":")) for event in events))
    file.write("\n]}\n")
    return len(events)


def _events(timeline: Timeline) -> list[dict[str, Any]]:
    """Return metadata, spans by time, counters by time: a track is a thread of one of three processes."""
    threads: dict[str, tuple[int, int]] = {}
    for track in [span.track for span in timeline.spans] + [counter.track for counter in timeline.counters]:
        process = _PROCESSES.index("rollout" if track.startswith("replica ") else track)
        threads.setdefault(track, (process + 1, len(threads) + 1))
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": f"process_{what}", "pid": number, "args": {what: value}}
        for number, name in enumerate(_PROCESSES, 1)
        for what, value in (("name", name), ("sort_index", number))
    ]
    events += [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": track}}
        for track, (pid, tid) in threads.items()
    ]
    for span in sorted(timeline.spans, key=lambda span: (span.begin_s, -span.end_s)):
        pid, tid = threads[span.track]
        begin = _microseconds(span.begin_s)
        event = {
            "ph": "X",
            "name": span.name,
            "cat": span.track.split(" ")[0],
            "pid": pid,
            "tid": tid,
            "ts": begin,
            "dur": _microseconds(span.end_s) - begin,
        }
        events.append(event if span.rl_step is None else {**event, "args": {"rl_step": span.rl_step}})
    for counter in timeline.counters:
        pid, _ = threads[counter.track]
        name = counter.name if counter.track == "run" else f"{counter.track}: {counter.name}"
        events += [
            {"ph": "C", "name": name, "pid": pid, "ts": _microseconds(time_s), "args": {counter.unit: value}}
            for time_s, value in zip(counter.times_s, counter.values, strict=True)
        ]
    return events


def _microseconds(seconds: float) -> int:
    """Return whole ones: a span that by rounding began before its neighbour's end would be dropped by Perfetto."""
    return round(seconds * 1e6)
