"""The paper's data as shipped: what is in the files is what the importer makes of the digitised figures."""

from pathlib import Path

import pytest

from traces.acceptance import AcceptanceTrace, VerifyRule
from traces.base import Origin
from traces.importers.bebop_paper import (
    ENTROPY_CURVES,
    TABLE_2_GAIN,
    acceptance_trace,
    entropy_trace,
    read_digitised,
    write_shipped_traces,
)
from traces.store import find_trace, load_trace
from traces.workload import WorkloadTrace


@pytest.fixture(scope="module")
def paper() -> AcceptanceTrace:
    return load_trace(find_trace("bebop-paper", "acceptance"), AcceptanceTrace)


def test_shipped_traces_are_what_the_importer_writes(paper: AcceptanceTrace) -> None:
    digitised = read_digitised()
    assert paper == acceptance_trace(digitised)
    for name in ENTROPY_CURVES:
        assert load_trace(find_trace(name, "workload"), WorkloadTrace) == entropy_trace(digitised, name)


def test_written_files_are_those_that_are_shipped(tmp_path: Path) -> None:
    (tmp_path / "acceptance").mkdir()
    (tmp_path / "workload" / "entropy").mkdir(parents=True)
    for path in write_shipped_traces(tmp_path):
        kind = path.relative_to(tmp_path).parts[0]
        assert path.read_bytes() == find_trace(path.stem, kind).read_bytes()


def test_every_recipe_has_the_fits_of_the_paper(paper: AcceptanceTrace) -> None:
    fits: dict[str, list[str]] = {}
    for law in paper.laws:
        fits.setdefault(law.recipe, []).append(law.fit)
    everywhere = ["all_runs", "reasoning", "swe"]
    assert fits == {
        "to": [*everywhere, "swe_qwen3.7_max"],
        "rs_ce": everywhere,
        "rs_e2e_tv": [*everywhere, "swe_qwen3.7_max"],
        "rs_tv": [*everywhere, "swe_qwen3.7_max"],
    }


def test_slopes_are_those_that_the_text_states(paper: AcceptanceTrace) -> None:
    slopes = {(law.recipe, law.fit): law.slope_per_nat for law in paper.laws}
    for recipe, stated in (("to", -1.68), ("rs_ce", -1.68), ("rs_e2e_tv", -0.06)):
        assert slopes[recipe, "swe"] == pytest.approx(stated, abs=0.03)


def test_only_greedy_drafts_are_verified_as_such(paper: AcceptanceTrace) -> None:
    for law in paper.laws:
        assert (law.verify_rule is VerifyRule.GREEDY_DRAFT) == (law.recipe == "to")


def test_per_step_tv_is_assumed_and_lies_between_ce_and_e2e_tv(paper: AcceptanceTrace) -> None:
    laws = {(law.recipe, law.fit): law for law in paper.laws}
    for fit in ("all_runs", "reasoning", "swe"):
        tv, e2e, ce = (laws[recipe, fit] for recipe in ("rs_tv", "rs_e2e_tv", "rs_ce"))
        middle = (tv.entropy_low_nats + tv.entropy_high_nats) / 2
        assert tv.origin is Origin.ASSUMED
        assert ce.accept_length(middle) < tv.accept_length(middle) < e2e.accept_length(middle)
    share = (laws["rs_tv", "swe"].accept_length(0.207) - laws["rs_ce", "swe"].accept_length(0.207)) / (
        laws["rs_e2e_tv", "swe"].accept_length(0.207) - laws["rs_ce", "swe"].accept_length(0.207)
    )
    assert share == pytest.approx(TABLE_2_GAIN["tv"]["swe"] / TABLE_2_GAIN["e2e_tv"]["swe"], abs=0.01)


@pytest.mark.parametrize(
    ("task", "table_rate", "within"), [("math", 0.750, 0.015), ("code", 0.713, 0.015), ("mt_bench", 0.653, 0.015)]
)
def test_positions_agree_with_table_2(paper: AcceptanceTrace, task: str, table_rate: float, within: float) -> None:
    row = next(row for row in paper.rows if row.loss == "ce" and row.task == task)
    assert (row.accept_length() - 1) / 3 == pytest.approx(table_rate, abs=within)


def test_swe_row_has_the_accept_length_of_the_run(paper: AcceptanceTrace) -> None:
    row = next(row for row in paper.rows if row.task == "swe")
    assert row.accept_length() == pytest.approx(
        read_digitised()["fig6b_swe_accept_length_10stepbins"]["RS"][0], abs=0.01
    )


@pytest.mark.parametrize(("name", "low", "high"), [("bebop-reasoning", 0.337, 0.452), ("bebop-swe", 0.187, 0.227)])
def test_inferred_entropy_spans_the_stated_range(name: str, low: float, high: float) -> None:
    points = load_trace(find_trace(name, "workload"), WorkloadTrace).entropy
    assert [point.rl_step for point in points[:3]] == [5, 15, 25]
    nats = [point.entropy_nats for point in points]
    assert (min(nats), max(nats)) == (low, high)
    assert (nats[0] > nats[-1]) == (name == "bebop-reasoning")


@pytest.mark.parametrize(
    ("name", "fit", "limit"), [("bebop-reasoning", "reasoning", 0.025), ("bebop-swe", "swe", 0.004)]
)
def test_laws_along_the_inferred_entropy_are_consistent_with_figure_6(
    paper: AcceptanceTrace, name: str, fit: str, limit: float
) -> None:
    # Consistency, not prediction: the laws were fitted on these very runs.
    curves = read_digitised()[ENTROPY_CURVES[name][0]]
    points = load_trace(find_trace(name, "workload"), WorkloadTrace).entropy
    for label, recipe in (("TO", "to"), ("RS_CE", "rs_ce"), ("RS", "rs_ce"), ("RS_TV", "rs_e2e_tv")):
        law = next(law for law in paper.laws if (law.recipe, law.fit) == (recipe, fit))
        for point, published in zip(points, curves.get(label, []), strict=label in curves):
            assert law.accept_length(point.entropy_nats) == pytest.approx(published, rel=limit)


def test_an_independent_law_is_met_within_a_sixth(paper: AcceptanceTrace) -> None:
    # MiMo-V2-Flash, arXiv 2601.02780 fig. 7: another model with three MTP layers, six benchmarks.
    to = next(law for law in paper.laws if (law.recipe, law.fit) == ("to", "all_runs"))
    for entropy in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        assert to.accept_length(entropy) == pytest.approx(4 * (1 - 0.58 * entropy**0.58), rel=1 / 6)
