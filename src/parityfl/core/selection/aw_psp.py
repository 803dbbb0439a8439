"""Availability-weighted probabilistic synchronous parallel."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.selection.base import Selector, selector
from parityfl.core.selection.estimates import estimated_availability, rounds_registered
from parityfl.core.selection.sampling import select_certainly, smallest
from parityfl.core.types import BoolArray, FloatArray, IntArray, Selection, State, View


@selector("aw-psp")
@dataclass(frozen=True)
class AvailabilityWeightedPsp(Selector):
    """Cover the labels with clients of high availability times freshness, then fill up by the same score.

    Our reading of AW-PSP (arXiv 2604.16090, of which we saw the abstract) through the code of the original system,
    which ranks by availability times freshness: the score is n_k / t times the rounds since the client was last
    selected (t where it never was), t those since it registered. As long as some label is not covered, the next client
    is the best one that adds a label; the other slots go to the highest scores. Ties are broken at random.

    Deviations: the paper adjusts sampling probabilities, here and in the original the highest scores are certain.
    Availability in the original is what the device reports of itself, here the share of rounds. Left out: forecasts,
    correlated failures, the distributed hash table, and the original's quarantine of nodes by latency and packet loss;
    coverage is by label sets, which the original computes and does not use.
    """

    source: ClassVar[str] = "Behfar and Mortier, arXiv 2604.16090"

    @property
    def deterministic(self) -> bool:
        """True: who is selected follows from scores and labels, ties aside."""
        return True

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Cover, then fill."""
        last = view.ledger.last_selected[view.available]
        freshness = np.where(last > 0, view.round - last, rounds_registered(view))
        score = estimated_availability(view) * freshness
        covering = _cover(score, view.world.label_counts[view.available] > 0, view.count, rng)
        others = np.setdiff1d(np.arange(len(score)), covering)
        filling = others[smallest(-score[others], view.count - len(covering), rng)]
        return select_certainly(view, np.sort(np.concatenate([covering, filling])))


def _cover(score: FloatArray, labels: BoolArray, count: int, rng: np.random.Generator) -> IntArray:
    """Return positions that greedily cover the labels, best score first, at most `count`; at most one per label."""
    order = rng.permutation(len(score))
    chosen: list[int] = []
    missing = labels.any(axis=0)
    while missing.any() and len(chosen) < count:
        adds = (labels[order] & missing).any(axis=1)
        best = int(order[np.argmax(np.where(adds, score[order], -np.inf))])
        chosen.append(best)
        missing &= ~labels[best]
    return np.asarray(chosen, dtype=np.int64)
