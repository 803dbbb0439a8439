"""Which device has which index, kept in a file so that a resumed run finds everyone in the old place."""

import json
from collections.abc import Mapping
from pathlib import Path

from parityfl.core.errors import FolderError
from parityfl.files import replace_file, writing


def read_roster(path: Path) -> dict[int, str]:
    """Return the names by index; nothing where there is no file yet.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        return {int(index): str(name) for index, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise FolderError(f"{path} cannot be read ({error}): restore it, or start the run in a new folder") from None


def write_roster(path: Path, roster: Mapping[int, str], *, durable: bool) -> None:
    """Replace the file in one step, `durable` against a loss of power.

    Raises:
        FolderError: it cannot be written.
    """
    with writing(path):
        replace_file(path, json.dumps(dict(roster)).encode(), durable=durable)
