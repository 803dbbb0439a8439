import re
from pathlib import Path

import numpy as np
import pytest

from parityfl.core import fairness
from parityfl.reporting.comparison import METRICS

DOCS = Path(__file__).parents[2] / "docs"
METRICS_PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")


def section(number: int) -> str:
    return METRICS_PAGE.split(f"\n## {number}. ")[1].split("\n## ")[0]


def defined_in(number: int) -> set[str]:
    first_cells = re.findall(r"^\| ([^|]*) \|", section(number), flags=re.MULTILINE)
    return {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_figure_of_the_comparison_is_described():
    page = (DOCS / "reports.md").read_text(encoding="utf-8")
    assert all(f"`{metric.column}`" in page for metric in METRICS)


@pytest.mark.parametrize(
    ("losses", "credited", "figures"),
    [
        ([1.9, 1.0], [1.9, 1.9], (0, 3.8 / 1.1, 0.45 / 0.55)),
        ([0.8, 0.8], [1.1, 1.0], (0.0125 / 0.2625, 2.1 / 2.4, 0)),
    ],
)
def test_the_example_of_forgetting(losses: list[float], credited: list[float], figures: tuple[float, ...]):
    """Section 4: two clients with four opportunities each, initial loss 2."""
    net, utility = 2.0 - np.array(losses), np.array(credited)
    cv = fairness.coefficient_of_variation
    assert (cv(utility / 4), utility.sum() / net.sum(), cv(net)) == pytest.approx(figures, abs=1e-12)
