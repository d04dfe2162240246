"""Laws of a verify step, of splitting an accept length, of the acceptance sources."""

import csv
import itertools
import operator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.acceptance import Acceptance, build_acceptance
from simulator.config import FixedAcceptance, LawAcceptance, TraceAcceptance
from simulator.errors import ScenarioError, TraceCoverageError
from simulator.positions import CE_DECAY, TV_DECAY, PositionDecay, fit_decay, split_accept_length
from simulator.speculation import (
    FloatArray,
    accept_length,
    dispersed_classes,
    emitted_pmf,
    expected_emitted_tokens,
    expected_steps,
    mean_emitted_tokens,
    shifted_accept_length,
)
from simulator.temperature import (
    ACCEPT_LENGTH_GREEDY_DRAFT,
    ACCEPT_LENGTH_REJECTION,
    TEMPERATURES,
    accepted_drafts_ratio,
)
from traces.acceptance import AcceptanceRow, AcceptanceTrace, VerifyRule
from traces.base import Origin, Provenance
from traces.errors import TraceError
from traces.importers.bebop_paper import POSITIONS, read_digitised
from traces.store import DATA_FOLDER, save_trace

DECAYS = st.sampled_from([CE_DECAY, TV_DECAY])
RATES = st.lists(st.floats(0, 1), min_size=0, max_size=16)


def from_conditional(rates: list[float]) -> FloatArray:
    return np.array(list(itertools.accumulate(rates, operator.mul)), dtype=np.float64)


# One verify step


@given(RATES)
def test_emitted_pmf_is_a_law_whose_mean_is_one_plus_the_sum_of_the_rates(rates: list[float]) -> None:
    cumulative = from_conditional(rates)
    pmf = emitted_pmf(cumulative)
    assert len(pmf) == len(rates) + 1
    assert np.all(pmf >= 0)
    assert pmf.sum() == pytest.approx(1.0)
    assert mean_emitted_tokens(pmf) == pytest.approx(1.0 + cumulative.sum())
    assert mean_emitted_tokens(pmf) == pytest.approx(accept_length(cumulative))


@given(st.floats(0, 0.999), st.integers(0, 16))
def test_mean_emitted_tokens_of_a_constant_rate_is_the_geometric_sum(rate: float, num_draft_tokens: int) -> None:
    pmf = emitted_pmf(from_conditional([rate] * num_draft_tokens))
    assert mean_emitted_tokens(pmf) == pytest.approx((1 - rate ** (num_draft_tokens + 1)) / (1 - rate))


def test_no_drafts_emit_exactly_one_token() -> None:
    assert emitted_pmf(np.array([])).tolist() == [1.0]


def test_sure_acceptance_emits_all_drafts_and_the_bonus() -> None:
    assert emitted_pmf(np.ones(3)).tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("rates", [[0.5, 0.6], [1.2], [0.5, -0.1], [float("nan")]])
def test_rates_that_are_no_law_are_refused(rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"leaves 0\.\.1 or increases; give P\(first j accepted\)"):
        emitted_pmf(np.array(rates))


# Truncation by short responses


def test_plain_decoding_takes_one_step_per_token() -> None:
    assert expected_steps(np.array([1.0]), 37) == 37.0
    assert expected_emitted_tokens(np.array([1.0]), 37) == 1.0


def test_sure_acceptance_wastes_only_the_last_step() -> None:
    pmf = emitted_pmf(np.ones(3))
    assert [expected_steps(pmf, n) for n in (0, 1, 4, 5, 8, 9)] == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


@given(RATES, st.integers(1, 60))
def test_steps_lie_between_their_bounds_and_grow_with_the_response(rates: list[float], response_tokens: int) -> None:
    pmf = emitted_pmf(from_conditional(rates))
    steps = expected_steps(pmf, response_tokens)
    assert response_tokens / len(pmf) - 1e-9 <= steps <= response_tokens + 1e-9
    assert steps >= response_tokens / mean_emitted_tokens(pmf) - 1e-9  # Wald
    assert steps > expected_steps(pmf, response_tokens - 1) - 1e-9


def test_long_responses_lose_the_mean_overshoot_of_a_renewal() -> None:
    pmf = emitted_pmf(np.array([0.9, 0.76, 0.62]))
    sizes = np.arange(1, 5)
    mean, second = sizes @ pmf, sizes**2 @ pmf
    overshoot = (second - mean) / (2 * mean)
    assert expected_steps(pmf, 5000) == pytest.approx((5000 + overshoot) / mean, rel=1e-12)
    assert expected_emitted_tokens(pmf, 5000) == pytest.approx(mean, rel=5e-4)


@pytest.mark.parametrize("response_tokens", [1, 3, 10, 57])
def test_truncated_steps_match_a_monte_carlo(response_tokens: int) -> None:
    pmf = emitted_pmf(np.array([0.9, 0.76, 0.62]))
    emitted = np.random.default_rng(7).choice(np.arange(1, 5), size=(20_000, response_tokens), p=pmf)
    steps = (np.cumsum(emitted, axis=1) < response_tokens).sum(axis=1) + 1
    standard_error = steps.std() / np.sqrt(len(steps))
    assert expected_steps(pmf, response_tokens) == pytest.approx(steps.mean(), abs=5 * standard_error + 1e-12)


def test_negative_responses_are_refused() -> None:
    with pytest.raises(ValueError, match="response_tokens: -1 must not be negative"):
        expected_steps(np.array([1.0]), -1)
    with pytest.raises(ValueError, match="response_tokens: 0 must be at least 1"):
        expected_emitted_tokens(np.array([1.0]), 0)


# Shift of the accept length


@given(RATES, st.floats(-20, 20))
def test_a_shift_moves_the_accept_length_by_itself_inside_its_bounds(rates: list[float], shift: float) -> None:
    cumulative = from_conditional(rates)
    shifted = shifted_accept_length(cumulative, shift)
    wanted = min(max(accept_length(cumulative) + shift, 1.0), len(rates) + 1.0)
    assert accept_length(shifted) == pytest.approx(wanted)
    emitted_pmf(shifted)


# Dispersion between requests


@settings(deadline=None, max_examples=50)
@given(st.floats(1.01, 3.99), st.floats(0.01, 3), st.integers(2, 12), DECAYS)
def test_dispersed_requests_of_equal_length_keep_tokens_over_steps(
    length: float, dispersion: float, num_classes: int, decay: PositionDecay
) -> None:
    cumulative = split_accept_length(length, 3, 3, decay)
    weights, classes = dispersed_classes(cumulative, dispersion, num_classes)
    lengths = 1 + classes.sum(axis=1)
    assert weights.sum() == pytest.approx(1.0)
    assert classes.shape == (num_classes, 3)
    assert 1 / (weights @ (1 / lengths)) == pytest.approx(length, rel=1e-9)
    assert weights @ lengths >= length - 1e-9
    assert np.all(np.diff(lengths) >= 0)
    assert np.all(np.diff(classes, axis=1) <= 0)


def test_dispersion_is_the_standard_deviation_of_log_odds_between_classes() -> None:
    _, classes = dispersed_classes(np.array([0.9, 0.76, 0.62]), 0.7)
    log_odds = np.log(classes[:, 0] / (1 - classes[:, 0]))
    assert log_odds.std() == pytest.approx(0.7)


@pytest.mark.parametrize(("rates", "dispersion"), [([0.9, 0.5], 0.0), ([1.0, 1.0], 1.0), ([0.0, 0.0], 1.0), ([], 1.0)])
def test_nothing_to_disperse_gives_one_class_with_the_same_rates(rates: list[float], dispersion: float) -> None:
    weights, classes = dispersed_classes(np.array(rates), dispersion)
    assert weights.tolist() == [1.0]
    assert classes.tolist() == [rates]


def test_positions_never_or_always_accepted_stay_so_when_dispersed() -> None:
    _, classes = dispersed_classes(np.array([1.0, 0.5, 0.0]), 1.0)
    assert np.all(classes[:, 0] == 1.0)
    assert np.all(classes[:, 2] == 0.0)
    assert 1 / np.mean(1 / (1 + classes.sum(axis=1))) == pytest.approx(2.5)


def test_negative_dispersion_is_refused() -> None:
    with pytest.raises(ValueError, match="dispersion: -1 must be >= 0"):
        dispersed_classes(np.array([0.5]), -1.0)


# Accept length split into positions


@given(st.floats(1, 17), st.integers(1, 16), st.integers(0, 16), DECAYS)
def test_every_accept_length_splits_into_valid_rates(
    length: float, counted_at: int, k: int, decay: PositionDecay
) -> None:
    length = min(length, counted_at + 1.0)
    cumulative = split_accept_length(length, counted_at, k, decay)
    assert len(cumulative) == k
    assert np.all((cumulative >= 0) & (cumulative <= 1))
    assert np.all(np.diff(cumulative) <= 0)
    if k == counted_at:
        assert accept_length(cumulative) == pytest.approx(length, abs=1e-9)


@given(st.floats(1, 4), st.floats(1, 4), DECAYS)
def test_every_rate_grows_with_the_accept_length(one: float, other: float, decay: PositionDecay) -> None:
    low, high = sorted((one, other))
    lower, higher = (split_accept_length(length, 3, 8, decay) for length in (low, high))
    assert np.all(lower <= higher + 1e-9)


def test_the_ends_of_the_accept_length_are_exact() -> None:
    assert split_accept_length(1.0, 3, 5, CE_DECAY).tolist() == [0.0] * 5
    assert split_accept_length(4.0, 3, 5, CE_DECAY).tolist() == [1.0] * 5
    with pytest.raises(ValueError, match=r"accept_length: 4\.1 is outside 1\.\.4 of k = 3"):
        split_accept_length(4.1, 3, 3, CE_DECAY)


def test_conditional_rates_flatten_instead_of_falling_for_ever() -> None:
    cumulative = split_accept_length(3.2, 3, 16, CE_DECAY)
    conditional = cumulative[1:] / cumulative[:-1]
    assert np.all(np.diff(conditional) <= 1e-12)
    assert conditional[5] == pytest.approx(conditional[-1], abs=2e-3)


@pytest.mark.parametrize(("loss", "used"), [("ce", CE_DECAY), ("tv", TV_DECAY)])
def test_decay_in_use_is_the_fit_to_the_papers_curves(loss: str, used: PositionDecay) -> None:
    curves = [rates for (each, _), rates in POSITIONS.items() if each == loss]
    fitted = fit_decay(curves, "again")
    assert (fitted.drop, fitted.rho) == pytest.approx((used.drop, used.rho), abs=1e-3)
    for rates in curves:
        split = split_accept_length(1 + sum(rates), 3, 3, used)
        assert np.max(np.abs(split - rates)) < 0.012  # read off to +-0.004


def published_heads() -> dict[str, dict[str, str]]:
    path = DATA_FOLDER / "published" / "mtp_acceptance_by_position.csv"
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("head", "limit"), [("qwen3.6-27b", 0.03), ("gemma4-26b", 0.01)])
def test_accept_length_at_high_k_follows_from_k_3_on_heads_never_fitted_on(head: str, limit: float) -> None:
    counted = [float(part) for part in published_heads()[head]["cumulative"].split(";")]
    predicted = split_accept_length(1 + sum(counted[:3]), 3, len(counted), CE_DECAY)
    assert accept_length(predicted) == pytest.approx(1 + sum(counted), rel=limit)
    assert np.max(np.abs(predicted - counted)) < 0.065


def test_accept_length_at_k_4_follows_from_k_3_between_separate_runs() -> None:
    lengths = [float(part) for part in published_heads()["qwen3.6-35b-a3b"]["accept_length_by_k"].split(";")]
    assert accept_length(split_accept_length(lengths[2], 3, 4, CE_DECAY)) == pytest.approx(lengths[3], rel=0.005)


def test_a_module_per_position_is_another_kind_of_head() -> None:
    counted = [float(part) for part in published_heads()["eight-modules"]["cumulative"].split(";")]
    predicted = accept_length(split_accept_length(1 + sum(counted[:3]), 3, 8, CE_DECAY))
    assert predicted < 0.9 * (1 + sum(counted))


# Temperature


def test_temperature_table_is_the_published_figure() -> None:
    figure = read_digitised()["fig12a_accept_length_vs_temperature"]
    assert list(TEMPERATURES) == figure["T"]
    assert list(ACCEPT_LENGTH_GREEDY_DRAFT) == figure["TO"]
    assert [None, *ACCEPT_LENGTH_REJECTION[1:]] == figure["RS"]


@pytest.mark.parametrize("rule", list(VerifyRule))
def test_temperature_one_changes_nothing(rule: VerifyRule) -> None:
    assert accepted_drafts_ratio(rule, 1.0) == 1.0


def test_heat_hurts_greedy_drafts_more_than_rejection() -> None:
    for cold, hot in itertools.pairwise(np.linspace(1.0, 1.4, 9)):
        greedy = accepted_drafts_ratio(VerifyRule.GREEDY_DRAFT, float(hot))
        assert greedy < accepted_drafts_ratio(VerifyRule.GREEDY_DRAFT, float(cold))
        assert greedy < accepted_drafts_ratio(VerifyRule.REJECTION, float(hot))


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
    source = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.0)
    assert source.cumulative(3, 20.0).tolist() == [0.0, 0.0, 0.0]
    above = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.0, accept_length_shift=9.0)
    assert above.cumulative(5, 0.3).tolist() == [1.0] * 5


def test_a_shift_moves_a_law_by_tokens_at_its_own_k() -> None:
    plain = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.0)
    shifted = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.0, accept_length_shift=-0.2)
    difference = accept_length(plain.cumulative(3, 0.3)) - accept_length(shifted.cumulative(3, 0.3))
    assert difference == pytest.approx(0.2)


def test_temperature_scales_the_accepted_drafts_of_a_law() -> None:
    hot = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.2)
    plain = build_acceptance(LawAcceptance(recipe="to"), arm="x", temperature=1.0)
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
        build_acceptance(LawAcceptance(recipe="to", trace="bebop-papper"), arm="to", temperature=1.0)


def test_a_law_without_entropy_asks_for_one() -> None:
    source = build_acceptance(LawAcceptance(recipe="to"), arm="to", temperature=1.0)
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
        "it holds loss ce|tv, verify_rule rejection, temperature 1, task code|math"
    )


def test_rows_of_the_paper_can_be_used_as_they_are() -> None:
    source = build_acceptance(TraceAcceptance(trace="bebop-paper", loss="tv", task="math"), arm="m", temperature=1.0)
    assert source.cumulative(3, None).tolist() == [0.905, 0.779, 0.652]
