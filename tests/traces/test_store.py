import json
import resource
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.traces import examples
from traces import (
    AcceptanceTrace,
    LatencyTrace,
    Trace,
    TraceError,
    TraceFormatError,
    TraceIntegrityError,
    find_trace,
    list_traces,
    load_trace,
    save_trace,
)
from traces.schema import TRACES
from traces.store import DATA_FOLDER, load_named, write_atomically

SUFFIXES = (".json", ".parquet")

reuses_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@reuses_folder
@given(trace=examples.traces)
def test_any_trace_comes_back_equal_from_both_kinds_of_file(tmp_path: Path, trace: Trace) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"trace{suffix}"
        save_trace(trace, path)
        back = load_trace(path, type(trace))
        assert back == trace
        assert back.content_hash() == trace.content_hash()


@reuses_folder
@given(trace=examples.traces)
def test_json_to_parquet_to_json_is_the_same_bytes(tmp_path: Path, trace: Trace) -> None:
    first, middle, last = (tmp_path / name for name in ("a.json", "b.parquet", "c.json"))
    save_trace(trace, first)
    save_trace(load_trace(first), middle)
    save_trace(load_trace(middle), last)
    assert last.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_trace_is_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save_trace(examples.latency_trace(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@settings(reuses_folder, max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_byte_never_changes_a_number_unnoticed(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    trace = examples.latency_trace(3)
    path = tmp_path / f"trace{suffix}"
    save_trace(trace, path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        outcome: object = load_trace(path)
    except TraceError as error:
        outcome = str(error)
    assert outcome == trace or (isinstance(outcome, str) and outcome.startswith(f"{path}: ") and "\n" not in outcome)


def test_a_changed_value_is_an_integrity_error_with_both_hashes(tmp_path: Path) -> None:
    trace = examples.latency_trace()
    path = tmp_path / "h200.json"
    save_trace(trace, path)
    path.write_text(path.read_text().replace('"Qwen3-8B"', '"Qwen3-9B"'))
    changed = trace.model_copy(update={"model": "Qwen3-9B"})
    with pytest.raises(TraceIntegrityError) as caught:
        load_trace(path)
    assert str(caught.value) == (
        f"{path}: content has sha256 {changed.content_hash()}, expected {trace.content_hash()} as written with it; "
        "restore the file, or take the sha256 entry out if you edited it on purpose"
    )


def test_an_acceptance_row_for_the_whole_response_is_written_as_before_there_were_others(tmp_path: Path) -> None:
    trace = examples.acceptance_trace()
    assert "from_token" not in trace.rows[0].model_dump(mode="json")
    save_trace(trace, tmp_path / "whole.parquet")
    assert "from_token" not in pq.read_schema(tmp_path / "whole.parquet").names
    part = trace.model_copy(update={"rows": (*trace.rows, trace.rows[0].model_copy(update={"from_token": 0}))})
    save_trace(part, tmp_path / "part.parquet")
    back = load_trace(tmp_path / "part.parquet", AcceptanceTrace)
    assert [row.from_token for row in back.rows] == [None, 0]


def test_a_file_made_by_hand_needs_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "h200.json"
    path.write_text(examples.latency_trace().model_dump_json())
    assert load_trace(path, LatencyTrace) == examples.latency_trace()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"accept{suffix}"
        save_trace(examples.acceptance_trace(), path)
        assert isinstance(load_trace(path, AcceptanceTrace), AcceptanceTrace)
        with pytest.raises(TraceFormatError, match=r"kind is 'acceptance', expected latency; give another file"):
            load_trace(path, LatencyTrace)


def test_a_newer_schema_version_says_upgrade(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"h200{suffix}"
        save_trace(examples.latency_trace().model_copy(update={"schema_version": 2}), path)
        with pytest.raises(TraceFormatError) as caught:
            load_trace(path)
        assert str(caught.value) == f"{path}: schema_version 2, this build reads 1; upgrade Bebop"


def test_a_missing_file_and_a_strange_suffix_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.json: cannot be read \(No such file or directory\); check the path$"):
        load_trace(tmp_path / "none.json")
    with pytest.raises(TraceError, match=r"x\.pkl: suffix '\.pkl' is neither \.json nor \.parquet; rename the file$"):
        load_trace(tmp_path / "x.pkl")
    with pytest.raises(TraceError, match="is neither"):
        save_trace(examples.latency_trace(), tmp_path / "x.pkl")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "h200.json"
    save_trace(examples.latency_trace(), path)
    before = path.read_bytes()

    def fail(file: object) -> None:
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["h200.json"]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "h200.json"
    save_trace(examples.latency_trace(1), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"h200\.json") as caught:
            save_trace(examples.latency_trace(500), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["h200.json"]


def test_json_above_the_limit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"bytes of JSON are above the limit of 8000000; use \.parquet"):
        save_trace(examples.latency_trace(40_000), tmp_path / "h200.json")
    assert not list(tmp_path.iterdir())


def test_json_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "h200.json"
    save_trace(examples.latency_trace(), path)
    with pytest.raises(TraceFormatError, match=r"larger than 1000 bytes of JSON; save it as \.parquet"):
        load_trace(path, max_json_bytes=1000)


def test_every_shipped_trace_loads_under_its_name_and_kind() -> None:
    for entry in list_traces():
        trace = load_trace(entry.path, TRACES[entry.kind])
        assert trace.name == entry.name
        assert "sha256" in json.loads(entry.path.read_text()) if entry.path.suffix == ".json" else True
        assert find_trace(entry.name, entry.kind) == entry.path


def test_a_trace_is_read_once_and_again_when_its_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "h200.json"
    save_trace(examples.latency_trace(3), path)
    first = load_named(str(path), LatencyTrace)
    assert load_named(str(path), LatencyTrace) is first
    save_trace(examples.latency_trace(4), path)
    assert len(load_named(str(path), LatencyTrace).rows) == 4


def test_shipped_names_are_unique_within_a_kind() -> None:
    keys = [(entry.kind, entry.name) for entry in list_traces()]
    assert len(keys) == len(set(keys))
    assert list_traces() == [entry for kind in sorted(TRACES) for entry in list_traces(kind)]


def test_an_unknown_name_lists_close_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.store.DATA_FOLDER", tmp_path)
    with pytest.raises(TraceError, match=r"^latency trace 'h2' is neither shipped nor .*; shipped are: none$"):
        find_trace("h2", "latency")
    (tmp_path / "latency").mkdir()
    save_trace(examples.latency_trace(), tmp_path / "latency" / "h200.json")
    with pytest.raises(TraceError) as caught:
        find_trace("h20", "latency")
    assert str(caught.value) == (
        "latency trace 'h20' is neither shipped nor a .json or .parquet file; did you mean h200?"
    )
    with pytest.raises(TraceError, match=r"^mine\.json: no such file; give the path of a latency trace"):
        find_trace("mine.json", "latency")


def test_a_path_is_found_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    save_trace(examples.latency_trace(), path)
    assert find_trace(str(path), "latency") == path
    assert DATA_FOLDER.is_dir()
