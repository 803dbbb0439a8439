"""The exceptions that a user may meet.

    ParityflError            one clear line; the command line prints it and exits with `exit_code`
    |-- ConfigError          a key, a value or an option is wrong
    |-- DataError            a data set or a trace file is missing or malformed
    |-- PayloadError         named arrays, or the message with them, are not what was asked for
    |   `-- UnusableError    they are, and hold numbers that would spoil it
    |-- FolderError          what a run or a device keeps on disk cannot be used, read or written
    |-- FleetError           the coordinator or its clients cannot be reached or started, or fail
    `-- UnfinishedError      what was begun is not finished, or does not hold (exit code 3)
        `-- PartError        a part of one's own failed, or answered wrongly; its cause is what was raised

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
    """Named arrays lack a name, have a shape or a type that the model does not expect, or answer another question."""


class UnusableError(PayloadError):
    """Named arrays hold numbers that are not finite or too large: they would be refused whoever sent them."""


class FolderError(ParityflError):
    """A run folder, its report, a roster or credentials: not empty, not ours, damaged, or not to be written."""


class FleetError(ParityflError):
    """The coordinator is absent or refuses, a port is taken, client processes do not start, or a device fails."""


class UnfinishedError(ParityflError):
    """A run ended before its last round, also for want of disk or memory; or runs of a suite failed; or a claim."""

    exit_code = 3


class PartError(UnfinishedError):
    """A selector, an aggregator, an availability model or the like of another package raised, or answered wrongly."""
