"""Least normalised utility first, this project's scheduler."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from parityfl.core.keys import one_of, require
from parityfl.core.ledger import RoundRecord
from parityfl.core.selection.base import Selector, floats, selector
from parityfl.core.selection.sampling import select_certainly, select_with_probability, smallest, waterfill
from parityfl.core.types import FloatArray, Selection, State, View, World

_Mode = Literal["randomised", "deterministic"]
_Parity = Literal["opportunity", "utility", "selection"]
_MAX_OWED = 15.0
_MEAN_MEMORY = 0.95
_TINY = 1e-12


@selector("lnu")
@dataclass(frozen=True)
class LeastNormalisedUtility(Selector):
    """Serve first the clients that got the least utility per opportunity.

    The index of an available client is x_k = (u_k + c r_k) / n_k: credited utility plus a fraction c of the next
    credit r_k, over the rounds n_k in which the server saw it available, this one included. The deterministic mode
    takes the m smallest. It needs neither availabilities nor utilities to be known, and with parity `utility`, offset
    0, raw credit (`relative` false) and no bounds on it (`credit_low` 0, `credit_high` inf) converges to the
    lexicographic max-min normalised utilities at rate 1/T. The randomised mode softens the cut: inclusion
    probabilities are water-filled from exp(temperature x participations owed relative to the cut) and mixed with
    `explore` of uniform selection, so that every available client's probability is known and, without `strict`,
    positive.

    What is equalised: parity `opportunity` the conditional participation rate s_k / n_k (every credit is 1), `utility`
    the utility per opportunity, `selection` the number of participations (x_k = s_k + c). A client that is selected
    and does not deliver is charged `dropout_charge` average participations in the index, never in the ledger:
    otherwise a device that checks in and never works would be first in every round.

    Attributes:
        mode: `randomised`, or `deterministic` (no inverse-probability weights are then available).
        parity: what to equalise.
        offset: c of the index; 0.5 is the Sainte-Lague divisor rule.
        temperature: kappa, how sharply probabilities fall off around the cut, above 0 and at most 20.
        explore: epsilon, the share of uniform selection, from 0 to 1.
        relative: credit utility in units of the running mean of the participants' utility; else raw.
        credit_low: least credit of a participation, in units of that mean, 0 or more. It bounds what a client gains
            by reporting no utility: never set it to 0 when training.
        credit_high: largest credit of a participation, in the same units; may be `inf`.
        half_life: rounds in which the memory halves, or None for never; at least 20 N/m is advised.
        strict: leave slots empty rather than serve clients above (1 + strict) times the tenth percentile of utility
            per opportunity (of clients seen at least 5 times); None for never.
        dropout_charge: average participations charged for a selection that did not deliver, 0 or more.
    """

    source: ClassVar[str] = "parityfl; drift argument after Stolyar, Oper. Res. 53(1), 2005"

    mode: _Mode = "randomised"
    parity: _Parity = "opportunity"
    offset: float = 0.5
    temperature: float = 2.0
    explore: float = 0.1
    relative: bool = True
    credit_low: float = 0.5
    credit_high: float = 2.0
    half_life: float | None = None
    strict: float | None = None
    dropout_charge: float = 1.0

    def __post_init__(self) -> None:
        one_of("selector.mode", self.mode, _Mode)
        one_of("selector.parity", self.parity, _Parity)
        warmth, life, strict = self.temperature, self.half_life, self.strict
        require(0 < warmth <= 20, "selector.temperature", warmth, "give a number above 0 and at most 20")
        require(0 <= self.explore <= 1, "selector.explore", self.explore, "give a number between 0 and 1")
        for key in ("offset", "credit_low", "dropout_charge"):
            value = getattr(self, key)
            require(0 <= value < math.inf, f"selector.{key}", value, "give a number of 0 or more")
        high = self.credit_high
        require(
            high > 0 and high >= self.credit_low,
            "selector.credit_high",
            high,
            f"give more than 0, no less than credit_low = {self.credit_low:g}",
        )
        require(life is None or life > 0, "selector.half_life", life, "give rounds, or none")
        valid = strict is None or 0 <= strict < math.inf
        require(valid, "selector.strict", strict, "give a number of 0 or more, or none")

    @property
    def deterministic(self) -> bool:
        """True in the mode of that name."""
        return self.mode == "deterministic"

    @property
    def positive(self) -> bool:
        """False where `strict` is set: who is above its limit has no chance."""
        return self.strict is None

    @property
    def may_idle(self) -> bool:
        """True where `strict` is set."""
        return self.strict is not None

    def init(self, world: World) -> State:
        """Return nothing credited.

        u (credits), n (rounds seen), q (relative utility), s (participations), each (N,); ubar (0: unknown); and
        `clipped` (3,), how many credits were raised to `credit_low`, how many cut to `credit_high`, and how many there
        were.
        """
        zeros = np.zeros(world.num_clients)
        return {"u": zeros, "n": zeros, "q": zeros, "s": zeros, "ubar": np.zeros(()), "clipped": np.zeros(3)}

    def select(self, state: State, view: View, rng: np.random.Generator) -> Selection:
        """Choose the clients with the smallest index, or draw around the cut."""
        view = self._served(state, view)
        if len(view.available) == 0:
            return Selection(view.available, np.zeros(view.world.num_clients))
        opportunities = self._opportunities(state, view)
        credit = self._next_credit(state, view)
        index = (floats(state, "u")[view.available] + self.offset * credit) / opportunities
        if self.deterministic or view.count == len(view.available):
            return select_certainly(view, smallest(index, view.count, rng))
        return select_with_probability(view, self._inclusion(index, opportunities / credit, view.count), rng)

    def observe(self, state: State, record: RoundRecord, world: World) -> State:
        """Credit the participants, charge the drop-outs, count who was available."""
        took = np.flatnonzero(record.participated)
        lost = np.flatnonzero(record.selected & ~record.participated)
        mean = _running_mean(float(state["ubar"]), record.credit[took])
        relative = _relative(record.credit[took], mean)
        u, q, s = (floats(state, name).copy() for name in ("u", "q", "s"))
        u[took] += self._credit(relative, mean)
        u[lost] += self._credit(np.ones(len(lost)), mean) * self.dropout_charge
        q[took] += np.clip(relative, 0.0, 5.0)
        s[took] += 1.0
        n = floats(state, "n") + record.available
        aged = {name: self._aged(value) for name, value in (("u", u), ("n", n), ("q", q), ("s", s))}
        hits = np.array([np.sum(relative < self.credit_low), np.sum(relative > self.credit_high), len(took)])
        return {**aged, "ubar": np.asarray(mean), "clipped": state["clipped"] + hits}

    def notes(self, state: State) -> Mapping[str, float]:
        """Return the shares of credits that the bounds changed, where utility is what is credited."""
        low, high, total = floats(state, "clipped").tolist()
        if self.parity != "utility" or total == 0:
            return {}
        return {"credit_low_rate": low / total, "credit_high_rate": high / total}

    def _served(self, state: State, view: View) -> View:
        """Return the view without the clients that `strict` leaves out."""
        if self.strict is None:
            return view
        seen = floats(state, "n").copy()
        seen[view.available] += 1.0
        level = floats(state, "u") / (np.ones_like(seen) if self.parity == "selection" else np.maximum(seen, 1.0))
        experienced = level[seen >= 5]
        if len(experienced) == 0:
            return view
        limit = (1 + self.strict) * np.quantile(experienced, 0.1)
        kept = view.available[level[view.available] <= limit]
        return replace(view, available=kept, count=min(view.count, len(kept)))

    def _opportunities(self, state: State, view: View) -> FloatArray:
        if self.parity == "selection":
            return np.ones(len(view.available))
        return floats(state, "n")[view.available] + 1.0

    def _next_credit(self, state: State, view: View) -> FloatArray:
        """Return what one more participation would be credited, shrunk towards an average participation."""
        if self.parity != "utility":
            return np.ones(len(view.available))
        relative = (floats(state, "q")[view.available] + 2.0) / (floats(state, "s")[view.available] + 2.0)
        return self._credit(relative, float(state["ubar"]))

    def _credit(self, relative: FloatArray, mean: float) -> FloatArray:
        """Return the credit of participations whose utility is `relative` to the running mean."""
        if self.parity != "utility":
            return np.ones(len(relative))
        scale = 1.0 if self.relative else max(mean, _TINY)
        return np.clip(relative, self.credit_low, self.credit_high) * scale

    def _inclusion(self, index: FloatArray, per_unit: FloatArray, count: int) -> FloatArray:
        """Return the inclusion probabilities; `per_unit` turns a difference of index into participations."""
        cut = np.partition(index, (count - 1, count))[count - 1 : count + 1].mean()
        owed = np.clip((cut - index) * per_unit, -_MAX_OWED, _MAX_OWED)
        soft = waterfill(np.exp(self.temperature * owed), count)
        return (1 - self.explore) * soft + self.explore * count / len(index)

    def _aged(self, value: FloatArray) -> FloatArray:
        return value if self.half_life is None else value * 2.0 ** (-1.0 / self.half_life)


def _running_mean(mean: float, utility: FloatArray) -> float:
    """Return the mean utility of a participation, negative ones counted as 0; 0 until a round had a positive one."""
    known = utility[~np.isnan(utility)]
    if len(known) == 0:
        return mean
    latest = float(np.maximum(known, 0.0).mean())
    if mean == 0.0:
        return latest
    return max(_MEAN_MEMORY * mean + (1 - _MEAN_MEMORY) * latest, _TINY)


def _relative(utility: FloatArray, mean: float) -> FloatArray:
    """Return utilities in units of the mean; 1 where the utility or the mean is unknown."""
    if mean == 0.0:
        return np.ones(len(utility))
    return np.where(np.isnan(utility), 1.0, utility / mean)
