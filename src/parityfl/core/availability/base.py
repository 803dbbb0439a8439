"""Availability: who could take part at time t. The interface and the registry."""

from abc import ABC, abstractmethod
from typing import ClassVar

from parityfl.core.distributions import PerClient, probabilities
from parityfl.core.registry import Registry
from parityfl.core.types import AvailabilityProcess, FloatArray, World

DRAWN_FROM = (0.02, 0.98)
"""What a distribution's draws of pi are clipped to: nobody is always there by accident, and nobody never."""


class AvailabilityModel(ABC):
    """A model of availability before it is bound to a population: a frozen dataclass of configuration keys.

    A key out of range raises `ConfigError` in ``__post_init__`` where it can be seen alone, and in `bind` where it
    depends on the population.
    """

    source: ClassVar[str] = ""

    @property
    def recorded(self) -> bool:
        """Whether it replays a recording.

        Then `probability` is each device's long-run fraction of time, since a recording has no other.
        """
        return False

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it reads, whose content the configuration does not have."""
        return ()

    @abstractmethod
    def bind(self, world: World) -> AvailabilityProcess:
        """Return the pure function of time that the population of `world` follows (`world.availability` is None)."""


availability: Registry[AvailabilityModel] = Registry("availability", "parityfl.availability", AvailabilityModel)


def stationary(pi: PerClient, num_clients: int, seed: int) -> FloatArray:
    """Return the share of time that each client is available in the long run, shape (N,).

    Raises:
        ConfigError: a share is not in [0, 1], or there is not one for each client.
    """
    return probabilities("availability.pi", pi, num_clients, seed, DRAWN_FROM)
