"""The list of the runs below a folder, finished and running."""

from collections.abc import Callable
from pathlib import Path

from parityfl.core.errors import FolderError
from parityfl.core.presets import method_label
from parityfl.reporting.load import CONFIG, ROUNDS, SUMMARY, RunOutline, last_known, load_outline, run_folders
from parityfl.reporting.report import render
from parityfl.reporting.tables import number

Stamp = tuple[tuple[int, int] | None, ...]
"""When each file that a line is made from last changed, in ns, and its size in bytes; None where it cannot be seen."""

Line = dict[str, str] | str
"""What the page shows of a run; a text says why it cannot be read."""


class RunIndex:
    """The list of the runs below a folder. It can be asked for again and again: what has not changed is not read again.

    Args:
        folder: of runs.
        page_of: says where the page of one of them is: takes the folder and the run's, returns a link.
    """

    def __init__(self, folder: Path, page_of: Callable[[Path, Path], str]) -> None:
        self._folder = folder
        self._page_of = page_of
        self._known: dict[Path, tuple[Stamp, Line]] = {}

    def page(self) -> str:
        """Return the list as HTML; for one thread at a time."""
        self._known = {path: self._looked_at(path) for path in run_folders(self._folder)}
        found = [line for _, line in self._known.values()]
        lines = [line for line in found if isinstance(line, dict)]
        unread = [line for line in found if isinstance(line, str)]
        return render("index.html.jinja", folder=self._folder, runs=lines, unread=unread)

    def _looked_at(self, path: Path) -> tuple[Stamp, Line]:
        stamp = tuple(_changed(path / name) for name in (CONFIG, ROUNDS, SUMMARY))
        known = self._known.get(path)
        return known if known is not None and known[0] == stamp else (stamp, self._line(path))

    def _line(self, path: Path) -> Line:
        """Return a run's line, or why there is none."""
        try:
            run = load_outline(path)
        except FolderError as error:
            return str(error)
        return _cells(run) | {
            "name": path.relative_to(self._folder).as_posix(),
            "link": self._page_of(self._folder, path),
        }


def _changed(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size  # unlike the time of its content, this one tells of its rights, too


def _cells(run: RunOutline) -> dict[str, str]:
    planned = "?" if run.rounds_planned is None else run.rounds_planned
    columns = ("global_accuracy", "worst10_client_accuracy", "conditional_selection_gap")
    return {
        "method": method_label(run.config),
        "seed": str(run.seed),
        "status": run.status,
        "rounds": f"{run.rounds.height} of {planned}",
        **{column: number(last_known(run.rounds, column)) for column in columns},
    }
