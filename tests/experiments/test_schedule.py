"""Selection without training: rates that enumeration gives, what a row holds, and what a schedule does not heed."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityfl.config import Config
from parityfl.core.conditions import Dropout
from parityfl.core.errors import ConfigError, FolderError
from parityfl.core.selection import selector
from parityfl.experiments.schedule import COLUMNS, Worth, check_out, resolve_schedule, run_schedule, write_schedule


def config(rounds=500, **overrides):
    keys = {"availability.name": "bernoulli", "population.clients": 3, "population.per_round": 1}
    keys |= {"availability.pi": [0.9, 0.5, 0.2], "rounds.count": rounds}
    return resolve_schedule([], keys | {key.replace("__", "."): value for key, value in overrides.items()})


def table(schedule, configuration, out: Path):
    with write_schedule(schedule, configuration, out).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_opportunity_parity_in_long_run():
    """f(all) = 1 - .1 * .5 * .8 = .96 over pi summing to 1.6: .6 of each client's opportunities.

    Selections minus their probabilities are a martingale: client 2's 800 differ by .5 / sqrt(800) = .018 at most.
    """
    schedule = run_schedule(config(rounds=4000))
    rates = schedule.ledger.selected / schedule.ledger.available
    assert rates == pytest.approx([0.6] * 3, abs=0.02)
    assert schedule.figures()["conditional_selection_gap"] < 0.02
    assert schedule.inclusion == pytest.approx(rates, abs=0.07)


def test_a_row_per_client(tmp_path: Path):
    configuration = config(50, utility__mu=[1, 2, 0.5])
    schedule = run_schedule(configuration)
    rows = table(schedule, configuration, tmp_path / "out")
    assert tuple(rows[0]) == COLUMNS
    assert [row["client_id"] for row in rows] == ["h0", "h1", "h2"]
    assert [float(row["pi"]) for row in rows] == [0.9, 0.5, 0.2]
    for row, mu in zip(rows, (1, 2, 0.5), strict=True):
        selected, available = int(row["num_selected"]), int(row["num_available"])
        assert float(row["mu"]) == mu
        assert float(row["participation_rate"]) == selected / 50
        assert float(row["conditional_rate"]) == selected / available
        assert float(row["utility"]) == selected * mu
        assert float(row["normalized_utility"]) == selected * mu / available
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"schedule.csv", "schedule.json"}


def test_unknown_is_empty(tmp_path: Path):
    """Client 2 never comes; power-of-choice does not know its inclusion probabilities."""
    configuration = config(20, availability__pi=[0.9, 0.5, 0.0], selector__name="power-of-choice")
    schedule = run_schedule(configuration)
    first, _, never = table(schedule, configuration, tmp_path)
    assert first["mean_inclusion_probability"] == ""
    assert (never["num_available"], never["num_selected"], never["utility"]) == ("0", "0", "0.0")
    assert (never["conditional_rate"], never["normalized_utility"]) == ("", "")
    assert schedule.figures()["num_never_available"] == 1


def test_nobody_ever_comes():
    figures = run_schedule(config(5, availability__pi=0.0)).figures()
    assert figures["num_never_available"] == 3
    assert math.isnan(figures["utility_cv"])
    assert figures["selection_gap"] == 0


@pytest.mark.parametrize("mu", [1e200, 1e308])
def test_a_worth_whose_square_no_float_holds(mu: float):
    """Each of three clients that are always there is served once in three rounds: 1e308 / 3 for all, in parity."""
    always = resolve_schedule(
        [config(3, selector__name="round-robin").document()],
        {"availability": {"name": "always"}, "utility.mu": mu},
    )
    figures = run_schedule(always).figures()
    assert figures["worst10_normalized_utility"] == pytest.approx(mu / 3)
    assert (figures["utility_cv"], figures["utility_jain"], figures["utility_gini"]) == pytest.approx((0, 1, 0))


def test_a_deterministic_rule_is_included_when_selected():
    schedule = run_schedule(config(200, selector__name="least-selected"))
    assert schedule.inclusion == pytest.approx(schedule.ledger.selected / schedule.ledger.available)


def test_the_mean_truth_of_a_daily_cycle():
    """Over whole days the mean of the cosine is pi, whatever the hour of the peak."""
    daily = config(288, availability__name="diurnal", availability__amplitude=0.9)
    assert run_schedule(daily).pi == pytest.approx([0.9, 0.5, 0.2])


def test_noise_has_mean_one():
    """Factor exp(.5 z - .125) has variance e^.25 - 1 = .284: standard error .0084 of 4,000 draws; 5 of them."""
    configuration = config(1, population__clients=4000, population__per_round=4000, utility__noise=0.5)
    configuration = resolve_schedule(
        [configuration.document()], {"availability": {"name": "always"}, "utility.mu": 3.0}
    )
    schedule = run_schedule(configuration)
    assert schedule.ledger.utility.mean() / 3 == pytest.approx(1.0, abs=0.042)
    assert np.log(schedule.ledger.utility).std() == pytest.approx(0.5, abs=0.03)


def test_who_drops_out_yields_nothing():
    schedule = run_schedule(config(400, dropout__rate=0.5))
    ledger = schedule.ledger
    assert np.all(ledger.participated < ledger.selected)
    assert ledger.participated.sum() / ledger.selected.sum() == pytest.approx(0.5, abs=0.1)
    assert np.array_equal(ledger.utility, ledger.participated)


def test_methods_meet_the_same_arrivals():
    one, other = (run_schedule(config(60, selector__name=name, utility__noise=0.4)) for name in ("lnu", "round-robin"))
    assert np.array_equal(one.ledger.available, other.ledger.available)
    again = run_schedule(config(60, selector__name="lnu", utility__noise=0.4))
    assert np.array_equal(one.ledger.utility, again.ledger.utility)
    assert not np.array_equal(one.ledger.utility, other.ledger.utility)


@pytest.mark.parametrize("name", selector.names())
def test_every_selector_plays(name):
    figures = run_schedule(config(40, selector__name=name, utility__mu=[1, 2, 3])).figures()
    assert figures["num_rounds"] == 40
    assert 0 < figures["utility_jain"] <= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from(["lnu", "uniform", "cup-paper"]),
)
def test_slots_are_filled_and_no_more(pi, per_round, rounds, name):
    per_round = min(per_round, len(pi))
    configuration = config(
        rounds,
        population__clients=len(pi),
        population__per_round=per_round,
        availability__pi=pi,
        selector__name=name,
    )
    schedule = run_schedule(configuration)
    ledger = schedule.ledger
    world = configuration.world(np.ones(len(pi), dtype=int), np.zeros((len(pi), 0), dtype=int))
    process = configuration.availability.build().bind(world)
    there = [process.available(t * configuration.rounds.interval_s).sum() for t in range(rounds)]
    assert ledger.rounds == rounds
    assert np.all(ledger.selected <= ledger.available)
    assert ledger.selected.sum() == sum(min(per_round, count) for count in there)
    known = ledger.available > 0
    assert np.all((schedule.inclusion[known] >= 0) & (schedule.inclusion[known] <= 1 + 1e-9))
    assert np.nansum(schedule.inclusion * ledger.available) == pytest.approx(ledger.selected.sum())


def test_a_large_population():
    configuration = config(3, population__clients=100_000, population__per_round=100, availability__pi="beta(1,2)")
    schedule = run_schedule(configuration)
    assert schedule.ledger.selected.sum() == 300
    assert 0 < schedule.select_s < 5


def test_what_only_a_run_needs_is_not_checked():
    """Each of these is a mistake in a run."""
    layers = [
        {"method": "horvitz-thompson", "selector": {"name": "cup-paper"}},
        {"evaluation": {"every": 5}, "rounds": {"quorum": 900, "clock": "wall"}},
    ]
    configuration = resolve_schedule(layers, {"training.no_such_key": 1})
    assert configuration.selector.name == "cup-paper"
    assert configuration.availability.name == "gilbert-elliott"


def test_a_section_that_there_is_not_is_a_mistake_here_too():
    with pytest.raises(ConfigError, match="selectr"):
        resolve_schedule([], {"selectr.mode": "deterministic"})
    with pytest.raises(ConfigError, match="no-such"):
        resolve_schedule([{"no-such": {"key": 1}}], {})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"utility.mu": [1.0, 2.0]}, "utility.mu has 2 values for 3 clients"),
        ({"utility.mu": math.inf}, "utility.mu holds inf"),
        ({"utility.mu": "normal(1,2)"}, "utility.mu = 'normal"),
        ({"selector.name": "oracle-maxmin", "utility.mu": 0.0}, "utility.mu holds 0"),
        ({"availability.pi": 2.0}, "availability.pi holds 2"),
    ],
)
def test_a_mistake_names_the_key(overrides, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        run_schedule(config(3, **{key.replace(".", "__"): value for key, value in overrides.items()}))


def test_selector_keys_are_checked():
    with pytest.raises(ConfigError, match="temperature"):
        resolve_schedule([], {"selector.temprature": 1})


def test_a_used_folder_is_refused(tmp_path: Path):
    check_out(tmp_path / "absent")
    check_out(tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FolderError, match="not empty"):
        check_out(tmp_path)


def test_a_file_as_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="is a file"):
        check_out(tmp_path / "file")


def test_no_torch():
    code = (
        "import sys; from parityfl.experiments.schedule import run_schedule, resolve_schedule; "
        "run_schedule(resolve_schedule([], {'rounds.count': 2})); "
        "assert not {'torch', 'polars', 'fastapi'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_dropout_and_no_noise_by_default():
    assert Worth() == Worth(noise=0.0, dropout=Dropout(0.0))
    assert Config().utility.noise == 0.0
