"""Block verification: the bounds that theory gives, and a stated gain inside them."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arm_rates import build_arm_rates
from simulator.block_verification import lifted, most_gain, share_of_most
from simulator.config import ArmConfig, BlockVerification, FixedAcceptance
from simulator.errors import ScenarioError
from simulator.inputs import Inputs, resolve
from simulator.provenance import input_origins
from simulator.scenario_file import load_scenario
from simulator.speculation import accept_length
from traces.base import Origin

Dist = tuple[Fraction, ...]


def exact(p: Dist, q: Dist, k: int) -> tuple[list[Fraction], list[Fraction]]:
    """Return c_1..c_k token by token and by block, of models without a context (arXiv 2403.10444, sec. 2)."""
    token, block = [Fraction(0)] * k, [Fraction(0)] * k
    for draft in product(range(len(p)), repeat=k):
        weight, alone, joint = Fraction(1), Fraction(1), Fraction(1)
        for x in draft:
            weight *= q[x]
        if weight == 0:
            continue
        for j, x in enumerate(draft):
            alone *= min(p[x] / q[x], Fraction(1))
            joint = min(joint * p[x] / q[x], Fraction(1))
            token[j] += weight * alone
            block[j] += weight * joint
    return token, block


def thirds(*counts: int) -> Dist:
    return tuple(Fraction(count, sum(counts)) for count in counts)


def test_the_papers_toy_gains_a_ninth() -> None:
    token, block = exact(thirds(1, 2), thirds(2, 1), 2)
    assert (sum(token), sum(block)) == (Fraction(10, 9), Fraction(11, 9))


def test_equal_token_wise_rates_may_gain_different_amounts() -> None:
    """Why the gain is a stated number."""
    first, second = exact(thirds(1, 2), thirds(2, 1), 2), exact(thirds(2, 1, 0), thirds(2, 0, 1), 2)
    assert first[0] == second[0]
    assert (first[1][1], second[1][1]) == (Fraction(5, 9), Fraction(4, 9))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=3), st.integers(1, 4))
def test_theory_keeps_every_rate_between_its_own_and_the_first(counts: list[tuple[int, int]], k: int) -> None:
    if not any(a for a, _ in counts) or not any(b for _, b in counts):
        return
    token, block = exact(thirds(*(a for a, _ in counts)), thirds(*(b for _, b in counts)), k)
    assert block[0] == token[0]
    assert all(t <= b <= token[0] for t, b in zip(token, block, strict=True))
    assert all(later <= earlier for earlier, later in pairwise(block))
    assert block[: k - 1] == exact(thirds(*(a for a, _ in counts)), thirds(*(b for _, b in counts)), k - 1)[1]
    rates = np.array([float(c) for c in token])
    assert float(sum(block) - sum(token)) <= most_gain(rates) + 1e-12


def test_a_greedy_draft_gains_nothing() -> None:
    token, block = exact(thirds(1, 2), thirds(0, 1), 4)
    assert token == block


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_a_gain_is_exact_and_keeps_the_bounds(raw: list[float], part: float) -> None:
    rates = np.sort(np.array(raw))[::-1]
    gain = part * most_gain(rates)
    raised = lifted(rates, share_of_most(rates, gain))
    assert raised.sum() - rates.sum() == pytest.approx(gain, abs=1e-12)
    assert raised[0] == rates[0]
    assert np.all(np.diff(raised) <= 1e-15)
    assert np.all(raised >= rates)


def test_shorter_drafts_take_the_first_rates_of_longer_ones() -> None:
    arm = ArmConfig(
        k=3,
        acceptance=FixedAcceptance(cumulative=(0.9, 0.7, 0.5)),
        verify_rule=BlockVerification(accept_length_gain=0.12),
    )
    rates = build_arm_rates(arm, name="x", temperature=1.0, first_step=0)
    assert rates is not None
    assert accept_length(rates.cumulative(3, 0, None)) == pytest.approx(3.1 + 0.12)
    np.testing.assert_array_equal(rates.cumulative(2, 0, None), rates.cumulative(3, 0, None)[:2])


def inputs_of(*overrides: str) -> Inputs:
    return resolve(load_scenario("bebop-reasoning", overrides))


def block(gain: float, arm: str = "rs_ce") -> str:
    return f"arms.{arm}.verify_rule={{kind='block', accept_length_gain={gain}}}"


def test_the_gain_is_shown_with_its_origin_and_its_bounds() -> None:
    evidence = input_origins(inputs_of(block(0.1)))
    rows = {row.name: row for row in evidence.origins}
    assert rows["arms.rs_ce.verify_rule.accept_length_gain"].origin is Origin.ASSUMED
    assert rows["arms.rs_ce.verify_rule.bounds"].value == "block: c_j raised by 21 to 24 % of the way to c_1"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((block(0.6),), "arms.rs_ce.verify_rule.accept_length_gain: 0.6 is above 0.4"),
        ((block(0.1), "arms.rs_ce.k=1"), "0.1 is above 0, the most that block verification can add"),
        ((block(0.1, "to"),), "verify_rule: block, but the drafts are greedy"),
        ((block(0.1), "arms.rs_ce.k=0"), "verify_rule: given, though the arm drafts nothing"),
        (
            (block(0.1), "arms.rs_ce.acceptance={kind='trace', trace='t', loss='ce', verify_rule='block'}"),
            "verify_rule: block, but acceptance.verify_rule is block too; such rows are used as they are",
        ),
    ],
)
def test_gains_that_cannot_be_are_refused_in_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        inputs_of(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
