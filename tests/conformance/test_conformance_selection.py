"""A quick subset of the claims about selectors; `parityfl conformance` checks them all, on more rounds."""

import numpy as np
import pytest
from cards import card

from parityfl.conformance.selection import (
    CONSTANT,
    EXACT,
    PAIR,
    Claim,
    HalfHidden,
    Hiding,
    conditional_rate,
    hiding_ratio,
    hiding_rows,
    maxmin_claims,
    parity_claims,
    rate,
    rate_claims,
    symmetric_claims,
    utility_per_expected_opportunity,
    utility_per_opportunity,
)
from parityfl.core.selection import selector
from parityfl.core.selection.cup_paper import CupPaper
from parityfl.core.selection.uniform import Uniform
from parityfl.testing.selection import small_world

QUICK = [claim for claim in (*maxmin_claims(), *parity_claims(), *rate_claims()) if claim.share < 1]
SLOW = [claim for claim in maxmin_claims() if claim.share == 1]


def test_cards_name_the_rows():
    for claim in (*maxmin_claims(), *parity_claims(), *rate_claims(), *symmetric_claims()):
        assert f'"{claim.text}"' in card("Selectors", claim.name), claim.name


@pytest.mark.parametrize("claim", QUICK, ids=lambda claim: f"{claim.name}: {claim.text}")
def test_claim(claim):
    row = claim.check(5000)
    assert row.measured <= 1.5 * row.tolerance, f"half of the rounds: {row.measured}"


@pytest.mark.parametrize("claim", SLOW, ids=lambda claim: f"{claim.name}: {claim.text}")
def test_claim_on_fewer_rounds(claim):
    """A sixth of the rounds: distances of 2.5 times as much."""
    row = claim.check(1600)
    assert row.measured <= 2.5 * row.tolerance


@pytest.mark.parametrize("claim", list(symmetric_claims()), ids=lambda claim: claim.name)
def test_everybody_is_served_alike(claim):
    assert claim.check(5000).measured <= 1.5 * claim.tolerance


def test_every_selector_has_a_claim():
    assert {claim.name for claim in symmetric_claims()} == set(selector.names())


def test_a_claim_can_fail():
    """Uniform selection serves client 1, which yields half, in .8 of its rounds only: u / n = .4 instead of .5."""
    row = Claim("uniform", "", PAIR, Uniform(), utility_per_opportunity, np.array([0.6, 0.5]), 0.02).check(3000)
    assert not row.ok
    assert row.measured == pytest.approx(0.2, abs=0.05)


def test_figures_by_hand():
    """Six clients always there, two a round: after three rounds each was served once in three, and got 1 for it."""
    played = CONSTANT.play(EXACT, 3)
    for figure in (rate, conditional_rate, utility_per_opportunity, utility_per_expected_opportunity):
        assert figure(played) == pytest.approx(np.full(6, 1 / 3))


def test_hiding_halves_what_the_server_sees():
    process = small_world((1.0, 0.6), 1).availability
    hidden = HalfHidden(process, 0, 1.0)
    shown = np.array([hidden.available(float(time)) for time in range(2000)])
    honest = np.array([process.available(float(time)) for time in range(2000)])
    assert shown[:, 0].mean() == pytest.approx(0.5, abs=0.06)
    assert np.array_equal(shown[:, 1], honest[:, 1])
    assert hidden.probability(0.0).tolist() == [0.5, 0.6]


def test_hiding_does_not_pay_under_lnu_and_does_under_the_papers_rule():
    assert hiding_ratio(EXACT, 600) < 0.7
    assert hiding_ratio(CupPaper(), 1500) > 1.5


def test_rows_of_the_strategy_table():
    rows = list(hiding_rows(30))
    assert {row.name.partition(",")[0] for row in rows} == set(selector.names())
    assert [row.bound for row in rows if row.name.startswith("lnu")] == [1.05, 1.05]
    assert Hiding("lnu", 1.0, 1.05).ok
    assert not Hiding("lnu", 1.2, 1.05).ok
    assert Hiding("uniform", 7.0, None).ok
