"""What a comparison says in words: which differences from the baseline are settled, and which are not."""

from dataclasses import dataclass

from parityfl.reporting.comparison import Comparison, Difference
from parityfl.reporting.tables import interval, number

VERDICTS = (
    "better", "better in this run", "worse", "worse in this run", "not settled", "no interval", "identical"
)  # fmt: skip
"""The verdicts that a method is given in words, in their order."""


@dataclass(frozen=True)
class Verdict:
    """How a method compares with the baseline: a line for each kind of verdict."""

    title: str
    lines: list[str]


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Return, for each method and setting, what its paired differences from the baseline settle."""
    grouped: dict[tuple[str, str], list[Difference]] = {}
    for difference in comparison.differences:
        grouped.setdefault((difference.setting, difference.method), []).append(difference)
    return [_verdict(setting, method, found) for (setting, method), found in grouped.items()]


def _verdict(setting: str, method: str, differences: list[Difference]) -> Verdict:
    """Sort the differences by verdict; one seed gives no interval, so there the clients are the pairs."""
    seeds = max((d.estimate.n for d in differences if d.pairs == "seeds"), default=0)
    counted = [d for d in differences if seeds == 1 or d.pairs == "seeds"]
    sorts = ((verdict, [d for d in counted if d.verdict == verdict]) for verdict in VERDICTS)
    title = f"{method} against {differences[0].baseline}, {'one seed' if seeds == 1 else f'{seeds} seeds'}"
    lines = [f"{verdict.capitalize()}: {_changes(found)}." for verdict, found in sorts if found]
    return Verdict(f"{title} ({setting})" if setting else title, lines)


def _changes(differences: list[Difference]) -> str:
    return ", ".join(f"{d.metric.title[0].lower()}{d.metric.title[1:]}{_size(d)}" for d in differences)


def _size(difference: Difference) -> str:
    found = difference.estimate
    if difference.identical:
        return ""
    ends = f" {interval(found, signed=True)}".replace(", ", ",\u00a0") if found.low is not None else ""
    return f" {number(found.mean, signed=True)}{ends}"
