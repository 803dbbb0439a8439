"""Dependent coins by a Gaussian copula."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from parityfl.core.availability.base import AvailabilityModel, availability, stationary
from parityfl.core.availability.coins import slot_at
from parityfl.core.distributions import PerClient, per_client
from parityfl.core.errors import ConfigError
from parityfl.core.seeding import generator
from parityfl.core.types import BoolArray, FloatArray, World

DEFAULT_FACTOR = 0.5


@availability("copula")
@dataclass(frozen=True)
class Copula(AvailabilityModel):
    """Clients share shocks: each is available when its Gaussian variable falls below the quantile of its pi_k.

    A_k = [z_k < Phi^-1(pi_k)] with z standard normal and correlated over clients: z_k = f_k F + sqrt(1 - f_k^2) e_k
    with one common factor F per slot (correlation f_j f_k), or of a given correlation matrix. P(available) is exactly
    pi_k; the correlation of the availabilities themselves is smaller than that of z. Slots are independent.

    Attributes:
        pi: P(available) per client.
        factor: loading f_k on the common factor per client, in [-1, 1].
        correlation: a full N x N correlation matrix of z, in place of `factor`.
    """

    source: ClassVar[str] = "Li, Journal of Fixed Income 2000 (the Gaussian copula)"

    pi: PerClient = "beta(1,2)"
    factor: PerClient = DEFAULT_FACTOR
    correlation: list[list[float]] | None = None

    def __post_init__(self) -> None:
        if self.correlation is not None and self.factor != DEFAULT_FACTOR:
            raise ConfigError(f"availability has both factor = {self.factor} and correlation: give one of the two")

    def bind(self, world: World) -> "CopulaProcess":
        """Return the process with the thresholds of pi.

        Raises:
            ConfigError: `factor` leaves [-1, 1], or `correlation` is no correlation matrix of N clients.
        """
        pi = stationary(self.pi, world.num_clients, world.seed)
        if self.correlation is None:
            normals = _factor_normals(self.factor, world)
        else:
            normals = _matrix_normals(self.correlation, world)
        return CopulaProcess(normals, _quantiles(pi), pi, world.interval_s)


@dataclass(frozen=True)
class CopulaProcess:
    """Availability by correlated Gaussian variables.

    Attributes:
        normals: from a slot to z, shape (N,).
        threshold: Phi^-1(pi), shape (N,).
        pi: P(available), shape (N,).
        interval_s: seconds of a slot.
    """

    normals: Callable[[int], FloatArray]
    threshold: FloatArray
    pi: FloatArray
    interval_s: float

    def available(self, time_s: float) -> BoolArray:
        """Return whose variable falls below its threshold, shape (N,)."""
        return self.normals(slot_at(time_s, self.interval_s)) < self.threshold

    def probability(self, time_s: float) -> FloatArray:
        """Return pi, exact, shape (N,)."""
        return self.pi.copy()


def _quantiles(pi: FloatArray) -> FloatArray:
    """Return Phi^-1 of each probability, infinite at 0 and 1."""
    inside = (pi > 0) & (pi < 1)
    quantile = np.where(pi > 0, np.inf, -np.inf)
    quantile[inside] = [NormalDist().inv_cdf(p) for p in pi[inside]]
    return quantile


def _own_normals(world: World, slot: int) -> FloatArray:
    return generator(world.seed, "availability normals", slot).standard_normal(world.num_clients)


def _factor_normals(factor: PerClient, world: World) -> Callable[[int], FloatArray]:
    loading = per_client("availability.factor", factor, world.num_clients, world.seed)
    outside = loading[~(np.abs(loading) <= 1)]
    if len(outside):
        raise ConfigError(f"availability.factor holds {outside[0]:g}: every loading must be between -1 and 1")
    own = np.sqrt(1.0 - loading**2)

    def normals(slot: int) -> FloatArray:
        shock = generator(world.seed, "availability factor", slot).standard_normal()
        return loading * shock + own * _own_normals(world, slot)

    return normals


def _matrix_normals(correlation: list[list[float]], world: World) -> Callable[[int], FloatArray]:
    root = _root(correlation, world.num_clients)
    return lambda slot: root @ _own_normals(world, slot)


def _root(correlation: list[list[float]], num_clients: int) -> FloatArray:
    """Return R with R R' the correlation matrix, which may be singular."""
    if {len(row) for row in correlation} != {num_clients} or len(correlation) != num_clients:
        raise ConfigError(f"availability.correlation must have {num_clients} rows of {num_clients} numbers")
    matrix = np.array(correlation, dtype=np.float64)
    if not (np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1.0)):
        raise ConfigError("availability.correlation must be symmetric with 1 on its diagonal")
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -1e-8 * num_clients:
        raise ConfigError(
            f"availability.correlation has the eigenvalue {values[0]:.3g}, and no correlation matrix has one below 0: "
            "give correlations that can hold together"
        )
    return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))
