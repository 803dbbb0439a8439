"""Selection by inverse availability."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.keys import one_of
from parityfl.core.selection.base import Selector, selector
from parityfl.core.selection.estimates import best_known_availability
from parityfl.core.selection.sampling import select_certainly, select_with_probability, smallest, waterfill
from parityfl.core.types import Selection, State, View

_Mode = Literal["random", "top-m"]


@selector("inverse-availability")
@dataclass(frozen=True)
class InverseAvailability(Selector):
    """Prefer rarely available clients: inclusion probability in proportion to 1 / pi_k, or the m smallest pi_k.

    The inverse-availability sampling of Behfar and Mortier, without its debt. Inclusion probabilities are water-filled
    (in proportion to 1/pi as far as 1 allows) and met exactly; with m = 1 that is one draw in proportion to 1/pi. The
    true pi_k is used where the availability model knows it, else n_k / t. The paper's Lemma 2 says that participation
    becomes equal; by enumeration it does not: pi = (.9, .1), m = 1 gives (.819, .091).

    Attributes:
        mode: `random`, or `top-m` for the m smallest pi_k, ties at random.
    """

    source: ClassVar[str] = "Behfar & Mortier, arXiv 2602.13651"

    mode: _Mode = "random"

    def __post_init__(self) -> None:
        one_of("selector.mode", self.mode, _Mode)

    @property
    def deterministic(self) -> bool:
        """True in the mode `top-m`."""
        return self.mode == "top-m"

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Draw by inverse availability, or take the rarest."""
        availability = best_known_availability(view)
        if self.deterministic:
            return select_certainly(view, smallest(availability, view.count, rng))
        return select_with_probability(view, waterfill(1.0 / availability, view.count), rng)
