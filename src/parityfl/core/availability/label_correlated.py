"""Availability that depends on the labels a client holds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import CoinProcess, fresh_coins, kept_coins, renewal_of
from parityfl.core.availability.coupling import handed_out
from parityfl.core.availability.cycle import check_cycle, swing, wave
from parityfl.core.distributions import PerClient, probabilities
from parityfl.core.errors import ConfigError
from parityfl.core.types import FloatArray, World


@availability("label-correlated")
@dataclass(frozen=True)
class LabelCorrelated(AvailabilityModel):
    """Each label has its hour, and a client is most available in the hours of its labels: temporal skew.

    P_k(t) = pi_k + amplitude min(pi_k, 1 - pi_k) sum_l share_kl cos(2 pi (h(t) - h_l) / period_h), where share_kl is
    the share of label l in client k's training examples, h_l = period_h l / (number of labels) and
    h(t) = start_h + t / 3600. It stays in [0, 1], its mean over a period is exactly pi_k, and a client that holds
    all labels alike does not swing. With `rare_labels` the pi_k themselves go to the clients in the order of their
    mean label, so that some labels are rarely there at all.

    Attributes:
        pi: mean P(available) over a period, per client.
        amplitude: how much of the room around pi_k the swing takes, per client, in [0, 1].
        rare_labels: hand the values of pi out in ascending order of the clients' mean label.
        start_h: the hour of the first round.
        period_h: hours of a cycle.
        stability: probability that a client keeps its coin from one slot to the next, in [0, 1); more makes bursts.
    """

    source: ClassVar[str] = "this project"

    pi: PerClient = "beta(1,2)"
    amplitude: PerClient = 0.8
    rare_labels: bool = False
    start_h: float = 0.0
    period_h: float = 24.0
    stability: float = 0.0

    def __post_init__(self) -> None:
        check_cycle(self.start_h, self.period_h)
        renewal_of(self.stability)

    def bind(self, world: World) -> CoinProcess:
        """Return the process; `world.label_counts` must be known.

        Raises:
            ConfigError: it is not.
        """
        share = _label_shares(world)
        labels = np.arange(share.shape[1], dtype=np.float64)
        pi = stationary(self.pi, world.num_clients, world.seed)
        if self.rare_labels:
            pi = handed_out(pi, share @ labels, world.seed)
        amplitude = probabilities("availability.amplitude", self.amplitude, world.num_clients, world.seed)
        swings, peak_h = swing(pi, amplitude), self.period_h * labels / len(labels)

        def chance(time_s: float) -> FloatArray:
            return np.clip(pi + swings * (share @ wave(time_s, self.start_h, peak_h, self.period_h)), 0.0, 1.0)

        coins = kept_coins(fresh_coins(world), self.stability, world.num_clients)
        return CoinProcess(coins, chance, world.interval_s)


def _label_shares(world: World) -> FloatArray:
    """Return each label's share of each client's examples, 0 throughout where there are none, shape (N, labels)."""
    counts = world.label_counts.astype(np.float64)
    if counts.shape[1] == 0:
        raise ConfigError(
            "availability 'label-correlated' needs the clients' labels, which are not known here: use it in a run on "
            "labelled data, or choose another model"
        )
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(counts / totals, dtype=np.float64)
