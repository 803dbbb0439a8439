"""What is wrong with a configuration, as one line about the first key that is."""

import reprlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from parityfl.core.errors import ConfigError


class KeyFaultError(ConfigError):
    """A fault of one key, whose dotted name is `key`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def explained(error: ValidationError, known: Mapping[str, list[str]], prefix: tuple[str, ...] = ()) -> KeyFaultError:
    """Turn pydantic's report into one line about the first key that is wrong.

    Args:
        error: the report.
        known: the keys of each section; none where all keys are known to exist.
        prefix: where in the configuration the keys of the report are.
    """
    faults = [((*prefix, *details["loc"]), details) for details in error.errors()]
    place = faults[0][0][:2]
    # A value that may be of several types is wrong in each of them: the longest path tells most.
    _, details = max((fault for fault in faults if fault[0][:2] == place), key=lambda fault: len(fault[0]))
    key = ".".join(str(part) for part in place)
    if details["type"] == "extra_forbidden":
        if len(place) == 1:
            return unknown(key, list(known), "the top level")
        return unknown(key, known[str(place[0])], f"[{place[0]}]")
    message = _said(details)
    if details["type"] == "model_type":
        message = f"[{key}] is a section: give its keys, such as {key}.{known[key][0]}"
    return KeyFaultError(key, f"{key} = {reprlib.repr(details['input'])}: {message}")


def _said(details: Mapping[str, Any]) -> str:
    """Return what pydantic says, with a limit of many digits as a power of ten."""
    words = f"{details['msg'][0].lower()}{details['msg'][1:]}"
    limit = next(iter(details.get("ctx", {}).values()), None)
    return f"{words.rpartition(' ')[0]} {limit:g}" if isinstance(limit, float) else words


def unknown(key: str, known: list[str], owner: str) -> KeyFaultError:
    """Return the fault of a key that its owner does not have, with the most similar one that it has."""
    close = get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = key if key.isprintable() else repr(key)
    return KeyFaultError(key, f"unknown key {shown}: {hint}{owner} has {', '.join(sorted(known)) or 'no keys'}")
