"""The exceptions that a user may meet.

    ParityflError            one clear line; the command line prints it and exits with `exit_code`
    |-- ConfigError          a key, a value or an option is wrong
    |-- DataError            a data set or a trace file is missing or malformed
    |-- PayloadError         named arrays do not fit the model that they are meant for
    |   `-- UnusableError    they fit, and hold numbers that would spoil it
    |-- FolderError          an output folder cannot be used, or a journal cannot be read
    |-- FleetError           the coordinator or its clients cannot be reached or started
    `-- UnfinishedError      the run ended without finishing its rounds (exit code 3)

What goes wrong with one client in one round is no exception: it is an `Outcome` with a reason.
"""

MAX_LINE = 200
"""Characters of what a foreign exception says that go into a line of ours."""


def first_line(error: BaseException) -> str:
    """Return what an exception says, its first line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:MAX_LINE] if lines else type(error).__name__


class ParityflError(Exception):
    """Base of every error that is meant for the user: the message names the value and the remedy."""

    exit_code = 2


class ConfigError(ParityflError):
    """A configuration key, its value or a command-line option is wrong."""


class DataError(ParityflError):
    """A data set or a trace file is missing or is not what it should be."""


class PayloadError(ParityflError):
    """Named arrays lack a name, or have a shape or a type that the model does not expect."""


class UnusableError(PayloadError):
    """Named arrays hold numbers that are not finite or too large: they would be refused whoever sent them."""


class FolderError(ParityflError):
    """A run folder is not empty, not ours, or its journal cannot be read."""


class FleetError(ParityflError):
    """The coordinator is absent, a port is taken, or client processes do not start."""


class UnfinishedError(ParityflError):
    """The run ended without finishing its rounds."""

    exit_code = 3
