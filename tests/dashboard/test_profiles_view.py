import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import profile_tables, profiles, words
from dashboard.views import profiles as view
from tests.dashboard.pages import charts, open_view, written
from tests.profiler.test_step_times import row, trace_of
from traces.latency import LatencyTrace, Measurement, Operation
from traces.store import save_trace

FIRST, SECOND = "qwen3-8b-h200-tp1", "qwen3-8b-h100-tp1"


def upload(page: AppTest, key: str, name: str, content: bytes) -> AppTest:
    page.file_uploader(key=key).set_value((name, content, "application/json"))
    return page.run()


def as_file(trace: LatencyTrace, folder: Path) -> bytes:
    save_trace(trace, folder / "trace.json")
    return (folder / "trace.json").read_bytes()


def test_the_view_opens_on_the_scenarios_own_trace_with_its_figures_and_origins() -> None:
    page = open_view("profiles", scenario="bebop-reasoning")
    assert not page.exception
    assert not page.error
    assert page.selectbox(key=view.TRACE).value == "qwen3.5-35b-a3b-h200-tp1"
    assert charts(page) == 3
    assert "Nobody timed whole passes" in written(page)
    assert dict(page.query_params) == {"scenario": "bebop-reasoning"}, "its own trace needs no parameter"


def test_a_link_opens_two_traces_and_their_ratio_is_that_of_compare() -> None:
    page = open_view("profiles", trace=FIRST, beside=SECOND)
    assert not page.exception
    assert not page.error
    assert (page.selectbox(key=view.TRACE).value, page.selectbox(key=view.OTHER).value) == (FIRST, SECOND)
    assert charts(page) == 4
    assert "Not the same GPU: **H200** and **H100**" in written(page)
    usual = [one for one in profiles.comparison_of(FIRST, SECOND).regions if one.operation in view.USUAL]
    shown = [table.value for table in page.table]
    expected = profile_tables.ratios_table(usual)
    assert any("median" in table and table["median"].tolist() == expected["median"] for table in shown)
    assert f"bebop profile compare {FIRST} {SECOND}" in [code.value for code in page.code]


def test_another_operation_and_q_draw_another_surface() -> None:
    page = open_view("profiles", trace=FIRST)
    key = f"{FIRST}/(1, 1)"
    page.selectbox(key=f"{view.OPERATION}/{key}").set_value(Operation.VERIFY).run()
    page.selectbox(key=f"{view.QUERIES}/{key}/{Operation.VERIFY}").set_value(4).run()
    assert not page.exception
    assert charts(page) == 3


def test_a_link_to_a_trace_that_is_not_shipped_opens_the_usual_one() -> None:
    page = open_view("profiles", trace="/etc/passwd", beside="../x.json")
    assert not page.exception
    assert page.selectbox(key=view.OTHER).value == view.NONE


def test_an_uploaded_trace_of_one_point_is_drawn_and_named_by_its_hash(tmp_path: Path) -> None:
    made_up = trace_of(row(Operation.DECODE, 1, 1, 64, 0.01), gpu="some <b>CPU</b>")
    page = upload(open_view("profiles"), view.UPLOAD, "m<i>ne.json", as_file(made_up, tmp_path))
    assert not page.exception
    assert not page.error
    assert charts(page) == 3
    assert "sha256" in written(page)
    assert words.escape_markdown("m<i>ne.json") in written(page)
    assert r"some \<b\>CPU" in written(page)


def test_a_trace_without_passes_and_one_of_the_trainer_alone_say_so(tmp_path: Path) -> None:
    trainer = trace_of(row(Operation.TRAIN_STEP, 512, 64, 0, 2.0))
    page = upload(open_view("profiles"), view.UPLOAD, "t.json", as_file(trainer, tmp_path))
    assert not page.exception
    assert [info.value for info in page.info] == [
        "This trace has no decode or verify rows.",
        "This trace has no operation of a rollout engine.",
    ]


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"kind": "acceptance"}', b"\xff\xfe"])
def test_a_file_that_is_no_latency_trace_is_one_line_without_a_folder(content: bytes) -> None:
    page = upload(open_view("profiles"), view.UPLOAD, "broken.json", content)
    assert not page.exception
    (error,) = {error.value for error in page.error}
    assert error.startswith(r"broken\.json")
    assert "bebop\\-upload" not in error


def test_traces_without_a_common_point_say_so_and_leave_the_first_one_drawn(tmp_path: Path) -> None:
    far = trace_of(row(Operation.DECODE, 1, 4096, 64, 0.01))
    page = upload(open_view("profiles", trace=FIRST), view.OTHER_UPLOAD, "far.json", as_file(far, tmp_path))
    assert not page.exception
    assert "have no point in common" in page.error[0].value.replace("\\", "")
    assert charts(page) == 3


def test_a_measured_trace_tells_its_own_errors(tmp_path: Path) -> None:
    rows = [
        row(Operation.DECODE, 1, batch, context, 0.01 * batch + 1e-6 * context)
        for batch in (1, 2)
        for context in (0, 64)
    ]
    whole = {"num_draft_tokens": 3, "batch": 2, "context_tokens": 64, "measured_s": 0.02, "sum_of_parts_s": 0.021}
    lost = {"operation": "decode", "batch": 9, "context_tokens": 0, "tokens_per_seq": 1, "reason": "needs 90 GB of 80"}
    found = {"num_sweeps": 3, "num_samples": 60, "noisy_spread": 0.05, "num_noisy": 2, "composed": [whole]}
    errors = {"num_points": 7, "median": 0.01, "p90": 0.03, "worst": 0.08}
    measurement = Measurement.model_validate_json(json.dumps({**found, "held_out": errors, "infeasible": [lost]}))
    trace = trace_of(*rows).model_copy(update={"measurement": measurement})
    page = upload(open_view("profiles"), view.UPLOAD, "mine.json", as_file(trace, tmp_path))
    assert not page.exception
    assert not page.error
    assert profile_tables.measurement_sentence(measurement) in written(page)
    shown = [table.value for table in page.table]
    assert any(table["worst"].tolist() == ["8.0%"] for table in shown if "worst" in table)
    assert any(table["sum of its parts"].tolist() == ["+5.0%"] for table in shown if "sum of its parts" in table)
    assert any(table["why"].tolist() == ["needs 90 GB of 80"] for table in shown if "why" in table)
    assert any(table["infeasible"].tolist() == ["1"] for table in shown if "infeasible" in table)
