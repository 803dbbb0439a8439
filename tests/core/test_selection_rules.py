"""The other selection rules, each against a case small enough to work out by hand."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from simulate import FAILED, Known, play_round, simulate, view_of

from parityfl.core.errors import ConfigError
from parityfl.core.ledger import COMPLETED, Ledger
from parityfl.core.seeding import generator
from parityfl.core.selection import selector
from parityfl.core.selection.aw_psp import AvailabilityWeightedPsp
from parityfl.core.selection.cup_paper import CupPaper
from parityfl.core.selection.cup_reactive import CupReactive
from parityfl.core.selection.deficit import Deficit
from parityfl.core.selection.f3ast import F3ast
from parityfl.core.selection.fairfedcs import FairFedCS
from parityfl.core.selection.inverse_availability import InverseAvailability
from parityfl.core.selection.least_selected import LeastSelected
from parityfl.core.selection.need import Need
from parityfl.core.selection.oort import Oort
from parityfl.core.selection.power_of_choice import PowerOfChoice
from parityfl.core.selection.round_robin import RoundRobin
from parityfl.core.selection.uniform import Uniform
from parityfl.testing.selection import check_selector, closed_round, small_world

rng = generator(0, "test")
nan = float("nan")


def ledger_of(size, rounds=0, **columns):
    """Return a ledger with the given columns; everybody registered in round 1 where a round is closed."""
    first = np.full(size, min(rounds, 1), dtype=np.int64)
    return replace(Ledger.empty(size), rounds=rounds, first_round=first, **{k: np.array(v) for k, v in columns.items()})


def chosen(rule, world, available, ledger, state=None):
    view = view_of(world, available, ledger.rounds + 1, ledger=ledger)
    return rule.select(rule.init(world) if state is None else state, view, rng).clients.tolist()


def enumerated_rates(rule, pi):
    """Return P(selected) of two independent clients with one place, over the three sets that may be there."""
    world, (p, q) = small_world(pi, 1), pi
    rates = np.zeros(2)
    for there, weight in (((0,), p * (1 - q)), ((1,), q * (1 - p)), ((0, 1), p * q)):
        rates += weight * rule.select({}, view_of(world, there), rng).probability
    return rates


def test_p1_inverse_availability():
    """Both there (.09): .1 and .9. y = (.81 + .009, .01 + .081) = (.819, .091), r = (.91, .91)."""
    rates = enumerated_rates(InverseAvailability(), (0.9, 0.1))
    assert rates == pytest.approx([0.819, 0.091])
    assert rates / [0.9, 0.1] == pytest.approx([0.91, 0.91])


def test_p1_uniform():
    """Both there (.09): 1/2 each. r = (.9 + .05, .1 + .45)."""
    assert enumerated_rates(Uniform(), (0.9, 0.1)) / [0.9, 0.1] == pytest.approx([0.95, 0.55])


def test_inverse_availability_without_the_truth_uses_the_estimate():
    """After 9 rounds client 0 was there 8 times, client 1 never: with this round 9/10 and 1/10."""
    world = replace(small_world((0.5, 0.5), 1), availability=None)
    view = view_of(world, (0, 1), 10, ledger=ledger_of(2, 9, available=(8, 0)))
    assert InverseAvailability().select({}, view, rng).probability == pytest.approx([0.1, 0.9])
    assert InverseAvailability(mode="top-m").select({}, view, rng).clients.tolist() == [1]


def test_a_newcomer_is_estimated_since_it_registered():
    """Registered in round 9 and there ever since: 2 of 2 rounds, where the other was there in 5 of 10."""
    world = replace(small_world((0.5, 0.5), 1), availability=None)
    ledger = replace(ledger_of(2, 9, available=(4, 1)), first_round=np.array([1, 9]))
    view = view_of(world, (0, 1), 10, ledger=ledger)
    assert InverseAvailability().select({}, view, rng).probability == pytest.approx([2 / 3, 1 / 3])


def test_inverse_availability_top_m_keeps_the_contract():
    check_selector(InverseAvailability(mode="top-m"))


def test_cup_paper_score():
    """Round 10, pi = (1, .5, .1), s = (0, 8, 9), weight .1: scores (2, 2.4, 11); with weight 1: (11, 6, 20)."""
    world, ledger = small_world((1.0,) * 3, 1), ledger_of(3, 9, available=(9, 4, 0), participated=(0, 8, 9))
    view = view_of(world, (0, 1, 2), 10, ledger=ledger)
    assert CupPaper().index({}, view) == pytest.approx([-2, -2.4, -11])
    assert CupPaper(debt_weight=1.0).index({}, view) == pytest.approx([-11, -6, -20])
    assert CupPaper().select({}, view, rng).clients.tolist() == [2]


def test_cup_paper_breaks_ties_at_random():
    world = small_world((1.0,) * 4, 1)
    picks = [CupPaper().select({}, view_of(world, range(4)), generator(0, "tie", k)).clients[0] for k in range(400)]
    assert np.all(np.bincount(picks, minlength=4) > 60)


def test_cup_reactive_probabilities():
    """Round 11: pi = (1, .5) + .5, missed (10, 5) of 10, weight .1: priorities 2 / 1.5 and 1.5 / 1."""
    world = small_world((1.0, 1.0), 1)
    view = view_of(world, (0, 1), 12, ledger=ledger_of(2, 11, available=(11, 5), participated=(1, 6)))
    first, second = 2 / 1.5, 1.5 / 1.0
    selection = CupReactive(epsilon=0.5).select({}, view, rng)
    assert selection.probability == pytest.approx([first / (first + second), second / (first + second)])


def late_comer_view():
    """Return round 10: both there whenever they could; client 1 registered in round 9.

    Client 0 took part in 4 of 9 rounds, last in 7.
    """
    ledger = ledger_of(2, 9, available=(9, 1), participated=(4, 0), last_selected=(7, 0))
    ledger = replace(ledger, first_round=np.array([1, 9]))
    return view_of(small_world((1.0, 1.0), 1), (0, 1), 10, ledger=ledger)


def test_cup_paper_owes_a_late_comer_nothing_from_before():
    """Debts 10 - 4 and 2 - 0."""
    assert CupPaper().index({}, late_comer_view()) == pytest.approx([-1.6, -1.2])


def test_cup_reactive_owes_a_late_comer_nothing_from_before():
    """Missed 5 of 9 and 1 of 1: priorities 1.5 and 1.1."""
    probability = CupReactive().select({}, late_comer_view(), rng).probability
    assert probability == pytest.approx([1.5 / 2.6, 1.1 / 2.6])


def test_aw_psp_counts_freshness_from_the_registration():
    """10 - 7 rounds since client 0 was selected, two since client 1 registered."""
    assert AvailabilityWeightedPsp().select({}, late_comer_view(), rng).clients.tolist() == [0]


def test_round_robin_goes_round_and_passes_over_the_absent():
    world, rule = small_world((1.0,) * 5, 2), RoundRobin()
    state, ledger, order = rule.init(world), Ledger.empty(5), []
    for absent in ((), (2,), (), (0, 1, 2, 3, 4), ()):
        there = ~np.isin(range(5), absent)
        state, ledger, picked = play_round(rule, world, state, ledger, there)
        order.append(picked.tolist())
    assert order == [[0, 1], [3, 4], [0, 1], [], [2, 3]]


def test_least_selected():
    world = small_world((1.0,) * 4, 2)
    assert chosen(LeastSelected(), world, (0, 1, 3), ledger_of(4, 9, selected=(5, 2, 0, 4))) == [1, 3]


def test_deficit_by_hand():
    """Round 1 with 0 and 1: owed 1/2 each, one served: +-1/2. Round 2 alone: client 2 is owed 1 and served 1: 0."""
    world, rule = small_world((1.0,) * 3, 1), Deficit()
    state, ledger = rule.init(world), Ledger.empty(3)
    state, ledger, first = play_round(rule, world, state, ledger, np.array([True, True, False]))
    served, other = int(first[0]), 1 - int(first[0])
    assert state["deficit"][[served, other, 2]].tolist() == [-0.5, 0.5, 0.0]
    state, ledger, _ = play_round(rule, world, state, ledger, np.array([False, False, True]))
    assert state["deficit"][[served, other, 2]].tolist() == [-0.5, 0.5, 0.0]
    _, _, third = play_round(rule, world, state, ledger, np.ones(3, dtype=bool))
    assert third.tolist() == [other]


def test_deficit_is_not_least_selected():
    """Client 1 was there in 5 rounds of two and served 2; client 0 came in 100 such rounds and was served 49."""
    world, ledger = small_world((1.0, 1.0), 1), ledger_of(2, 105, selected=(49, 2))
    deficit = {"deficit": np.array([1.0, 0.5])}
    assert chosen(Deficit(), world, (0, 1), ledger, deficit) == [0]
    assert chosen(LeastSelected(), world, (0, 1), ledger) == [1]


def test_deficits_stay_small_and_sum_to_zero():
    state = simulate(Deficit(), small_world((0.9, 0.6, 0.5, 0.3, 0.1), 2), 500).state
    assert state["deficit"].sum() == pytest.approx(0, abs=1e-9)
    assert np.abs(state["deficit"]).max() < 3


def test_fairfedcs_queues_and_reputation():
    """m/N = 1/4. Client 0 completes with a gain, 1 with a loss, 2 drops out; 3 is passed over: 1/4 x 1/2 in its queue.

    Then client 3 is served and gains nothing, which is not bad; the others grow by 1/4 of 2/3, 1/3 and 1/3.
    """
    world, rule = small_world((1.0,) * 4, 1), FairFedCS(sigma=2.0)
    view = view_of(world, range(4))
    outcome = np.array([COMPLETED, COMPLETED, FAILED, 0])
    record = closed_round(view, np.ones(4, dtype=bool), outcome, np.array([0.5, -0.1, 0.0, 0.0]))
    state = rule.observe(rule.init(world), record, world)
    assert state["queue"].tolist() == [0, 0, 0, 0.125]
    assert state["good"].tolist() == [1, 0, 0, 0]
    assert state["bad"].tolist() == [0, 1, 1, 0]
    assert rule.index(state, view) == pytest.approx([-2 * 2 / 3, -2 / 3, -2 / 3, -1.125])
    served = closed_round(view, np.ones(4, dtype=bool), np.array([0, 0, 0, COMPLETED]), np.zeros(4))
    state = rule.observe(state, served, world)
    assert state["queue"] == pytest.approx([1 / 6, 1 / 12, 1 / 12, 0])
    assert (state["good"][3], state["bad"][3]) == (1, 0)


def test_f3ast_rates_and_choice():
    """Rates start at 1/4; one step of .5: .625 for the selected, .125 for the others."""
    world, rule = small_world((1.0,) * 4, 1), F3ast(step=0.5)
    state, _, picked = play_round(rule, world, rule.init(world), Ledger.empty(4), np.ones(4, dtype=bool))
    assert picked.tolist() == [3]  # the largest shard at equal rates
    assert state["rate"].tolist() == [0.125, 0.125, 0.125, 0.625]


def test_f3ast_rates_move_from_the_registration_on():
    """Rates start at 1/2. Client 1 registers in round 3: by then .875 for client 0, and 11 / .5 is above 10 / .875."""
    world, rule, both = small_world((1.0, 1.0), 1), F3ast(step=0.5), np.ones(2, dtype=bool)
    state, alone = rule.init(world), np.array([True, False])
    for number, rate in ((1, 0.75), (2, 0.875)):
        record = closed_round(view_of(world, (0,), number), alone, np.array([COMPLETED, 0]), np.zeros(2))
        state = rule.observe(state, replace(record, registered=alone), world)
        assert state["rate"].tolist() == [rate, 0.5]
    state, _, picked = play_round(rule, world, state, ledger_of(2, 2), both)
    assert picked.tolist() == [1]
    assert state["rate"].tolist() == [0.4375, 0.75]


def test_f3ast_rates_follow_the_data():
    world = small_world((1.0,) * 5, 2)
    selected = simulate(F3ast(), world, 2000).ledger.selected
    assert selected / selected.sum() == pytest.approx(world.num_samples / world.num_samples.sum(), abs=0.01)


def test_power_of_choice_takes_the_largest_known_loss():
    """All are candidates. Loss of 0 measured, of 2 from training, of 3 initial; client 1 unknown: it comes first."""
    world = small_world((1.0,) * 4, 2)
    ledger = ledger_of(4, eval_loss=(0.5, nan, nan, nan), train_loss=(9, nan, 3, nan), initial_loss=(9, nan, 9, 1))
    assert chosen(PowerOfChoice(candidates=4), world, range(4), ledger) == [1, 2]


def test_power_of_choice_does_not_wait_for_ever_for_a_loss():
    """Client 1 was selected and has told no loss: it counts (3 + 1 + 2) / 3 = 2, and client 0 comes before it.

    Client 3 was never selected and still comes first. Where nobody has told any, all selected ones are alike.
    """
    world, rule = small_world((1.0,) * 4, 1), PowerOfChoice(candidates=4)
    ledger = ledger_of(4, 6, train_loss=(3, nan, 1, 2), selected=(1, 4, 1, 1), last_selected=(4, 6, 5, 3))
    assert chosen(rule, world, range(4), ledger) == [0]
    untried = replace(ledger, selected=np.array([1, 4, 1, 0]), train_loss=np.array([3, nan, 1, nan]))
    assert chosen(rule, world, range(4), untried) == [3]
    nothing = replace(ledger, train_loss=np.full(4, nan))
    view = view_of(world, range(4), 7, ledger=nothing)
    assert {rule.select({}, view, generator(0, "alike", k)).clients[0] for k in range(60)} == {0, 1, 2, 3}


def test_power_of_choice_with_m_candidates_draws_by_data():
    """Shards 10 and 30, one candidate: 1/4 and 3/4 in 1000 draws."""
    world = replace(small_world((1.0, 1.0), 1), num_samples=np.array([10, 30]))
    view = view_of(world, (0, 1))
    picks = [PowerOfChoice(candidates=1).select({}, view, generator(0, "d", k)).clients[0] for k in range(1000)]
    assert np.mean(picks) == pytest.approx(0.75, abs=0.06)


def oort_view(**columns):
    world = replace(small_world((1.0,) * 4, 2), num_samples=np.full(4, 10))
    last = columns.get("last_selected", columns.get("last_participated", (4, 1, 0, 0)))
    known = {"train_loss": (1.0, 1.0, nan, nan), "last_participated": last, "last_selected": last}
    known["selected"] = tuple(int(r > 0) for r in last)
    return view_of(world, range(4), 5, ledger=ledger_of(4, 4, **{**known, **columns}))


def test_oort_splits_slots_between_tried_and_untried():
    """explore .5 of two slots: one for the untried 2 and 3, half each. Equal losses: (10 - 9.99) / .01 = 1 + bonus."""
    selection = Oort(explore=0.5, explore_decay=1.0, cutoff=0.0).select({}, oort_view(), rng)
    first, second = 1 + sqrt(0.1 * log(5) / 4), 1 + sqrt(0.1 * log(5))
    total = first + second
    assert selection.probability == pytest.approx([first / total, second / total, 0.5, 0.5])


def test_oort_has_tried_who_was_selected():
    """Client 2 was selected and never delivered: it is tried, at the average utility, and no longer sure of a slot.

    Equal losses count 1 each; the last rounds are 4, 1 and 3 of 5. The one slot for the untried is client 3's.
    """
    view = oort_view(selected=(1, 1, 9, 0), last_selected=(4, 1, 3, 0), last_participated=(4, 1, 0, 0))
    utility = np.array([1 + sqrt(0.1 * log(5) / last) for last in (4, 1, 3)])
    selection = Oort(explore=0.5, explore_decay=1.0, cutoff=0.0).select({}, view, rng)
    assert selection.probability == pytest.approx([*(utility / utility.sum()), 1.0])


def test_oort_forgets_the_loss_of_who_no_longer_delivers():
    """Client 0, last asked in round 3, has not delivered since round 1: it counts the average of 10, 30 and 20, not 90.

    (u - 9.99) / (30 - 9.99) of 20, 10, 30 and 20, plus the bonus of rounds 3, 4, 4 and 4; two slots.
    """
    view = oort_view(
        train_loss=(9.0, 1.0, 3.0, 2.0),
        last_selected=(3, 4, 4, 4),
        last_participated=(1, 4, 4, 4),
    )
    bonus = np.sqrt(0.1 * log(5) / np.array([3, 4, 4, 4]))
    utility = (np.array([20, 10, 30, 20]) - 9.99) / 20.01 + bonus
    selection = Oort(explore=0.0, explore_least=0.0, cutoff=0.0).select({}, view, rng)
    assert selection.probability == pytest.approx(2 * utility / utility.sum())


def test_oort_where_nobody_has_told_a_loss():
    """All were selected in round 4: they are alike, with one slot of two for each pair."""
    view = oort_view(train_loss=(nan,) * 4, last_selected=(4,) * 4, last_participated=(4, 0, 4, 0))
    assert Oort().select({}, view, rng).probability == pytest.approx([0.5] * 4)


def test_oort_explores_less_than_a_slot():
    """A fifth of two slots is two fifths of one, a fifth for either of the untried; the tried share the other 1.6."""
    rule = Oort(explore=0.2, explore_decay=1.0, explore_least=0.2, cutoff=0.0)
    view = oort_view(last_participated=(4, 4, 0, 0))
    assert rule.select({}, view, rng).probability == pytest.approx([0.8, 0.8, 0.2, 0.2])


def test_oort_cut_off_and_slowness():
    """Client 1 at twice the preferred duration keeps a quarter of its utility and misses the cut-off."""
    slow = oort_view(latency_s=(1.0, 2.0, nan, nan))
    rule = Oort(explore=0.5, explore_decay=1.0, duration_quantile=0.0)
    assert rule.select({}, slow, rng).probability == pytest.approx([1, 0, 0.5, 0.5])


def test_oort_clips_and_then_scales_by_the_whole_range():
    """Utilities 10, 20, ..., 200: the 95th percentile is the 20th, and 100 becomes (100 - 9.99) / (200 - 9.99).

    Of 21, with 1000 on top, it is the 20th again: 1000 counts 200, over 1000 - 9.99. Round 1 has no bonus.
    """
    for losses, largest in ((np.arange(1.0, 21), 200), (np.append(np.arange(1.0, 21), 100), 1000)):
        size, known = len(losses), np.minimum(10 * losses, 200)
        world = replace(small_world((1.0,) * size, 1), num_samples=np.full(size, 10))
        once = dict.fromkeys(("selected", "last_selected", "last_participated"), (1,) * size)
        view = view_of(world, range(size), 1, ledger=ledger_of(size, 0, train_loss=losses, **once))
        rule = Oort(explore=0.0, explore_least=0.0, cutoff=0.0)
        scaled = (known - 9.99) / (largest - 9.99)
        assert rule.select({}, view, rng).probability == pytest.approx(scaled / scaled.sum())


def test_oort_explores_more_where_too_few_are_tried():
    view = oort_view(train_loss=(1.0, nan, nan, nan), last_selected=(4, 0, 0, 0))
    rule = Oort(explore=0.0, explore_least=0.0)
    assert rule.select({}, view, rng).probability == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_need_by_loss():
    """(s + 1/2) / (n x loss) with n counting this round: 1.5/(4 x 1), .5/(4 x .25), and the mean .625 for unknown."""
    world, ledger = (
        small_world((1.0,) * 3, 1),
        ledger_of(3, 3, selected=(1, 0, 0), available=(3, 3, 3), eval_loss=(1.0, 0.25, nan)),
    )
    view = view_of(world, range(3), 4, ledger=ledger)
    assert Need().index({}, view) == pytest.approx([0.375, 0.5, 0.2])


def test_aw_psp_covers_labels_before_it_fills():
    """Labels (0, 1, 2, 0, 1, 2). Scores favour 0 and 3, both of label 0: the second and third slots add a label."""
    world = small_world((1.0,) * 6, 3)
    last = (0, 8, 7, 0, 6, 5)
    ledger = ledger_of(6, 9, available=(9, 9, 9, 8, 9, 9), last_selected=last)
    assert chosen(AvailabilityWeightedPsp(), world, range(6), ledger) == [0, 4, 5]
    unlabelled = replace(world, label_counts=np.zeros((6, 0), dtype=np.int64))
    assert chosen(AvailabilityWeightedPsp(), unlabelled, range(6), ledger) == [0, 3, 5]


def test_psp_is_uniform():
    world = small_world((1.0,) * 6, 2)
    view = view_of(world, range(6))
    both = [selector.get(name)().select({}, view, generator(0, "same")) for name in ("psp", "uniform")]
    assert both[0].clients.tolist() == both[1].clients.tolist()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cup-paper", {"debt_weight": -1.0}),
        ("cup-reactive", {"debt_weight": -1.0}),
        ("cup-reactive", {"epsilon": 0.0}),
        ("inverse-availability", {"mode": "best"}),
        ("fairfedcs", {"sigma": -1.0}),
        ("f3ast", {"step": 0.0}),
        ("power-of-choice", {"candidates": 0}),
        ("oort", {"explore": 1.1}),
        ("oort", {"explore_decay": 0.0}),
        ("oort", {"explore_least": 0.95}),
        ("oort", {"penalty": -1.0}),
        ("need", {"by": "luck"}),
    ],
)
def test_a_bad_value_is_named(name, settings):
    with pytest.raises(ConfigError, match=rf"selector\.{next(iter(settings))} = "):
        selector.get(name)(**settings)


@pytest.mark.parametrize("truth", [0.0, nan])
def test_a_client_that_came_against_its_truth_is_estimated(truth):
    """There in round 1 of 1, pi counts 1 beside .5: (1/1, 1/.5) of 3."""
    world = replace(small_world((0.5, 0.5), 1), availability=Known((truth, 0.5)))
    probability = InverseAvailability().select({}, view_of(world, (0, 1)), rng).probability
    assert probability == pytest.approx([1 / 3, 2 / 3])


def test_the_least_need_by_local_gain_is_a_tenth_of_the_mean():
    """Gains (6, -1): the negative one counts 0 in the mean 3, so the second needs .3."""
    ledger = ledger_of(2, 3, selected=(1, 1), available=(3, 3), local_gain=(6.0, -1.0))
    view = view_of(small_world((1.0, 1.0), 1), (0, 1), 4, ledger=ledger)
    assert Need(by="local_gain").index({}, view) == pytest.approx([1.5 / 24, 1.5 / 1.2])
    check_selector(Need(by="local_gain"))


@pytest.mark.parametrize(("latency", "quantile"), [((1.0, 2.0, nan, nan), 1.0), ((1.0, nan, nan, nan), 0.0)])
def test_oort_forgives_what_is_no_slower_than_preferred(latency, quantile):
    """Nobody is slower than the preferred duration, or it is not known: as without latencies."""
    rule = Oort(explore=0.5, explore_decay=1.0, cutoff=0.0, duration_quantile=quantile)
    first, second = 1 + sqrt(0.1 * log(5) / 4), 1 + sqrt(0.1 * log(5))
    probability = rule.select({}, oort_view(latency_s=latency), rng).probability
    assert probability == pytest.approx([first / (first + second), second / (first + second), 0.5, 0.5])


def test_oort_cuts_off_relative_to_the_last_that_would_make_it():
    """Utilities 1.20 and 1.40 for one slot: the first misses .95 x 1.40 = 1.33."""
    probability = Oort(explore=0.5, explore_decay=1.0).select({}, oort_view(), rng).probability
    assert probability == pytest.approx([0, 1, 0.5, 0.5])


def test_oort_counts_the_examples():
    """Equal losses on 10 and 20 examples: (10 - 9.99) / 10.01 and 1, plus the bonus."""
    view = oort_view()
    view = replace(view, world=replace(view.world, num_samples=np.array([10, 20, 10, 10])))
    first, second = 0.01 / 10.01 + sqrt(0.1 * log(5) / 4), 1 + sqrt(0.1 * log(5))
    probability = Oort(explore=0.5, explore_decay=1.0, cutoff=0.0).select({}, view, rng).probability
    assert probability[:2] == pytest.approx([first / (first + second), second / (first + second)])


@pytest.mark.parametrize(("local_gain", "credit", "good", "bad"), [(-1.0, 1.0, 1, 2), (1.0, -1.0, 2, 1)])
def test_fairfedcs_adds_to_what_it_knew(local_gain, credit, good, bad):
    """Client 0 is served: its queue falls by 1; its local gain judges it, not its credit. Client 1's queue grows by
    1/2 of (1 + 1) / (1 + 0 + 2)."""
    world, rule = small_world((1.0, 1.0), 1), FairFedCS()
    state = {"queue": np.array([2.0, 0.5]), "good": np.array([1.0, 1.0]), "bad": np.array([1.0, 0.0])}
    outcome = np.array([COMPLETED, 0])
    record = closed_round(view_of(world, (0, 1)), np.ones(2, bool), outcome, np.array([credit, 0.0]))
    after = rule.observe(state, replace(record, local_gain=np.array([local_gain, nan])), world)
    assert after["queue"] == pytest.approx([1, 0.5 + 1 / 3])
    assert (after["good"].tolist(), after["bad"].tolist()) == ([good, 1], [bad, 0])


def test_aw_psp_prefers_who_is_often_there():
    """Scores .2 x (10 - 4) and 1 x (10 - 5)."""
    world = replace(small_world((1.0, 1.0), 1), label_counts=np.zeros((2, 0), dtype=np.int64))
    ledger = ledger_of(2, 9, available=(1, 9), last_selected=(4, 5))
    assert chosen(AvailabilityWeightedPsp(), world, (0, 1), ledger) == [1]
