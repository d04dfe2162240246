"""Accept lengths that were published for a model and a draft, for rows that do not state theirs.

From the shipped rows that state one, and from `mtp_acceptance_by_position.csv`. A row's own statement always goes
first; what is taken from here is an assumption with its source.
"""

import csv
from collections.abc import Iterator
from functools import cache
from statistics import median

from simulator.roofline_drafts import DraftKind
from simulator.scorecard.names import MissingFactError, find_draft, find_model
from simulator.scorecard.rows import INFERENCE_FILE, PUBLISHED, read_rows

Curve = tuple[float, ...]
"""Unconditional rates c_1, c_2, ..: the accept length at k is 1 + c_1 + .. + c_k."""


def published_accept_length(model: str, draft: DraftKind, num_draft_tokens: int) -> tuple[float, str] | None:
    """Return an accept length at k and where it comes from; None where none was published.

    Beyond the longest published k the last conditional rate goes on (engines of recursive drafts see it level off).
    """
    lengths, sources = _lengths().get((model, draft), ({}, ""))
    if num_draft_tokens in lengths:
        return lengths[num_draft_tokens], sources
    if not lengths:
        return None
    known = sorted(lengths)
    longest = known[-1]
    if num_draft_tokens < longest:
        # Between published k the curve of rates is concave: interpolate the lengths, from 1 at k = 0.
        below = max((k for k in known if k < num_draft_tokens), default=0)
        above = min(k for k in known if k > num_draft_tokens)
        low, high = lengths.get(below, 1.0), lengths[above]
        share = (num_draft_tokens - below) / (above - below)
        return low + share * (high - low), f"{sources}, between its k"
    before = lengths.get(longest - 1, 1.0 if longest == 1 else None)
    last_rate = lengths[longest] - before if before is not None else (lengths[longest] - 1) / longest
    earlier = before - lengths.get(longest - 2, 1.0) if before is not None and longest > 2 else 1.0
    conditional = min(1.0, last_rate / earlier) if earlier > 0 else 0.5
    length = lengths[longest]
    for _ in range(num_draft_tokens - longest):
        last_rate *= conditional
        length += last_rate
    return length, f"{sources}, its last conditional rate going on"


@cache
def _lengths() -> dict[tuple[str, DraftKind], tuple[dict[int, float], str]]:
    found: dict[tuple[str, DraftKind], dict[int, list[float]]] = {}
    sources: dict[tuple[str, DraftKind], list[str]] = {}
    for model, draft, k, length, source in (*_from_rows(), *_from_positions()):
        found.setdefault((model, draft), {}).setdefault(k, []).append(length)
        sources.setdefault((model, draft), []).append(source)
    return {
        key: (
            {k: median(values) for k, values in lengths.items()},
            "; ".join(dict.fromkeys(sources[key])),
        )
        for key, lengths in found.items()
    }


def _from_rows() -> Iterator[tuple[str, DraftKind, int, float, str]]:
    for row in read_rows(INFERENCE_FILE):
        length = row.accept_len or (1 + sum(row.per_position) if row.per_position else None)
        if length is None or row.drafts == 0:
            continue
        try:
            architecture, _ = find_model(row.model)
            yield architecture.name, find_draft(row.method, row.drafts), row.drafts, length, row.source
        except MissingFactError:
            continue


def _from_positions() -> Iterator[tuple[str, DraftKind, int, float, str]]:
    with (PUBLISHED / "mtp_acceptance_by_position.csv").open(newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            rates = [float(rate) for rate in cells["cumulative"].split(";") if rate]
            for k in range(1, len(rates) + 1):
                yield cells["model"], "mtp", k, 1 + sum(rates[:k]), cells["source"]
