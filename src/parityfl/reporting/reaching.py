"""How soon: the round in which a method is where the baseline ends, in accuracy and in parity.

Where it ends is the mean over the last fifth of its rounds: one round is noisy, and an equally good method would often
never get where the luckiest last round was. What is left of the rounds does not count, so a method that is quick and
then stands still is told from one that is better in the end. A run that never gets there took longer than its rounds:
it is counted as that, not left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from statistics import median

import numpy as np
import polars as pl

from parityfl.reporting.compare import pairs_of
from parityfl.reporting.comparison import ComparedRun, Comparison, Row
from parityfl.reporting.intervals import Estimate, estimate

LAST_PART = 5


@dataclass(frozen=True)
class Target:
    """What is to be reached: where the baseline ends in a figure.

    Attributes:
        column: the figure's name in rounds.csv.
        title: what tables call it.
        better: +1 where more is better, -1 where less is.
        lasting: whether it counts from the round on from which it never gets worse than that again, as a figure does
            that adds up all rounds and says little in the first of them; else from the first round that is as good.
    """

    column: str
    title: str
    better: int
    lasting: bool


TARGETS = (
    Target("global_accuracy", "Global accuracy", 1, lasting=False),
    Target("conditional_selection_gap", "Conditional selection gap", -1, lasting=True),
)


@dataclass(frozen=True)
class Pace:
    """In which rounds the runs of a method reach what the baseline of their seed ends with.

    Attributes:
        setting: as in `Row`.
        method: the method's label.
        target: which figure.
        value: where the baseline ends, over the same seeds.
        rounds: a run's round each, by ascending seed; infinite where it never gets there.
        within: how many rounds the runs had.
    """

    setting: str
    method: str
    target: Target
    value: Estimate
    rounds: tuple[float, ...]
    within: int

    @property
    def median(self) -> float:
        """The median round; infinite where half of the runs, or more, do not get there."""
        return median(self.rounds)

    @property
    def reached(self) -> int:
        """How many runs get there."""
        return sum(not isinf(number) for number in self.rounds)


def paces(comparison: Comparison) -> list[Pace]:
    """Return how soon each method, the baseline among them, is where the baseline ends; none where it is the only one.

    Methods and baseline are paired as for differences: by seed, in one setting.
    """
    bases = {row.setting: row for row in comparison.rows if row.method == comparison.baseline}
    rows = comparison.rows if len({row.method for row in comparison.rows}) > 1 else ()
    paired = [(row, pairs_of(row, bases.get(row.setting), comparison.baseline)[0]) for row in rows]
    found = (_pace(row, pairs, target) for target in TARGETS for row, pairs in paired)
    return [pace for pace in found if pace]


def round_of(known: pl.DataFrame, target: Target, value: float) -> float:
    """Return the round from which on a run's figure counts as no worse than `value`; infinite where there is none.

    Args:
        known: the column `round`, ascending, and the figure's, without a gap.
        target: which figure.
        value: what is to be reached.
    """
    good = (known[target.column].to_numpy() - value) * target.better >= 0
    if target.lasting:
        good = np.logical_and.accumulate(good[::-1])[::-1]
    return float(known["round"][int(good.argmax())]) if good.any() else inf


def _pace(row: Row, pairs: Sequence[tuple[ComparedRun, ComparedRun]], target: Target) -> Pace | None:
    shared = [both for pair in pairs if not (both := _known_to_both(*pair, target.column)).is_empty()]
    ends = [_end(both[f"{target.column}_base"]) for both in shared]
    mean = estimate(ends)
    if mean is None:
        return None
    rounds = tuple(round_of(both, target, end) for both, end in zip(shared, ends, strict=True))
    return Pace(row.setting, row.method, target, mean, rounds, max(run.rounds.height for run, _ in pairs))


def _end(values: pl.Series) -> float:
    """Return the mean of the last fifth of some values, of one at least."""
    return float(np.mean(values.tail(max(1, len(values) // LAST_PART)).to_numpy()))


def _known_to_both(run: ComparedRun, partner: ComparedRun, column: str) -> pl.DataFrame:
    """Return a figure of a pair in the rounds in which both know it: one may measure it more often than the other."""
    mine, theirs = (each.rounds.select("round", column).drop_nulls() for each in (run, partner))
    return mine.join(theirs, on="round", suffix="_base").sort("round")
