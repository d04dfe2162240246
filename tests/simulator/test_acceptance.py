"""Acceptance from laws, from fixed rates, from counted rows: values, origins, warnings, complaints."""

from pathlib import Path

import pytest

from simulator.acceptance import Acceptance, build_acceptance
from simulator.config import FixedAcceptance, LawAcceptance, TraceAcceptance
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.speculation import accept_length
from traces.acceptance import AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Origin, Provenance
from traces.errors import TraceError
from traces.store import save_trace

# Laws


@pytest.mark.parametrize(
    ("recipe", "fit", "entropy", "published"),
    [
        ("to", "reasoning", 0.45, 3.702 - 1.823 * 0.45),
        ("rs_e2e_tv", "reasoning", 0.34, 3.386 - 0.301 * 0.34),
        ("rs_ce", "swe", 0.2, 3.982 - 1.683 * 0.2),
        ("rs_e2e_tv", "swe_qwen3.7_max", 0.4, 3.611 - 0.042 * 0.4),
    ],
)
def test_laws_give_the_papers_accept_length(recipe: str, fit: str, entropy: float, published: float) -> None:
    source = build_acceptance(LawAcceptance(recipe=recipe, fit=fit), arm="x", temperature=1.0)
    assert accept_length(source.cumulative(3, entropy)) == pytest.approx(published, abs=1e-9)


def test_a_law_is_kept_inside_one_and_k_plus_one_at_any_entropy_and_shift() -> None:
    source = build_acceptance(LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.0)
    assert source.cumulative(3, 20.0).tolist() == [0.0, 0.0, 0.0]
    above = build_acceptance(
        LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.0, accept_length_shift=9.0
    )
    assert above.cumulative(5, 0.3).tolist() == [1.0] * 5


def test_a_shift_moves_a_law_by_tokens_at_its_own_k() -> None:
    plain = build_acceptance(LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.0)
    shifted = build_acceptance(
        LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.0, accept_length_shift=-0.2
    )
    difference = accept_length(plain.cumulative(3, 0.3)) - accept_length(shifted.cumulative(3, 0.3))
    assert difference == pytest.approx(0.2)


def test_temperature_scales_the_accepted_drafts_of_a_law() -> None:
    hot = build_acceptance(LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.2)
    plain = build_acceptance(LawAcceptance(recipe="to", fit="all_runs"), arm="x", temperature=1.0)
    ratio = hot.cumulative(3, 0.3).sum() / plain.cumulative(3, 0.3).sum()
    assert ratio == pytest.approx((2.683 - 1) / (2.98 - 1))


def test_a_law_used_inside_its_data_warns_of_nothing() -> None:
    source = build_acceptance(LawAcceptance(recipe="to", fit="reasoning"), arm="to", temperature=1.0)
    evidence = source.evidence(3, [0.337, 0.4, 0.452])
    assert evidence.warnings == ()
    assert [(entry.name, entry.origin) for entry in evidence.origins] == [
        ("arms.to.acceptance", Origin.STATED),
        ("arms.to.acceptance.positions", Origin.MODELLED),
    ]
    assert evidence.origins[0].value == "law to/reasoning: 3.702 -1.823 H tokens at k = 3"
    assert evidence.origins[0].source == "arXiv 2606.12370 fig. 8a, line read off the figure"


def test_a_law_used_outside_its_data_says_where_and_how_often() -> None:
    source = build_acceptance(LawAcceptance(recipe="to", fit="reasoning"), arm="to", temperature=1.6)
    evidence = source.evidence(5, [0.4] * 88 + [0.46] * 11 + [0.48])
    assert evidence.warnings == (
        "arms.to.acceptance: law to/reasoning is fitted for entropy 0.337..0.452, the run reaches 0.48; extrapolated "
        "at 12 of 100 steps",
        "arms.to.k: 5 differs from the 3 of law to/reasoning; positions extended by the decay fitted on the paper's "
        "per-position curves",
        "arms.to.acceptance: temperature 1.6 is outside the data 0.1..1.4; the effect at 1.4 is used",
    )
    assert {entry.origin for entry in evidence.origins} == {Origin.EXTRAPOLATED}


def test_a_law_left_on_both_sides_names_both_ends() -> None:
    source = build_acceptance(LawAcceptance(recipe="rs_ce", fit="swe"), arm="ce", temperature=1.0)
    assert source.evidence(2, [0.1, 0.2, 0.3]).warnings == (
        "arms.ce.acceptance: law rs_ce/swe is fitted for entropy 0.187..0.227, the run reaches 0.1 and 0.3; "
        "extrapolated at 2 of 3 steps",
        "arms.ce.k: 2 differs from the 3 of law rs_ce/swe; positions cut by the decay fitted on the paper's "
        "per-position curves",
    )


def test_a_derived_law_says_that_it_is_assumed() -> None:
    source = build_acceptance(LawAcceptance(recipe="rs_tv", fit="reasoning"), arm="tv", temperature=0.8)
    origins = source.evidence(3, [0.4]).origins
    assert [entry.origin for entry in origins] == [Origin.ASSUMED, Origin.MODELLED, Origin.INTERPOLATED]
    assert origins[2].value == "accepted drafts x 1.027 at temperature 0.8"


def test_an_unknown_fit_lists_the_fits() -> None:
    with pytest.raises(ScenarioError) as error:
        build_acceptance(LawAcceptance(recipe="rs_ce", fit="maths"), arm="ce", temperature=1.0)
    assert str(error.value) == (
        "arms.ce.acceptance.fit: trace bebop-paper has no fit 'maths' of rs_ce; its fits are: all_runs, reasoning, swe"
    )


def test_an_unknown_trace_is_named() -> None:
    with pytest.raises(TraceError, match="bebop-paper"):
        build_acceptance(LawAcceptance(recipe="to", trace="bebop-papper", fit="all_runs"), arm="to", temperature=1.0)


def test_a_law_without_entropy_asks_for_one() -> None:
    source = build_acceptance(LawAcceptance(recipe="to", fit="all_runs"), arm="to", temperature=1.0)
    with pytest.raises(ScenarioError, match=r"^entropy: missing, but arms\.to\.acceptance is a law of entropy; give"):
        source.cumulative(3, None)


# Fixed rates


def test_fixed_rates_are_used_as_written_up_to_their_k() -> None:
    source = build_acceptance(FixedAcceptance(cumulative=(0.9, 0.76, 0.62)), arm="fix", temperature=0.3)
    assert source.cumulative(2, None).tolist() == [0.9, 0.76]
    assert source.evidence(3, [None]).warnings == ()
    with pytest.raises(ScenarioError) as error:
        source.cumulative(4, None)
    assert str(error.value) == (
        "arms.fix.k: 4 is above the 3 rates of arms.fix.acceptance.cumulative; lower k or give more rates"
    )


# Counted rows


@pytest.fixture
def counted(tmp_path: Path) -> str:
    def row(entropy: float | None, rates: tuple[float, ...], **more: object) -> AcceptanceRow:
        return AcceptanceRow.model_validate(
            {
                "loss": "ce",
                "verify_rule": VerifyRule.REJECTION,
                "entropy_nats": entropy,
                "cumulative": rates,
                "task": "math",
                **more,
            }
        )

    rows = (
        row(0.2, (0.9, 0.8), num_steps=100),
        row(0.4, (0.8, 0.6), num_steps=300),
        row(0.4, (0.4, 0.2), num_steps=100),
        row(0.3, (0.5,)),
        row(None, (0.7, 0.5), task="code"),
        row(0.2, (0.5, 0.4), loss="tv"),
        row(0.2, (0.5, 0.4), loss="tv", head="eagle"),
        row(None, (0.5, 0.3), loss="e2e_tv", from_token=0, num_steps=100),
        row(None, (0.7, 0.5), loss="e2e_tv", from_token=64, num_steps=300),
    )
    path = str(tmp_path / "counted.json")
    provenance = Provenance(source="a test", created="2026-01-01")
    save_trace(AcceptanceTrace(name="counted", model="m", provenance=provenance, rows=rows), path)
    return path


def rows_of(path: str, temperature: float = 1.0, **config: str) -> Acceptance:
    return build_acceptance(
        TraceAcceptance.model_validate({"trace": path, "loss": "ce", **config}), arm="c", temperature=temperature
    )


def test_counted_rows_are_pooled_by_steps_and_linear_between_entropies(counted: str) -> None:
    source = build_acceptance(TraceAcceptance(trace=counted, loss="ce", task="math"), arm="c", temperature=1.0)
    assert source.cumulative(2, 0.2).tolist() == pytest.approx([0.9, 0.8])
    assert source.cumulative(2, 0.4).tolist() == pytest.approx([0.7, 0.5])
    assert source.cumulative(2, 0.3).tolist() == pytest.approx([0.8, 0.65])
    assert source.cumulative(2, 9.0).tolist() == pytest.approx([0.7, 0.5])
    evidence = source.evidence(2, [0.2, 0.5])
    assert evidence.warnings == (
        "arms.c.acceptance: the rows of trace counted cover entropy 0.2..0.4, the run reaches 0.5; held at the end of "
        "the rows at 1 of 2 steps",
        "arms.c.acceptance: 1 of 4 rows of trace counted have fewer than 2 positions and are left out",
    )
    assert evidence.origins[0].origin is Origin.EXTRAPOLATED
    assert source.evidence(1, [0.2]).origins[0].origin is Origin.MEASURED
    assert source.evidence(1, [0.25]).origins[0].origin is Origin.INTERPOLATED
    with pytest.raises(TraceCoverageError) as error:
        source.cumulative(3, 0.2)
    assert str(error.value) == (
        "arms.c.k: 3 is above the 2 positions that trace counted covers; lower k or count more positions"
    )
    with pytest.raises(ScenarioError, match=r"entropy: missing, but the rows of arms\.c\.acceptance depend on it"):
        source.cumulative(2, None)


def test_rows_along_the_response_are_pooled_to_the_whole_of_it(counted: str) -> None:
    source = rows_of(counted, loss="e2e_tv")
    assert source.cumulative(2, None).tolist() == pytest.approx([0.65, 0.45])


def test_rows_without_entropy_hold_at_every_entropy(counted: str) -> None:
    source = build_acceptance(TraceAcceptance(trace=counted, loss="ce", task="code"), arm="c", temperature=1.0)
    assert source.cumulative(2, None).tolist() == source.cumulative(2, 3.0).tolist() == [0.7, 0.5]


def test_rows_that_cannot_be_told_apart_are_refused(counted: str) -> None:
    with pytest.raises(ScenarioError, match="mixes rows with and without entropy_nats; name a task"):
        rows_of(counted)
    with pytest.raises(ScenarioError, match="mixes heads eagle, mtp; split it"):
        rows_of(counted, loss="tv")


def test_conditions_that_no_row_meets_are_answered_with_those_there_are(counted: str) -> None:
    with pytest.raises(ScenarioError) as error:
        rows_of(counted, temperature=0.7, task="math")
    assert str(error.value) == (
        "arms.c.acceptance: trace counted has no rows with loss ce, verify_rule rejection, temperature 0.7, task math; "
        "it holds loss ce|e2e_tv|tv, verify_rule rejection, temperature 1, task code|math"
    )


def test_rows_of_the_paper_can_be_used_as_they_are() -> None:
    source = build_acceptance(TraceAcceptance(trace="bebop-paper", loss="tv", task="math"), arm="m", temperature=1.0)
    assert source.cumulative(3, None).tolist() == [0.905, 0.779, 0.652]
