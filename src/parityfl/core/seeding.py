"""Counter-based randomness: every random number is a pure function of (seed, purpose, round, client).

No generator is ever shared or stored, so any round of any client can be replayed alone, and the order in which
things happen never changes what is drawn. The generator is Philox-4x64 (Salmon et al., SC 2011): the key is a hash
of seed and purpose, the counter holds the round and the client.
"""

from hashlib import blake2b

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

from parityfl.core.types import FloatArray


class _Key(ISeedSequence):
    """A generator's key. Given in this form, it spares numpy from asking the system for entropy that is never used."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._words = np.frombuffer(blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest(), dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint64) -> NDArray[np.uint64]:
        return self._words


def generator(seed: int, purpose: str, round: int = 0, client: int | None = None) -> np.random.Generator:
    """Return the generator of one (seed, purpose, round, client).

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for, such as ``"batches"``; two purposes never share numbers.
        round: the round or time slot, 0 or more.
        client: the client's index, or None where the numbers belong to the whole round.
    """
    counter = [0, 0, 0 if client is None else client + 1, round]
    return np.random.Generator(np.random.Philox(_Key(seed, purpose), counter=counter))  # type: ignore[arg-type]


def uniforms(seed: int, purpose: str, round: int, num_clients: int) -> FloatArray:
    """Return one uniform number in [0, 1) per client; client k's number does not depend on `num_clients`."""
    return generator(seed, purpose, round).random(num_clients)


def integer(seed: int, purpose: str, round: int = 0, client: int | None = None) -> int:
    """Return an integer in [0, 2**63) to seed a library that keeps a generator of its own."""
    return int(generator(seed, purpose, round, client).integers(2**63))
