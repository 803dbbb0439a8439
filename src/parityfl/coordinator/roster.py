"""Which device has which index, kept in a file so that a resumed run finds everyone in the old place.

A line for each device, in the order in which they came: a new one costs as much whoever is there already.
"""

import json
from pathlib import Path

from parityfl.core.errors import FolderError
from parityfl.files import append_line, whole_lines, writing


def read_roster(path: Path) -> dict[int, str]:
    """Return the names by index; nothing where there is no file yet.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        return {int(entry["index"]): str(entry["device_id"]) for entry in map(json.loads, whole_lines(path))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FolderError(f"{path} cannot be read ({error}): restore it, or start the run in a new folder") from None


def add_to_roster(path: Path, index: int, device_id: str, *, durable: bool) -> None:
    """Add a device, `durable` against a loss of power.

    Raises:
        FolderError: the file cannot be written.
    """
    with writing(path):
        append_line(path, json.dumps({"index": index, "device_id": device_id}).encode(), durable=durable)
