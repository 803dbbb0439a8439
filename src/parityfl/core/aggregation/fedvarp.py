"""FedVARP: variance reduction by remembered updates."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.aggregation.base import Aggregator, aggregator
from parityfl.core.aggregation.memory import allocate_rows, store
from parityfl.core.types import RoundContext, State, Step, Update, World


@aggregator("fedvarp")
@dataclass(frozen=True)
class FedVarp(Aggregator):
    """Average how far the participants' updates moved since they were last seen, and add the mean of all memories.

    Algorithm 2 of Jhunjhunwala et al.: v = mean_S(Delta_k - G_k) + (1/N) sum_k G_k, then G_k = Delta_k for k in S;
    a client never seen counts with G_k = 0. While the model moves, the first term leans to those who are often there;
    as it comes to rest that term vanishes and all clients weigh alike. More step than 1 can break it.

    State: `row_memory` (N, d) holds G; `total` (d,), float64, its sum, so that a round costs O(participants x d).

    Attributes:
        server_lr: step along v.
    """

    source: ClassVar[str] = "Jhunjhunwala et al., UAI 2022"

    server_lr: float = 1.0

    def init(self, world: World, size: int) -> State:
        """Return an empty memory.

        Raises:
            ConfigError: the memory does not fit in this machine.
        """
        return {"row_memory": allocate_rows(world.num_clients, size), "total": np.zeros(size)}

    def aggregate(self, state: State, context: RoundContext, updates: Iterable[Update]) -> Step:
        """Return mean_S(Delta_k - G_k) + (1/N) sum_k G_k, or None in a round without updates."""
        memory, total = state["row_memory"], state["total"]
        before, count = total / context.population, 0
        moved = np.zeros_like(total)
        for update in updates:
            moved -= memory[update.client]
            store(memory, update.client, update.delta)
            moved += memory[update.client]
            count += 1
        total += moved
        direction = moved / max(count, 1) + before
        return Step(direction.astype(np.float32) if count else None, state)
