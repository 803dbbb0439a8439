"""How many cores a run may use, and that each of its processes uses one."""

import os

from parityfl.core.machine import available_cores

CORES = "PARITYFL_CORES"
"""Names in the environment how many cores a run may use; without it all that the process may."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""What the libraries beneath numpy read when they are loaded: of our processes each computes on one thread."""


def cores() -> int:
    """Return how many cores this process may use, at least 1."""
    given = os.environ.get(CORES, "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return available_cores()
