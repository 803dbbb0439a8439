"""The figures of one run. `parityfl.reporting.svg.to_svg` writes them."""

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from parityfl.reporting.drawing import (
    FEW,
    GREEN,
    GREY,
    MANY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    bars,
    clients_on,
    curve,
    legend,
    lorenz,
    lorenz_axes,
    over_rounds,
    panels,
    settled,
    styled,
)
from parityfl.reporting.load import RunData
from parityfl.reporting.standing import standing
from parityfl.reporting.svg import BLUE, FAINT, INK

ACCURACIES = {
    "global_accuracy": ("global model", BLUE, "-"),
    "ema_global_accuracy": ("global model, moving average", SKY, "--"),
    "mean_client_accuracy": ("mean client", GREEN, "-"),
    "low_availability_accuracy": ("low-availability half", PURPLE, "-."),
    "worst10_client_accuracy": ("worst 10 % of the clients", VERMILLION, ":"),
}

OUTCOMES = {
    "completed": BLUE,
    "late": SKY,
    "timed_out": ORANGE,
    "refused": PURPLE,
    "unreachable": VERMILLION,
    "invalid": GREEN,
    "failed": GREY,
}

SHORTFALL_PARTS = {
    "physical": ("was not there", GREY),
    "scheduling": ("was there, not selected", BLUE),
    "execution": ("was selected, did not complete", ORANGE),
    "learning": ("completed, gained less", GREEN),
}

STATES = ("not available", "available", "selected, not completed", "participated")
STATE_COLOURS = ListedColormap(["#00000000", "#8f99a873", ORANGE, BLUE])

TOO_LOW = 0.005
"""A bar of this share of the tallest one, or less, cannot be seen."""

AVAILABILITY_COLOURS = LinearSegmentedColormap.from_list("availability", [ORANGE, "#8a7a95", BLUE])


@styled
def accuracy(run: RunData) -> Figure:
    """Accuracy over rounds: global model, its moving average, mean client, low-availability half, worst tenth."""
    figure, (axes,) = panels(1, height=3.5)
    for column, (label, colour, dash) in ACCURACIES.items():
        curve(axes, run.rounds, column, label=label, color=colour, linestyle=dash)
    over_rounds(axes, "accuracy (fraction of 1)", (0, 1))
    legend(axes)
    return figure


@styled
def parity(run: RunData) -> Figure:
    """Parity over rounds: selection gaps, the utility's CV beside net-gain CV, and credited / net."""
    figure, (gaps, spread, ratio) = panels(3)
    curve(gaps, run.rounds, "conditional_selection_gap", label="of selected / available", color=BLUE)
    curve(gaps, run.rounds, "selection_gap", label="of selected / rounds", color=VERMILLION, linestyle="--")
    over_rounds(gaps, "selection gap (max − min)", (0, 1.02))
    curve(spread, run.rounds, "utility_cv", label="credited utility", color=BLUE)
    curve(spread, run.rounds, "net_gain_cv", label="net gain", color=VERMILLION, linestyle="--")
    over_rounds(spread, "coefficient of variation (CV)", settled([run.rounds], ["utility_cv", "net_gain_cv"]))
    curve(ratio, run.rounds, "credited_to_net", label="credited / net", color=BLUE)
    ratio.axhline(1, color=INK, linewidth=0.8, label="nothing earned twice")
    over_rounds(ratio, "utility credited per net gain", settled([run.rounds], ["credited_to_net"], include=1))
    for axes in (gaps, spread, ratio):
        legend(axes)
    return figure


@styled
def client_utility(run: RunData) -> Figure:
    """Normalised utility of each client, sorted and coloured by availability, and its Lorenz curve."""
    figure, (columns, shares) = panels(2, width_ratios=(1.9, 1))
    known = standing(run).drop_nulls("normalized_utility").sort("normalized_utility", maintain_order=True)
    utility = known["normalized_utility"].to_numpy()
    shade = ScalarMappable(Normalize(0, 1), AVAILABILITY_COLOURS)
    colours = shade.to_rgba(known["availability_estimate"].fill_null(0).to_numpy())
    bars(columns, np.arange(1, known.height + 1), utility, colours=colours)
    low = np.abs(utility) <= TOO_LOW * np.abs(utility).max(initial=0)
    many = known.height > MANY
    columns.plot(np.flatnonzero(low) + 1, utility[low], "o", color=INK, markersize=2.5, rasterized=many)
    columns.axhline(0, color=INK, linewidth=0.7)
    columns.grid(visible=False, axis="x")
    columns.set(ylabel="utility per opportunity")
    clients_on(columns.xaxis, known["client_id"].to_list(), "least served first")
    figure.colorbar(shade, ax=columns, label="share of rounds available", pad=0.02)
    lorenz(shares, utility, color=BLUE)
    lorenz_axes(shares)
    return figure


@styled
def availability_map(run: RunData) -> Figure:
    """Who was there and who took part: a row per client, the most available on top, a column per round."""
    clients = standing(run).sort("opportunities", descending=True, maintain_order=True)["client_id"]
    figure, (axes,) = panels(1, height=min(1.6 + 0.12 * len(clients), 5.5))
    states = _states(run, clients)
    extent = (0.5, states.shape[1] + 0.5, states.shape[0] + 0.5, 0.5)
    axes.imshow(states, cmap=STATE_COLOURS, vmin=0, vmax=3, aspect="auto", interpolation="nearest", extent=extent)
    axes.grid(visible=False)
    axes.set(xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    clients_on(axes.yaxis, clients.to_list(), "most available first")
    if len(clients) <= FEW:
        axes.hlines(np.arange(1.5, len(clients)), 0.5, states.shape[1] + 0.5, color=FAINT, linewidth=0.5)
    patches = [Patch(facecolor=STATE_COLOURS(level), edgecolor=FAINT) for level in range(len(STATES))]
    axes.legend(patches, STATES, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
    return figure


@styled
def outcomes(run: RunData) -> Figure:
    """How many clients were available in each round, and how the selected ones ended."""
    figure, (axes,) = panels(1)
    rounds = run.rounds["round"].to_numpy()
    below = np.zeros(len(rounds))
    for outcome, colour in OUTCOMES.items():
        count = _outcome_counts(run, outcome)
        if count.any():
            label = outcome.replace("_", " ")
            bars(axes, rounds, count, below, colours=colour, label=label)
            below += count
    axes.step(rounds, run.rounds["num_available"].to_numpy(), where="mid", color=INK, linewidth=1, label="available")
    axes.grid(visible=False, axis="x")
    over_rounds(axes, "clients", (0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return figure


@styled
def shortfall(run: RunData) -> Figure:
    """What each client has less than its share, in the four parts of shortfall.csv; below zero it has more."""
    figure, (axes,) = panels(1, height=3.3)
    assert run.shortfall is not None, "the run has ended"
    table = run.shortfall.sort("shortfall", maintain_order=True)
    place = np.arange(1, table.height + 1)
    above, below = np.zeros(table.height), np.zeros(table.height)
    for part, (label, colour) in SHORTFALL_PARTS.items():
        loss = table[part].to_numpy()
        bottom = np.where(loss > 0, above, below)
        bars(axes, place, loss, bottom, colours=colour, label=label)
        above, below = above + np.maximum(loss, 0), below + np.minimum(loss, 0)
    axes.plot(place, table["shortfall"].to_numpy(), "D", color=INK, markersize=3, label="shortfall, their sum")
    axes.axhline(0, color=INK, linewidth=0.7)
    axes.grid(visible=False, axis="x")
    axes.set(ylabel="utility short of its share")
    clients_on(axes.xaxis, table["client_id"].to_list(), "largest surplus first")
    axes.margins(x=0.01)
    legend(axes)
    return figure


RUN_FIGURES: dict[str, tuple[Callable[[RunData], Figure], str]] = {
    "accuracy": (accuracy, "Line chart: accuracy over rounds"),
    "parity": (parity, "Line charts: selection gaps, coefficients of variation, and credited over net, over rounds"),
    "client-utility": (client_utility, "Bar chart: utility per opportunity of each client; line chart: Lorenz curve"),
    "availability": (availability_map, "Heat map: who was available, selected and took part in each round"),
    "outcomes": (outcomes, "Bar chart: outcomes of the selected clients in each round"),
}
"""The figures of any run by name, with what a reader who cannot see them is told."""

END_FIGURES = {"shortfall": (shortfall, "Bar chart: why each client has less or more than its share of utility")}
"""The figures of a run that has ended."""


def _states(run: RunData, clients: pl.Series) -> NDArray[np.int64]:
    """Return the state of each client (in the order given) in each round: a position in `STATES`."""
    state = pl.col("available") + pl.col("selected") + pl.col("participated")
    places = pl.DataFrame({"client_id": clients, "place": np.arange(len(clients))})
    columns = run.rounds.select("round").with_row_index("column")
    cells = run.clients.join(places, on="client_id").join(columns, on="round").select("place", "column", state=state)
    states = np.zeros((max(len(clients), 1), max(run.rounds.height, 1)), dtype=np.int64)
    states[cells["place"].to_numpy(), cells["column"].to_numpy()] = cells["state"].to_numpy()
    return states


def _outcome_counts(run: RunData, outcome: str) -> NDArray[np.int64]:
    """Return how many clients ended so in each round."""
    counts = run.clients.filter(pl.col("outcome") == outcome).group_by("round").len()
    return run.rounds.join(counts, on="round", how="left", maintain_order="left")["len"].fill_null(0).to_numpy()
