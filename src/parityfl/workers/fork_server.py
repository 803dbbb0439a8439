"""Processes of ours that are forked from a server process, which has imported once what all of them need.

The standard library's multiprocessing runs the server; on Linux, for elsewhere a fork cannot be relied on, and where
the server's socket can have a path. Else each process starts afresh. It is never a fork of this process. Ctrl-C reaches
neither the server nor any of them: it is for this process, which then ends them.
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
"""Bytes of the path of the folder for temporary files that leave room for multiprocessing's names in a socket's 107."""

_STARTING = threading.Lock()
"""Held by who has changed for a moment what a new process would be given."""


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
    """Start a process, which takes as long as the server process needs to be there; for a thread.

    Args:
        process: what to start.
        given: the end of a pipe that is among its arguments; closed here, so that only that process has it.
    """
    with given, _bequeathing():
        process.start()


def leave_with_parent() -> None:
    """See that this process, started by `start`, ends when its parent does, however that does, in whatever work."""
    threading.Thread(target=_outlive_nobody, name="leash", daemon=True).start()


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _bequeathing() -> Iterator[None]:
    """Give the processes that are started inside one thread for numpy, no Ctrl-C, and nothing of the user's script.

    That would be run again in them, to find there what it defines, of which they need nothing.
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
