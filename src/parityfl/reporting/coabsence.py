"""Correlated failures: pairs of clients that are absent together more often than two independent clients would be.

Absence is looked at on the wall clock, on a grid of the rounds' median distance: a grid instant has the state of the
last round at or before it, and instants further than `REACH` steps from that round are left out.

**The test of a pair.** Let a and b be the shares of n instants in which either is absent, and j the share in which both
are. If the two are independent and the instants are, the number of joint absences is hypergeometric, and its
probability of being as large is at most exp(-n a KL(j/a || b)) (Hoeffding, JASA 58, 1963, section 6); the same holds
with a and b exchanged, and for their presences, and the smallest of the four bounds is the pair's p. So p is never too
small, also for clients that are hardly ever there.

**Bursts.** Two independent clients that come and go slowly overlap by chance for long. n is therefore the effective
number of independent instants, n / (1 + 2 sum_k (1 - k/n) r_a(k) r_b(k)), at most n, with r the sample
autocorrelations of the two at lags up to n/5 (Bartlett, JRSS 98, 1935; Pyper and Peterman, Can. J. Fish. Aquat.
Sci. 55, 1998).

**Many pairs.** Pairs are reported so that at most `RATE` of those reported are expected to be chance (Benjamini and
Hochberg, JRSS B 57, 1995). Simulated with 20 and 60 clients, 30 to 1000 rounds, pi from beta(1,2): of 1,290 runs with
independent clients, in bursts of 1, 12 or 40 rounds, none reported a pair; of the 4 pairs of the groups [0,1,2] and
[3,4] of 20 clients it reports 2.0 after 30 rounds, 3.9 after 100 and 4.0 after 400, and 1.3 and 3.8 after 100 and 400
where their correlation is .5.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from parityfl.core.types import BoolArray, FloatArray, IntArray

RATE = 0.05
"""False-discovery rate: the expected share of chance among the pairs that are reported."""

REACH = 2.0
"""How many steps a round's observation is good for: in a long one nobody looks who comes and goes."""

FEWEST_INSTANTS = 10
MOST_CLIENTS = 2000
"""Beyond these a pairwise test is not made: too little to see, too many pairs."""

CELLS = 1 << 20
"""About how many numbers an array holds that is made on the way: clients and rounds are taken in blocks of so many."""


@dataclass(frozen=True)
class CoAbsence:
    """Pairs of clients that are absent together more often than chance explains.

    Attributes:
        pairs: client_a, client_b, together (share of the time in which both were absent), expected (that of independent
            clients with the same absences), effective (independent instants that the pair's are worth), q (the
            smallest false-discovery rate at which the pair is reported); the strongest first.
        tested: how many pairs were tested.
        skipped: why none was, or ''.
    """

    pairs: pl.DataFrame
    tested: int
    skipped: str = ""


def co_absence(rounds: pl.DataFrame, clients: pl.DataFrame) -> CoAbsence:
    """Look for correlated failures.

    Devices that registered after nine tenths of the others are left out, and the rounds before these had registered.

    Args:
        rounds: round and time_s, a row per round; time_s ascends.
        clients: round, client_id and available, a row per round and client; a client without one was absent.
    """
    if rounds.is_empty() or clients.is_empty():
        return _none("there are no rounds" if rounds.is_empty() else "no client has registered")
    first = clients.group_by("client_id", maintain_order=True).agg(pl.col("round").min())
    start = first["round"].quantile(0.9, "lower")
    names = first.filter(pl.col("round") <= start)["client_id"].to_list()
    if len(names) > MOST_CLIENTS:
        return _none(f"{len(names)} clients, more than the {MOST_CLIENTS} whose pairs are tested")
    seen = clients.filter((pl.col("round") >= start) & pl.col("client_id").is_in(names))
    times = rounds.filter(pl.col("round").is_in(seen["round"].unique().implode())).sort("round")
    absent = np.ones((times.height, len(names)), dtype=bool)
    there = seen.filter(pl.col("available") == 1)
    column = {name: index for index, name in enumerate(names)}
    which = there["client_id"].replace_strict(column, return_dtype=pl.Int64).to_numpy()
    absent[np.searchsorted(times["round"].to_numpy(), there["round"].to_numpy()), which] = False
    rows = _grid(times["time_s"].to_numpy())
    if len(rows) < FEWEST_INSTANTS:
        return _none(f"fewer than {FEWEST_INSTANTS} rounds")
    return _found(names, *_tests(absent[rows]))


def benjamini_hochberg(p: FloatArray) -> FloatArray:
    """Return each test's q: the smallest false-discovery rate at which it is rejected, shape of `p`, at most 1."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(q, 1.0)


def _grid(times: FloatArray) -> np.ndarray:
    """Return which round each instant of the grid sees; `times` ascend strictly."""
    if len(times) < 2:
        return np.arange(len(times))
    position = (times - times[0]) / np.median(np.diff(times))
    first = np.ceil(position - 1e-6)
    next_round = np.append(first[1:], np.ceil(position[-1] + 0.5))
    after = np.minimum(next_round, np.ceil(position + REACH))
    return np.repeat(np.arange(len(times)), np.maximum(after - first, 0).astype(np.int64))


def _tests(absent: BoolArray) -> tuple[FloatArray, ...]:
    """Return joint share, its expectation, effective instants and p of every pair, each of shape (N, N)."""
    count = len(absent)
    share = absent.mean(axis=0)
    together = _joint(absent) / count
    one, other = np.broadcast_arrays(share[:, None], share[None, :])
    expected = one * other
    effective = count / np.maximum(_inflation(absent), 1.0)
    exponent = np.maximum.reduce(
        [
            _rate(together, one, other),
            _rate(together, other, one),
            _rate(1 - one - other + together, 1 - one, 1 - other),
            _rate(1 - one - other + together, 1 - other, 1 - one),
        ]
    )
    return together, expected, effective, np.where(together > expected, np.exp(-effective * exponent), 1.0)


def _joint(absent: BoolArray) -> FloatArray:
    """Return in how many instants each pair is absent, shape (N, N)."""
    count, clients = absent.shape
    joint = np.zeros((clients, clients))
    at_once = max(1, CELLS // clients)
    for start in range(0, count, at_once):
        block = absent[start : start + at_once].astype(np.float64)
        joint += block.T @ block
    return joint


def _inflation(absent: BoolArray) -> FloatArray:
    """Return by how much bursts inflate the variance of each pair's joint absences, shape (N, N)."""
    count = len(absent)
    lags = np.arange(1, max(1, count // 5) + 1)
    correlation = _autocorrelation(absent, lags)
    correlation *= np.sqrt(1 - lags / count)[:, None]
    return np.asarray(1 + 2 * correlation.T @ correlation)


def _autocorrelation(absent: BoolArray, lags: IntArray) -> FloatArray:
    """Return each client's sample autocorrelation at each lag, 0 where it never changes, shape (lags, N).

    The sums of products at all lags are the inverse Fourier transform of the power, over a length at which the end does
    not meet the beginning: n log n operations a client, where lag by lag they are n^2 / 5.
    """
    count, clients = absent.shape
    length = 1 << (count + len(lags)).bit_length()
    found = np.zeros((len(lags), clients))
    at_once = max(1, CELLS // length)
    for start in range(0, clients, at_once):
        block = absent[:, start : start + at_once]
        centred = block - block.mean(axis=0)
        variance = (centred**2).mean(axis=0)
        power = np.abs(np.fft.rfft(centred, length, axis=0)) ** 2
        products = np.fft.irfft(power, length, axis=0)[lags] / (count - lags)[:, None]
        np.divide(products, variance, out=found[:, start : start + at_once], where=variance > 0)
    return found


def _rate(joint: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """Return one KL(joint / one || other), 0 where `one` or `other` is 0 or 1: there is nothing to test."""
    certain = (one <= 0) | (one >= 1) | (other <= 0) | (other >= 1)
    p = np.where(certain, 0.5, other)
    q = np.where(certain, 0.5, np.clip(joint / np.where(certain, 1.0, one), 0.0, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(q > 0, q * np.log(q / p), 0.0) + np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0.0)
    return np.asarray(one * divergence)


def _found(
    names: list[str], together: FloatArray, expected: FloatArray, effective: FloatArray, p: FloatArray
) -> CoAbsence:
    one, other = np.triu_indices(len(names), 1)
    q = benjamini_hochberg(p[one, other])
    kept = np.flatnonzero(q <= RATE)
    kept = kept[np.lexsort((kept, q[kept]))]
    pairs = one[kept], other[kept]
    frame = pl.DataFrame(
        {
            "client_a": [names[index] for index in pairs[0]],
            "client_b": [names[index] for index in pairs[1]],
            "together": together[pairs],
            "expected": expected[pairs],
            "effective": effective[pairs],
            "q": q[kept],
        }
    )
    return CoAbsence(frame, math.comb(len(names), 2))


def _none(why: str) -> CoAbsence:
    return CoAbsence(pl.DataFrame(), 0, why)
