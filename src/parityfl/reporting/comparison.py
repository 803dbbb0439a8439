"""What a comparison of runs is: a row per method, and paired differences from a baseline."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from parityfl.reporting.intervals import Estimate
from parityfl.reporting.load import RunOutline


@dataclass(frozen=True)
class Metric:
    """A figure of the comparison table.

    Attributes:
        column: its name in rounds.csv (or clients.csv).
        title: what tables call it.
        better: +1 where more is better, -1 where less is, 0 where it must not be ranked by itself.
        group: what it tells about.
        everywhere: whether every run has it; else tables show it only where some run does.
    """

    column: str
    title: str
    better: int
    group: str
    everywhere: bool = True


METRICS = (
    Metric("global_accuracy", "Global accuracy", 1, "Accuracy"),
    Metric("ema_global_accuracy", "Global accuracy, moving average", 1, "Accuracy"),
    Metric("worst10_client_accuracy", "Worst-10 % accuracy", 1, "Accuracy"),
    Metric("low_availability_accuracy", "Low-availability accuracy", 1, "Accuracy"),
    Metric("mean_personal_accuracy", "Personal accuracy", 1, "Accuracy", everywhere=False),
    Metric("worst10_personal_accuracy", "Worst-10 % personal accuracy", 1, "Accuracy", everywhere=False),
    Metric("client_accuracy_std", "Client accuracy std", -1, "Spread over clients", everywhere=False),
    Metric(
        "weighted_client_accuracy_std", "Client accuracy std, weighted", -1, "Spread over clients", everywhere=False
    ),
    Metric("conditional_selection_gap", "Conditional selection gap", -1, "Spread over clients"),
    Metric("utility_cv", "Utility CV", 0, "Utility, to be read together"),
    Metric("utility_jain", "Utility Jain", 0, "Utility, to be read together"),
    Metric("credited_to_net", "Credited / net", 0, "Utility, to be read together"),
    Metric("net_gain_cv", "Net-gain CV", -1, "Utility, to be read together"),
)
"""The comparison's figures in their order. The utility's figures stand beside credited / net and net-gain CV, because
alone they reward forgetting."""

CLIENT_METRICS = (
    Metric("eval_accuracy", "Client accuracy", 1, "Accuracy"),
    Metric("normalized_utility", "Client normalised utility", 0, "Utility, to be read together"),
)
"""What is compared client by client where there is one seed only."""


@dataclass(frozen=True)
class ComparedRun(RunOutline):
    """What a comparison keeps of a run: nothing that has rows per round and client, of which many runs have too many.

    Attributes:
        standing: where each client stands at its end, a row per client; see `standing`.
        attendance: a digest of which clients were available in which rounds.
        lost: whether the clients had lost more than they gained in the end; see `lost_in_the_end`.
    """

    standing: pl.DataFrame
    attendance: str
    lost: bool


@dataclass(frozen=True)
class Row:
    """A method in a setting.

    Attributes:
        setting: what tells its setting from the others of the comparison; '' where there is but one.
        method: its label.
        parts: the names of its selector and aggregator, and of its objective and server optimiser where it has one.
        runs: the finished runs, one per seed, by seed.
        missing: why there are none; '' where there are.
        estimates: mean over seeds by column, None where no run knows the figure.
    """

    setting: str
    method: str
    parts: str
    runs: tuple[ComparedRun, ...]
    missing: str
    estimates: dict[str, Estimate | None]

    @property
    def seeds(self) -> str:
        """The seeds, ascending, three or more in a row as a span."""
        return " ".join(_spans([run.seed for run in self.runs]))

    @property
    def clients(self) -> str:
        """How many clients the runs had."""
        return _span(run.standing.height for run in self.runs)

    @property
    def rounds(self) -> str:
        """How many rounds the runs had."""
        return _span(run.rounds.height for run in self.runs)


@dataclass(frozen=True)
class Difference:
    """A method's figure minus the baseline's, over pairs.

    Attributes:
        setting: as in `Row`.
        method: the method's label.
        baseline: the baseline's label.
        metric: which figure.
        pairs: what a pair is: `seeds`, or `clients` of one seed.
        estimate: mean difference and its interval; `n` pairs.
        positive: in how many pairs the method's figure is larger.
        sign_p: p of the sign test over seeds; None where there are too few.
    """

    setting: str
    method: str
    baseline: str
    metric: Metric
    pairs: str
    estimate: Estimate
    positive: int
    sign_p: float | None

    @property
    def identical(self) -> bool:
        """Whether the difference is exactly zero in every pair."""
        return self.estimate.mean == 0 and not self.estimate.half_width

    @property
    def verdict(self) -> str:
        """`identical` where no pair differs, `better` or `worse` where the interval excludes zero, else what it is.

        Clients of one seed settle nothing about others, so there it is better or worse `in this run`.
        """
        if self.identical:
            return "identical"
        if self.metric.better == 0:
            return "not ranked"
        if not self.estimate.has_interval:
            return "no interval"
        if not self.estimate.excludes_zero:
            return "not settled"
        word = "better" if self.estimate.mean * self.metric.better > 0 else "worse"
        return word if self.pairs == "seeds" else f"{word} in this run"


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: all that were given, in their order, also those that do not count.
        baseline: the label of the method that the others are compared with.
        rows: a row per setting and method, the baseline first.
        differences: from the baseline, per setting, method and figure.
        unpaired: a line for each run that has no partner, with the reason.
        notes: a line for each run that does not count, with the reason, and for each doubt about those that do.
    """

    runs: tuple[ComparedRun, ...]
    baseline: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    unpaired: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def settings(self) -> list[str]:
        """The settings, in the order of the rows."""
        return list(dict.fromkeys(row.setting for row in self.rows))

    @property
    def manifest(self) -> str:
        """SHA-256 over the model and ledger hashes of the runs that count, a line each, sorted; '' where none does.

        Whoever repeats the runs and gets the same has the same table, whatever the folders are called.
        """
        runs = (run.summary for row in self.rows for run in row.runs)
        lines = sorted(f"{summary.get('model_hash')} {summary.get('ledger_hash')}\n" for summary in runs)
        return sha256("".join(lines).encode()).hexdigest() if lines else ""

    @property
    def versions(self) -> dict[str, str]:
        """What the runs that count were made with: each package's version; several, sorted, where they differ."""
        return {name: " and ".join(sorted(found)) for name, found in versions_of(self.rows).items()}

    @property
    def metrics(self) -> list[Metric]:
        """The figures to show: those that every run has, and those that some run here does."""
        return [m for m in METRICS if m.everywhere or any(row.estimates[m.column] for row in self.rows)]


def versions_of(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Return all versions of each package that the runs of some rows were made with, as far as they use it."""
    made_with = [run.config.get("versions", {}) for row in rows for run in row.runs]
    names = dict.fromkeys(name for versions in made_with for name in versions)
    return {name: {versions[name] for versions in made_with if name in versions} for name in names}


def _spans(numbers: list[int]) -> list[str]:
    """Write ascending numbers, three or more in a row as first-last."""
    rows: list[list[int]] = []
    for value in numbers:
        if rows and rows[-1][-1] == value - 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    return [f"{row[0]}-{row[-1]}" if len(row) > 2 else " ".join(map(str, row)) for row in rows]


def _span(counts: Iterable[int]) -> str:
    low_to_high = sorted(set(counts))
    if not low_to_high:
        return "0"
    return str(low_to_high[0]) if len(low_to_high) == 1 else f"{low_to_high[0]}-{low_to_high[-1]}"
