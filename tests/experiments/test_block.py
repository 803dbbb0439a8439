"""A run that is started where an event loop runs already, as in a notebook."""

import asyncio
import os
import signal
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from parityfl.config import Config
from parityfl.engine.folder import RunFolder
from parityfl.experiments.blocking import block, run_until_stopped
from parityfl.experiments.run import execute

ROUNDS = 100_000


class Interrupts:
    """An observer that presses Ctrl-C in the third round."""

    def started(self, weights: object, rounds_done: int, rounds_total: int) -> None:
        """Wait for rounds."""

    def round_closed(self, closed: object) -> None:
        """Interrupt the thread that waits for the run."""
        self.rounds = getattr(self, "rounds", 0) + 1
        if self.rounds == 3:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_cell_ends_its_run_so_that_it_can_be_resumed(tmp_path: Path) -> None:
    """Not after the run's last round, which would be hours later."""
    config = Config(
        population={"clients": 4, "per_round": 2},
        rounds={"count": ROUNDS},
        engine={"workers": 1},
    )

    async def cell() -> None:
        execute(config, tmp_path / "run", watch=lambda: nullcontext(Interrupts()))

    before, threads = signal.signal(signal.SIGINT, signal.default_int_handler), threading.active_count()
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.new_event_loop().run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, before)
    assert threading.active_count() <= threads
    summary = RunFolder(tmp_path / "run").summary()
    assert summary["status"] == "interrupted"
    assert 3 <= summary["rounds_completed"] < ROUNDS


def test_a_program_keeps_its_own_handling_of_sigterm() -> None:
    def ours(number: int, frame: object) -> None:
        """Do what the program does."""

    async def work() -> None:
        await asyncio.sleep(0)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        run_until_stopped(work)
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_of_the_work_comes_alone() -> None:
    async def work() -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError) as caught:
        block(work)
    assert caught.value.__context__ is None
