"""What a reader is told about a bad file: the exact line, for JSON and Parquet alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traces import examples
from traces import TraceError, TraceFormatError, load_trace, save_trace
from traces.parquet import HEADER_KEY

BAD_LATENCIES = [
    (-0.001, "-0.001 is not at least 1e-07"),
    (0.0, "0.0 is not at least 1e-07"),
    (-0.0, "-0.0 is not at least 1e-07"),
    (float("nan"), "nan is not a finite number"),
    (float("inf"), "inf is not a finite number"),
    (float("-inf"), "-inf is not a finite number"),
    (5000.0, "5000.0 is not at most 600"),
    (None, "None is not a number"),
]


def complaint_about(path: Path) -> str:
    with pytest.raises(TraceFormatError) as caught:
        load_trace(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def complaint_about_json(folder: Path, change: Callable[[dict[str, Any]], object], trace: Any = None) -> str:
    path = folder / "h200.json"
    save_trace(trace or examples.latency_trace(), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return complaint_about(path)


def complaint_about_text(folder: Path, text: str | bytes) -> str:
    path = folder / "h200.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return complaint_about(path)


def complaint_about_table(folder: Path, change: Callable[[pa.Table], pa.Table], trace: Any = None) -> str:
    path = folder / "h200.parquet"
    save_trace(trace or examples.latency_trace(), path)
    pq.write_table(change(pq.read_table(path)), path)
    return complaint_about(path)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(("value", "words"), BAD_LATENCIES)
def test_a_bad_latency_in_json_names_row_column_value_and_limit(tmp_path: Path, value: object, words: str) -> None:
    line = complaint_about_json(tmp_path, lambda content: content["rows"][17].update(latency_s=value))
    assert line == f"row 17, column latency_s: {words}; fix the row or re-run `bebop profile`"


@pytest.mark.parametrize(("value", "words"), BAD_LATENCIES)
def test_a_bad_latency_in_parquet_names_row_column_value_and_limit(tmp_path: Path, value: object, words: str) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = table["latency_s"].to_pylist()
        values[17] = value
        return with_column(table, "latency_s", pa.array(values, pa.float64()))

    line = complaint_about_table(tmp_path, spoil)
    assert line == f"row 17, column latency_s: {words}; fix the row or re-run `bebop profile`"


def test_an_overflowing_literal_is_an_infinity(tmp_path: Path) -> None:
    text = examples.latency_trace().model_dump_json().replace('"latency_s":0.001,', '"latency_s":1e999,')
    line = complaint_about_text(tmp_path, text)
    assert line == "row 0, column latency_s: inf is not a finite number; fix the row or re-run `bebop profile`"


@pytest.mark.parametrize("value", ["0.001", True, [0.001], {"s": 0.001}])
def test_a_latency_of_another_type_is_not_converted(tmp_path: Path, value: object) -> None:
    line = complaint_about_json(tmp_path, lambda content: content["rows"][3].update(latency_s=value))
    assert line == f"row 3, column latency_s: {value!r} is not a number; fix the row or re-run `bebop profile`"


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"batch": 0}, "row 3, column batch: 0 is not at least 1; fix the row"),
        ({"batch": 1.5}, "row 3, column batch: 1.5 is not a whole number; fix the row"),
        ({"batch": "4"}, "row 3, column batch: '4' is not a whole number; fix the row"),
        ({"batch": 10**30}, "row 3, column batch: 1000000000000000000000000000000 is not at most 1000000; fix the row"),
        ({"operation": "train"}, "row 3, column operation: 'train' is not one of 'prefill', 'decode',"),
        ({"origin": "extrapolated"}, "row 3, column origin: 'extrapolated' is not one of 'measured', 'modelled' or"),
        ({"latencys": 1}, "row 3, column latencys: unknown key; did you mean `latency_s`?"),
        ({"zzz": 1}, "row 3, column zzz: unknown key; fix the row"),
        (
            {"batch": 3},
            "row 3, column latency_s: 0.00142857 contradicts 0.00128571 of an earlier row at the same point",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, update: dict[str, object], words: str) -> None:
    assert complaint_about_json(tmp_path, lambda content: content["rows"][3].update(update)).startswith(words)


@pytest.mark.parametrize(
    ("update", "line"),
    [
        ({"gqu": "H200"}, "gqu: unknown key; did you mean `gpu`?"),
        ({"gpu": ""}, "gpu: '' has fewer characters than 1; fix the file or re-run `bebop profile`"),
        ({"gpu": None}, "gpu: None is not text; fix the file or re-run `bebop profile`"),
        ({"rows": []}, "rows: [] has fewer items than 1; fix the file or re-run"),
        ({"rows": 3}, "rows: 3 is not a list; fix the file or re-run `bebop profile`"),
        (
            {"provenance": {"source": "x", "created": "today"}},
            "provenance.created: 'today' does not match ^",
        ),
        ({"graph_batch_sizes": [4, 2]}, "graph_batch_sizes: (4, 2) must be ascending, without repeats and not empty"),
        ({"schema_version": 0}, "schema_version: 0 is not at least 1; fix the file or re-run `bebop profile`"),
        ({"schema_version": "1"}, "schema_version: '1' is not a whole number; fix the file or re-run `bebop profile`"),
        ({"kind": "latent"}, "kind is 'latent', expected latency or acceptance or workload or measured or "),
        ({"sha256": 7}, "content has sha256 "),
    ],
)
def test_a_bad_header_is_named(tmp_path: Path, update: dict[str, object], line: str) -> None:
    path = tmp_path / "h200.json"
    path.write_text(json.dumps({**examples.latency_trace().model_dump(mode="json"), **update}))
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(line)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    assert complaint_about_json(tmp_path, lambda content: content.pop("gpu")) == (
        "gpu: missing; fix the file or re-run `bebop profile`"
    )
    assert complaint_about_json(tmp_path, lambda content: content["rows"][2].pop("batch")) == (
        "row 2, column batch: missing; fix the row or re-run `bebop profile`"
    )


def test_further_failures_are_counted(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for row in content["rows"]:
            row["latency_s"] = -1

    line = complaint_about_json(tmp_path, spoil)
    assert line.startswith("row 0, column latency_s: -1 is not at least 1e-07 (and 19 more); fix the row")


def test_acceptance_that_increases_is_refused(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["rows"][0]["cumulative"] = [0.5, 0.8]

    assert complaint_about_json(tmp_path, spoil, examples.acceptance_trace()) == (
        "row 0, column cumulative: position 2 has 0.8, above position 1's 0.5; "
        "give unconditional rates P(first j accepted), not conditional ones"
    )


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_bad_item_of_a_nested_column_is_named(tmp_path: Path, suffix: str) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["rows"][0]["cumulative"] = [0.9, -0.5]

    def spoil_table(table: pa.Table) -> pa.Table:
        return with_column(table, "cumulative", pa.array(["[0.9,-0.5]"]))

    line = (
        complaint_about_json(tmp_path, spoil, examples.acceptance_trace())
        if suffix == ".json"
        else complaint_about_table(tmp_path, spoil_table, examples.acceptance_trace())
    )
    assert line == "row 0, column cumulative[1]: -0.5 is not at least 0; fix the row or see `bebop schema acceptance`"


def test_other_tables_are_named_in_the_complaint(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["sequences"][0]["turns"][1]["delay_s"] = -1

    assert complaint_about_json(tmp_path, spoil, examples.workload_trace()) == (
        "sequences row 0, column turns[1].delay_s: -1 is not at least 0; fix the row or see `bebop schema workload`"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1, column 1: not JSON (Expecting value); restore the file or make it again"),
        ('{"kind": "latency", ', "line 1, column 21: not JSON (Expecting property name enclosed in double quotes);"),
        ("[]", "holds a JSON array, expected an object; see `bebop schema`"),
        ("3", "holds a JSON number, expected an object; see `bebop schema`"),
        ('{"kind": "latency", "kind": "latency"}', "key 'kind' appears twice in one object; keep one of them"),
        ('{"kind": "latency", "rows": [{"batch": 1, "batch": 2}]}', "key 'batch' appears twice in one object;"),
        ("[" * 100_000, "nested too deeply for any trace; restore the file or make it again"),
        ('{"a":' * 100_000, "nested too deeply for any trace; restore the file or make it again"),
        ('{"kind": "latency", "a": ' + "[" * 500 + "]" * 500 + "}", "Invalid JSON: recursion limit exceeded"),
        ('{"kind": "latency", "gpu": ' + "9" * 5000 + "}", "holds a number of thousands of digits;"),
        (b'{"kind": "\xff"}', "byte 10 is not UTF-8; write the file as UTF-8 JSON"),
        ('{"kind": "latency", "gpu": "\\ud800"}', "Invalid JSON: "),
        ('{"kind": ["latency"]}', "kind is ['latency'], expected latency or acceptance or workload"),
    ],
    ids=range(13),
)
def test_text_that_is_no_trace_gets_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert complaint_about_text(tmp_path, text).startswith(line)


def test_more_rows_than_the_cap_are_refused_from_the_footer(tmp_path: Path) -> None:
    path = tmp_path / "h200.parquet"
    save_trace(examples.latency_trace(20), path)
    with pytest.raises(TraceFormatError, match=r"h200\.parquet: 20 rows are above the limit of 19; split the trace$"):
        load_trace(path, max_rows=19)


def test_a_parquet_bomb_is_refused_by_its_row_count(tmp_path: Path) -> None:
    def bomb(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table.slice(0, 1)] * 1).take(pa.array([0] * 200_001))

    line = complaint_about_table(tmp_path, bomb)
    assert line == "200001 rows are above the limit of 200000; split the trace"


def test_long_text_repeated_does_not_unfold(tmp_path: Path) -> None:
    def bomb(table: pa.Table) -> pa.Table:
        long = pa.array(["x" * 4_000_000]).dictionary_encode()
        column = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), long.dictionary)
        return with_column(table, "operation", column)

    def with_many_rows(table: pa.Table) -> pa.Table:
        return bomb(table.take(pa.array([0] * 1000)))

    line = complaint_about_table(tmp_path, with_many_rows)
    assert line == "more rows or text than allowed; make it again"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda table: table.append_column("notes", pa.array(["x"] * 20)), "unknown column 'notes'; the columns are "),
        (lambda table: table.append_column("batch", table["batch"]), "two columns have one name; keep one of them"),
        (
            lambda table: table.replace_schema_metadata({}),
            "no `bebop_trace` header in the schema metadata; write it with",
        ),
        (lambda table: table.replace_schema_metadata({HEADER_KEY: b"{"}), "header: line 1, column 2: not JSON"),
        (lambda table: table.replace_schema_metadata({HEADER_KEY: b"{}"}), "kind None is not one of latency, "),
        (
            lambda table: with_column(table, "batch", table["batch"].cast(pa.string())),
            "column batch has type string, expected int64; convert the column",
        ),
        (lambda table: table.drop_columns(["batch"]), "row 0, column batch: missing (and 19 more); fix the row"),
    ],
    ids=range(7),
)
def test_a_table_of_another_shape_is_named(tmp_path: Path, change: Callable[[pa.Table], pa.Table], line: str) -> None:
    assert complaint_about_table(tmp_path, change).startswith(line)


def test_a_file_that_is_not_parquet_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "h200.parquet"
    for content in (b"", b"PAR1", b"hello" * 100, b"PAR1" + b"\xff" * 100 + b"PAR1"):
        path.write_bytes(content)
        assert complaint_about(path).startswith("not a readable Parquet file (")


def test_narrower_numbers_from_other_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "h200.parquet"
    save_trace(examples.latency_trace(), path)
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[HEADER_KEY])
    del header["sha256"]
    table = with_column(table, "batch", table["batch"].cast(pa.int32())).replace_schema_metadata(
        {HEADER_KEY: json.dumps(header)}
    )
    pq.write_table(with_column(table, "operation", table["operation"].cast(pa.large_string())), path)
    assert load_trace(path) == examples.latency_trace()
