"""Federated learning on a line: a problem whose answers are known in closed form.

Client k's loss is (w - theta_k)² / 2, and the mean of all theta minimises the mean loss. Availability may go with
theta, so where an aggregation rule comes to rest shows its bias. N is the number of clients, d is 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product

import numpy as np

from parityfl.core.aggregation import Aggregator
from parityfl.core.ledger import Ledger
from parityfl.core.optimizers import PlainStep, ServerOptimizer
from parityfl.core.seeding import generator
from parityfl.core.types import BoolArray, FloatArray, RoundContext, Update, Vector, World

Group = tuple[int, ...]
"""Indices of clients, ascending."""


@dataclass(frozen=True)
class Quadratic:
    """Clients with quadratic losses on a line.

    Attributes:
        optima: theta_k, shape (N,).
        rates: P(available), shape (N,), independent between clients.
        per_round: m.
        preference: how likely each is to be drawn, relative to the others, shape (N,); for m = 1 only. None draws m of
            the available, all alike.
        persistence: in [0, 1): with this probability a client stays as it was in the round before, so that presence
            comes in bursts, at the same rate overall.
        local_lr: step of local gradient descent.
        local_epochs: its number of steps.
        hostile: clients that send +1000 whatever they are asked.
    """

    optima: FloatArray
    rates: FloatArray
    per_round: int
    preference: FloatArray | None = None
    persistence: float = 0.0
    local_lr: float = 0.1
    local_epochs: int = 5
    hostile: Group = ()

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.optima)

    @property
    def world(self) -> World:
        """What a rule is told: N, m, and one example per client."""
        ones, labels = np.ones(self.num_clients, dtype=np.int64), np.zeros((self.num_clients, 0), dtype=np.int64)
        return World(0, self.num_clients, self.per_round, 1.0, ones, labels)

    def update(self, client: int, start: Vector) -> Update:
        """Return what local training makes of a model: it goes 1 - (1 - lr)^epochs of the way to theta_k."""
        way = np.float32(self.optima[client]) - start
        share = 1000.0 if client in self.hostile else (1 - (1 - self.local_lr) ** self.local_epochs) * way
        loss = float(way @ way) / 2
        return Update(client, np.full_like(start, share), num_samples=1, train_loss=loss, loss_before=loss)

    def draws(self, available: Group) -> list[tuple[float, Group]]:
        """Return every possible set of participants with its probability."""
        if self.preference is None or not available:
            groups = list(combinations(available, min(self.per_round, len(available))))
            return [(1 / len(groups), group) for group in groups]
        total = float(self.preference[list(available)].sum())
        return [(float(self.preference[k]) / total, (k,)) for k in available]

    def probability(self, available: Group) -> FloatArray:
        """Return P(participates | available), shape (N,)."""
        probability = np.zeros(self.num_clients)
        for chance, group in self.draws(available):
            probability[list(group)] += chance
        return probability

    def expectation(self, value: Callable[[Group, Group], float]) -> float:
        """Return E[value(available, participants)], rounds with nobody there left out, by enumeration."""
        total, mass = 0.0, 0.0
        for present in product((False, True), repeat=self.num_clients):
            available = _indices(present)
            if available:
                chance = float(np.prod(np.where(present, self.rates, 1 - self.rates)))
                total += chance * sum(p * value(available, group) for p, group in self.draws(available))
                mass += chance
        return total / mass

    def presence(self, rounds: int, seed: int) -> BoolArray:
        """Return who is there when, shape (rounds, N)."""
        rng = generator(seed, "quadratic-presence")
        present = rng.random((rounds, self.num_clients)) < self.rates
        stays = rng.random((rounds, self.num_clients)) < self.persistence
        for t in range(1, rounds):
            present[t] = np.where(stays[t], present[t - 1], present[t])
        return present


@dataclass(frozen=True)
class Trial:
    """A rule at work on a problem, seeded.

    Attributes:
        problem: the clients.
        rule: what makes a direction of their updates.
        optimizer: what makes a step of it.
        start: the initial model.
        seed: of presence and selection; rules that are tried with one seed meet the same clients.
    """

    problem: Quadratic
    rule: Aggregator
    optimizer: ServerOptimizer = field(default_factory=PlainStep)
    start: float = 0.0
    seed: int = 0

    def models(self, rounds: int) -> FloatArray:
        """Return the model after each round, shape (rounds,)."""
        presence = self.problem.presence(rounds, self.seed)
        coins = generator(self.seed, "quadratic-selection").random(rounds)
        weights, ledger = np.full(1, self.start, dtype=np.float32), Ledger.empty(self.problem.num_clients)
        state, moments = self.rule.init(self.problem.world, 1), self.optimizer.init(1)
        models = np.empty(rounds)
        for t in range(rounds):
            group, context = self._begin(ledger, weights, presence[t], float(coins[t]))
            updates = [self.problem.update(k, self.rule.start(state, k, weights)) for k in group]
            step = self.rule.aggregate(state, context, updates)
            state = step.state
            if step.direction is not None:
                weights, moments = self.optimizer.step(moments, weights, step.direction, self.rule.server_lr)
            models[t] = weights[0]
            ledger = _account(ledger, context)
        return models

    def resting_point(self, rounds: int) -> float:
        """Return the mean model over the second half of the rounds."""
        return float(self.models(rounds)[rounds // 2 :].mean())

    def _begin(self, ledger: Ledger, weights: Vector, available: BoolArray, coin: float) -> tuple[Group, RoundContext]:
        """Draw the participants of the round after the ledger's last."""
        problem, there = self.problem, _indices(available)
        group = _drawn(problem.draws(there), coin)
        context = RoundContext(
            round=ledger.rounds + 1,
            weights=weights,
            registered=np.ones(problem.num_clients, dtype=np.bool_),
            available=available,
            selected=np.isin(np.arange(problem.num_clients), group),
            probability=problem.probability(there),
            ledger=ledger,
            world=problem.world,
            local_lr=problem.local_lr,
            local_epochs=problem.local_epochs,
        )
        return group, context


def _account(ledger: Ledger, context: RoundContext) -> Ledger:
    """Count one more round: who was there and who took part; the problem's rules read no more than that."""
    return replace(
        ledger,
        rounds=ledger.rounds + 1,
        first_round=np.ones(len(context.available), dtype=np.int64),
        available=ledger.available + context.available,
        participated=ledger.participated + context.selected,
    )


def _drawn(draws: Sequence[tuple[float, Group]], coin: float) -> Group:
    ends = np.cumsum([chance for chance, _ in draws])
    return draws[min(int(np.searchsorted(ends, coin, side="right")), len(draws) - 1)][1]


def _indices(present: BoolArray | tuple[bool, ...]) -> Group:
    return tuple(np.flatnonzero(present).tolist())
