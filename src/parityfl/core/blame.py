"""Who is to blame where a part of another package fails: one line that names it, and where it happened."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath

from parityfl.core.errors import ParityflError, PartError, first_line


def ships(entry: type) -> bool:
    """Return whether a class is one of ours: what fails in it is a fault of the product, and keeps its traceback."""
    return entry.__module__.startswith("parityfl.")


@contextmanager
def blaming(label: str, entry: type, spared: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
    """Raise what goes wrong inside as a `PartError` that names the part; its cause is what was raised.

    Errors that are meant for the user pass, a lack of memory, and all of a part that ships.

    Args:
        label: what the line begins with, such as ``selector 'mine', round 3``.
        entry: the part's class.
        spared: tells what is not the part's fault.
    """
    try:
        yield
    except (ParityflError, MemoryError):
        raise
    except Exception as error:
        if ships(entry) or spared(error):
            raise
        raise PartError(f"{label}: {described(error, entry)}") from error


def described(error: Exception, entry: type) -> str:
    """Return an exception in one line: its type, what it says, and where in the part's module it comes from."""
    kind, said = type(error).__name__, first_line(error)
    place = _place(error, entry)
    return f"{kind if said == kind else f'{kind}: {said}'}{f' ({place})' if place else ''}"


def is_in(error: BaseException, package: str) -> bool:
    """Return whether an exception has come out of, or through, the code of a module or of a package."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(f"{frame.f_globals.get('__name__')}.".startswith(f"{package}.") for frame, _ in frames)


def _place(error: BaseException, entry: type) -> str:
    """Return the file and the line at which an exception has left the part's package; '' where it was never there."""
    package = entry.__module__.partition(".")[0]
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package:
            place = f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-2:])}:{line}"
    return place
