"""Jobs for a crew that need no workbench; in a module of their own, since a worker's process imports them by name."""

import os
import signal
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from parityfl.core.errors import PartError
from parityfl.workers.jobs import TrainJob


@dataclass(frozen=True)
class Echo:
    """Returns a number and the process that it ran in."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    number: int

    def run(self, bench: Any, board: Any) -> tuple[int, int]:
        return self.number, os.getpid()


@dataclass(frozen=True)
class Die:
    """Kills its process: each time, or the first time only, which it remembers by a file.

    Only a worker's: a test whose crew brings it home fails, where its process would vanish and the others wait for it.
    """

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    once: str = ""
    made_in: int = field(default_factory=os.getpid)

    def run(self, bench: Any, board: Any) -> str:
        if self.once and os.path.exists(self.once):
            return "alive"
        if self.once:
            open(self.once, "w").close()
        assert os.getpid() != self.made_in, "a job that kills was given to the process of the tests"
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
        return "never"


@dataclass(frozen=True)
class DieOnce(Die):
    """The same, as a job that may be done again."""

    repeatable: ClassVar[bool] = True


@dataclass(frozen=True)
class Fail:
    """Raises an error."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    def run(self, bench: Any, board: Any) -> None:
        raise ValueError("a job that fails")


@dataclass(frozen=True)
class Blame:
    """Fails as a part of one's own."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    def run(self, bench: Any, board: Any) -> None:
        raise PartError("model 'mine': ValueError: a bug")


class OddError(Exception):
    """An error that cannot be brought back from another process: it is made of more than it says."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


@dataclass(frozen=True)
class FailOddly:
    """Raises an error that nobody else can read."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    def run(self, bench: Any, board: Any) -> None:
        raise OddError("an odd ", "error")


@dataclass(frozen=True)
class Return:
    """Returns what it carries."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    content: bytes

    def run(self, bench: Any, board: Any) -> bytes:
        return self.content


@dataclass(frozen=True)
class ReadFile:
    """Returns what a file says to its process."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    path: str

    def run(self, bench: Any, board: Any) -> str:
        return Path(self.path).read_text()


@dataclass(frozen=True)
class Starve:
    """Has memory in one process only."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    roomy: int

    def run(self, bench: Any, board: Any) -> int:
        if os.getpid() != self.roomy:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return self.roomy


@dataclass(frozen=True)
class Hoard:
    """Has an array when there is no more memory.

    Attributes:
        had: weak references to what it had.
    """

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    had: list[weakref.ref[Any]] = field(default_factory=list)

    def run(self, bench: Any, board: Any) -> None:
        array = np.zeros(1)
        self.had.append(weakref.ref(array))
        raise MemoryError("no more\nthan this")


@dataclass(frozen=True)
class Doze:
    """Takes longer than any test; no part of a round."""

    repeatable: ClassVar[bool] = False
    cost: ClassVar[int] = 1

    def run(self, bench: Any, board: Any) -> None:
        time.sleep(60)


@dataclass(frozen=True)
class Sleep(TrainJob):
    """Takes longer than any round of a test."""

    def run(self, bench: Any, board: Any) -> Any:
        time.sleep(60)
