"""Secrets: read from files or the environment, never from the command line; written so that only the owner reads."""

import os
from pathlib import Path

from parityfl.core.errors import ConfigError
from parityfl.files import replace_file, writing
from parityfl.wire.signing import Token

JOIN_TOKEN = "PARITYFL_JOIN_TOKEN"  # noqa: S105 - the variable's name
"""What admits a device to a coordinator, and proves the coordinator to the device."""
OPERATOR_TOKEN = "PARITYFL_OPERATOR_TOKEN"  # noqa: S105 - the variable's name
"""What lets an operator watch and command a coordinator from elsewhere."""


def read_token(variable: str, file: Path | None = None) -> Token | None:
    """Return a token: from `file`, from the environment, or from the file that ``<variable>_FILE`` names.

    Raises:
        ConfigError: a file cannot be read, or the token is too short.
    """
    if file is not None:
        return Token(_content(file, f"the token file {file}"), f"the token in {file}")
    if os.environ.get(variable):
        return Token(os.environ[variable].strip(), variable)
    named = os.environ.get(f"{variable}_FILE")
    if not named:
        return None
    return Token(_content(Path(named), f"{variable}_FILE = {named}"), f"the token in {named} ({variable}_FILE)")


def write_secret(path: Path, text: str) -> None:
    """Replace a file in one step, durably; nobody but its owner may read it.

    Raises:
        FolderError: it cannot be written.
    """
    with writing(path):
        replace_file(path, text.encode(), 0o600, durable=True)


def _content(file: Path, given: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{given} cannot be read ({reason}): name a file that holds the token and no more") from None
