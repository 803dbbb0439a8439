"""What all workers need: imported by the server process from which they are forked, and by nobody else."""

import atexit
import os
import sys
from multiprocessing import forkserver

import parityfl.training.workbench  # noqa: F401 - the workers find torch and the rest of it imported

if getattr(sys.modules["__main__"], "main", None) is forkserver.main:
    # Unloading torch takes half a second, for which whoever reads our output would wait for its end. Workers do not run
    # this when they end.
    atexit.register(os._exit, 0)
