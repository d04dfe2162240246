"""The effect of temperature is that of the published figure."""

import itertools

import numpy as np
import pytest

from simulator.temperature import (
    ACCEPT_LENGTH_GREEDY_DRAFT,
    ACCEPT_LENGTH_REJECTION,
    TEMPERATURES,
    accepted_drafts_ratio,
)
from traces.acceptance import VerifyRule
from traces.importers.bebop_paper import read_digitised


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
