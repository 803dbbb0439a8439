"""Oort: guided selection by statistical and system utility."""

from dataclasses import dataclass
from math import ceil, inf
from typing import ClassVar

import numpy as np

from parityfl.core.keys import require
from parityfl.core.selection.base import Selector, selector
from parityfl.core.selection.estimates import or_average
from parityfl.core.selection.sampling import select_with_probability, waterfill
from parityfl.core.types import FloatArray, IntArray, Selection, State, View

_CLIP_QUANTILE = 0.95


@selector("oort")
@dataclass(frozen=True)
class Oort(Selector):
    """Spend most slots on clients of high utility and some on clients never tried.

    Algorithm 1 of Lai et al., checked against the authors' code. The utility of a tried client is its statistical
    utility, clipped at the 95th percentile and scaled to [0, 1] by the range before clipping, plus the staleness bonus
    sqrt(0.1 log t / last round), times (T / latency)^penalty where it is slower than the preferred duration T. Clients
    of at least `cutoff` times the utility of the last one that would make it are drawn in proportion to utility;
    untried ones are drawn uniformly for a share `explore` of the slots, which decays after each round. Tried is who was
    selected, also if it did not deliver: as in the code, its statistical utility is then the average of the others'
    until it does, and its last round the one in which it was selected.

    Deviations: statistical utility is examples x last mean training loss, where the paper has the root mean square over
    examples. There is no pacer: T is a fixed quantile of the known latencies. Draws are by water-filled inclusion
    probabilities, so that these are known. Untried clients are not ranked by size and speed, none is dropped after many
    rounds, and no noise is added. The average is over the available who delivered, in the code over the round before.
    Slots for the untried are a number of slots on average, which need not be whole; in the code it is rounded up.

    Attributes:
        explore: share of slots for untried clients in the first round, 0 to 1.
        explore_decay: its factor per round, above 0 and at most 1.
        explore_least: the share that it does not fall below, 0 to `explore`.
        cutoff: 0 to 1.
        penalty: exponent of the slowdown, 0 or more.
        duration_quantile: quantile of the known latencies that is the preferred duration, 0 to 1.
    """

    source: ClassVar[str] = "Lai et al., OSDI 2021"

    explore: float = 0.9
    explore_decay: float = 0.98
    explore_least: float = 0.2
    cutoff: float = 0.95
    penalty: float = 2.0
    duration_quantile: float = 0.8

    def __post_init__(self) -> None:
        for key in ("explore", "cutoff", "duration_quantile"):
            value = getattr(self, key)
            require(0 <= value <= 1, f"selector.{key}", value, "give a number between 0 and 1")
        decay, least = self.explore_decay, self.explore_least
        require(0 < decay <= 1, "selector.explore_decay", decay, "give a number above 0 and at most 1")
        require(0 <= least <= self.explore, "selector.explore_least", least, "give a number between 0 and explore")
        require(0 <= self.penalty < inf, "selector.penalty", self.penalty, "give a number of 0 or more")

    @property
    def positive(self) -> bool:
        """False: who is below the cut-off has no chance."""
        return False

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Draw from the tried and the untried."""
        ledger, here = view.ledger, view.available
        tried = ledger.selected[here] > 0
        explored = self._explored(view, int(np.sum(~tried)), int(np.sum(tried)))
        inclusion = np.zeros(len(tried))
        if explored > 0:
            inclusion[~tried] = explored / np.sum(~tried)
        if explored < view.count:
            inclusion[tried] = self._exploited(self._utility(view, here[tried]), view.count - explored)
        return select_with_probability(view, inclusion, rng)

    def _explored(self, view: View, untried: int, tried: int) -> float:
        """Return how many slots go to untried clients on average."""
        share = max(self.explore * self.explore_decay ** (view.round - 1), self.explore_least)
        return max(min(share * view.count, untried), view.count - tried)

    def _exploited(self, utility: FloatArray, slots: float) -> FloatArray:
        """Return the inclusion probabilities of the tried clients, which sum to `slots`."""
        last = ceil(slots)
        bar = self.cutoff * np.partition(utility, -last)[-last]
        return waterfill(np.where(utility >= bar, utility, 0.0), slots)

    def _utility(self, view: View, clients: IntArray) -> FloatArray:
        asked = view.ledger.last_selected[clients]  # at least 1: they are tried
        bonus = np.sqrt(0.1 * np.log(view.round) / asked)
        utility: FloatArray = (_statistical(view, clients) + bonus) * self._speed(view, clients)
        return utility

    def _speed(self, view: View, clients: IntArray) -> FloatArray:
        """Return (T / latency)^penalty for the slow, 1 for the fast and the unknown."""
        known = view.ledger.latency_s[~np.isnan(view.ledger.latency_s)]
        if len(known) == 0:
            return np.ones(len(clients))
        preferred = max(float(np.quantile(known, self.duration_quantile)), 1e-9)
        latency = np.nan_to_num(view.ledger.latency_s[clients], nan=preferred)
        return (preferred / np.maximum(latency, preferred)) ** self.penalty


def _statistical(view: View, clients: IntArray) -> FloatArray:
    """Return examples x last training loss, scaled; the average for those who did not deliver when last selected."""
    ledger = view.ledger
    delivered = ledger.last_participated[clients] >= ledger.last_selected[clients]
    losses = np.where(delivered, np.maximum(ledger.train_loss[clients], 0.0), np.nan)
    return _scaled(or_average(losses * view.world.num_samples[clients]))


def _scaled(utility: FloatArray) -> FloatArray:
    """Return (min(u, clip) - .999 least) / (largest - .999 least), clip the 95th percentile, in [0, 1]."""
    ascending = np.sort(utility)
    clip = ascending[min(int(_CLIP_QUANTILE * len(ascending)), len(ascending) - 1)]
    least = 0.999 * ascending[0]
    scaled: FloatArray = (np.minimum(utility, clip) - least) / max(ascending[-1] - least, 1e-4)
    return scaled
