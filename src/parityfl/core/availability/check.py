"""The check at the start of a run: does availability come out as it was asked for?"""

import math
from dataclasses import dataclass

import numpy as np

from parityfl.core.fairness import effective_rounds, mean, ratio
from parityfl.core.types import AvailabilityProcess, FloatArray, IntArray

FALSE_ALARM = 0.01
"""How likely, at most, it is that any client of a run is called unexplained though its model does what it says.

It holds where rounds are independent and is approximate in bursts: 1 of 100 runs of the default model, with 100 clients
and 300 rounds."""

CONTESTED = 0.5
"""In what share of the rounds, at least, selectors should have a choice."""

CAUTIOUS_POOLED_TRIALS = 20.0
"""Larger than in `fairness`, so that one short visit raises no alarm."""


@dataclass(frozen=True)
class SelfCheck:
    """Requested and realised availability per client, over the rounds in which the truth is known.

    Attributes:
        requested: mean true P(available), nan where it is known in no round, shape (N,).
        realised: share of rounds in which the client is available, shape (N,).
        effective: how many independent rounds its rounds are worth, bursts respected, shape (N,).
        crowd: how many clients are available, by round, shape (T,).
    """

    requested: FloatArray
    realised: FloatArray
    effective: FloatArray
    crowd: IntArray

    @property
    def gap(self) -> FloatArray:
        """|realised - requested| of each client, nan where nothing was requested."""
        return np.abs(self.realised - self.requested)

    @property
    def largest_gap(self) -> float:
        """The largest gap of a client, nan where nothing was requested."""
        return float(np.nanmax(self.gap)) if np.isfinite(self.gap).any() else math.nan

    @property
    def unexplained(self) -> IntArray:
        """The clients whose gap chance and bursts do not explain, in index order.

        n independent rounds of mean probability p come out at q or beyond with probability at most exp(-n KL(q || p))
        (Hoeffding, JASA 1963, theorem 1). A client is unexplained where that, for its effective rounds, is below
        `FALSE_ALARM` / 2N.
        """
        bound = math.log(2 * len(self.requested) / FALSE_ALARM)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = self.effective * _divergence(self.realised, self.requested)
        return np.flatnonzero(surprise > bound)


def self_check(process: AvailabilityProcess, num_rounds: int, interval_s: float) -> SelfCheck:
    """Walk through the times of rounds 1 to `num_rounds`, at least 1, and compare what was requested with what happens.

    A client whose truth is known in some rounds only (a recording that does not loop) is judged in these; one whose
    truth is never known, in all.
    """
    before = process.available(0.0)
    total, here, known, known_here, on, off = (np.zeros(len(before), dtype=np.int64) for _ in range(6))
    requested, crowd = np.zeros(len(before)), np.zeros(num_rounds, dtype=np.int64)
    for number in range(num_rounds):
        available, truth = process.available(number * interval_s), process.probability(number * interval_s)
        told = np.zeros(len(before), dtype=bool) if truth is None else np.isfinite(truth)
        requested += 0.0 if truth is None else np.where(told, truth, 0.0)
        total, here = total + 1, here + available
        crowd[number] = np.sum(available)
        known, known_here = known + told, known_here + (told & available)
        on, off = on + (available & ~before), off + (before & ~available)
        before = available
    judged, judged_here = np.where(known > 0, known, total), np.where(known > 0, known_here, here)
    share = effective_rounds(here, total, on, off, CAUTIOUS_POOLED_TRIALS) / total
    return SelfCheck(ratio(requested, known), ratio(judged_here, judged), judged * share, crowd)


def describe_check(check: SelfCheck, name: str, wanted: int, device_ids: list[str]) -> list[str]:
    """Return the check in words: a line, and warnings.

    One where a client's gap is more than chance and bursts explain, one where selectors have little to choose from.

    Args:
        check: the result of `self_check`.
        name: the availability model's name.
        wanted: how many clients a round asks.
        device_ids: the clients' names.
    """
    return [*_describe_gap(check, name, device_ids), *_describe_choice(check, wanted)]


def _describe_choice(check: SelfCheck, wanted: int) -> list[str]:
    contested = float(np.mean(check.crowd > wanted))
    if wanted == len(check.requested) or contested >= CONTESTED:
        return []
    return [
        f"warning: only {contested:.0%} of the rounds have more clients available than the {wanted} that a round "
        f"selects ({np.mean(check.crowd):.1f} on average); in the others all available clients are selected, so "
        "selectors differ little: lower population.per_round to compare them"
    ]


def _describe_gap(check: SelfCheck, name: str, device_ids: list[str]) -> list[str]:

    def client(index: int) -> str:
        return f"{device_ids[index]} ({check.requested[index]:.3f} requested, {check.realised[index]:.3f} realised)"

    begin = f"availability {name}, {len(check.crowd)} rounds: realised {mean(check.realised):.3f} on average"
    if math.isnan(check.largest_gap):
        return [f"{begin}; nothing was requested, for the truth is not known"]
    widest = f"largest gap {check.largest_gap:.3f}, {client(int(np.nanargmax(check.gap)))}"
    lines = [f"{begin}, requested {mean(check.requested):.3f}; {widest}"]
    if len(check.unexplained):
        first, more = client(int(check.unexplained[0])), len(check.unexplained) - 1
        lines.append(
            f"warning: availability is not what was requested of {first}{f' and {more} more' if more else ''}, beyond "
            "what chance and bursts explain in so many rounds: check the keys of [availability], and rounds.interval_s "
            "where a trace is sampled"
        )
    return lines


def _divergence(q: FloatArray, p: FloatArray) -> FloatArray:
    """Return the KL divergence in nats of coins of probability q from coins of probability p."""
    return np.asarray(_part(q, p) + _part(1 - q, 1 - p), dtype=np.float64)


def _part(q: FloatArray, p: FloatArray) -> FloatArray:
    return np.asarray(np.where(q > 0, q * np.log(q / p), np.where(np.isnan(p), np.nan, 0.0)), dtype=np.float64)
