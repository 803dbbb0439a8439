"""A round as pure functions: plan, close, figures."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulate import Known

from parityfl.core.errors import PartError
from parityfl.core.ledger import OUTCOME_CODES, Ledger, account
from parityfl.core.rounds import Plan, Result, close_round, fairness_figures, mean_availability, plan_round, staleness
from parityfl.core.selection.uniform import Uniform
from parityfl.core.types import Outcome, Selection, Update, World

NAN = float("nan")
VECTOR = np.zeros(2, dtype=np.float32)
OUTCOMES = list(Outcome)


def world(clients=3, **changes):
    labels = np.eye(clients, dtype=np.int64) * 5
    plain = World(0, clients, 2, 600.0, np.arange(clients) + 10, labels, Known((0.9,) * clients))
    return replace(plain, **changes)


def plan(number, available, clients, probability=None):
    here = np.array(available, dtype=bool)
    chosen = Selection(np.array(clients, dtype=np.int64), None if probability is None else np.array(probability))
    return Plan(number, 600.0 * (number - 1), np.ones(len(here), dtype=bool), here, chosen)


def reply(client, outcome=Outcome.COMPLETED, before=NAN, after=NAN, train=NAN, **rest):
    done = Update(client, VECTOR, 10, train, before, after) if outcome is Outcome.COMPLETED else None
    return Result(client, outcome, done, **{"latency_s": 1.0, "bytes_up": NAN, "bytes_down": NAN, **rest})


def close(
    a_plan,
    results,
    ledger,
    a_world=None,
    *,
    loss=(1.0,) * 3,
    accuracy=(0.1,) * 3,
    functional="loss_gain",
    sent_global=None,
):
    return close_round(
        a_plan,
        results,
        ledger,
        world() if a_world is None else a_world,
        eval_loss=np.array(loss),
        eval_accuracy=np.array(accuracy),
        sent_global=a_plan.selected if sent_global is None else np.array(sent_global),
        surrogate_weight=None,
        functional=functional,
    )


def started(loss=(1.0,) * 3, accuracy=(0.1,) * 3):
    """Return the ledger after the evaluation of the initial model."""
    loss, accuracy = np.array(loss), np.array(accuracy)
    return replace(Ledger.empty(len(loss)), initial_loss=loss, eval_loss=loss, eval_accuracy=accuracy)


def two_rounds(functional="loss_gain"):
    """Three clients, one label each; see the tests for the numbers."""
    a_world, ledger = world(), started([2.0, 1.0, 3.0], [0.1, 0.2, 0.0])
    first = close(
        plan(1, [1, 1, 0], [0, 1], [1.0, 1.0, 0.0]),
        [reply(0, before=2.0, after=1.2), reply(1, Outcome.FAILED)],
        ledger,
        a_world,
        loss=[1.5, 0.9, 3.2],
        accuracy=[0.3, 0.3, 0.1],
        functional=functional,
    )
    ledger = account(ledger, first)
    second = close(
        plan(2, [1, 0, 1], [0, 2], [1.0, 0.0, 1.0]),
        [reply(0, before=1.5, after=1.6), reply(2, before=3.2, after=2.0)],
        ledger,
        a_world,
        loss=[1.0, 1.1, 2.2],
        accuracy=[0.5, 0.2, 0.4],
        functional=functional,
    )
    return first, second, account(ledger, second), a_world


def test_the_gains_of_two_rounds_by_hand():
    """Losses (2, 1, 3) -> (1.5, .9, 3.2) -> (1, 1.1, 2.2): gains (.5, .1, -.2), then (.5, -.2, 1), of everybody.
    Accuracies (.1, .2, 0) -> (.3, .3, .1) -> (.5, .2, .4): gains (.2, .1, .1), (.2, -.1, .3). Local gains .8; -.1, 1.2.
    """
    first, second, _, _ = two_rounds()
    np.testing.assert_allclose(first.loss_gain, [0.5, 0.1, -0.2])
    np.testing.assert_allclose(second.loss_gain, [0.5, -0.2, 1.0])
    np.testing.assert_allclose(first.accuracy_gain, [0.2, 0.1, 0.1])
    np.testing.assert_allclose(second.accuracy_gain, [0.2, -0.1, 0.3])
    np.testing.assert_allclose(first.local_gain, [0.8, NAN, NAN])
    np.testing.assert_allclose(second.local_gain, [-0.1, NAN, 1.2])


@pytest.mark.parametrize(
    ("functional", "utility"),
    [("loss_gain", [1.0, 0.0, 1.0]), ("accuracy_gain", [0.4, 0.0, 0.3]), ("local_gain", [0.7, 0.0, 1.2])],
)
def test_participants_are_credited_and_nobody_else(functional, utility):
    """Client 0 completed both rounds, client 1 failed in the first, client 2 completed the second."""
    _, _, ledger, _ = two_rounds(functional)
    np.testing.assert_allclose(ledger.utility, utility)


def test_the_figures_of_two_rounds_by_hand():
    """After round 2: n = (2, 1, 1), s = (2, 1, 1), p = (2, 0, 1), u = (1, 0, 1), so u/n = (.5, 0, 1): mean .5, standard
    deviation sqrt(1/6), CV sqrt(2/3), Jain 1.5^2 / (3 x 1.25) = .6, Gini 2 (.5 + .5 + 1) / (2 x 9 x .5) = 4/9.
    s/rounds = (1, .5, .5), s/n = 1 for all; Gini of p: 2 (2 + 1 + 1) / (2 x 9 x 1) = 4/9. Net gain (1, -.1, .8): mean
    17/30, squares 1.65/3; credited to net 2 / 1.7. Labels 0 and 2 of three, each counted once: KL ln(3/2).
    Weighed by 10, 11 and 12 examples: (5 + 2.2 + 4.8) / 33 = 12/33, squares (2.5 + .44 + 1.92) / 33 = 4.86/33.
    """
    _, second, ledger, a_world = two_rounds()
    figures = fairness_figures(second, ledger, a_world, "loss_gain")
    mean = 1.7 / 3
    assert figures == pytest.approx(
        {
            "num_available": 2,
            "num_selected": 2,
            "num_participated": 2,
            "num_late": 0,
            "num_failed": 0,
            "mean_client_accuracy": 1.1 / 3,
            "worst10_client_accuracy": 0.2,
            "accuracy_jain": 1.1**2 / (3 * 0.45),
            "weighted_client_accuracy": 12 / 33,
            "client_accuracy_std": math.sqrt(0.45 / 3 - (1.1 / 3) ** 2),
            "weighted_client_accuracy_std": math.sqrt(4.86 / 33 - (12 / 33) ** 2),
            "mean_personal_accuracy": NAN,
            "worst10_personal_accuracy": NAN,
            "utility_cv": math.sqrt(2 / 3),
            "utility_jain": 0.6,
            "utility_gini": 4 / 9,
            "worst10_normalized_utility": 0.0,
            "selection_gap": 0.5,
            "conditional_selection_gap": 0.0,
            "saturation": 1.0,
            "participation_gini": 4 / 9,
            "label_coverage": 2 / 3,
            "label_kl": math.log(1.5),
            "unseen_label_rate": 1 / 3,
            "low_availability_accuracy": 0.5,
            "mean_net_gain": mean,
            "net_gain_cv": math.sqrt(1.65 / 3 - mean**2) / mean,
            "credited_to_net": 2 / 1.7,
        },
        nan_ok=True,
    )


def test_personal_accuracy_is_the_last_known_of_each_client():
    """Client 0 reports .5 in round 1 and .9 in round 2, client 1 .7 in round 1, client 2 nothing: mean .8, worst .7."""
    ledger = started()
    for number, told in ((1, {0: 0.5, 1: 0.7}), (2, {0: 0.9, 2: NAN})):
        results = [reply(k) for k in told]
        results = [replace(r, update=replace(r.update, personal_accuracy=told[r.client])) for r in results]
        record = close(plan(number, [1, 1, 1], list(told)), results, ledger)
        ledger = account(ledger, record)
    figures = fairness_figures(record, ledger, world(), "loss_gain")
    assert figures["mean_personal_accuracy"] == pytest.approx(0.8)
    assert figures["worst10_personal_accuracy"] == 0.7


def test_credited_to_net_is_only_for_the_loss():
    _, second, ledger, a_world = two_rounds("local_gain")
    assert math.isnan(fairness_figures(second, ledger, a_world, "local_gain")["credited_to_net"])


def test_credited_to_net_compares_the_same_clients():
    """Client 2 was not measured in round 2: u = (1, 0) against net gains 1 and -.1."""
    _, second, ledger, a_world = two_rounds()
    unseen = replace(second, eval_loss=np.array([1.0, 1.1, NAN]))
    assert fairness_figures(unseen, ledger, a_world, "loss_gain")["credited_to_net"] == pytest.approx(1 / 0.9)


def test_the_first_round_by_hand():
    """Client 0 completed, client 1 failed; u/n = (.5, 0), client 2 was never there and is left out."""
    first, _, _, a_world = two_rounds()
    figures = fairness_figures(first, account(started([2.0, 1.0, 3.0], [0.1, 0.2, 0.0]), first), a_world, "loss_gain")
    assert (figures["num_failed"], figures["utility_cv"], figures["worst10_normalized_utility"]) == (1, 1.0, 0.0)
    assert (figures["selection_gap"], figures["conditional_selection_gap"]) == (1.0, 0.0)


def test_a_gain_needs_both_ends():
    """A live client is measured while it is there. Client 1 was away in round 1: after round 2 its accuracy gain is
    unknown; its loss gain is known, since it measured .9 itself of the model that it was sent. Client 2 only came."""
    ledger = started([2.0, 1.0, 3.0], [0.1, 0.2, 0.0])
    away = close(plan(1, [1, 0, 0], [0]), [reply(0)], ledger, loss=[1.5, NAN, NAN], accuracy=[0.3, NAN, NAN])
    ledger = account(ledger, away)
    back = close(
        plan(2, [1, 1, 1], [1]), [reply(1, before=0.9)], ledger, loss=[1.2, 0.7, 2.0], accuracy=[0.4, 0.5, 0.6]
    )
    np.testing.assert_allclose(back.loss_gain, [0.3, 0.2, NAN])
    np.testing.assert_allclose(back.accuracy_gain, [0.1, NAN, NAN])
    np.testing.assert_allclose(back.credit, [0.0, 0.2, 0.0])


def test_what_is_not_finite_was_not_measured():
    ledger = started([2.0, 1.0, 3.0], [0.1, 0.2, 0.0])
    wild = close(plan(1, [1, 1, 1], [0]), [reply(0, before=math.inf)], ledger, loss=[math.inf, 0.5, NAN])
    np.testing.assert_array_equal(wild.eval_loss, [NAN, 0.5, NAN])
    np.testing.assert_array_equal(wild.local_loss_before, [NAN] * 3)
    np.testing.assert_array_equal(wild.credit, [NAN, 0.0, 0.0])
    assert account(ledger, wild).utility.tolist() == pytest.approx([NAN, 0.0, 0.0], nan_ok=True)


def test_the_first_round_takes_a_participants_own_measure_of_the_initial_model():
    """Nobody else has measured it of client 0, which came too late for the first evaluation."""
    ledger = started([NAN, 1.0, NAN], [NAN, 0.2, NAN])
    record = close(plan(1, [1, 1, 1], [0]), [reply(0, before=2.0)], ledger, loss=[1.5, 0.5, NAN])
    np.testing.assert_array_equal(record.loss_gain, [0.5, 0.5, NAN])
    assert record.credit.tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("functional", ["loss_gain", "accuracy_gain", "local_gain"])
def test_a_gain_that_no_float_holds_was_not_measured(functional):
    """1.7e308 less -1.7e308 is more than the largest float, 1.8e308: of every gain, and of the net gain."""
    far = 1.7e308
    ledger = started([far, 1.0, 3.0], [-far, 0.2, 0.0])
    a_plan, results = plan(1, [1, 1, 1], [0, 1]), [reply(0, before=far, after=-far), reply(1, before=1.0, after=0.5)]
    record = close(a_plan, results, ledger, loss=[-far, 0.5, 2.0], accuracy=[far, 0.3, 0.1], functional=functional)
    for gain in (record.loss_gain, record.accuracy_gain, record.local_gain, record.credit):
        assert np.isnan(gain[0])
    assert record.loss_gain.tolist()[1:] == [0.5, 1.0]
    after = account(ledger, record)
    assert np.isnan(after.utility[0])
    figures = fairness_figures(replace(record, eval_accuracy=np.ones(3)), after, world(), functional)
    assert figures["net_gain_cv"] == pytest.approx(1 / 3)


def test_only_who_was_sent_the_global_model_measured_it():
    """Nobody evaluated the model before. Client 0 was sent it; client 1 goes on from an older one of its own, whose
    loss of 9 says nothing of what the round has brought: its gain is unknown."""
    a_plan, results = plan(1, [1, 1, 1], [0, 1]), [reply(0, before=2.0), reply(1, before=9.0, after=8.0)]
    record = close(a_plan, results, started([NAN] * 3), loss=[1.5, 0.5, NAN], sent_global=[True, False, False])
    np.testing.assert_array_equal(record.loss_gain, [0.5, NAN, NAN])
    np.testing.assert_array_equal(record.local_gain, [NAN, 1.0, NAN])
    assert account(started([NAN] * 3), record).utility.tolist() == pytest.approx([0.5, NAN, 0.0], nan_ok=True)


def test_a_utility_is_unknown_until_a_gain_was_measured_and_then_misses_what_was_not():
    """Client 0 takes part in all four rounds, and its gain is known in the second, 0.5, and the last, 0.25."""
    ledger, utilities = started([2.0] * 3), []
    for number, credit in enumerate([NAN, 0.5, NAN, 0.25], 1):
        record = close(plan(number, [1, 1, 1], [0]), [reply(0)], ledger)
        ledger = account(ledger, replace(record, credit=np.array([credit, 0.0, 0.0])))
        utilities.append(ledger.utility.tolist())
    assert [own for own, *_ in utilities] == pytest.approx([NAN, 0.5, 0.5, 0.75], nan_ok=True)
    assert all(others == [0, 0] for _, *others in utilities)


def test_a_utility_that_is_unknown_stays_so_while_its_client_rests():
    ledger = replace(started(), utility=np.array([NAN, 0.0, 0.0]), participated=np.array([1, 0, 0]))
    rested = account(ledger, close(plan(1, [1, 1, 1], []), [], ledger))
    assert rested.utility.tolist() == pytest.approx([NAN, 0.0, 0.0], nan_ok=True)


def test_a_live_world_learns_the_samples_from_the_replies():
    nothing = world(num_samples=np.zeros(3, dtype=np.int64))
    live = close(plan(1, [1, 1, 1], [0, 1]), [reply(0), reply(1, Outcome.FAILED)], started(), nothing)
    np.testing.assert_array_equal(live.num_samples, [10, NAN, NAN])


def test_a_selector_without_probabilities_leaves_the_column_empty():
    empty = close(plan(1, [1, 1, 1], [0]), [reply(0)], started())
    assert np.isnan(empty.inclusion_probability).all()


def test_a_world_without_truth_leaves_it_unknown():
    a_world = world(availability=None)
    record = close(plan(1, [1, 0, 1], [0]), [reply(0)], started(), a_world)
    assert np.isnan(record.availability_true).all()
    np.testing.assert_array_equal(mean_availability(account(Ledger.empty(3), record)), [1.0, 0.0, 1.0])


def test_the_truth_ranks_the_clients_where_there_is_one():
    a_world = world(availability=Known((0.9, 0.1, 0.5)))
    record = close(plan(1, [1, 1, 1], [0]), [reply(0)], started(), a_world, accuracy=[0.1, 0.7, 0.3])
    ledger = account(Ledger.empty(3), record)
    np.testing.assert_allclose(mean_availability(ledger), [0.9, 0.1, 0.5])
    assert fairness_figures(record, ledger, a_world, "loss_gain")["low_availability_accuracy"] == 0.7


def test_where_the_truth_is_unknown_of_one_client_all_are_ranked_by_what_was_seen():
    """Client 1 is always there, by a recording that ended: it is not the rarest because others have a truth."""
    recorded = world(availability=Known((0.9, math.nan, 0.5)))
    first = close(plan(1, [1, 1, 0], [0]), [reply(0)], started(), recorded)
    ledger = account(Ledger.empty(3), first)
    second = close(plan(2, [0, 1, 1], [1]), [reply(1)], ledger, recorded)
    np.testing.assert_allclose(mean_availability(account(ledger, second)), [0.5, 1.0, 0.5])


def test_nobody_there_plans_an_empty_round():
    nobody = np.zeros(3, dtype=bool)
    empty = plan_round(
        Uniform(), {}, Ledger.empty(3), world(), time_s=0.0, registered=~nobody, available=nobody, wanted=2
    )
    assert empty.round == 1
    assert not empty.selected.any()
    assert empty.selection.probability.tolist() == [0.0, 0.0, 0.0]
    record = close(empty, [], started())
    assert not record.participated.any()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (([1], [0, 1, 0]), "not among the available"),
        (([0, 2, 2], None), "not ascending and distinct"),
        (([2, 0], None), "not ascending and distinct"),
        (([7], None), "not among the available"),
        (([-1], None), "not among the available"),
        (([0, 2], [0.9, 0.9, 0.9]), "unavailable clients have a probability"),
        (([0, 2], [0.9, 0, 0.9]), "sum to 1.8, but 2 clients"),
        (([0, 2], [1.0, 1.0]), "probability has shape"),
        (([0, 2], [2.0, 0, 0.0]), "outside"),
        (([0, 2], [NAN, 0, 1.0]), "outside"),
        (([0, 2], [-1.0, 0, 3.0]), "outside"),
        (None, "NoneType is no Selection"),
        (([0], None), "1 clients where 2 were asked for, and `may_idle` is False"),
        (([0, 2], [0.0, 0.0, 2.0]), "outside"),
        (([0, 2], [1.0, 0.0, 0.0]), "a selected client has probability 0"),
    ],
)
def test_a_selector_that_answers_wrongly_ends_the_run(answer, fault):
    """Clients 0 and 2 are there, for two places."""

    class Wrong(Uniform):
        def select(self, state, view, rng):
            if answer is None:
                return None
            clients, probability = answer
            return Selection(np.array(clients), None if probability is None else np.array(probability, dtype=float))

    here = np.array([True, False, True])
    with pytest.raises(PartError, match=f"^selector 'Wrong', round 1: .*{fault}.*check_selector tells more$"):
        plan_round(Wrong(), {}, Ledger.empty(3), world(), time_s=0.0, registered=here, available=here, wanted=2)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (([0, 2], None), "clients is a list, not an array"),
        ((np.array([0.0, 2.0]), None), "clients is float64, not int64"),
        ((np.array([0, 2], dtype=np.int32), None), "clients is int32, not int64"),
        ((np.array(["h0", "h2"]), None), "clients is <U2, not int64"),
        ((np.array([[0, 2]]), None), r"clients has shape \(1, 2\), not \(2,\)"),
        (("h0, h2", None), "clients is a str, not an array"),
        ((np.array([0, 2]), [1.0, 0.0, 1.0]), "probability is a list, not an array"),
        ((np.array([0, 2]), np.array([1, 0, 1])), "probability is int64, not float64"),
    ],
)
def test_a_selection_that_is_no_arrays_of_the_right_kind_is_one_line(answer, fault):
    class Wrong(Uniform):
        def select(self, state, view, rng):
            return Selection(*answer)

    here = np.array([True, False, True])
    with pytest.raises(PartError, match=f"selector 'Wrong', round 1: Selection.{fault}; ") as caught:
        plan_round(Wrong(), {}, Ledger.empty(3), world(), time_s=0.0, registered=here, available=here, wanted=2)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_many_clients_is_one_line_too():
    class Late(Uniform):
        def select(self, state, view, rng):
            return Selection(view.available[::-1].copy(), None)

    here = np.ones(500, dtype=bool)
    with pytest.raises(PartError, match=r"the clients \[499 498 497 \.\.\. +2 +1 +0\] are not ascending") as caught:
        plan_round(Late(), {}, Ledger.empty(500), world(500), time_s=0.0, registered=here, available=here, wanted=500)
    assert "\n" not in str(caught.value)


def test_a_selector_cannot_write_history():
    class Forger(Uniform):
        def select(self, state, view, rng):
            view.ledger.selected[:] = 0
            return super().select(state, view, rng)

    here = np.ones(3, dtype=bool)
    with pytest.raises(
        PartError, match=r"selector 'Forger', round 1: ValueError: .*read-only \(core/test_rounds.py:\d+"
    ):
        plan_round(Forger(), {}, Ledger.empty(3), world(), time_s=0.0, registered=here, available=here, wanted=2)


def test_a_selector_has_no_more_places_than_there_are():
    everybody = np.ones(3, dtype=bool)

    class Greedy(Uniform):
        def select(self, state, view, rng):
            return Selection(view.available, None)

    with pytest.raises(PartError, match="3 clients where 2 were asked for"):
        plan_round(
            Greedy(), {}, Ledger.empty(3), world(), time_s=0.0, registered=everybody, available=everybody, wanted=2
        )


def test_staleness():
    _, _, ledger, _ = two_rounds()
    np.testing.assert_array_equal(staleness(ledger), [0, NAN, 0])
    np.testing.assert_array_equal(staleness(replace(ledger, rounds=5)), [3, NAN, 3])


@given(
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.integers(1, 7),
    st.lists(st.sampled_from(OUTCOMES), min_size=5, max_size=5),
    st.integers(0, 50),
)
def test_any_round_is_consistent(available, wanted, fates, done):
    """Whoever is there and whatever becomes of those selected: counts agree and implications hold."""
    a_world, here = world(5), np.array(available)
    ledger = replace(started([1.0] * 5, [0.5] * 5), rounds=done)
    a_plan = plan_round(
        Uniform(), {}, ledger, a_world, time_s=0.0, registered=here | (np.arange(5) < 2), available=here, wanted=wanted
    )
    assert len(a_plan.selection.clients) == min(wanted, here.sum())
    assert a_plan.round == done + 1
    results = [reply(k, fates[k], before=1.0, after=0.5) for k in a_plan.selection.clients.tolist()]
    record = close(a_plan, results, ledger, a_world, loss=[0.8] * 5, accuracy=[0.6] * 5)
    assert np.all(record.participated <= record.selected)
    assert np.all(record.selected <= record.available)
    assert np.all(record.available <= record.registered)
    assert record.inclusion_probability.sum() == pytest.approx(record.selected.sum())
    figures = fairness_figures(record, account(ledger, record), a_world, "loss_gain")
    assert figures["num_selected"] == len(results)
    assert figures["num_participated"] + figures["num_late"] + figures["num_failed"] == len(results)
    assert [OUTCOME_CODES[code] for code in record.outcome[a_plan.selection.clients]] == [r.outcome for r in results]


def test_the_draw_of_a_round_depends_on_nothing_but_the_round():
    """Two methods of one seed draw with the same numbers in the same round, whatever happened before."""
    everybody = np.ones(3, dtype=bool)
    drawn = [
        plan_round(
            Uniform(), {}, replace(ledger, rounds=4), world(), time_s=0.0, registered=everybody, available=everybody,
            wanted=2,
        ).selection.clients.tolist()
        for ledger in (Ledger.empty(3), two_rounds()[2])
    ]  # fmt: skip
    assert drawn[0] == drawn[1]


def test_credited_to_net_leaves_out_whose_utility_is_unknown():
    """u = (1, ?, 1) against net gains (1, -.1, .8)."""
    _, second, ledger, a_world = two_rounds()
    unknown = replace(ledger, utility=np.array([1.0, NAN, 1.0]))
    assert fairness_figures(second, unknown, a_world, "loss_gain")["credited_to_net"] == pytest.approx(2 / 1.8)


def test_the_aggregators_weights_are_recorded():
    a_plan, measured = plan(1, [1, 1, 1], [0]), {"eval_loss": np.ones(3), "eval_accuracy": np.ones(3)}
    sent, weights = a_plan.selected, np.array([1.0, 0.5, NAN])
    told = close_round(
        a_plan,
        [reply(0)],
        started(),
        world(),
        **measured,
        sent_global=sent,
        surrogate_weight=weights,
        functional="loss_gain",
    )
    np.testing.assert_array_equal(told.surrogate_weight, weights)
    assert np.isnan(close(a_plan, [reply(0)], started()).surrogate_weight).all()
