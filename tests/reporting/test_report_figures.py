import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from folders import register_late, write_run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from parityfl.core.columns import SHORTFALL_COLUMNS
from parityfl.reporting import method_figures
from parityfl.reporting.captions import captions
from parityfl.reporting.compare import compare
from parityfl.reporting.drawing import clients_on, settled
from parityfl.reporting.load import RunData, load_run
from parityfl.reporting.method_figures import (
    METHOD_FIGURES,
    accuracy_by_method,
    clients_by_method,
    paired_differences,
    parity_by_method,
    trade_off_by_method,
    undominated,
)
from parityfl.reporting.run_figures import (
    RUN_FIGURES,
    accuracy,
    availability_map,
    client_utility,
    outcomes,
    parity,
    shortfall,
)
from parityfl.reporting.svg import to_svg


@pytest.fixture
def runs(tmp_path: Path) -> list[RunData]:
    mine = {"method": "mine", "selector": "lnu", "aggregator": "mifa", "selects": "last"}
    folders = [
        write_run(tmp_path / f"{name}{seed}", seed=seed, base=base + seed / 100, **made)
        for seed in range(2)
        for name, base, made in (("f", 0.5, {}), ("m", 0.6, mine))
    ]
    folders.append(write_run(tmp_path / "half", method="half", selector="x", rounds=3, status="interrupted"))
    return [load_run(folder) for folder in folders]


def texts(figure: Figure) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]+)<", to_svg(figure, "f", "label")))


def bars_of(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return where the bars of each colour begin and how high they are, negative downwards."""
    drawn = [each for each in axes.collections if isinstance(each, PolyCollection)]
    corners = {str(each.get_label()): [path.vertices for path in each.get_paths()] for each in drawn}
    return {label: [(ends[0][1], ends[1][1] - ends[0][1]) for ends in bars] for label, bars in corners.items()}


@pytest.mark.parametrize("name", RUN_FIGURES)
@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_every_figure_of_a_run_is_drawn_whatever_its_length(tmp_path: Path, name: str, rounds: int):
    draw, label = RUN_FIGURES[name]
    svg = to_svg(draw(load_run(write_run(tmp_path / "run", rounds=rounds))), name, label)
    assert svg.startswith("<svg")
    assert f'aria-label="{label}"' in svg


@pytest.mark.parametrize("name", RUN_FIGURES)
@pytest.mark.parametrize("empty", [2, 8])
def test_every_figure_is_drawn_where_the_first_rounds_have_no_clients(tmp_path: Path, name: str, empty: int):
    run = load_run(register_late(write_run(tmp_path / "run"), empty))
    assert to_svg(RUN_FIGURES[name][0](run), name, "x").startswith("<svg")


@pytest.mark.parametrize("name", RUN_FIGURES)
def test_axes_have_labels(run: RunData, name: str):
    for axes in RUN_FIGURES[name][0](run).axes:
        assert axes.get_ylabel()
        assert axes.get_xlabel() or axes.get_label() == "<colorbar>"


def test_accuracy_draws_what_the_table_holds(run: RunData):
    lines = {line.get_label(): line for line in accuracy(run).axes[0].lines}
    assert len(lines) == 5
    assert np.allclose(lines["global model"].get_ydata(), 0.5 + 0.02 * np.arange(1, 9))


def test_what_nobody_measured_is_not_drawn(run: RunData):
    unknown = run.rounds.with_columns(pl.lit(None, dtype=pl.Float64).alias("worst10_client_accuracy"))
    figure = accuracy(RunData(run.path, run.config, run.summary, unknown, run.clients))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(lines["worst 10 % of the clients"].get_ydata()) == 0


def test_utility_is_sorted_and_its_lorenz_curve_ends_at_one(run: RunData):
    """Normalised utilities (.1, .05, .05, 0, .1), h5 left out: shares 0, 0, 1/6, 2/6, 4/6, 1."""
    utility, lorenz, _ = client_utility(run).axes
    ((_, bars),) = bars_of(utility).items()
    assert [height for _, height in bars] == pytest.approx([0, 0.05, 0.05, 0.1, 0.1])
    assert lorenz.lines[0].get_ydata() == pytest.approx([0, 0, 1 / 6, 1 / 3, 2 / 3, 1])
    assert lorenz.lines[0].get_xdata() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_bar_that_is_too_low_to_be_seen_is_a_dot(run: RunData):
    """h3 completed nothing: of the sorted utilities (0, .05, .05, .1, .1) only the first is no bar."""
    dots = client_utility(run).axes[0].lines[0]
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([1], [0])


def test_a_lorenz_curve_of_no_gain_is_not_drawn(run: RunData):
    clients = run.clients.with_columns(-pl.col("normalized_utility"))
    figure = client_utility(RunData(run.path, run.config, run.summary, run.rounds, clients))
    assert "not defined:" in texts(figure)


def test_the_map_shows_who_was_there(run: RunData):
    """Round 4: h0 and h1 selected, h1 timed out, h3 only there; h5 never. Rows by opportunities."""
    states = np.asarray(availability_map(run).axes[0].images[0].get_array())
    assert states.shape == (6, 8)
    assert states[:, 3].tolist() == [3, 2, 0, 1, 0, 0]
    assert states[5].tolist() == [0] * 8


def test_the_map_begins_before_the_first_device_registered(tmp_path: Path):
    """Nobody is known in rounds 1 and 2; round 4 is as above, and stands in the fourth column."""
    run = load_run(register_late(write_run(tmp_path / "run"), 2))
    states = np.asarray(availability_map(run).axes[0].images[0].get_array())
    assert states.shape == (6, 8)
    assert not states[:, :2].any()
    assert states[:, 3].tolist() == [3, 2, 0, 1, 0, 0]


def test_outcomes_are_stacked(run: RunData):
    heights = {label: [height for _, height in bars] for label, bars in bars_of(outcomes(run).axes[0]).items()}
    assert heights["completed"] == [1, 2, 2, 1, 2, 1, 1, 2]
    assert heights["timed out"] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert heights["late"] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert set(heights) == {"completed", "timed out", "late"}


@pytest.mark.parametrize("name", METHOD_FIGURES)
def test_every_comparison_is_drawn_without_the_missing_method(runs: list[RunData], name: str):
    rows = [row for row in compare(runs).rows if row.runs]
    found = texts(METHOD_FIGURES[name][0](rows))
    assert {"fedavg", "mine"} <= found
    assert "half" not in found


def test_thick_lines_are_means_over_seeds(runs: list[RunData]):
    """fedavg's global accuracy in round 8: .66 and .67, mean .665."""
    rows = [row for row in compare(runs).rows if row.runs]
    lines = {line.get_label(): line for line in accuracy_by_method(rows).axes[0].lines}
    assert lines["fedavg"].get_ydata()[-1] == pytest.approx(0.665)


def test_the_legend_names_each_method_once(runs: list[RunData]):
    rows = [row for row in compare(runs).rows if row.runs]
    figure = clients_by_method(rows)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fedavg", "mine"]


def test_the_pareto_front() -> None:
    """(1, .5) is the cheapest, (2, .7) the most accurate; (2, .6) and (3, .7) are beaten; equal points count once."""
    points = [(3.0, 0.7), (2.0, 0.6), (1.0, 0.5), (2.0, 0.7), (1.0, 0.5), (1.5, 0.4)]
    assert undominated(points) == [(1.0, 0.5), (2.0, 0.7)]
    assert undominated([]) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_nothing_on_the_front_is_beaten_and_all_else_is(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)

    assert set(undominated(points)) == {point for point in points if not beaten(point)}


def test_the_front_is_drawn_through_the_means(runs: list[RunData]) -> None:
    """mine has .1 more accuracy than fedavg; it alone is on the front where its gap is no larger."""
    rows = [row for row in compare(runs).rows if row.runs]
    means = {row.method: row.estimates for row in rows}
    panel = trade_off_by_method(rows).axes[0]
    front = panel.lines[-1]
    points = [(means[m]["conditional_selection_gap"].mean, means[m]["global_accuracy"].mean) for m in means]
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == undominated(points)
    assert panel.get_xlabel() == "conditional selection gap: less is better"


def test_axes_of_fractions_end_where_fractions_do(runs: list[RunData]) -> None:
    """Two seeds: 12.7 standard errors reach far beyond 0 and 1."""
    apart = [replace(run, rounds=run.rounds.with_columns(global_accuracy=pl.lit(run.seed * 0.9))) for run in runs]
    rows = [row for row in compare(apart).rows if row.runs]
    gap = trade_off_by_method(rows).axes[0]
    assert gap.get_ylim() == pytest.approx((-0.02, 1.02))
    assert gap.get_xlim()[1] <= 1.02


@pytest.mark.parametrize(("ratio", "scale"), [(9.0, "linear"), (500.0, "symlog")])
def test_one_huge_ratio_does_not_flatten_the_others(runs: list[RunData], ratio: float, scale: str) -> None:
    one = replace(runs[0], rounds=runs[0].rounds.with_columns(net_gain_cv=pl.lit(ratio)))
    comparison = compare([one, *runs[1:2]])
    rows = list(comparison.rows)
    assert trade_off_by_method(rows).axes[1].get_xscale() == scale
    assert parity_by_method(rows).axes[2].get_yscale() == scale
    assert paired_differences(comparison, "").axes[-1].get_xscale() == scale
    assert trade_off_by_method(rows).axes[0].get_xscale() == "linear"


def test_the_caption_speaks_of_a_line_where_there_is_one(tmp_path: Path) -> None:
    """The first has the wider gap, 1 against .375: it is joined with the second where it is the more accurate."""
    for base, joined in ((0.5, False), (0.7, True)):
        folders = [
            write_run(tmp_path / f"f{base}", base=base),
            write_run(tmp_path / f"m{base}", base=0.6, method="mine", selector="lnu", selects="last"),
        ]
        rows = compare([load_run(folder) for folder in folders]).rows
        assert ("Pareto" in captions(rows)["trade-off"]) == joined


def test_the_caption_names_the_methods_whose_curves_are_the_same(tmp_path: Path, runs: list[RunData]) -> None:
    """The twin selects as fedavg does and is more accurate; the net gains of all are the same."""
    twins = [load_run(write_run(tmp_path / f"t{s}", seed=s, base=0.8, method="twin", selector="y")) for s in range(2)]
    found = captions([row for row in compare([*runs, *twins]).rows if row.runs])
    assert "coincide" not in found["accuracy"]
    assert "fedavg and twin coincide in conditional selection gap and utility CV; " in found["parity"]
    assert "fedavg, mine and twin coincide in net-gain CV and credited / net." in found["parity"]


@pytest.mark.parametrize(("most", "drawn"), [(24, 0), (23, 1)])
def test_many_points_are_an_image(runs: list[RunData], monkeypatch: pytest.MonkeyPatch, most: int, drawn: int):
    """Two methods with two seeds of six clients are 24 points."""
    monkeypatch.setattr(method_figures, "MANY", most)
    rows = [row for row in compare(runs).rows if row.runs]
    assert to_svg(clients_by_method(rows), "c", "x").count("<image") == drawn


def test_paired_differences_are_drawn_for_figures_that_rank(runs: list[RunData]):
    """The global accuracy differs by .1 in both seeds."""
    figure = paired_differences(compare(runs), "")
    assert len(figure.axes) == 6
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0.1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mine"]


def test_eight_panels_of_differences_stand_in_two_lines(runs: list[RunData]):
    spreads = ("client_accuracy_std", "weighted_client_accuracy_std")
    known = [replace(run, rounds=run.rounds.with_columns(pl.lit(0.1).alias(name) for name in spreads)) for run in runs]
    places = [panel.get_subplotspec().get_geometry()[:2] for panel in paired_differences(compare(known), "").axes]
    assert places == [(2, 4)] * 8


def test_shortfalls_stack_their_parts(tmp_path: Path):
    """a: 3 - 1 - .5 = 1.5, losses stacked up from 0 and gains down; b has it the other way round. Least first: b, a."""
    folder = write_run(tmp_path / "run")
    parts = "{},8,4,2,1,0,{},2,{},{},{},0,{}\n"
    rows = parts.format("a", 0.5, 1.5, 3, -1, -0.5) + parts.format("b", 3.5, -1.5, -3, 1, 0.5)
    (folder / "shortfall.csv").write_text(",".join(SHORTFALL_COLUMNS) + "\n" + rows)
    axes = shortfall(load_run(folder)).axes[0]
    spans = bars_of(axes)
    assert spans["was not there"] == [(0, -3), (0, 3)]
    assert spans["was there, not selected"] == [(0, 1), (0, -1)]
    assert spans["completed, gained less"] == [(1, 0.5), (-1, -0.5)]
    assert axes.lines[0].get_ydata().tolist() == [-1.5, 1.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "a"]


def test_few_clients_have_names_and_many_have_places():
    few, many = Figure().subplots(), Figure().subplots()
    clients_on(few.yaxis, ["h0", "a-device-with-a-long-name"], "best first")
    clients_on(many.yaxis, [f"h{k}" for k in range(100)], "best first")
    assert [label.get_text() for label in few.get_yticklabels()] == ["h0", "a-device-wi…"]
    assert [label.get_text() for label in many.get_yticklabels()] == ["1", *map(str, range(10, 101, 10))]
    assert (few.get_ylabel(), many.get_ylabel()) == ("client, best first", "rank of the client, best first")


def test_axes_show_what_ratios_settle_to():
    """Of 8 rounds the first 2 are left out; of 1 ... 6 the span with zero is 6, and 8 % of it the margin."""
    frame = pl.DataFrame({"x": [900.0, 50.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]})
    assert settled([frame], ["x"]) == pytest.approx((0, 6.48))
    assert settled([frame.with_columns(-pl.col("x"))], ["x"]) == pytest.approx((-6.48, 0.48))
    assert settled([], ["x"], include=1) == pytest.approx((0, 1.08))


def test_svg_is_the_same_for_the_same_data(run: RunData):
    assert to_svg(parity(run), "p", "x") == to_svg(parity(run), "p", "x")
    assert to_svg(availability_map(run), "m", "x") == to_svg(availability_map(run), "m", "x")


def test_svg_stands_in_a_page(run: RunData):
    """Ids have the prefix, references point at them, colours follow the page, nothing points outside."""
    svg = to_svg(client_utility(run), "who", 'a "label" & more')
    ids = set(re.findall(r'\bid="([^"]*)"', svg))
    references = set(re.findall(r'(?:url\(#|href="#)([^)"]*)', svg))
    assert all(name.startswith("who-") for name in ids)
    assert references <= ids
    assert 'aria-label="a &#34;label&#34; &amp; more"' in svg
    assert "var(--ink" in svg
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "<metadata" not in svg


def test_drawing_leaves_the_callers_settings_alone(run: RunData):
    before = dict(matplotlib.rcParams)
    to_svg(accuracy(run), "a", "x")
    assert dict(matplotlib.rcParams) == before
