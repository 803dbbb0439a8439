"""Processes of ours that are forked from a server process, which has imported once what all of them need.

The standard library's multiprocessing runs the server: on Linux only, since elsewhere a fork cannot be relied on, and
only where the path of the server's socket is not too long. Otherwise each process starts afresh. None is ever a fork of
this process. Ctrl-C reaches neither the server nor them: this process gets it, and ends them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from tempfile import gettempdir
from types import ModuleType
from typing import Any

from parityfl.workers.cores import ONE_THREAD

LONGEST_PLACE = 75
"""Longest path in bytes of the folder for temporary files: with multiprocessing's names, a socket's has up to 107."""

_STARTING = threading.Lock()
"""Held while what a new process inherits is changed."""


def context() -> ForkServerContext | SpawnContext:
    """Return how processes are started."""
    if sys.platform == "linux" and len(os.fsencode(gettempdir())) <= LONGEST_PLACE:
        return get_context("forkserver")
    return get_context("spawn")


def open_server(modules: Sequence[str]) -> None:
    """Begin to import modules in the server process, while this process does other things; not if there is one."""
    ours = context()
    if ours.get_start_method() == "forkserver":
        ours.set_forkserver_preload(list(modules))
        with _bequeathing():
            forkserver.ensure_running()


def start(process: BaseProcess, given: Connection[Any, Any]) -> None:
    """Start a process; called in a thread, since it waits until the server process is there.

    Args:
        process: what to start.
        given: the end of a pipe that is among its arguments; closed here, so that only that process has it.
    """
    with given, _bequeathing():
        process.start()


def leave_with_parent() -> None:
    """Have this process, started by `start`, end when its parent does, however that ends and whatever is under way."""
    threading.Thread(target=_end_with_parent, name="leash", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _bequeathing() -> Iterator[None]:
    """Have the processes that are started inside use one thread, ignore Ctrl-C and know nothing of the user's script.

    Otherwise multiprocessing would run that script in each of them again, for definitions that they do not need.
    """
    resource_tracker.ensure_running()  # which would let Ctrl-C through again, were it done inside
    ((name, value),) = ONE_THREAD.items()
    with _STARTING:
        main, before = sys.modules["__main__"], os.environ.get(name)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ[name] = value
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
