"""The N x d memory of the rules that remember every client's last update."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parityfl.core.errors import ConfigError
from parityfl.core.machine import available_memory
from parityfl.core.types import Vector


def allocate_rows(num_clients: int, size: int, dtype: DTypeLike = np.float32) -> NDArray[np.floating]:
    """Return zeros of shape (N, d), one row per client; pages are taken as rows are written.

    Raises:
        ConfigError: the rows would not fit in the memory that this process can get.
    """
    width = np.dtype(dtype).itemsize
    needed, available = num_clients * size * width, available_memory()
    if needed > available:
        raise ConfigError(
            f"this aggregator remembers one update per client: {num_clients} x {size} x {width} bytes = "
            f"{needed / 1e9:.2f} GB, available {available / 1e9:.2f} GB; use a smaller model or fewer clients, "
            "memory_dtype = 'float16' where the rule has it, or a rule without memory such as fedavg or fedau"
        )
    return np.zeros((num_clients, size), dtype=dtype)


def store(memory: NDArray[np.floating], client: int, delta: Vector) -> None:
    """Write `delta` into the client's row, values beyond the memory's dtype cut to its range."""
    limit = np.finfo(memory.dtype).max
    np.clip(delta, -limit, limit, out=memory[client], casting="same_kind")
