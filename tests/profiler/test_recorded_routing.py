"""Replayed routing visits the experts of the record, in passes made of neighbours from different sequences."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from bebop import main as bebop  # noqa: E402
from profiler.errors import UsageError  # noqa: E402
from profiler.models.decoder import build_decoder  # noqa: E402
from profiler.models.experts import ExpertFeedForward, visits_of_pass  # noqa: E402
from profiler.models.rank import slice_rank  # noqa: E402
from profiler.models.recorded_routing import COLUMNS, RecordedRouting, distinct_experts, load_routing  # noqa: E402
from profiler.models.step import Step  # noqa: E402
from profiler.models.weights import WeightMaker  # noqa: E402
from tests.profiler import shapes  # noqa: E402
from traces.latency import LatencyTrace  # noqa: E402
from traces.store import load_trace  # noqa: E402

MODEL = shapes.MOE
"""Three layers of 8 experts, 2 per token."""
CONFIG = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 160,
}
"""The same for a file."""
LENGTHS = (40, 30, 50, 25)


def record(model_layers: int = 3, num_experts: int = 8) -> tuple["np.ndarray", "np.ndarray"]:
    """Return visits [tokens, layers, 2] in which neighbours mostly repeat each other, and sequence numbers."""
    random = np.random.default_rng(3)
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    pairs = np.array([(a, b) for a in range(num_experts) for b in range(a + 1, num_experts)])
    piece = np.arange(len(sequence)) // 5
    chosen = random.integers(len(pairs), size=(piece.max() + 1, model_layers))[piece]
    return pairs[chosen], sequence


def write_npz(path: Path, visits: "np.ndarray", sequence: "np.ndarray") -> None:
    np.savez(path, routed_experts=visits.astype(np.int32), sequence=sequence)


def long_rows(visits: "np.ndarray", sequence: "np.ndarray") -> "np.ndarray":
    first = np.concatenate([[0], np.cumsum(LENGTHS)])
    return np.array(
        [
            (sequence[t], t - first[sequence[t]], layer, expert)
            for t in range(len(visits))
            for layer in range(visits.shape[1])
            for expert in visits[t, layer]
        ]
    )


def write_parquet(path: Path, visits: "np.ndarray", sequence: "np.ndarray") -> None:
    rows = np.random.default_rng(0).permutation(long_rows(visits, sequence))
    pq.write_table(pa.table(dict(zip(COLUMNS, rows.T, strict=True))), path)


def write_csv(path: Path, visits: "np.ndarray", sequence: "np.ndarray") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(long_rows(visits, sequence).tolist())


WRITERS: dict[str, Callable[[Path, "np.ndarray", "np.ndarray"], None]] = {
    "npz": write_npz,
    "parquet": write_parquet,
    "csv": write_csv,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_visits_that_were_written(suffix: str, tmp_path: Path) -> None:
    visits, sequence = record()
    path = tmp_path / f"x.{suffix}"
    WRITERS[suffix](path, visits, sequence)
    found = load_routing(path, MODEL)
    assert found.lengths == LENGTHS
    assert np.array_equal(found.visits_TLK, visits)


@pytest.mark.parametrize(("batch", "q"), [(1, 1), (4, 1), (4, 5), (6, 20), (1, 100)])
def test_a_pass_visits_as_many_distinct_experts_as_its_recorded_tokens(batch: int, q: int, tmp_path: Path) -> None:
    visits, sequence = record()
    write_npz(tmp_path / "x.npz", visits, sequence)
    routing = load_routing(tmp_path / "x.npz", MODEL)
    starts = np.cumsum((0, *LENGTHS))[:-1]
    # By hand: the first pieces of q tokens of all sequences, then the second ones; a long prefill as recorded.
    pieces = [
        start + i * q for i in range(50) for start, size in zip(starts, LENGTHS, strict=True) if (i + 1) * q <= size
    ]
    tokens = [begin + step for begin in (pieces or [0])[:batch] for step in range(q)]
    expected = np.mean([len(np.unique(visits[tokens, layer])) for layer in range(3)])
    assert distinct_experts(visits_of_pass(routing, MODEL, batch, q)) == expected
    model = build_decoder(
        slice_rank(MODEL), WeightMaker.seeded(torch.device("cpu"), "fp32"), routing=routing, max_tokens=batch * q
    )
    with torch.inference_mode():
        model.forward(torch.zeros(batch, q, dtype=torch.int64), None, Step(0, q))
    for index, layer in enumerate(model.layers):
        assert isinstance(layer.ffn, ExpertFeedForward)
        assert np.array_equal(layer.ffn._chosen[batch, q].numpy(), visits[tokens, index])


def test_drafts_of_one_sequence_share_experts_and_sequences_hardly_do() -> None:
    routing = RecordedRouting(record()[0], LENGTHS, 0)
    neighbours = distinct_experts(visits_of_pass(routing, MODEL, 1, 4))
    strangers = distinct_experts(visits_of_pass(routing, MODEL, 4, 1))
    assert neighbours < strangers


def test_layers_without_experts_may_be_in_the_record(tmp_path: Path) -> None:
    model = shapes.LATENT  # its first of three layers is dense
    visits, sequence = record()
    visits[:, 0] = -1
    write_npz(tmp_path / "all.npz", visits, sequence)
    write_npz(tmp_path / "some.npz", visits[:, 1:], sequence)
    both = [load_routing(tmp_path / name, model) for name in ("all.npz", "some.npz")]
    for routing in both:
        assert np.array_equal(routing.draw(1, 8, 2, 1), visits[:, 1])
        assert np.array_equal(routing.draw(1, 8, 2, 2), visits[:, 2])
        assert np.array_equal(routing.draw(1, 8, 2, 3), visits[:, 2])  # the MTP layer


def broken(change: Callable[["np.ndarray"], "np.ndarray"]) -> Callable[[Path], None]:
    return lambda path: write_npz(path, change(record()[0]), record()[1])


def twice(visits: "np.ndarray") -> "np.ndarray":
    visits[7, 1] = 3
    return visits


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04nothing"), "needs arrays routed_experts and sequence"),
        (lambda path: np.savez(path, other=np.zeros(1)), "needs arrays routed_experts and sequence"),
        (lambda path: np.savez(path, routed_experts=np.array([{}]), sequence=np.zeros(1)), "Object arrays"),
        (lambda path: np.savez(path, routed_experts=np.zeros((2, 3, 2)), sequence=[0, 0]), "must hold whole numbers"),
        (
            lambda path: np.savez(path, routed_experts=np.zeros((2, 3), int), sequence=[0, 0]),
            r"must be \[tokens, layers",
        ),
        (broken(lambda visits: visits[:, :2]), "2 layers with 2 experts per token; moe has 3 with 2"),
        (broken(lambda visits: visits + 1), r"experts 1..8 are outside 0..7 of moe"),
        (broken(twice), "a token visits an expert twice"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_record_of_the_model_is_refused(
    write: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npz"
    write(path)
    with pytest.raises(UsageError, match=words):
        load_routing(path, MODEL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sequence,token,layer\n0,0,0\n", "needs whole numbers in sequence, token, layer, expert"),
        ("sequence,token,layer,expert\n0,0,0,x\n", "needs whole numbers"),
        ("sequence,token,layer,expert\n", "not the same number for every token and layer"),
        ("sequence,token,layer,expert\n0,0,0,1\n0,0,1,1\n0,1,0,1\n", "not the same number for every token and layer"),
        ("sequence,token,layer,expert\n0,0,0,1\n0,0,1,1\n0,1,0,1\n0,1,0,2\n", "some token misses a layer"),
    ],
)
def test_rows_that_leave_gaps_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_routing(path, MODEL)


def test_a_dense_model_takes_no_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dense has no experts"):
        load_routing(tmp_path / "x.npz", shapes.DENSE)


def test_a_profile_replays_the_record_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    config = tmp_path / "moe.json"
    config.write_text(json.dumps(CONFIG))
    visits, sequence = record()
    write_npz(tmp_path / "x.npz", visits, sequence)
    options = ["--model", str(config), "--routing", str(tmp_path / "x.npz"), "--contexts", "8,16", "--prefills", "8"]
    options += ["--max-draft-tokens", "1", "--budget-s", "0", "--threads", "1", "-o", str(tmp_path / "x.json")]
    assert bebop(["profile", "--device", "cpu", *options, "--batches", "1,99"]) == 2
    assert "72 pieces of 2 tokens are recorded, a pass of the grid needs 99" in capsys.readouterr().err
    assert bebop(["profile", "--device", "cpu", *options, "--batches", "1,4"]) == 0
    trace = load_trace(tmp_path / "x.json", LatencyTrace)
    assert "those that recorded tokens visited (sha256 " in (trace.provenance.notes or "")
    assert trace.measurement is not None
    routing = load_routing(tmp_path / "x.npz", shapes.MOE)
    assert {(d.batch, d.tokens_per_seq): d.mean for d in trace.measurement.distinct_experts} == {
        (batch, q): pytest.approx(distinct_experts(visits_of_pass(routing, MODEL, batch, q)), abs=1e-3)
        for batch in (1, 4)
        for q in (1, 2)
    }
