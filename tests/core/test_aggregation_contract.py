"""Every registered aggregator keeps the contract, and the check notices rules that do not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pytest

from parityfl.core.aggregation import Aggregator, aggregator
from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.errors import ConfigError
from parityfl.core.types import Step
from parityfl.testing.aggregation import check_aggregator, example_round, example_world, play

VARIANTS = {
    "afl": [{"gamma": 0.0}],
    "fedau": [{"cutoff": 1}],
    "fedavg": [{"weighted": False}],
    "fedfv": [{"tau": 3}, {"tau": 0}, {"alpha": 1.0}],
    "hajek": [{"population": "available"}, {"rate": "empirical"}],
    "horvitz-thompson": [{"population": "available"}, {"clip": 0.5}],
    "krum": [{"keep": 2}, {"hostile": 10}],
    "mifa": [{"need": 1.0}, {"memory_dtype": "float16"}],
    "q-fedavg": [{"q": 0.0}, {"q": 5.0, "lipschitz": 2.0}],
    "surrogate": [{"decay": 0.0}, {"eta0": 0.5}, {"mode": "accounting"}],
    "trimmed-mean": [{"trim": 0.4}],
}

MEANS = {"q-fedavg": {"q": 0.0}}
"""The keys with which a rule gives back the update that all clients agree on; the default ones for the others."""

RULES = [(name, keys) for name in aggregator.names() for keys in [{}, *VARIANTS.get(name, [])]]


@pytest.mark.parametrize(("name", "keys"), RULES)
def test_registered_aggregator_keeps_the_contract(name, keys):
    check_aggregator(aggregator.get(name)(**keys))


@pytest.mark.parametrize("name", aggregator.names())
def test_registered_aggregator_says_what_its_keys_are(name):
    assert "Attributes:" in aggregator.get(name).__doc__


@pytest.mark.parametrize("name", aggregator.names())
def test_equal_updates_of_everybody_are_the_direction(name):
    rule, world = aggregator.get(name)(**MEANS.get(name, {})), example_world()
    example = example_round(world, 1, range(world.num_clients))
    common = example.updates[0].delta
    updates = [replace(update, delta=common) for update in example.updates]
    step = rule.aggregate(rule.init(world, len(common)), example.context, updates)
    np.testing.assert_allclose(step.direction, common, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "keys"), RULES)
def test_rounds_before_a_client_registers_do_not_count(name, keys):
    """The last client takes part in its first two rounds, alone: what the model learns is the same in whichever
    rounds these are."""
    rule, world = aggregator.get(name)(**keys), example_world()
    newcomer, first = (
        world.num_clients - 1,
        [example_round(world, number, [world.num_clients - 1]) for number in (1, 2)],
    )

    def joining(wait):
        first_round = np.where(np.arange(world.num_clients) == newcomer, wait + 1, 1)
        rounds = [example_round(world, number, [], first_round) for number in range(1, wait + 1)]
        for number, example in enumerate(first, start=wait + 1):
            context = example_round(world, number, [newcomer], first_round).context
            rounds.append(replace(example, context=replace(context, weights=example.context.weights)))
        return [played.step.direction for played in play(rule, world, rounds)[wait:]]

    np.testing.assert_allclose(joining(5), joining(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", aggregator.names())
def test_works_for_a_single_client(name):
    check_aggregator(aggregator.get(name)(), replace(example_world(1), per_round=1))


@pytest.mark.parametrize("name", aggregator.names())
def test_needs_a_positive_step(name):
    with pytest.raises(ConfigError, match=r"aggregator\.server_lr = 0 must be from 1e-30 to 1e\+30"):
        aggregator.get(name)(server_lr=0.0)


@dataclass(frozen=True)
class Broken(Aggregator):
    """The uniform mean, spoilt."""

    spoil: Callable[..., Step]
    first: Mapping[str, object] = field(default_factory=dict)
    server_lr: float = 1.0

    def init(self, world, size):
        return self.first or {"row_memory": np.zeros((world.num_clients, size)), "counter": np.zeros(1)}

    def aggregate(self, state, context, updates):
        updates = list(updates)
        step = FedAvg(weighted=False).aggregate(state, context, iter(updates))
        return self.spoil(step, context, updates)


def honest(step, context, updates):
    return step


def moves_without_updates(step, context, updates):
    return step if updates else replace(step, direction=np.zeros_like(context.weights))


def in_float64(step, context, updates):
    return replace(step, direction=step.direction.astype(np.float64)) if updates else step


def not_finite(step, context, updates):
    return replace(step, direction=step.direction * np.float32(np.nan)) if updates else step


def changes_the_weights(step, context, updates):
    context.weights[0] += 1
    return step


def changes_an_update(step, context, updates):
    for update in updates:
        update.delta[0] += 1
    return step


def changes_foreign_rows(step, context, updates):
    step.state["row_memory"][0] += 1
    return step


def grows_its_state(step, context, updates):
    return replace(step, state={**step.state, "late": np.zeros(1)})


def draws_at_random(step, context, updates):
    step.state["counter"][0] = np.random.default_rng().random()
    return step


def looks_at_indices(step, context, updates):
    return replace(step, direction=step.direction * np.float32(1 + updates[0].client)) if updates else step


def reports_too_few_weights(step, context, updates):
    return replace(step, client_weight=np.zeros(1))


def answers_nothing(step, context, updates):
    return None


def answers_the_direction(step, context, updates):
    return step.direction


def lists_its_weights(step, context, updates):
    return replace(step, client_weight=[1.0] * context.world.num_clients)


def forgets_its_state(step, context, updates):
    return replace(step, state=None)


def reports_text(step, context, updates):
    return replace(step, notes={"rate": "high"})


def reports_nan(step, context, updates):
    return replace(step, notes={"rate": float("nan")})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (moves_without_updates, "must be None"),
        (in_float64, "is float64, not float32"),
        (not_finite, "not finite"),
        (changes_the_weights, "weights was changed"),
        (changes_an_update, "delta of"),
        (changes_foreign_rows, "changed in rows"),
        (grows_its_state, "the state was"),
        (draws_at_random, "different bytes"),
        (looks_at_indices, "numbered"),
        (reports_too_few_weights, r"shape \(1,\)"),
        (reports_nan, "note rate is nan"),
        (reports_text, "round 1 with 0 updates: note 'rate' is 'high', not a number"),
        (answers_nothing, "round 1 with 0 updates: NoneType is no Step"),
        (answers_the_direction, "is no Step"),
        (lists_its_weights, "client_weight is a list, not an array"),
        (forgets_its_state, "the state is a NoneType, not named arrays"),
    ],
)
def test_the_check_notices(spoil, message):
    with pytest.raises(AssertionError, match=message):
        check_aggregator(Broken(spoil))


def test_the_check_notices_a_state_that_no_journal_stores():
    with pytest.raises(AssertionError, match="is a list, not an array"):
        check_aggregator(Broken(honest, {"memory": [0.0]}))
    with pytest.raises(AssertionError, match="holds object, not numbers"):
        check_aggregator(Broken(honest, {"memory": np.array([{}])}))


def test_the_check_notices_a_memory_outside_the_state():
    calls = count()

    def counts_its_calls(step, context, updates):
        step.state["counter"][0] = next(calls)
        return step

    with pytest.raises(AssertionError, match="different bytes"):
        check_aggregator(Broken(counts_its_calls))


def test_the_check_notices_a_weight_that_the_rule_does_not_use():
    class Unweighted(FedAvg):
        @property
        def weight(self):
            return lambda update: 1.0 + update.client

        def aggregate(self, state, context, updates):
            return FedAvg(weighted=False).aggregate(state, context, updates)

    with pytest.raises(AssertionError, match="not a sum of the updates"):
        check_aggregator(Unweighted())


def test_the_check_passes_what_is_not_broken():
    check_aggregator(Broken(honest))
