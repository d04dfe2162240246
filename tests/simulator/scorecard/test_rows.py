"""Users' rows: whatever the cells hold, a row is predicted, or listed with the fact that it lacks."""

from pathlib import Path

import pytest

from simulator.scorecard.inference import score_rows
from simulator.scorecard.rows import MAX_CELL_CHARACTERS, parse_row, read_rows
from simulator.scorecard.score import Scored, Unpredictable, as_json
from traces.errors import TraceFormatError

GOOD = {
    "id": "mine",
    "engine": "vLLM 0.12",
    "hw": "H100x1",
    "model": "Qwen3-8B",
    "method": "EAGLE3",
    "k": "3",
    "concurrency": "8",
    "accept_len": "2.5",
    "speedup_vs_AR": "1.6",
}


def only(**changes: str) -> Scored | Unpredictable:
    entries = score_rows([parse_row({**GOOD, **changes}, "row 1")])
    assert len(entries) == 1
    return entries[0]


def test_a_row_that_states_enough_is_predicted_with_its_assumptions_listed() -> None:
    entry = only()
    assert isinstance(entry, Scored)
    assert entry.low < entry.predicted < entry.high
    assert {assumption.name for assumption in entry.assumptions} == {"precision", "context"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "Qwen3-9B"}, "model: no architecture of 'Qwen3-9B' is known; nearest: .*Qwen3-8B"),
        ({"model": ""}, "model: blank"),
        ({"hw": "H300"}, "hw: no datasheet of 'H300' is known; nearest: .*H.00"),
        ({"hw": "TPU v5e"}, "hw: no datasheet of 'TPU v5e'"),
        ({"precision": "int3"}, "precision: 'int3' is none of"),
        ({"method": "wishful thinking"}, "method: 'wishful thinking' is none whose cost is known"),
        ({"method": ""}, "method: blank, though k is not 0"),
        ({"method": "DFlash", "k": ""}, "k: blank, though DFlash drafts"),
        ({"k": "2.5"}, "column k: 2.5 is no whole number"),
        ({"k": "-1"}, "column k: -1 is outside 0 to 64"),
        ({"k": "1e9"}, "column k: 1e9 is outside"),
        ({"concurrency": "nan"}, "column concurrency: nan is outside"),
        ({"concurrency": "inf"}, "column concurrency: inf is outside"),
        ({"concurrency": "many"}, "column concurrency: 'many' is no number"),
        ({"accept_len": "4.5"}, r"accept_len: 4\.5 is above k \+ 1 = 4"),
        ({"accept_len": "", "per_pos_uncond": ".5;.9;.1"}, "column per_pos_uncond: .5;.9;.1 are no falling rates"),
        ({"accept_len": "", "per_pos_uncond": "a;b"}, "column per_pos_uncond: 'a;b' is no list"),
        ({"accept_len": "", "model": "Mistral-7B"}, "accept_len, per_pos_uncond: both blank, and none is published"),
        ({"speedup_vs_AR": ""}, "all blank, nothing was measured"),
        ({"speedup_vs_AR": "=1+1"}, "column speedup_vs_AR: '=1\\+1' is no number"),
        ({"engine": "simulator(vLLM-fit)"}, "a simulation, not a measurement"),
        ({"note": "simulated, not measured"}, "a simulation, not a measurement"),
        ({"tp": "3"}, "tp_size 3: must divide"),
    ],
)
def test_a_row_that_cannot_be_predicted_names_the_missing_fact(changes: dict[str, str], words: str) -> None:
    entry = only(**changes)
    assert isinstance(entry, Unpredictable)
    assert "\n" not in entry.missing
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(entry.missing)


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "../../etc/passwd", "a\x00b\x1b[31m", "x" * 10_000, "\u202eevil", "{{7*7}}", "';--"]
)
def test_hostile_cells_are_text_without_control_characters(cell: str) -> None:
    row = parse_row(dict.fromkeys(GOOD, cell), "row 1")
    assert len(row.model) <= MAX_CELL_CHARACTERS
    for entry in score_rows([row]):
        assert isinstance(entry, Unpredictable)
        assert (entry.id + entry.configuration + entry.missing).isprintable()


@pytest.mark.parametrize(
    ("hw", "same_as"),
    [
        ("8xH100", {"hw": "H100x8"}),
        ("8 x NVIDIA H100 80GB HBM3", {"hw": "H100x8"}),
        ("H100-SXM5 x8", {"hw": "H100x8"}),
        ("nvidia h200", {"hw": "H200"}),
        ("MI300X", {"hw": "AMD Instinct MI300X"}),
    ],
)
def test_hardware_is_read_as_people_write_it(hw: str, same_as: dict[str, str]) -> None:
    one, other = only(hw=hw), only(**same_as)
    assert isinstance(one, Scored)
    assert isinstance(other, Scored)
    assert one.predicted == other.predicted


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "qwen3-8b", "Qwen3-8B-Instruct", "Qwen3 8B"])
def test_models_are_read_as_people_write_them(model: str) -> None:
    one, other = only(model=model), only()
    assert isinstance(one, Scored)
    assert isinstance(other, Scored)
    assert one.predicted == other.predicted


def test_the_name_of_a_quantised_model_says_its_precision() -> None:
    named, stated = only(model="Qwen3-8B-FP8"), only(precision="fp8")
    assert isinstance(named, Scored)
    assert isinstance(stated, Scored)
    assert named.predicted == stated.predicted
    assert "precision" in {assumption.name for assumption in named.assumptions}


def test_cards_without_nvlink_are_predicted_together() -> None:
    assert isinstance(only(hw="RTX 4090 x2", tp="2"), Scored)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column model and no column hw"),
        (b"a,b\n1,2\n", "no column model and no column hw"),
        (b"model,hw\n\xff\xfe\x00\n", "is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(TraceFormatError, match=words) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(TraceFormatError, match="above the limit of 8000000"):
        read_rows(path)


def test_columns_may_be_missing_unknown_and_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("hw,flavour,model,tpot_ms\nH100,vanilla,Qwen3-8B,7\n\n", encoding="utf-8-sig")
    (row,) = read_rows(path)
    assert (row.id, row.drafts, row.measured_tpot_s) == ("row 1", 0, pytest.approx(0.007))


def test_a_speedup_is_the_ratio_to_the_plain_row_of_the_same_configuration() -> None:
    plain = parse_row({**GOOD, "id": "plain", "k": "0", "method": "AR", "tpot_ms": "8", "speedup_vs_AR": ""}, "")
    drafted = parse_row({**GOOD, "tpot_ms": "5", "speedup_vs_AR": ""}, "")
    speedups = [
        entry.measured for entry in score_rows([plain, drafted]) if isinstance(entry, Scored) and entry.is_speedup
    ]
    assert speedups == [pytest.approx(1.6)]


def test_json_of_any_row_is_plain_data() -> None:
    content = as_json(score_rows([parse_row({**GOOD, "model": "\x1b]0;x"}, "row 1"), parse_row(GOOD, "row 2")]))
    assert set(content) == {"classes", "rows"}
    assert content["classes"]["inference_speedup"]["n"] == 1
