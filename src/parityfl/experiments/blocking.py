"""Coroutines that a caller waits for: run to their end, and stopped by SIGTERM or Ctrl-C once they have cleaned up."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor


def block(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a coroutine to its end, also where an event loop runs already (a notebook)."""
    if not _is_in_loop():
        run_until_stopped(work)
        return
    begun: Future[Callable[[], object]] = Future()

    async def in_thread() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        await work()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(in_thread()))
        try:
            running.result()
        except BaseException:
            if not running.done():  # the cell was interrupted: the run winds up, so that it can be resumed
                begun.result()()
            raise


def _is_in_loop() -> bool:
    """Return whether an event loop runs in this thread; an answer, so that no error of the work comes with this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_until_stopped(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a coroutine to its end; SIGTERM stops it as Ctrl-C does, with a KeyboardInterrupt after it has cleaned up."""

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work()

    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # which the loop has put back to the system's own
