"""Least normalised utility first: exact cases, the theory's table, gaming, drop-outs."""

from math import exp, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulate import FAILED, play_round, simulate, view_of

from parityfl.core.errors import ConfigError
from parityfl.core.ledger import COMPLETED, Ledger
from parityfl.core.seeding import generator, uniforms
from parityfl.core.selection.cup_paper import CupPaper
from parityfl.core.selection.lnu import LeastNormalisedUtility
from parityfl.core.selection.maxmin import maxmin_exact
from parityfl.testing.selection import check_selector, closed_round, small_world

TABLE_PI = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1)
TABLE_MU = np.array([1, 0.5, 2, 1, 0.3, 1.5])
EXACT = LeastNormalisedUtility(
    mode="deterministic", parity="utility", offset=0.0, relative=False, credit_low=0.0, credit_high=inf
)
rng = generator(0, "test")


def state_of(**arrays):
    return {name: np.array(value, dtype=float) for name, value in arrays.items()}


@pytest.mark.parametrize(("offset", "first"), [(0.0, 0), (0.5, 1)])
def test_p9_the_offset_decides(offset, first):
    """u = (0, 6), n = (1, 16), next credit 1: c = 0 gives (0, .375); c = .5 gives (.5, .40625)."""
    selector = LeastNormalisedUtility(mode="deterministic", parity="utility", offset=offset)
    state = state_of(u=(0, 6), n=(0, 15), q=(0, 6), s=(0, 6), ubar=1)
    world = small_world((1.0, 1.0), 1)
    assert selector.select(state, view_of(world, (0, 1)), rng).clients.tolist() == [first]


def test_p10_always_available():
    """Credits (1, 1/3, 1/2), one place, 66 rounds: (11, 33, 22) participations and 11 of utility for each."""
    world, mu = small_world((1.0, 1.0, 1.0), 1), np.array([1, 1 / 3, 1 / 2])
    ledger = simulate(EXACT, world, 66, mu=mu).ledger
    assert ledger.participated.tolist() == [11, 33, 22]
    assert ledger.utility == pytest.approx([11, 11, 11])


def test_theory_table_two_clients():
    history = simulate(EXACT, small_world((0.9, 0.1), 1), 5000)
    assert history.conditional_rate == pytest.approx([0.91, 0.91], abs=0.03)


def test_theory_table_six_clients():
    """The lexicographic max-min point, without knowing pi or mu; 5000 rounds."""
    level = maxmin_exact(np.array(TABLE_PI), TABLE_MU, 2)
    history = simulate(EXACT, small_world(TABLE_PI, 2), 5000, mu=TABLE_MU)
    reached = history.ledger.normalized_utility
    assert reached == pytest.approx(level, abs=0.02)
    tied = [0, 2, 3, 5]
    assert np.ptp(reached[tied]) < 0.01


@pytest.mark.parametrize("mode", ["randomised", "deterministic"])
def test_opportunity_parity_equalises_conditional_rates(mode):
    """f(all) / sum(pi) = 1.7544 / 2.7 = .6498 for everybody; no set of clients is tighter."""
    level = maxmin_exact(np.array(TABLE_PI), np.ones(6), 2)
    assert level == pytest.approx(np.full(6, level[0]))
    history = simulate(LeastNormalisedUtility(mode=mode, explore=0.0), small_world(TABLE_PI, 2), 3000)
    assert history.conditional_rate == pytest.approx(level, abs=0.03)


def test_selection_parity_equalises_participations():
    world = small_world((0.9, 0.8, 0.7, 0.6), 1)
    history = simulate(LeastNormalisedUtility(parity="selection", explore=0.0), world, 1000)
    assert history.ledger.selected / 1000 == pytest.approx(np.full(4, 0.25), abs=0.01)


def test_inclusion_probabilities_by_hand():
    """Opportunity, c = .5, n = (2, 4), one participation each: x = (.75, .375), cut .5625, owed (-.375, .75).

    p = .9 softmax(2 x owed) + .1 / 2.
    """
    state = state_of(u=(1, 1), n=(1, 3), q=(1, 1), s=(1, 1), ubar=0)
    selection = LeastNormalisedUtility().select(state, view_of(small_world((1.0, 1.0), 1), (0, 1)), rng)
    first = exp(-0.75) / (exp(-0.75) + exp(1.5))
    assert selection.probability == pytest.approx([0.9 * first + 0.05, 0.9 * (1 - first) + 0.05])


def test_room_for_all_selects_all():
    selection = LeastNormalisedUtility().select(
        LeastNormalisedUtility().init(small_world((1.0,) * 4, 3)), view_of(small_world((1.0,) * 4, 3), (0, 2, 3)), rng
    )
    assert selection.clients.tolist() == [0, 2, 3]
    assert selection.probability.tolist() == [1, 0, 1, 1]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 100)), min_size=2, max_size=12),
    st.integers(1, 11),
    st.sampled_from(["opportunity", "utility", "selection"]),
)
def test_every_available_client_has_its_share_of_exploration(clients, count, parity):
    credited, seen = np.array(clients).T
    size, count = len(clients), min(count, len(clients))
    state = state_of(u=credited, n=seen, q=credited, s=np.ceil(credited), ubar=1)
    view = view_of(small_world((1.0,) * size, count), range(size))
    selection = LeastNormalisedUtility(parity=parity).select(state, view, rng)
    assert selection.probability.sum() == pytest.approx(count)
    assert np.all(selection.probability >= 0.1 * count / size - 1e-12)
    assert len(selection.clients) == count


def observe(selector, state, available, outcome, credit):
    world = small_world((1.0,) * len(available), 1)
    record = closed_round(
        view_of(world, np.flatnonzero(available)), np.array(available, bool), np.array(outcome), np.array(credit)
    )
    return selector.observe(state, record, world)


def test_relative_credit_of_one_round():
    """Utilities (.2, .6): mean .4, relative (.5, 1.5); clipped to [.75, 1.25] they are credited as .75 and 1.25."""
    selector = LeastNormalisedUtility(parity="utility", credit_low=0.75, credit_high=1.25)
    before = selector.init(small_world((1.0,) * 4, 2))
    after = observe(selector, before, (1, 1, 1, 0), (COMPLETED, COMPLETED, 0, 0), (0.2, 0.6, 0.0, 0.0))
    assert after["u"] == pytest.approx([0.75, 1.25, 0, 0])
    assert after["q"] == pytest.approx([0.5, 1.5, 0, 0])
    assert after["s"].tolist() == [1, 1, 0, 0]
    assert after["n"].tolist() == [1, 1, 1, 0]
    assert float(after["ubar"]) == pytest.approx(0.4)
    again = observe(selector, after, (1, 0, 0, 0), (COMPLETED, 0, 0, 0), (0.8, 0, 0, 0))
    assert float(again["ubar"]) == pytest.approx(0.95 * 0.4 + 0.05 * 0.8)  # 0.42; credit 0.8 / 0.42 is clipped
    assert again["u"][0] == pytest.approx(0.75 + 1.25)
    # Of three credits one was raised (.5) and two were cut (1.5 and 1.9).
    assert selector.notes(again) == pytest.approx({"credit_low_rate": 1 / 3, "credit_high_rate": 2 / 3})
    assert selector.notes(before) == {}
    assert LeastNormalisedUtility().notes(again) == {}


def test_raw_credit_is_clipped_in_units_of_the_mean():
    """Mean .4, clip [.5, 2]: .1 is credited as .2, .7 as itself."""
    selector = LeastNormalisedUtility(parity="utility", relative=False)
    before = selector.init(small_world((1.0,) * 2, 2))
    after = observe(selector, before, (1, 1), (COMPLETED, COMPLETED), (0.1, 0.7))
    assert after["u"] == pytest.approx([0.2, 0.7])


def test_until_somebody_gains_every_relative_credit_is_one():
    selector = LeastNormalisedUtility(parity="utility")
    state = selector.init(small_world((1.0,) * 2, 2))
    state = observe(selector, state, (1, 1), (COMPLETED, COMPLETED), (-0.3, 0.0))
    assert state["u"].tolist() == [1, 1]
    assert float(state["ubar"]) == 0
    state = observe(selector, state, (1, 1), (COMPLETED, COMPLETED), (-0.3, 0.5))
    assert float(state["ubar"]) == pytest.approx(0.25)  # negative utilities count as 0
    assert state["u"] == pytest.approx([1.5, 3])  # the clip [.5, 2]


def test_an_unmeasured_utility_counts_as_an_average_one():
    selector = LeastNormalisedUtility(parity="utility")
    state = selector.init(small_world((1.0,) * 2, 2))
    state = observe(selector, state, (1, 1), (COMPLETED, COMPLETED), (0.5, np.nan))
    assert state["u"].tolist() == [1, 1]


@pytest.mark.parametrize("parity", ["opportunity", "selection"])
def test_other_parities_credit_one(parity):
    selector = LeastNormalisedUtility(parity=parity)
    state = selector.init(small_world((1.0,) * 2, 2))
    state = observe(selector, state, (1, 1), (COMPLETED, FAILED), (7.0, 0.0))
    assert state["u"].tolist() == [1, 1]
    assert state["s"].tolist() == [1, 0]


def test_half_life_halves():
    selector = LeastNormalisedUtility(half_life=4)
    state = state_of(u=(8, 4), n=(16, 8), q=(2, 2), s=(4, 2), ubar=1, clipped=(0, 0, 0))
    for _ in range(4):
        state = observe(selector, state, (0, 0), (0, 0), (0.0, 0.0))
    for name, half in {"u": [4, 2], "n": [8, 4], "q": [1, 1], "s": [2, 1]}.items():
        assert state[name] == pytest.approx(half)


def test_strict_leaves_slots_empty():
    """Tenth percentile of (.1, .5, .6) is .18; (1 + 1) x .18 = .36 leaves only the first client in."""
    selector = LeastNormalisedUtility(mode="deterministic", strict=1.0)
    state = state_of(u=(1, 5, 6), n=(9, 9, 9), q=(0, 0, 0), s=(0, 0, 0), ubar=0)
    world = small_world((1.0,) * 3, 2)
    assert selector.select(state, view_of(world, (0, 1, 2)), rng).clients.tolist() == [0]
    nobody = selector.select(state, view_of(world, (1, 2)), rng)
    assert nobody.clients.tolist() == []
    assert nobody.probability.tolist() == [0, 0, 0]


def test_a_client_that_never_delivers_does_not_keep_a_slot():
    """Ten clients always there, three places; client 0 always drops out and takes its share of .3, not every round."""
    world = small_world((1.0,) * 10, 3)
    charged = simulate(LeastNormalisedUtility(), world, 300, dropouts=(0,))
    assert charged.conditional_rate[0] == pytest.approx(0.3, abs=0.03)
    assert charged.ledger.utility[0] == 0
    free = simulate(LeastNormalisedUtility(dropout_charge=0.0), world, 300, dropouts=(0,))
    assert free.conditional_rate[0] > 0.9


@pytest.mark.parametrize(("credit_low", "rate"), [(0.5, 0.664), (0.01, 0.95)])
def test_the_credit_floor_bounds_what_reporting_nothing_brings(credit_low, rate):
    """Ten clients always there, three places, one of utility 0 that is credited `low`.

    The mean of the participants is u = 1 - r/3, so the others are credited 1/u and serving is as (1/u) / low to 1:
    low = .5 gives r = .664 (3 x 2.57 / (9 + 2.57)). Without a real floor the client is in nearly every round.
    """
    world, mu = small_world((1.0,) * 10, 3), np.ones(10)
    mu[0] = 0.0
    selector = LeastNormalisedUtility(mode="deterministic", parity="utility", credit_low=credit_low)
    assert simulate(selector, world, 600, mu=mu).conditional_rate[0] == pytest.approx(rate, abs=0.05)


def hiding(selector, share):
    """Utility of client 0 when it shows up in that share of the rounds in which it is there, of 2000 rounds."""
    world = small_world((0.5,) * 30, 2)

    def arrivals(number):
        there = world.availability.available(number - 1.0)
        there[0] &= uniforms(0, "hide", number, 1)[0] < share
        return there

    return simulate(selector, world, 2000, arrivals=arrivals).ledger.utility[0]


@pytest.mark.parametrize("mode", ["randomised", "deterministic"])
def test_hiding_does_not_pay(mode):
    selector = LeastNormalisedUtility(mode=mode)
    assert hiding(selector, 0.5) < 0.6 * hiding(selector, 1.0)


def test_hiding_pays_under_the_score_of_the_paper():
    assert hiding(CupPaper(), 0.5) > 2 * hiding(CupPaper(), 1.0)


def test_absence_leaves_no_debt():
    """Away for 300 of 400 rounds; on its return a client is served at the common rate .3, not in every round."""
    world, selector = small_world((1.0,) * 10, 3), LeastNormalisedUtility(mode="deterministic")
    state, ledger, served = selector.init(world), Ledger.empty(10), 0
    for number in range(1, 451):
        there = np.ones(10, dtype=bool)
        there[0] = not 100 < number <= 400
        state, ledger, chosen = play_round(selector, world, state, ledger, there)
        served += number > 400 and 0 in chosen
    assert served <= 20


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "deterministic"},
        {"parity": "utility"},
        {"parity": "selection"},
        {"parity": "utility", "relative": False, "credit_low": 0.0, "credit_high": inf},
        {"half_life": 5.0},
        {"strict": 0.2},
        {"strict": 0.2, "mode": "deterministic", "parity": "selection"},
        {"explore": 0.0, "temperature": 20.0},
        {"offset": 0.0, "dropout_charge": 0.0},
    ],
)
def test_every_setting_keeps_the_contract(settings):
    check_selector(LeastNormalisedUtility(**settings))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "random"),
        ("parity", "cup"),
        ("offset", -1.0),
        ("temperature", 0.0),
        ("temperature", 21.0),
        ("explore", 1.5),
        ("credit_low", -0.1),
        ("credit_high", 0.4),
        ("half_life", 0.0),
        ("strict", -1.0),
        ("strict", inf),
        ("dropout_charge", inf),
        ("explore", float("nan")),
    ],
)
def test_a_bad_value_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"selector\.{key} = "):
        LeastNormalisedUtility(**{key: value})


@pytest.mark.parametrize("relative", [True, False])
def test_the_next_credit_is_a_clients_own_mean_shrunk_towards_one(relative):
    """(q + 2) / (s + 2) = 6/4 and 3/4; u = (1, 1.2), n = 2: x = (1.75, 1.575) / 2, cut .83125, owed
    (-.04375 x 2 / 1.5, .04375 x 2 / .75) = (-.175 / 3, .35 / 3)."""
    state = state_of(u=(1, 1.2), n=(1, 1), q=(4, 1), s=(2, 2), ubar=1)
    share = exp(-0.35 / 3) / (exp(-0.35 / 3) + exp(0.7 / 3))
    rule = LeastNormalisedUtility(parity="utility", relative=relative)
    probability = rule.select(state, view_of(small_world((1.0, 1.0), 1), (0, 1)), rng).probability
    assert probability == pytest.approx([0.9 * share + 0.05, 0.95 - 0.9 * share])


def test_relative_utility_is_remembered_between_zero_and_five():
    """Mean 1 of (8, -1, 0 ... 0) with negatives as 0: 8, -1 and 0 are remembered as 5, 0 and 0."""
    rule, credit = LeastNormalisedUtility(parity="utility"), (8.0, -1.0, *[0.0] * 6)
    state = observe(rule, rule.init(small_world((1.0,) * 8, 1)), (1,) * 8, (COMPLETED,) * 8, credit)
    assert state["q"].tolist() == [5, *[0] * 7]


@pytest.mark.parametrize(("relative", "charge"), [(False, 0.8), (True, 2.0)])
def test_a_drop_out_is_charged_in_the_units_of_the_credit(relative, charge):
    """Mean .4, two average participations."""
    rule = LeastNormalisedUtility(parity="utility", relative=relative, dropout_charge=2.0)
    state = observe(rule, rule.init(small_world((1.0,) * 2, 2)), (1, 1), (COMPLETED, FAILED), (0.4, 0.0))
    assert state["u"][1] == pytest.approx(charge)


@pytest.mark.parametrize(("parity", "strict", "kept"), [("opportunity", 0.7, [1, 2, 3]), ("selection", 0.3, [0, 2, 3])])
def test_strict_compares_what_is_equalised(parity, strict, kept):
    """With this round n = (5, 10, 12, 4), u = (4, 5, 3, 0). Per opportunity (.8, .5, .25), the last seen too seldom:
    the tenth percentile is .25 + .2 x .25 = .3, and 1.7 x .3 = .51. Participations: 3 + .2 = 3.2, times 1.3 = 4.16."""
    state = state_of(u=(4, 5, 3, 0), n=(4, 9, 11, 3), q=(0,) * 4, s=(0,) * 4, ubar=0)
    rule = LeastNormalisedUtility(mode="deterministic", parity=parity, strict=strict)
    assert rule.select(state, view_of(small_world((1.0,) * 4, 4), range(4)), rng).clients.tolist() == kept


def test_strict_zero_is_allowed():
    assert LeastNormalisedUtility(strict=0.0).may_idle
