"""Recorded routing: which experts real tokens visited, replayed in passes of any batch and number of new tokens.

A pass of q tokens takes q neighbours out of as many different sequences as it can: neighbours share experts, strangers
hardly do, and that difference is what a verify pass pays. Files are read as data; nothing in them is executed.
"""

import csv
import hashlib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.errors import UsageError
from traces.architecture import Architecture

SUFFIXES = (".npz", ".parquet", ".csv")
MAX_FILE_BYTES = 256_000_000
MAX_VISITS = 50_000_000
"""Tokens x layers x experts per token."""
COLUMNS = ("sequence", "token", "layer", "expert")
"""Of a .csv or .parquet file, one row per visit. A .npz file holds `routed_experts`, [tokens, layers, experts per
token] as vLLM and SGLang return it, and `sequence`, [tokens]."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RecordedRouting:
    """Experts of recorded tokens, sequence by sequence."""

    visits_TLK: Ints
    """Expert numbers by token, MoE layer and choice."""
    lengths: tuple[int, ...]
    """Tokens of each sequence, one behind the other in `visits_TLK`."""
    first_layer: int
    """Number of the model's first MoE layer."""

    def draw(self, num_tokens: int, num_experts: int, num_per_token: int, layer: int) -> Ints:
        """Return the experts of all recorded tokens in one layer; the MTP layer, last of all, repeats the last one."""
        del num_tokens, num_experts, num_per_token
        return self.visits_TLK[:, min(layer - self.first_layer, self.visits_TLK.shape[1] - 1)]

    def check(self, batch: int, tokens_per_seq: int) -> None:
        """Raise UsageError where fewer tokens were recorded than a pass needs."""
        num_pieces = sum(length // tokens_per_seq for length in self.lengths)
        if num_pieces >= batch or (num_pieces == 0 and batch * tokens_per_seq <= len(self.visits_TLK)):
            return
        raise UsageError(
            f"--routing: {num_pieces} pieces of {tokens_per_seq} tokens are recorded, a pass of the grid needs "
            f"{batch}; record more tokens, or choose smaller --batches and --prefills"
        )

    def rows(self, batch: int, tokens_per_seq: int) -> Ints:
        """Return which recorded tokens stand for a pass, [batch * tokens_per_seq].

        Sequences are cut into pieces of q tokens; the first piece of each, then the second of each, and so on. A pass
        longer than every sequence, a prefill, takes tokens in the order of the file.

        Raises:
            UsageError: As `check`.
        """
        starts = np.cumsum((0, *self.lengths[:-1]))
        pieces = [
            (index, sequence, start + index * tokens_per_seq)
            for sequence, (start, length) in enumerate(zip(starts, self.lengths, strict=True))
            for index in range(length // tokens_per_seq)
        ]
        self.check(batch, tokens_per_seq)
        if not pieces:
            return np.arange(batch * tokens_per_seq)
        begin = np.array([place for _, _, place in sorted(pieces)[:batch]])
        found: Ints = (begin[:, None] + np.arange(tokens_per_seq)).reshape(-1)
        return found


def load_routing(path: Path, model: Architecture) -> RecordedRouting:
    """Read a record made with `model`.

    Raises:
        UsageError: Not such a file, too large, or of another model; one line.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--routing {path}: the suffix names the format; end it in {', '.join(SUFFIXES)}")
    if not model.is_moe:
        raise UsageError(f"--routing {path}: {model.name} has no experts; drop it")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"--routing {path}: larger than {MAX_FILE_BYTES} bytes; record fewer tokens")
        visits_TLK, sequences = _read_npz(path) if path.suffix == ".npz" else _from_rows(*_read_rows(path), path)
    except OSError as error:
        raise UsageError(f"--routing {path}: cannot be read ({error.strerror or error}); check the path") from None
    _check(path, visits_TLK, model)
    order = np.argsort(sequences, kind="stable")
    _, lengths = np.unique(sequences, return_counts=True)
    in_all = visits_TLK.shape[1] == model.num_layers  # a row per layer, those without experts too
    first = model.num_layers - model.num_moe_layers
    kept = visits_TLK[order][:, first if in_all else 0 :]
    return RecordedRouting(np.ascontiguousarray(kept), tuple(map(int, lengths)), first)


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def distinct_experts(visits_per_layer: Iterable[Ints]) -> float:
    """Return the number of different experts that a pass visits, mean over layers."""
    return float(np.mean([len(np.unique(visits)) for visits in visits_per_layer]))


def _read_npz(path: Path) -> tuple[Ints, Ints]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = [np.asarray(file[name]) for name in ("routed_experts", "sequence")]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).split())[:100]
        raise UsageError(f"--routing {path}: needs arrays routed_experts and sequence ({text})") from None
    if any(array.dtype.kind not in "iu" for array in arrays):
        raise UsageError(f"--routing {path}: routed_experts and sequence must hold whole numbers")
    visits, sequences = (array.astype(np.int64) for array in arrays)
    if visits.ndim != 3 or sequences.shape != visits.shape[:1]:
        raise UsageError(
            f"--routing {path}: routed_experts {visits.shape} and sequence {sequences.shape} must be [tokens, layers, "
            "experts per token] and [tokens]"
        )
    return visits, sequences


def _read_rows(path: Path) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the four columns."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path, columns=list(COLUMNS))
            columns = [table.column(name).to_numpy().astype(np.int64, casting="safe") for name in COLUMNS]
        else:
            with path.open(newline="") as file:
                rows = csv.DictReader(file)
                data = [[int(row[name]) for name in COLUMNS] for row in rows]
            columns = list(np.array(data, np.int64).reshape(-1, len(COLUMNS)).T)
    except (ValueError, KeyError, TypeError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        text = " ".join(str(error).split())[:100]
        raise UsageError(f"--routing {path}: needs whole numbers in {', '.join(COLUMNS)} ({text})") from None
    return columns[0], columns[1], columns[2], columns[3]


def _from_rows(sequence: Ints, token: Ints, layer: Ints, expert: Ints, path: Path) -> tuple[Ints, Ints]:
    """Return [T, L, K] and the sequence of each token; every token must have as many visits in every layer."""
    order = np.lexsort((expert, layer, token, sequence))
    tokens = np.unique(np.stack((sequence, token)), axis=1)
    num_tokens, num_layers = tokens.shape[1], len(np.unique(layer))
    per_token = len(order) // max(num_tokens * num_layers, 1)
    if num_tokens * num_layers * per_token != len(order) or per_token == 0:
        raise UsageError(f"--routing {path}: {len(order)} visits are not the same number for every token and layer")
    shape = (num_tokens, num_layers, per_token)
    layers, owners = layer[order].reshape(shape), token[order].reshape(num_tokens, -1)
    if (layers != np.unique(layer)[None, :, None]).any() or (owners != tokens[1][:, None]).any():
        raise UsageError(f"--routing {path}: some token misses a layer or visits; record all of them")
    return expert[order].reshape(shape), tokens[0]


def _check(path: Path, visits_TLK: Ints, model: Architecture) -> None:
    _, num_layers, per_token = visits_TLK.shape
    num_experts, wanted = model.fact("num_experts"), model.fact("num_experts_per_token")
    if not 1 <= visits_TLK.size <= MAX_VISITS:
        raise UsageError(f"--routing {path}: {visits_TLK.size} visits are outside 1..{MAX_VISITS}; record fewer tokens")
    if per_token != wanted or num_layers not in (model.num_moe_layers, model.num_layers):
        raise UsageError(
            f"--routing {path}: {num_layers} layers with {per_token} experts per token; {model.name} has "
            f"{model.num_moe_layers} with {wanted}"
        )
    used = visits_TLK[:, -model.num_moe_layers :]
    if used.min() < 0 or used.max() >= num_experts:
        raise UsageError(
            f"--routing {path}: experts {used.min()}..{used.max()} are outside 0..{num_experts - 1} of {model.name}; "
            "record that model"
        )
    ordered = np.sort(used, axis=2)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise UsageError(f"--routing {path}: a token visits an expert twice; record the router's choice")
