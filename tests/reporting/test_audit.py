"""Auditing logs: exact tiny cases, our own clients.csv, and one clear line for what is wrong."""

import math
from pathlib import Path

import pytest
from folders import write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from parityfl.core.errors import DataError
from parityfl.reporting import audit as auditing
from parityfl.reporting.audit import figures_table

KEYS = [
    "num_clients",
    "num_never_available",
    "num_rounds",
    "utility_cv",
    "utility_jain",
    "utility_gini",
    "worst10_normalized_utility",
    "selection_gap",
    "conditional_selection_gap",
    "saturation",
    "participation_gini",
]
HEADER = "round,client_id,available,participated"


def log(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def audit(path: Path) -> dict[str, float]:
    return auditing.figures(auditing.read_log(path))


def test_each_participation_counts_one(tmp_path: Path):
    """n = (4, 2), s = (1, 1): per opportunity (.25, .5), mean .375, sd .125, so CV 1/3, Jain 1 / (1 + 1/9) = .9.

    Gini |.25 - .5| / (2 * .75) = 1/6. Of all rounds both have 1/4; of its own ones .25 and .5.
    """
    rows = ["1,a,1,1", "1,b,1,0", "2,a,1,0", "2,b,1,1", "3,a,1,0", "3,b,0,0", "4,a,1,0", "4,b,0,0"]
    figures = audit(log(tmp_path, HEADER, *rows))
    assert list(figures) == KEYS
    assert figures["num_clients"] == 2
    assert figures["num_rounds"] == 4
    assert figures["utility_cv"] == pytest.approx(1 / 3)
    assert figures["utility_jain"] == pytest.approx(0.9)
    assert figures["utility_gini"] == pytest.approx(1 / 6)
    assert figures["worst10_normalized_utility"] == 0.25
    assert figures["selection_gap"] == 0
    assert figures["conditional_selection_gap"] == 0.25
    assert figures["participation_gini"] == 0


def test_selected_and_increments(tmp_path: Path):
    """b is selected twice and takes part once, worth 3; a once, worth 1: u / n = (.5, 1.5), CV .5; gaps of .5 both."""
    rows = ["1,a,1,1,1,1.0", "1,b,1,0,1,", "2,a,1,0,0,", "2,b,1,1,1,3.0"]
    figures = audit(log(tmp_path, HEADER + ",selected,utility_increment", *rows))
    assert figures["utility_cv"] == pytest.approx(0.5)
    assert figures["selection_gap"] == 0.5
    assert figures["conditional_selection_gap"] == 0.5
    assert figures["participation_gini"] == 0


def test_increments_whose_square_no_float_holds(tmp_path: Path):
    """One round, worth 1e308 to one and 5e307 to the other: as (2, 1), CV 1/3, Jain 9/10, Gini 1/6."""
    figures = audit(log(tmp_path, HEADER + ",utility_increment", "1,a,1,1,1e308", "1,b,1,1,5e307"))
    assert figures["utility_cv"] == pytest.approx(1 / 3)
    assert figures["utility_jain"] == pytest.approx(0.9)
    assert figures["utility_gini"] == pytest.approx(1 / 6)
    assert figures["worst10_normalized_utility"] == 5e307


def test_a_sum_that_no_float_holds_leaves_the_utilities_unknown(tmp_path: Path):
    """The rest of the figures are what they are."""
    rows = ["1,a,1,1,1e308", "1,b,1,0,", "2,a,1,1,1e308", "2,b,1,1,1.0"]
    figures = audit(log(tmp_path, HEADER + ",utility_increment", *rows))
    assert all(math.isnan(figures[name]) for name in ("utility_cv", "utility_jain", "utility_gini"))
    assert figures["worst10_normalized_utility"] == 0.5
    assert figures["selection_gap"] == 0.5


def test_what_does_not_take_part_earns_nothing(tmp_path: Path):
    """The 9 and the inf belong to rows without participation."""
    rows = ["1,a,1,1,2.0", "1,b,1,0,9.0", "2,a,1,0,inf", "2,b,1,1,2.0"]
    assert audit(log(tmp_path, HEADER + ",utility_increment", *rows))["utility_cv"] == 0


def test_who_never_comes_is_counted_and_left_out(tmp_path: Path):
    figures = audit(log(tmp_path, HEADER, "1,a,1,1", "1,b,0,0"))
    assert figures["num_never_available"] == 1
    assert figures["utility_jain"] == 1
    assert figures["conditional_selection_gap"] == 0


def test_shares_count_from_the_first_row(tmp_path: Path):
    """b joins in round 3 and is selected in that one of its two rounds, a in two of four: both 1/2."""
    rows = ["1,a,1,1", "2,a,1,1", "3,a,1,0", "4,a,1,0", "3,b,1,1", "4,b,1,0"]
    assert audit(log(tmp_path, HEADER, *rows))["selection_gap"] == 0


def test_a_missing_row_is_an_absence(tmp_path: Path):
    """Round 2 has no row of b: n = (3, 2), one participation each."""
    rows = ["1,a,1,1", "1,b,1,1", "2,a,1,0", "3,a,1,0", "3,b,1,0"]
    figures = audit(log(tmp_path, HEADER, *rows))
    assert figures["conditional_selection_gap"] == pytest.approx(1 / 2 - 1 / 3)
    assert figures["selection_gap"] == 0


def test_order_of_rows_and_columns_does_not_matter(tmp_path: Path):
    rows = ["1,a,1,1", "1,b,1,0", "2,a,1,1", "2,b,1,1"]
    before = audit(log(tmp_path, HEADER, *rows))
    turned = [",".join([*reversed(row.split(",")), "note"]) for row in reversed(rows)]
    assert audit(log(tmp_path, "participated,available,client_id,round,remark", *turned)) == before


def test_our_clients_csv_is_cumulative(tmp_path: Path):
    """Completed (8, 2, 1, 0, 1, 0) times .1 over n = (8, 4, 2, 2, 1, 0): (.1, .05, .05, 0, .1), mean .06.

    Mean square .025 / 5 = .005 against .0036: CV sqrt(.0014) / .06. Selected (8, 4, 1, 0, 1, 0) of eight rounds.
    """
    figures = audit(write_run(tmp_path / "run") / "clients.csv")
    assert figures["num_clients"] == 6
    assert figures["num_never_available"] == 1
    assert figures["num_rounds"] == 8
    assert figures["utility_cv"] == pytest.approx(0.0014**0.5 / 0.06)
    assert figures["worst10_normalized_utility"] == pytest.approx(0)
    assert figures["selection_gap"] == 1
    assert figures["conditional_selection_gap"] == 1
    assert figures["participation_gini"] == pytest.approx(sum([-5 * 0, -3 * 0, -1, 1, 3 * 2, 5 * 8]) / (6 * 12))


def test_our_clients_csv_may_hold_utilities_that_nobody_measured(tmp_path: Path):
    """By round, a gains 1, something, and 2; b something twice; c never takes part. So (3, unknown, 0) over n = 3."""
    rows = [
        "1,a,1,1,1",
        "2,a,1,1,1",
        "3,a,1,1,3",
        "1,b,1,1,",
        "2,b,1,1,",
        "3,b,1,0,",
        "1,c,1,0,0",
        "2,c,1,0,0",
        "3,c,1,0,0",
    ]
    figures = audit(log(tmp_path, f"{HEADER},utility,outcome,normalized_utility", *(f"{row},," for row in rows)))
    assert figures["utility_cv"] == pytest.approx(1)
    assert figures["worst10_normalized_utility"] == 0
    assert figures["utility_jain"] == pytest.approx(1 / 2)


def test_of_a_large_file_only_what_is_needed_is_kept(tmp_path: Path):
    """Of a clients.csv of ours 6 columns of 27; a `utility` that may be anything is not ours."""
    ours = write_run(tmp_path / "run") / "clients.csv"
    assert auditing._read(ours).columns == ["round", "client_id", "available", "selected", "participated", "utility"]
    theirs = log(tmp_path, f"{HEADER},utility,remark", "1,a,1,1,high,none")
    assert auditing._read(theirs).columns == HEADER.split(",")


def test_a_utility_of_ours_that_is_no_number_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="line 3: utility = 'much': write a number"):
        audit(log(tmp_path, f"{HEADER},utility,outcome,normalized_utility", "1,a,1,1,1,,", "2,a,1,1,much,,"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["00", "10", "11"]), min_size=3, max_size=3), min_size=1, max_size=8))
def test_figures_keep_their_ranges(tmp_path_factory, rounds):
    rows = [
        f"{number},{name},{state[0]},{state[1]}"
        for number, states in enumerate(rounds, start=1)
        for name, state in zip("abc", states, strict=True)
    ]
    figures = audit(log(tmp_path_factory.mktemp("log"), HEADER, *rows))
    assert figures["num_rounds"] == len(rounds)
    for key in KEYS[3:]:
        assert not figures[key] < 0
    for key in ("utility_jain", "selection_gap", "conditional_selection_gap"):
        assert not figures[key] > 1


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (HEADER, "1,b,2,0", "line 3: available = '2': write 0 or 1"),
        (HEADER, "1,b,yes,0", "line 3: available = 'yes': write 0 or 1"),
        (HEADER, "1,b,1,", "line 3: participated = '': write 0 or 1"),
        (HEADER, "1,b,0,1", "line 3: available = '0': who is selected or takes part was available"),
        (HEADER, "one,b,1,1", "line 3: round = 'one': write a number"),
        (HEADER, "1.5,b,1,1", "line 3: round = '1.5': write the round as a whole number"),
        (HEADER, "1e30,b,1,1", "line 3: round = '1e30': write the round as a whole number"),
        (f"{HEADER},time_s", "2,b,1,1,1", "line 3: time_s = '1': write a later time than that of the round before"),
        (f"{HEADER},time_s", "2,b,1,1,0.5", "line 3: time_s = '0.5': write a later time than that of the round"),
        (HEADER, "1,,1,1", "line 3: client_id = '': write the client's name"),
        (HEADER, "1,a,1,1", "line 2: client_id = 'a': write one row per round and client"),
        (HEADER, "1,b,1,1,1", "line 3 has 5 fields for 4 columns"),
        (f"{HEADER},remark", "1,b,1,1,x,", "line 3 has 6 fields for 5 columns"),
        (f"remark,{HEADER},note", '"1,a",1,b,1,1,1,n', "line 3 has 7 fields for 6 columns"),
        (f"{HEADER},remark", '1,b,1,1,"\n2,b,1,1,', "is no CSV file with a header and rows"),
        (f"{HEADER},remark", '1,b,1,1,""x', "is no CSV file with a header and rows"),
        (f"{HEADER},selected", "1,b,1,1,0", "line 3: participated = '1': who takes part was selected"),
        (f"{HEADER},utility_increment", "1,b,1,1,", "line 3: utility_increment = '': write what the participation"),
        (f"{HEADER},utility_increment", "1,b,1,1,nan", "line 3: utility_increment = 'nan': write what"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, header, row, words):
    first = ",".join(["1", "a", "1", "1", *["1"] * (header.count(",") - 3)])
    path = log(tmp_path, header, first, row)
    with pytest.raises(DataError) as caught:
        audit(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"round,client_id,available\n1,a,1\n", "no column 'participated'"),
        (b"round,client_id,available,participated\n", "has no rows"),
        (b"round,client_id,available,participated,available\n1,a,1,1,0\n", "the column 'available' twice"),
        (b"", "no CSV file"),
        (b"\x00", "no column 'round'"),
        (b"\x00\xff\xfe", "it is not UTF-8 text; save it as UTF-8"),
        (b"round,client_id,available,participated,r\n1,a,1,1,Ren\xe9\n", "it is not UTF-8 text; save it as UTF-8"),
        (b"round,client_id,available,participated,r\xe9\n1,a,1,1,\n", "it is not UTF-8 text; save it as UTF-8"),
        (b"round,client_id,available,participated\n1,Ren\xe9,1,1\n", "it is not UTF-8 text; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_log(tmp_path: Path, content, words):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        audit(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        audit(tmp_path / "log.csv")
    with pytest.raises(DataError, match="Is a directory"):
        audit(tmp_path)


def test_the_table_shows_what_is_undefined():
    table = figures_table({"num_rounds": 3, "utility_cv": float("nan")}, "log")
    assert list(table.columns[1].cells) == ["3", "–"]
