from io import StringIO
from pathlib import Path

import pytest
from folders import write_run
from rich.console import Console, RenderableType

from parityfl.reporting.compare import compare
from parityfl.reporting.comparison import METRICS, Comparison
from parityfl.reporting.load import load_run
from parityfl.reporting.tables import comparison_cells, difference_cells
from parityfl.reporting.terminal import LABEL_WIDTH, UNLIMITED, rich_differences, rich_table

NAMES = ["fedavg", "mine", "horvitz-thompson", "a", "b", "c", "d", "a-name-that-is-longer-than-any-column-should-be"]


def compared(folder: Path, methods: int, seeds: int, **more: str) -> Comparison:
    """Compare so many methods over so many seeds, with figures of several digits, and one that was interrupted."""
    written = [
        write_run(folder / f"{name}-{seed}", seed=seed, base=0.5 + 0.1 * seed - 0.01 * k, method=name, selector=f"s{k}")
        for k, name in enumerate(NAMES[:methods])
        for seed in range(seeds)
    ]
    written.append(write_run(folder / "half", method="half", selector="cup", rounds=3, status="interrupted"))
    return compare([load_run(path) for path in written])


def printed(what: RenderableType, width: int) -> str:
    console = Console(width=width, file=StringIO())
    console.print(what)
    return console.file.getvalue()


@pytest.mark.parametrize("methods", [1, 2, 8])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("width", [80, 160, UNLIMITED])
def test_no_name_and_no_number_is_cut_or_folded(tmp_path: Path, methods: int, seeds: int, width: int):
    """Long names alone are folded; what they hold is there all the same."""
    comparison = compared(tmp_path, methods, seeds)
    text = printed(rich_table(comparison), width)
    differences = printed(rich_differences(comparison), width)
    assert "…" not in text + differences
    assert max(map(len, [*text.splitlines(), *differences.splitlines()])) <= width
    for row in comparison_cells(comparison)[1:]:
        cells = [cell.partition(": ")[0] for cell in row]
        assert all(cell in text for cell in cells if len(cell) <= LABEL_WIDTH), row
        assert all(cell[:LABEL_WIDTH] in text and cell[LABEL_WIDTH:] in text for cell in cells), row
    for row in difference_cells(comparison.differences)[1:]:
        assert all(cell in differences for cell in (row[0], *row[2:5], row[-1])), row


def test_a_wide_terminal_has_one_table_for_each_group_and_a_narrow_one_has_more(tmp_path: Path):
    comparison = compared(tmp_path, 8, 3)
    groups = {metric.group for metric in METRICS}
    assert printed(rich_table(comparison), 160).count("─\n") == len(groups) + 1
    assert printed(rich_table(comparison), 80).count("─\n") > len(groups) + 1


def test_what_has_no_runs_is_missing_in_the_table(tmp_path: Path):
    comparison = compared(tmp_path, 2, 1)
    assert any(line.split()[:2] == ["half", "missing"] for line in printed(rich_table(comparison), 80).splitlines())


def test_methods_without_pairs_have_no_table_of_differences(tmp_path: Path):
    assert printed(rich_differences(compared(tmp_path, 1, 1)), 80).strip() == ""


def test_names_are_no_markup(tmp_path: Path):
    runs = [write_run(tmp_path / "a", method="[red]mine[/]"), write_run(tmp_path / "b", method="[bold]", selector="x")]
    comparison = compare([load_run(path) for path in runs])
    assert "[red]mine[/]" in printed(rich_table(comparison), 80)
    assert "[bold]: paired differences from [red]mine[/]" in printed(rich_differences(comparison), 80)
