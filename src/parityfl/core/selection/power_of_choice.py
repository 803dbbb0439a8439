"""Power-of-choice: the largest losses among a few random candidates."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parityfl.core.keys import require
from parityfl.core.selection.base import Selector, selector
from parityfl.core.selection.estimates import last_known_loss, or_average
from parityfl.core.selection.sampling import smallest
from parityfl.core.types import FloatArray, Selection, State, View


@selector("power-of-choice")
@dataclass(frozen=True)
class PowerOfChoice(Selector):
    """Draw d candidates in proportion to their data, then take the m with the largest loss.

    The strategy of Cho, Wang and Joshi in its variant pi_rpow-d: candidates are not asked for their loss of the current
    model (pi_pow-d), the last known one stands in, and a client that was never selected and whose loss nobody knows
    counts as infinite. Where the server evaluates every client, that is the loss of the model after the last evaluated
    round, fresher than the paper's, which is the mean over the local steps of the client's last participation.
    Candidates are drawn without replacement in proportion to their data. The inclusion probabilities are not tractable.

    Deviation: the paper's clients always answer. Here one that was selected and whose loss is still unknown counts as
    an average one, or a device that never delivers would come first for ever.

    Attributes:
        candidates: d, at least m (smaller values are raised to m); None for 2 m.
    """

    has_probability: ClassVar[bool] = False
    source: ClassVar[str] = "Cho et al., AISTATS 2022"

    candidates: int | None = None

    def __post_init__(self) -> None:
        valid = self.candidates is None or self.candidates >= 1
        remedy = "give 1 or more, or none for twice the clients per round"
        require(valid, "selector.candidates", self.candidates, remedy)

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Draw the candidates and rank them."""
        wanted = 2 * view.count if self.candidates is None else max(self.candidates, view.count)
        # The d smallest of exponential waiting times with rates a_k are d draws without replacement.
        mass = np.maximum(view.world.num_samples[view.available], 1e-9)
        candidates = view.available[smallest(rng.exponential(size=len(mass)) / mass, wanted, rng)]
        return Selection(candidates[smallest(-_rank(view)[candidates], view.count, rng)], None)


def _rank(view: View) -> FloatArray:
    """Return the last known losses, shape (N,): infinite where none is known and the client was never selected."""
    loss = last_known_loss(view.ledger)
    return np.where(np.isnan(loss) & (view.ledger.selected == 0), np.inf, or_average(loss))
