"""What the documentation shows of the study is what its files hold."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from profiler.mtp.estimates import accept_rate
from profiler.mtp.publish import as_json, traces
from profiler.mtp.results import LOSSES_COMPARED, ResultsFile
from profiler.mtp.study import FULL, QUICK, plan
from traces.acceptance import AcceptanceTrace
from traces.store import find_trace, load_trace

DOCS = Path(__file__).parents[3] / "docs"
STUDIES = {"full": FULL, "quick": QUICK}


@pytest.mark.parametrize("study", STUDIES)
def test_committed_studies_are_whole_and_of_the_sizes_that_the_command_runs(study: str) -> None:
    found = ResultsFile(DOCS / "mtp_study" / study).read()
    assert found.size == STUDIES[study]
    assert sorted((unit.part, unit.seed) for unit in found.units) == sorted(plan(STUDIES[study]))


@pytest.mark.parametrize("study", STUDIES)
def test_committed_traces_are_those_of_the_committed_measurements(study: str) -> None:
    for made in traces(ResultsFile(DOCS / "mtp_study" / study).read(), "bebop study mtp"):
        kept = load_trace(find_trace(made.name, "acceptance"), AcceptanceTrace)
        assert kept.rows == made.rows
        assert [(law.recipe, law.fit) for law in kept.laws] == [(law.recipe, law.fit) for law in made.laws]
        for found, expected in zip(made.laws, kept.laws, strict=True):
            numbers = [(law.intercept, law.slope_per_nat, law.slope_sd_per_nat) for law in (found, expected)]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_the_page_says_of_each_claim_what_the_full_study_says() -> None:
    page = " ".join((DOCS / "mtp_study.md").read_text(encoding="utf-8").split())
    results = ResultsFile(DOCS / "mtp_study" / "full").read()
    answer = as_json(results)
    for name, slope in answer["slope"].items():
        low, high = answer["slope_interval"][name]
        assert f"| {slope:.2f} ({low:.2f} to {high:.2f}) |" in page
    for loss in LOSSES_COMPARED:
        rates = [accept_rate(results, domain, loss) for domain in ("code", "agent", "math")]
        assert " | ".join(f"{rate.mean:.3f} ({rate.low:.3f}-{rate.high:.3f})" for rate in rates) in page
    said = {
        "e2e_tv_above_ce": "e2e TV above CE in every domain",
        "e2e_tv_above_tv": "e2e TV above per-step TV",
        "rejection_above_greedy": "Rejection accepts more than greedy drafts of the same head",
        "greedy_collapses_with_temperature": "Greedy drafts collapse with temperature, rejection does not",
        "slope_within_a_policy": "RS+TV at most a fifth of TO",
        "online_ce_below_frozen_tv": "TV with CE online falls below the frozen TV head",
        "greedy_online_below_frozen": "Greedy drafts with CE online fall below the frozen ones",
        "slope_of_rs_tv_a_fifth": "RS+TV falls at most a fifth as fast",
        "online_tv_no_lasting_gain": "Fig. 9a, TV online has no lasting gain",
        "block_at_least_rejection": "Block verification accepts more than token by token",
        "counts_agree": "Counts are sum min(p, q)",
    }
    for name, claim in said.items():
        assert re.search(re.escape(claim) + r": " + answer["verdicts"][name]["outcome"], page), name


def test_pictures_that_the_page_shows_are_there() -> None:
    page = (DOCS / "mtp_study.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((mtp_study/[^)]+)\)", page)
    assert len(shown) >= 5
    assert all((DOCS / name).is_file() for name in shown)
