import html
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from folders import write_run

from parityfl.reporting.compare import compare
from parityfl.reporting.comparison import METRICS, Comparison
from parityfl.reporting.load import load_run
from parityfl.reporting.report import run_page
from parityfl.reporting.tables import comparison_cells, markdown, number, significant, write_csv


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """fedavg at .66 and .70, mine at .76 and .78, and a method that was interrupted."""
    mine = {"method": "mine", "selector": "lnu", "aggregator": "mifa", "selects": "last"}
    folders = [
        write_run(tmp_path / "f0", seed=0, base=0.5),
        write_run(tmp_path / "f1", seed=1, base=0.54),
        write_run(tmp_path / "m0", seed=0, base=0.6, **mine),
        write_run(tmp_path / "m1", seed=1, base=0.62, **mine),
        write_run(tmp_path / "h0", method="half", selector="cup-paper", rounds=3, status="interrupted"),
    ]
    return compare([load_run(folder) for folder in folders])


def test_csv(tmp_path: Path, comparison: Comparison):
    """Differences .1 and .08: mean .09, s = .01414, half width 12.7062 x .01 = .1271."""
    write_csv(comparison, tmp_path / "table.csv")
    table = pl.read_csv(tmp_path / "table.csv")
    assert table["method"].to_list() == ["fedavg", "mine", "half"]
    assert table["status"].to_list() == ["ok", "ok", "missing: interrupted after 3 of 8 rounds"]
    assert table["runs"].to_list() == [2, 2, 0]
    assert table["seeds"].to_list() == ["0 1", "0 1", None]
    assert table["global_accuracy"].to_list() == [pytest.approx(0.68), pytest.approx(0.77), None]
    assert table["global_accuracy_difference"].to_list() == [None, pytest.approx(0.09), None]
    assert table["global_accuracy_difference_low"][1] == pytest.approx(0.09 - 0.1271, abs=1e-4)
    assert table["global_accuracy_difference_pairs"].to_list() == [None, 2, None]
    assert table["global_accuracy_difference_sign_p"].to_list() == [None, 0.5, None]


def test_utility_never_stands_alone():
    """Credited / net and net-gain CV follow utility CV and Jain at once."""
    columns = [metric.column for metric in METRICS]
    place = columns.index("utility_cv")
    assert columns[place : place + 4] == ["utility_cv", "utility_jain", "credited_to_net", "net_gain_cv"]


def test_markdown(comparison: Comparison):
    """.68 with s = .02828: half width 12.7062 x .02 = .2541."""
    lines = markdown(comparison).splitlines()
    assert lines[0].startswith("| Method | Parts | Global accuracy |")
    assert lines[2].startswith("| fedavg | uniform+fedavg | 0.680 ± 0.254 |")
    assert lines[2].endswith("| 2 | 6 | 8 | 0 1 |")
    assert lines[4].startswith("| half | cup-paper+fedavg | missing: interrupted after 3 of 8 rounds | – |")
    assert "| mine | Global accuracy | +0.090 | [-0.037, +0.217] | 2 seeds | 2 of 2 | 0.500 | not settled |" in lines
    assert any("h0 is left out: interrupted after 3 of 8 rounds" in line for line in lines)
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 3
    assert any(line.startswith("| mine | Global accuracy | 0.680 |") for line in lines), "how soon"


def test_one_method_has_no_differences(tmp_path: Path):
    text = markdown(compare([load_run(write_run(tmp_path / "run"))]))
    assert "difference" not in text
    assert "| fedavg | uniform+fedavg | 0.660 | 0.670 |" in text


def test_methods_without_common_seeds_say_so(tmp_path: Path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", method="mine", selector="lnu", seed=1)]
    text = markdown(compare([load_run(run) for run in runs]))
    assert "No pairs" in text
    assert "no finished fedavg run with seed 1" in text


def test_settings_have_a_column_where_there_are_several(tmp_path: Path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", changes={"population.clients": 9})]
    lines = markdown(compare([load_run(run) for run in runs])).splitlines()
    assert lines[0].startswith("| Setting | Method |")
    assert lines[2].startswith("| population.clients=6 | fedavg |")


def test_personal_models_are_shown_where_some_run_has_them(tmp_path: Path):
    personal = load_run(write_run(tmp_path / "a", method="ditto"))
    known = pl.lit(0.9).alias("mean_personal_accuracy"), pl.lit(0.4).alias("worst10_personal_accuracy")
    personal = replace(personal, rounds=personal.rounds.with_columns(*known))
    plain = load_run(write_run(tmp_path / "b", selector="lnu"))
    header, *rows = comparison_cells(compare([personal, plain]))
    place = header.index("Personal accuracy")
    assert [row[place] for row in rows] == ["0.900", "–"]
    assert header[place + 1] == "Worst-10 % personal accuracy"
    page = run_page(personal)
    assert "of the clients' personal models on their own data; of the worst 10 %, 40.0 %" in html.unescape(page)
    assert "Personal models" not in run_page(plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.12345, "0.123"),
        (-0.00085, "-0.001"),
        (-12.5, "-12.500"),
        (1160.0, "1160.000"),
        (1234567.0, "1.235e+06"),
    ],
)
def test_numbers(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0"), (0.000967, "0.000967"), (12.345, "12.3")])
def test_significant_digits(value: float | None, text: str):
    assert significant(value) == text
