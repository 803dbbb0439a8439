"""Several runs side by side: a row per method, and paired differences from a baseline.

Runs of one seed share the initial model, the shards and the availability, whatever the method, so methods are compared
by differences within a seed. A pair that does not share these is not formed, and the comparison says why.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import polars as pl

from parityfl.core.errors import FolderError
from parityfl.core.presets import parts
from parityfl.reporting.intervals import Estimate, estimate, sign_test
from parityfl.reporting.labels import FEDAVG, method_key, methods, parts_label, setting_key, settings
from parityfl.reporting.load import RunData, last_known
from parityfl.reporting.standing import standing


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
    Metric("conditional_selection_gap", "Conditional selection gap", -1, "Selection"),
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
class Row:
    """A method in a setting.

    Attributes:
        setting: what tells its setting from the others of the comparison; '' where there is but one.
        method: its label.
        parts: the names of its selector and aggregator.
        runs: the finished runs, one per seed, by seed.
        missing: why there are none; '' where there are.
        estimates: mean over seeds by column, None where no run knows the figure.
    """

    setting: str
    method: str
    parts: str
    runs: tuple[RunData, ...]
    missing: str
    estimates: dict[str, Estimate | None]

    @property
    def seeds(self) -> str:
        """The seeds, ascending, three or more in a row as a span."""
        return " ".join(_spans([run.seed for run in self.runs]))

    @property
    def clients(self) -> str:
        """How many clients the runs had."""
        return _span(run.clients["client_id"].n_unique() for run in self.runs)

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
    def verdict(self) -> str:
        """`better` or `worse` where the interval excludes zero and the figure ranks methods, else what it is."""
        if self.metric.better == 0:
            return "not ranked"
        if self.estimate.low is None:
            return "no interval"
        if not self.estimate.excludes_zero:
            return "not settled"
        return "better" if self.estimate.mean * self.metric.better > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        baseline: the label of the method that the others are compared with.
        rows: a row per setting and method, the baseline first.
        differences: from the baseline, per setting, method and figure.
        unpaired: a line for each run that has no partner, with the reason.
        notes: a line for each run that does not count, with the reason, and for each doubt about those that do.
    """

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
        return {name: " and ".join(sorted(found)) for name, found in _versions(self.rows).items()}

    @property
    def metrics(self) -> list[Metric]:
        """The figures to show: those that every run has, and those that some run here does."""
        return [m for m in METRICS if m.everywhere or any(row.estimates[m.column] for row in self.rows)]


def compare(runs: Sequence[RunData], baseline: str | None = None) -> Comparison:
    """Compare runs.

    Args:
        runs: at least one; those that did not finish count as missing.
        baseline: the label of the method to compare with; by default FedAvg (uniform selection, the mean of plain
            objectives, no server optimiser; of several the one of that name), else the first.

    Raises:
        FolderError: there are no runs, or none of that label; the message lists those there are.
    """
    if not runs:
        raise FolderError("nothing to compare: give at least one run folder")
    configs = [run.config for run in runs]
    setting_labels, method_labels = settings(configs), methods(configs)
    chosen = _baseline(runs, method_labels, baseline)
    groups: dict[tuple[str, str], list[RunData]] = defaultdict(list)
    for run in runs:
        groups[setting_labels[setting_key(run.config)], method_labels[method_key(run.config)]].append(run)
    rows = [_row(setting, method, group) for (setting, method), group in groups.items()]
    rows.sort(key=lambda row: (row.setting, row.method != chosen))
    differences, unpaired = _differences(rows, chosen)
    notes = [note for group in groups.values() for note in _notes(group)] + _mixed(rows)
    return Comparison(chosen, tuple(rows), tuple(differences), tuple(unpaired), tuple(notes))


def why_unpaired(run: RunData, other: RunData) -> str:
    """Return why two runs are no pair, '' where they are one.

    A pair shares seed and setting, has as many rounds, and the same clients were available in the same rounds.
    """
    if run.seed != other.seed:
        return f"seeds {run.seed} and {other.seed} differ"
    distinct = settings([run.config, other.config])
    if len(distinct) > 1:
        return "settings differ: " + " against ".join(distinct.values())
    if run.rounds.height != other.rounds.height:
        return f"{run.rounds.height} rounds against {other.rounds.height}"
    seen = [frame.select("round", "client_id", "available") for frame in (run.clients, other.clients)]
    return "" if seen[0].equals(seen[1]) else "not the same clients were available in the same rounds"


def pairs_of(row: Row, base: Row | None, baseline: str) -> tuple[list[tuple[RunData, RunData]], list[str]]:
    """Return a method's runs with the baseline's of their seed, and why the others have no partner.

    Args:
        row: the method.
        base: the baseline in the same setting; None where it has no runs there.
        baseline: the baseline's label.
    """
    partners = {run.seed: run for run in base.runs} if base else {}
    pairs, reasons = [], []
    for run in row.runs:
        partner = partners.get(run.seed)
        reason = why_unpaired(run, partner) if partner else f"no finished {baseline} run with seed {run.seed}"
        if partner is None or reason:
            reasons.append(f"{run.path} is unpaired: {reason}")
        else:
            pairs.append((run, partner))
    return pairs, reasons


def unfinished(run: RunData) -> str:
    """Return how far a run got that did not finish, '' where it did."""
    planned = "" if run.rounds_planned is None else f" of {run.rounds_planned}"
    return "" if run.finished else f"{run.status} after {run.rounds.height}{planned} rounds"


def _baseline(runs: Sequence[RunData], labels: dict[str, str], wanted: str | None) -> str:
    if wanted is None:
        plain = [run for run in runs if parts(run.config) == FEDAVG]
        return labels[method_key(max(plain, key=_plainness, default=runs[0]).config)]
    if wanted not in labels.values():
        raise FolderError(f"no run of the baseline {wanted!r}: there are {', '.join(labels.values())}")
    return wanted


def _plainness(run: RunData) -> tuple[bool, bool]:
    """Order runs of FedAvg: what is called so is plainer than a variant, and what is not rounded than what is."""
    dtype = run.config.get("transport", {}).get("dtype", "float32")
    return run.config.get("method") == "fedavg", dtype == "float32"


def _row(setting: str, method: str, group: list[RunData]) -> Row:
    runs = tuple(_one_per_seed(group).values())
    missing = "" if runs else "; ".join(unfinished(run) for run in group)
    return Row(
        setting,
        method,
        parts_label(group[0].config),
        runs,
        missing,
        {m.column: estimate(_known(runs, m.column)) for m in METRICS},
    )


def _one_per_seed(group: list[RunData]) -> dict[int, RunData]:
    """Return the finished runs by ascending seed: the first of each, so that no seed counts twice."""
    first: dict[int, RunData] = {}
    for run in sorted((run for run in group if run.finished), key=lambda run: run.seed):
        first.setdefault(run.seed, run)
    return first


def _notes(group: list[RunData]) -> list[str]:
    counted = _one_per_seed(group)
    left_out = [f"{run.path} is left out: {unfinished(run)}" for run in group if not run.finished]
    repeated = [
        f"{run.path} repeats seed {run.seed} of {counted[run.seed].path}, which counts"
        for run in group
        if run.finished and run is not counted[run.seed]
    ]
    return left_out + repeated


def _versions(rows: Iterable[Row]) -> dict[str, set[str]]:
    made_with = [run.config.get("versions", {}) for row in rows for run in row.runs]
    names = dict.fromkeys(name for versions in made_with for name in versions)
    return {name: {versions.get(name, "unknown") for versions in made_with} for name in names}


def _mixed(rows: Iterable[Row]) -> list[str]:
    several = [f"{name} {' and '.join(sorted(found))}" for name, found in _versions(rows).items() if len(found) > 1]
    if not several:
        return []
    return [
        f"The runs were made with {', '.join(several)}: a difference may come from that, so run them again with one"
    ]


def _known(runs: Iterable[RunData], column: str) -> list[float]:
    values = (last_known(run.rounds, column) for run in runs)
    return [value for value in values if value is not None]


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


def _differences(rows: list[Row], baseline: str) -> tuple[list[Difference], list[str]]:
    bases = {row.setting: row for row in rows if row.method == baseline}
    differences: list[Difference] = []
    unpaired: list[str] = []
    for row in (row for row in rows if row.method != baseline):
        pairs, reasons = pairs_of(row, bases.get(row.setting), baseline)
        unpaired += reasons
        differences += _by_seed(row, baseline, pairs)
        differences += _by_client(row, baseline, *pairs[0]) if len(pairs) == 1 else []
    return differences, unpaired


def _by_seed(row: Row, baseline: str, pairs: list[tuple[RunData, RunData]]) -> list[Difference]:
    found = (_difference(row, baseline, metric, "seeds", _seed_differences(pairs, metric)) for metric in METRICS)
    return [difference for difference in found if difference]


def _seed_differences(pairs: list[tuple[RunData, RunData]], metric: Metric) -> list[float]:
    ends = [[last_known(run.rounds, metric.column) for run in pair] for pair in pairs]
    return [mine - theirs for mine, theirs in ends if mine is not None and theirs is not None]


def _by_client(row: Row, baseline: str, run: RunData, partner: RunData) -> list[Difference]:
    both = standing(run).join(standing(partner), on="client_id", suffix="_base", maintain_order="left")
    found = []
    for metric in CLIENT_METRICS:
        values = both.select(pl.col(metric.column) - pl.col(metric.column + "_base")).to_series().drop_nulls()
        found.append(_difference(row, baseline, metric, "clients", values.to_list()))
    return [difference for difference in found if difference]


def _difference(row: Row, baseline: str, metric: Metric, pairs: str, values: list[float]) -> Difference | None:
    mean = estimate(values)
    if mean is None:
        return None
    positive = sum(value > 0 for value in values)
    sign_p = sign_test(values) if pairs == "seeds" else None
    return Difference(row.setting, row.method, baseline, metric, pairs, mean, positive, sign_p)
