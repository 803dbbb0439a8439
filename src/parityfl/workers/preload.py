"""What the server process imports from which workers are forked: all that they share. For nobody else."""

import atexit
import os
import sys
from multiprocessing import forkserver

import parityfl.training.workbench  # noqa: F401 - the workers find torch and the rest of it imported

if getattr(sys.modules["__main__"], "main", None) is forkserver.main:
    # Taking torch apart takes half a second, in which whoever reads our output would wait for its end. Workers leave
    # by another way, without this.
    atexit.register(os._exit, 0)
