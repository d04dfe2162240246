"""The ledger keeps every sample, through an interruption too, and belongs to one request."""

from pathlib import Path

import pytest

from profiler.errors import UsageError
from profiler.ledger import GRID, Ledger, Sample
from profiler.point import Point
from profiler.statistics import NOISY_SPREAD, collect
from traces.latency import Operation

POINT = Point(Operation.VERIFY, 4, 8, 1024)
SAMPLES = [
    Sample(GRID, POINT, 0, 0.012, None, 7, 1e-5, {"power_w": 400.0}),
    Sample(GRID, Point(Operation.DECODE, 1, 512, 32768), 0, None, "needs 200 GB"),
    Sample(GRID, POINT, 1, 0.013),
]


def filled(path: Path) -> None:
    ledger = Ledger.open(path, {"model": "a"})
    for sample in SAMPLES:
        ledger.add(sample)


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.samples.jsonl"
    filled(path)
    assert Ledger.open(path, {"model": "a"}).samples == SAMPLES


@pytest.mark.parametrize("num_bytes_lost", [1, 5, 60])
def test_a_torn_last_line_is_dropped_and_taken_again(num_bytes_lost: int, tmp_path: Path) -> None:
    path = tmp_path / "x.samples.jsonl"
    filled(path)
    path.write_bytes(path.read_bytes()[:-num_bytes_lost])
    ledger = Ledger.open(path, {"model": "a"})
    assert ledger.samples == SAMPLES[:2]
    ledger.add(SAMPLES[2])
    assert Ledger.open(path, {"model": "a"}).samples == SAMPLES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "another request"),
        ("", "another request"),
        ('{"request_sha256": "0"}\n', "another request"),
        ("no json\n", "not a ledger"),
    ],
)
def test_a_ledger_of_something_else_is_refused(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.samples.jsonl"
    filled(path)
    if text is not None:
        path.write_text(text or "torn")
    with pytest.raises(UsageError, match=words):
        Ledger.open(path, {"model": "b"})


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.samples.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")
    with pytest.raises(UsageError, match="not a ledger of samples"):
        Ledger.open(path, {"model": "a"})


def test_a_point_has_the_median_of_its_sweeps_and_their_spread() -> None:
    samples = [Sample(GRID, POINT, sweep, seconds) for sweep, seconds in enumerate((1.0, 1.2, 1.1, 9.0, 1.0))]
    found = collect(samples)
    assert found.latencies[POINT] == 1.1
    assert found.spreads[POINT] == pytest.approx(0.2 / 1.1)
    assert found.spreads[POINT] > NOISY_SPREAD


def test_one_failed_sample_makes_a_point_infeasible() -> None:
    found = collect([Sample(GRID, POINT, 0, 1.0), Sample(GRID, POINT, 1, None, "out of memory")])
    assert found.latencies == {}
    assert found.infeasible == {POINT: "out of memory"}
