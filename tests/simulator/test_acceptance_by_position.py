"""Acceptance that changes along the response: both modes, closed forms, and what a scenario may say.

Statistical tests have fixed seeds and one level, chosen beforehand.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.inputs import Noise, make_parts, make_workload, resolve
from simulator.kernels import advance, submit, weight_sync
from simulator.metrics import measure
from simulator.policies import run_cluster
from simulator.rng import stream_key
from simulator.rollout_state import JUMP, KEEP, PER_STEP, RolloutState
from simulator.scenario_file import ScenarioError, load_scenario
from simulator.speculation import shifted_log_odds
from simulator.step_law import build_step_law, draw_until
from tests.simulator.rollouts import ALL, PMF, Case, Play, bytes_of, flat_table, play, state_of, total, workload_from
from tests.simulator.small_scenario import SMALL

ALPHA = 1e-4
NUM_SEEDS = 60
PIECES = Case(piece_from=(0, 60, 61, 200))
CASES = {
    "plain": PIECES,
    "k = 7": replace(PIECES, k=7),
    "classes": replace(PIECES, num_classes=3),
    "preemption": replace(PIECES, kv_tokens=1200.0),
    "abort": replace(PIECES, sync="abort"),
    "restart": replace(PIECES, sync="restart"),
    "in place, new law": replace(PIECES, sync="in_place", num_classes=2),
    "turns": replace(PIECES, turns=True, max_live=12),
    "turns, abort": replace(PIECES, turns=True, sync="abort"),
}
SLOW, FAST = np.array([0.6, 0.3, 0.1, 0.0]), np.array([0.0, 0.1, 0.2, 0.7])


def numbers(state: RolloutState) -> list[float]:
    f = state.finish_s
    sums = [total(state, name) for name in ("busy_s", "seq_steps", "stretch_steps")]
    return [f.mean(), float(np.median(f)), float(np.quantile(f, 0.99)), f.max(), *sums]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_jump_and_reference_agree_in_law(case: Case) -> None:
    jumps = [play(case, seed, JUMP, draws="jump") for seed in range(NUM_SEEDS)]
    references = [play(case, seed, PER_STEP, draws="reference") for seed in range(NUM_SEEDS)]
    a, b = np.array([numbers(s) for s in jumps]), np.array([numbers(s) for s in references])
    z = (a - b).mean(axis=0) / ((a - b).std(axis=0, ddof=1) / np.sqrt(NUM_SEEDS))
    assert np.all(np.abs(z) < stats.t.isf(ALPHA / 2, NUM_SEEDS - 1)), z
    assert a.mean(axis=0) == pytest.approx(b.mean(axis=0), rel=0.02)
    pooled = [np.concatenate([s.finish_s for s in states]) for states in (jumps, references)]
    assert stats.ks_2samp(*pooled, method="asymp").pvalue > ALPHA


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
def test_what_goes_in_comes_out_once(case: Case, mode: int) -> None:
    state = play(case, 1, mode)
    assert state.counters["finished"][0] == len(state.finish_s)
    generated = total(state, "stretch_tokens", "first_tokens") - state.counters["restarted_tokens"][0]
    assert generated == state.output_tokens.sum()
    for name in ("num_running", "context_tokens", "growth"):
        assert np.all(state.replicas[name] == 0), name


@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
def test_pieces_of_equal_acceptance_are_one(mode: int) -> None:
    """Step by step to the last bit; the jump draws other numbers, of the same law."""
    one, many = Play(Case(sync="in_place"), 2, mode), Play(Case(sync="in_place", piece_from=(0, 60, 200)), 2, mode)
    many.laws = tuple(build_step_law(np.repeat(law.pmf, 3, axis=0), 1000) for law in one.laws)  # type: ignore[assignment]
    first, second = one.run().state, many.run().state
    if mode == PER_STEP:
        assert np.array_equal(first.finish_s, second.finish_s)
    else:
        assert first.finish_s.mean() == pytest.approx(second.finish_s.mean(), rel=0.03)


def run_flat(
    pmf: np.ndarray, piece_from: tuple[int, ...], outputs: list[int], mode: int, cuts: int = 0
) -> RolloutState:
    """Every step takes a second, every prefill none; stop `cuts` times on the way and draw anew what is left."""
    case = Case(num_replicas=1, max_running=len(outputs), max_live=len(outputs), piece_from=piece_from)
    state = state_of(case, workload_from([10] * len(outputs), outputs), mode)
    law, table = build_step_law(pmf, max(outputs)), flat_table(1.0, 0.0, len(outputs))
    submit(state, table, law, len(outputs), 0.0)
    for cut in range(1, cuts + 1):
        now_s = 37.0 * cut
        advance(state, table, law, now_s, ALL)
        weight_sync(state, table, law, law, now_s, now_s, now_s, KEEP, True)
    advance(state, table, law, np.inf, ALL)
    return state


@pytest.mark.parametrize("cuts", [0, 5])
@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
def test_the_mean_accept_length_is_the_token_weighted_harmonic_mean_of_the_pieces(mode: int, cuts: int) -> None:
    tokens, begins = 4000, (0, 1000, 1500)
    pmf = np.stack([FAST, SLOW, np.array(PMF[3])])
    state = run_flat(pmf, begins, [tokens] * 64, mode, cuts)
    means = pmf @ np.arange(1, 5)
    sizes = np.diff([*begins, tokens])
    expected = tokens / (sizes / means).sum()
    measured = total(state, "stretch_tokens") / total(state, "stretch_steps")
    assert measured == pytest.approx(expected, rel=0.004)
    assert abs(measured / (sizes @ means / tokens) - 1) > 0.05  # the plain mean is another number


@pytest.mark.parametrize("mode", [JUMP, PER_STEP], ids=["jump", "per_step"])
def test_sure_acceptance_has_a_step_count_of_its_own_in_every_piece(mode: int) -> None:
    """Four tokens a step up to token 41, where the step that begins at 37 ends; then one. Prefill emits the first."""
    pmf = np.array([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    for cuts in (0, 1):
        state = run_flat(pmf, (0, 38), [101], mode, cuts)
        assert state.finish_s[0] == 10 + (101 - 41)


@pytest.mark.parametrize("tokens", [1, 3, 50, 1000])
def test_steps_up_to_a_mark_are_drawn_with_what_they_emit_beyond_it(tokens: int) -> None:
    law, num, width = build_step_law(np.array([FAST, SLOW]), 5000), 4000, 4
    keys = [stream_key("until", tokens, i) for i in range(num)]
    drawn = np.array([draw_until(law, 1, key, 0, tokens)[:2] for key in keys]) - (0, tokens)
    exact = np.zeros((tokens + 1, width))  # P(steps, tokens beyond the mark)
    under = np.zeros(tokens)
    under[0] = 1.0
    for step in range(1, tokens + 1):
        moved = np.convolve(under, [0.0, *SLOW])
        exact[step] = moved[tokens:]
        under = moved[:tokens]
    expected, observed = num * exact, np.zeros_like(exact)
    np.add.at(observed, tuple(drawn.T), 1)
    assert exact.sum() == pytest.approx(1.0)
    rare = expected < 5
    cells = [(observed[rare].sum(), expected[rare].sum()), *zip(observed[~rare], expected[~rare], strict=True)]
    chi2 = sum((o - e) ** 2 / e for o, e in cells if e > 1e-9)
    assert chi2 < stats.chi2.isf(ALPHA, len(cells))
    assert np.all(observed[exact == 0] == 0)


def test_one_piece_costs_and_changes_nothing() -> None:
    assert play(Case(), 3).emitted_before.size == 0
    assert bytes_of(play(Case(piece_from=(0,)), 3)) == bytes_of(play(Case(), 3))


# In a scenario


def accept_length(*overrides: str, mode: int = JUMP) -> float:
    inputs = resolve(load_scenario("bebop-reasoning", [*SMALL, *overrides]))
    parts = make_parts(inputs, "rs_ce", make_workload(inputs, 0), Noise(), 0)[0]
    return measure(run_cluster(parts, mode=mode), parts, 1).accept_length


def test_a_run_accepts_more_where_its_log_odds_rise() -> None:
    plain = accept_length()
    assert accept_length("arms.rs_ce.acceptance_by_position=[[200, 0.0]]") == pytest.approx(plain, rel=0.005)
    assert accept_length("arms.rs_ce.acceptance_by_position=[[200, 0.5]]") > plain + 0.05
    assert accept_length("arms.rs_ce.acceptance_by_position=[[0, -0.5], [1000, 0.5]]") < plain - 0.05


@pytest.mark.parametrize("draft_length", ["{kind='adaptive'}", "{kind='by_batch', table=[[1, 8, 3], [9, 512, 1]]}"])
def test_pieces_go_with_every_choice_of_k_and_with_dispersion(draft_length: str) -> None:
    overrides = (
        "arms.rs_ce.acceptance_by_position=[[100, -0.8], [700, 0.4]]",
        f"arms.rs_ce.draft_length={draft_length}",
        "arms.rs_ce.dispersion=0.5",
    )
    assert accept_length(*overrides) == pytest.approx(accept_length(*overrides, mode=PER_STEP), rel=0.02)


def test_a_shift_of_log_odds_moves_every_conditional_rate_alike() -> None:
    rates = np.array([0.8, 0.4, 0.0])
    shifted = shifted_log_odds(rates, np.log(4.0))
    assert shifted == pytest.approx([16 / 17, 16 / 17 * 0.8, 0.0])
    assert shifted_log_odds(rates, 0.0) is rates


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("[[300, 0.1], [200, 0.2]]", "its rows begin at [300, 200]; let them ascend"),
        ("[[1, 9.0]]", "9.0 is not at most 5"),
    ],
)
def test_rows_that_cannot_be_are_refused_in_one_line(rows: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load_scenario("bebop-reasoning", [f"arms.rs_ce.acceptance_by_position={rows}"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
