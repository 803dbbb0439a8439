"""A population of several kinds of clients."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from parityfl.core.availability.answer import bind
from parityfl.core.availability.base import AvailabilityModel, availability
from parityfl.core.errors import ConfigError
from parityfl.core.seeding import generator, integer
from parityfl.core.types import AvailabilityProcess, BoolArray, FloatArray, IntArray, World


def _default() -> list[dict[str, Any]]:
    return [{"name": "always", "share": 0.2}, {"name": "gilbert-elliott", "share": 0.8}]


@availability("mixture")
@dataclass(frozen=True)
class Mixture(AvailabilityModel):
    """Each client follows one of several models, such as a fifth always plugged in and the rest in bursts.

    Each component counts as many clients as its share of N (rounded by largest remainder); who they are is drawn by
    the seed. A component is bound to the whole population with randomness of its own, so that its lists have N values
    and its client indices are those of the run, and then only its own clients follow it.

    Attributes:
        components: the models, each ``{name = ..., share = ..., and the model's own keys}``; shares are relative.
    """

    source: ClassVar[str] = "this project"

    components: list[dict[str, Any]] = field(default_factory=_default)

    def __post_init__(self) -> None:
        if not self.components:
            raise ConfigError('availability.components is empty: give at least one {name = "...", share = ...}')
        for index in range(len(self.components)):
            self._model(index)
            self._share(index)

    @property
    def recorded(self) -> bool:
        """Whether a component replays a recording."""
        return any(self._model(index).recorded for index in range(len(self.components)))

    @property
    def files(self) -> tuple[str, ...]:
        """The files of its components."""
        return tuple(name for index in range(len(self.components)) for name in self._model(index).files)

    def bind(self, world: World) -> "MixtureProcess":
        """Return the process that asks each client's own component."""
        component = _assign([self._share(index) for index in range(len(self.components))], world)
        return MixtureProcess([self._bind(index, world) for index in range(len(self.components))], component)

    def _bind(self, index: int, world: World) -> AvailabilityProcess:
        own_seed = integer(world.seed, "availability component", index)
        try:
            return bind(self._model(index), replace(world, seed=own_seed))
        except (ConfigError, TypeError, ValueError) as error:
            raise ConfigError(f"availability.components[{index}]: {error}") from None

    def _model(self, index: int) -> AvailabilityModel:
        keys = {key: value for key, value in self.components[index].items() if key not in {"name", "share"}}
        try:
            kind = availability.get(str(self.components[index].get("name", "")))
            known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
            unknown = sorted(set(keys) - set(known))
            if unknown:
                raise ConfigError(f"unknown key {unknown[0]!r}: there are {', '.join(known) or 'none'}")
            return kind(**keys)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"availability.components[{index}]: {error}") from None

    def _share(self, index: int) -> float:
        share = self.components[index].get("share")
        if not isinstance(share, int | float) or not 0 < share < float("inf"):
            raise ConfigError(f"availability.components[{index}].share is {share!r}: give a number above 0")
        return float(share)


@dataclass(frozen=True)
class MixtureProcess:
    """N clients, each of which follows one of several processes.

    Attributes:
        processes: the components, each over all N clients.
        component: which of them each client follows, shape (N,).
    """

    processes: Sequence[AvailabilityProcess]
    component: IntArray

    def available(self, time_s: float) -> BoolArray:
        """Return who is available, each by its own component, shape (N,)."""
        available = np.zeros(len(self.component), dtype=np.bool_)
        for index, process in enumerate(self.processes):
            own = self.component == index
            available[own] = process.available(time_s)[own]
        return available

    def probability(self, time_s: float) -> FloatArray:
        """Return the true P(available), nan where the client's component has none, shape (N,)."""
        probability = np.full(len(self.component), np.nan)
        for index, process in enumerate(self.processes):
            own, known = self.component == index, process.probability(time_s)
            if known is not None:
                probability[own] = known[own]
        return probability


def _assign(shares: list[float], world: World) -> IntArray:
    """Return the component of each client, shape (N,)."""
    exact = np.array(shares) / np.sum(shares) * world.num_clients
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: world.num_clients - counts.sum()]
    counts[largest] += 1
    members = np.repeat(np.arange(len(shares)), counts)
    return generator(world.seed, "mixture members").permutation(members)
