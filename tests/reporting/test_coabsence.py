"""Pairs of clients that are absent together: exact cases, what is found, and what is not."""

import math
from time import process_time

import numpy as np
import polars as pl
import pytest
from folders import write_run
from scipy.stats import false_discovery_control

from parityfl.core.availability import Bernoulli, GilbertElliott, Groups
from parityfl.core.types import World
from parityfl.reporting import coabsence
from parityfl.reporting.audit import read_log, reading
from parityfl.reporting.coabsence import CoAbsence, _grid, benjamini_hochberg, co_absence
from parityfl.reporting.load import load_run
from parityfl.reporting.report import run_page

INTERVAL = 600.0


def frames(available: np.ndarray, times: np.ndarray | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the two tables of a run in which `available`, of shape (rounds, clients), was seen."""
    count, clients = available.shape
    rounds = np.arange(1, count + 1)
    table = pl.DataFrame({"round": rounds, "time_s": INTERVAL * (rounds - 1.0) if times is None else times})
    names = [f"h{k}" for k in range(clients)] * count
    rows = pl.DataFrame({"round": rounds.repeat(clients), "client_id": names})
    return table, rows.with_columns(pl.Series("available", available.ravel().astype(np.int64)))


def found(available: np.ndarray, times: np.ndarray | None = None) -> CoAbsence:
    return co_absence(*frames(available, times))


def pairs(result: CoAbsence) -> set[tuple[str, str]]:
    return {(row["client_a"], row["client_b"]) for row in result.pairs.to_dicts()}


def walk(model, seed: int, clients: int, rounds: int) -> np.ndarray:
    samples, labels = np.full(clients, 10), np.zeros((clients, 0), dtype=np.int64)
    process = model.bind(World(seed, clients, 2, INTERVAL, samples, labels))
    return np.array([process.available(slot * INTERVAL) for slot in range(rounds)])


def test_a_pair_by_hand():
    """Forty rounds, two clients absent in the same alternate ones: a = b = j = 1/2, expected 1/4.

    Lags 1 to 8 have r = -1, 1, ..., 1 of both, so the product is 1 at all eight, up to the means of an even number of
    terms: the inflation is 1 + 2 (8 - 36 / 40) = 15.2 and 40 instants are worth 2.63. KL(1 || 1/2) = ln 2, so p =
    exp(-2.63 ln 2 / 2) = .40: a regular alternation is one coincidence, and no discovery.
    """
    on = np.arange(40) % 2 == 0
    result = found(np.stack([on, on], axis=1))
    assert result.tested == 1
    assert pairs(result) == set()


def test_a_pair_that_shares_its_coins():
    """h0 and h1 share independent fair coins, h2 has its own: p is about 2^-(effective / 2), h2 is in no pair."""
    coins = np.random.default_rng(0).random((200, 2)) < 0.5
    result = found(coins[:, [0, 0, 1]])
    assert pairs(result) == {("h0", "h1")}
    row = result.pairs.to_dicts()[0]
    share = 1 - coins[:, 0].mean()
    assert row["together"] == pytest.approx(share)
    assert row["expected"] == pytest.approx(share**2)
    assert 60 < row["effective"] <= 200
    # The tightest of the four bounds: KL(1 || share) = -ln share on absences, and likewise on presences.
    exponent = max(-share * math.log(share), -(1 - share) * math.log(1 - share))
    assert row["q"] == pytest.approx(3 * math.exp(-row["effective"] * exponent))


def test_independent_clients_in_bursts_are_no_discovery():
    for seed in range(8):
        assert pairs(found(walk(GilbertElliott(), seed, 20, 150))) == set()
        assert pairs(found(walk(Bernoulli(), seed, 20, 60))) == set()


def test_shared_outages_are_found():
    """Of the four pairs of two groups, in all runs, nearly all; of the others none."""
    theirs = {("h0", "h1"), ("h0", "h2"), ("h1", "h2"), ("h3", "h4")}
    hits = [pairs(found(walk(Groups(pi=0.5, groups=[[0, 1, 2], [3, 4]]), seed, 12, 100))) for seed in range(5)]
    assert all(hit == theirs for hit in hits)


def test_time_is_the_clock_and_not_the_number_of_the_round():
    """Two clients share 60 coins, ten minutes apart, and are both away in 40 rounds of a tenth of a second between.

    By rounds they are away together in (away + 40) / 100; on the clock the forty are one instant of 61.
    """
    coins = np.random.default_rng(1).random(60) < 0.5
    one = np.concatenate([coins[:30], np.zeros(40, dtype=bool), coins[30:]])
    times = np.concatenate([np.arange(30) * 600.0, 18000 + np.arange(40) * 0.1, 18600 + np.arange(30) * 600.0])
    row = found(np.stack([one, one], axis=1), times).pairs.to_dicts()[0]
    assert row["together"] == pytest.approx((np.sum(~coins) + 1) / 61)


def test_a_long_break_is_not_looked_at():
    """A year in which nothing ran has no instants, but for the two next to the round before it."""
    times = np.concatenate([np.arange(6) * 600.0, 3e7 + np.arange(6) * 600.0])
    assert _grid(times).tolist() == [0, 1, 2, 3, 4, 5, 5, *range(6, 12)]


def test_what_cannot_be_tested_says_why():
    assert (
        co_absence(*(frame.clear() for frame in frames(np.ones((9, 3), dtype=bool)))).skipped == "there are no rounds"
    )
    assert found(np.ones((9, 3), dtype=bool)).skipped == "fewer than 10 rounds"
    many = found(np.ones((10, 2001), dtype=bool))
    assert many.skipped == "2001 clients, more than the 2000 whose pairs are tested"
    assert found(np.ones((12, 3), dtype=bool)).tested == 3
    assert found(np.ones((12, 1), dtype=bool)).tested == 0


def test_a_late_comer_was_not_absent_before_it_came():
    """Twenty clients with coins of their own from round 1; h20 registers in round 50 and is left out."""
    table, rows = frames(np.random.default_rng(2).random((100, 21)) < 0.5)
    late = rows.filter((pl.col("client_id") != "h20") | (pl.col("round") >= 50))
    assert co_absence(table, late).tested == 190


@pytest.mark.parametrize("rounds", [10, 41, 150])
def test_autocorrelations_are_those_of_the_direct_formula(rounds: int, monkeypatch: pytest.MonkeyPatch):
    """r(k) = mean of the n - k products at lag k over the variance; 0 for h0, which is always there. Two at a time."""
    monkeypatch.setattr(coabsence, "CELLS", 2 << (rounds + rounds // 5).bit_length())
    absent = np.random.default_rng(4).random((rounds, 5)) < 0.5
    absent[:, 0] = False
    lags = np.arange(1, rounds // 5 + 1)
    centred = absent - absent.mean(axis=0)
    products = np.array([(centred[:-lag] * centred[lag:]).mean(axis=0) for lag in lags])
    expected = products / np.where(np.arange(5) > 0, centred.var(axis=0), np.inf)
    assert coabsence._autocorrelation(absent, lags) == pytest.approx(expected, abs=1e-12)


def test_many_rounds_take_seconds():
    """100,000 rounds of 20 clients: lag by lag that are 20,000 products of two million numbers each, for minutes."""
    coins = np.random.default_rng(3).random((100_000, 20)) < 0.5
    begun = process_time()
    effective = coabsence._tests(coins)[2]
    assert process_time() - begun < 10
    assert effective[0, 1] == pytest.approx(100_000, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_false_discovery_rate_as_scipy_has_it(seed: int):
    p = np.random.default_rng(seed).random(30) ** 4
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))


def test_the_report_and_the_audit_tell(tmp_path):
    coins = np.random.default_rng(0).random((100, 2)) < 0.5
    run = load_run(write_run(tmp_path / "run"))
    assert "was not tested: fewer than 10 rounds" in run_page(run)
    rows = frames(coins[:, [0, 0, 1]])[1]
    log = rows.with_columns(pl.lit(0).alias("participated"))
    log.write_csv(tmp_path / "log.csv")
    assert "beyond independence: 1 of 3, first h0 and h1." in reading(read_log(tmp_path / "log.csv"))
