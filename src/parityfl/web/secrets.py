"""Secrets: read from files or the environment, never from the command line; written so that only the owner reads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parityfl.core.errors import ConfigError, FolderError
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
        return Token(_content(file), f"the token in {file}")
    if os.environ.get(variable):
        return Token(os.environ[variable], variable)
    named = os.environ.get(f"{variable}_FILE")
    return Token(_content(Path(named)), f"the token in {named} ({variable}_FILE)") if named else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line that names `path`.

    Raises:
        FolderError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise FolderError(f"{path} cannot be written: {error.strerror}") from None


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, where there is none.

    Raises:
        FolderError: it cannot be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_secret(path: Path, text: str) -> None:
    """Replace a file in one step; nobody but its owner may read it.

    Raises:
        FolderError: it cannot be written.
    """
    replace_file(path, text, 0o600)


def replace_file(path: Path, text: str, mode: int = 0o666, *, durable: bool = True) -> None:
    """Replace a file in one step.

    Args:
        path: the file.
        text: what it is to hold.
        mode: who may read and write it, less what the process's umask takes away.
        durable: whether to wait until a loss of power cannot take it, neither as it was nor as it is to be.

    Raises:
        FolderError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.part")
    with writing(path):
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        draft.replace(path)


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token file {file} cannot be read: {error}") from None
