"""How the processes that train and serve keep memory: what one batch or body frees, the next one needs again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Keys of mallopt(3)."""


def keep_freed_memory() -> None:
    """Have the C library (glibc) keep what is freed, up to 32 MB at a time, instead of giving it back to the system.

    Memory that the system has to hand out anew, page by page, costs a client of a small network up to a fifth of its
    time, and whoever reads a large body from a socket half of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
