"""How runs are compared: grouped by setting and method, and paired with the baseline's.

Runs of one seed share the initial model, the shards and the availability, whatever the method, so methods are compared
by differences within a seed. A pair that does not share these is not formed, and the comparison says why.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

import polars as pl

from parityfl.core.errors import FolderError
from parityfl.core.presets import parts, parts_joined
from parityfl.reporting.comparison import (
    CLIENT_METRICS,
    METRICS,
    ComparedRun,
    Comparison,
    Difference,
    Metric,
    Row,
    versions_of,
)
from parityfl.reporting.intervals import estimate, sign_test
from parityfl.reporting.labels import FEDAVG, method_key, methods, setting_key, settings
from parityfl.reporting.load import RunData, last_known, unfinished
from parityfl.reporting.netgain import lost_in_the_end, without_losses
from parityfl.reporting.standing import standing


def compare(runs: Iterable[RunData], baseline: str | None = None) -> Comparison:
    """Compare runs.

    Args:
        runs: at least one; those that did not finish count as missing.
        baseline: the label of the method to compare with; by default FedAvg (uniform selection, the mean of plain
            objectives, no server optimiser; of several the one of that name), else the first.

    Raises:
        FolderError: there are no runs, or none of that label; the message lists those there are.
    """
    return compare_kept([compared(run) for run in runs], baseline)


def compared(run: RunData) -> ComparedRun:
    """Return what a comparison keeps of a run."""
    there = run.clients.select("round", "client_id", "available").hash_rows()
    return ComparedRun(
        run.path,
        run.config,
        run.summary,
        without_losses(run).rounds,
        standing(run),
        sha256(there.to_numpy().tobytes()).hexdigest(),
        lost_in_the_end(run),
    )


def compare_kept(runs: Sequence[ComparedRun], baseline: str | None = None) -> Comparison:
    """Do what `compare` does, with what is kept of the runs: many of them need not be in memory at once."""
    if not runs:
        raise FolderError("nothing to compare: give at least one run folder")
    configs = [run.config for run in runs]
    setting_labels, method_labels = settings(configs), methods(configs)
    chosen = _baseline(runs, method_labels, baseline)
    groups: dict[tuple[str, str], list[ComparedRun]] = defaultdict(list)
    for run in runs:
        groups[setting_labels[setting_key(run.config)], method_labels[method_key(run.config)]].append(run)
    rows = [_row(setting, method, group) for (setting, method), group in groups.items()]
    rows.sort(key=lambda row: (row.setting, row.method != chosen))
    differences, unpaired = _differences(rows, chosen)
    notes = [note for group in groups.values() for note in _notes(group)] + _losses(runs) + _mixed(rows)
    return Comparison(tuple(runs), chosen, tuple(rows), tuple(differences), tuple(unpaired), tuple(notes))


def why_unpaired(run: ComparedRun, other: ComparedRun) -> str:
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
    return "" if run.attendance == other.attendance else "not the same clients were available in the same rounds"


def pairs_of(row: Row, base: Row | None, baseline: str) -> tuple[list[tuple[ComparedRun, ComparedRun]], list[str]]:
    """Return a method's runs with the baseline's of their seed, and why the others have no partner.

    Args:
        row: the method.
        base: the baseline in the same setting; None where it has no runs there.
        baseline: the baseline's label.
    """
    partners = {run.seed: run for run in base.runs} if base else {}
    here = " in this setting" if row.setting else ""
    pairs, reasons = [], []
    for run in row.runs:
        partner = partners.get(run.seed)
        reason = why_unpaired(run, partner) if partner else f"no finished {baseline} run with seed {run.seed}{here}"
        if partner is None or reason:
            reasons.append(f"{run.path} is unpaired: {reason}")
        else:
            pairs.append((run, partner))
    return pairs, reasons


def _baseline(runs: Sequence[ComparedRun], labels: dict[str, str], wanted: str | None) -> str:
    if wanted is None:
        plain = [run for run in runs if parts(run.config) == FEDAVG]
        return labels[method_key(max(plain, key=_plainness, default=runs[0]).config)]
    if wanted not in labels.values():
        raise FolderError(f"no run of the baseline {wanted!r}: there are {', '.join(labels.values())}")
    return wanted


def _plainness(run: ComparedRun) -> tuple[bool, bool]:
    """Order runs of FedAvg: what is called so is plainer than a variant, and what is not rounded than what is."""
    dtype = run.config.get("transport", {}).get("dtype", "float32")
    return run.config.get("method") == "fedavg", dtype == "float32"


def _row(setting: str, method: str, group: list[ComparedRun]) -> Row:
    runs = tuple(_one_per_seed(group).values())
    missing = "" if runs else "; ".join(unfinished(run) for run in group)
    return Row(
        setting,
        method,
        parts_joined(group[0].config),
        runs,
        missing,
        {m.column: estimate(_known(runs, m.column)) for m in METRICS},
    )


def _one_per_seed(group: list[ComparedRun]) -> dict[int, ComparedRun]:
    """Return the finished runs by ascending seed: the first of each, so that no seed counts twice."""
    first: dict[int, ComparedRun] = {}
    for run in sorted((run for run in group if run.finished), key=lambda run: run.seed):
        first.setdefault(run.seed, run)
    return first


def _notes(group: list[ComparedRun]) -> list[str]:
    counted = _one_per_seed(group)
    left_out = [f"{run.path} is left out: {unfinished(run)}" for run in group if not run.finished]
    repeated = [
        f"{run.path} repeats seed {run.seed} of {counted[run.seed].path}, which counts"
        for run in group
        if run.finished and run is not counted[run.seed]
    ]
    return left_out + repeated


def _losses(runs: Sequence[ComparedRun]) -> list[str]:
    finished = [run for run in runs if run.finished]
    lost = [str(run.path) for run in finished if run.lost]
    if not lost:
        return []
    return [
        f"Net-gain CV and credited / net leave out {len(lost)} of {len(finished)} finished runs, because their clients "
        f"lost more than they gained: {', '.join(lost)}"
    ]


def _mixed(rows: Iterable[Row]) -> list[str]:
    several = [f"{name} {' and '.join(sorted(found))}" for name, found in versions_of(rows).items() if len(found) > 1]
    if not several:
        return []
    return [
        f"The runs were made with {', '.join(several)}: a difference may come from that, so run them again with one"
    ]


def _known(runs: Iterable[ComparedRun], column: str) -> list[float]:
    values = (last_known(run.rounds, column) for run in runs)
    return [value for value in values if value is not None]


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


def _by_seed(row: Row, baseline: str, pairs: list[tuple[ComparedRun, ComparedRun]]) -> list[Difference]:
    found = (_difference(row, baseline, metric, "seeds", _seed_differences(pairs, metric)) for metric in METRICS)
    return [difference for difference in found if difference]


def _seed_differences(pairs: list[tuple[ComparedRun, ComparedRun]], metric: Metric) -> list[float]:
    ends = [[last_known(run.rounds, metric.column) for run in pair] for pair in pairs]
    return [mine - theirs for mine, theirs in ends if mine is not None and theirs is not None]


def _by_client(row: Row, baseline: str, run: ComparedRun, partner: ComparedRun) -> list[Difference]:
    both = run.standing.join(partner.standing, on="client_id", suffix="_base", maintain_order="left")
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
