"""What a run is before it starts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from parityfl.core.aggregation import Aggregator
from parityfl.core.arrays import Layout
from parityfl.core.deadline import Deadline
from parityfl.core.optimizers import ServerOptimizer
from parityfl.core.rounding import Carry, as_it_is
from parityfl.core.rounds import Functional
from parityfl.core.selection import Selector
from parityfl.core.types import Vector, World


@dataclass(frozen=True)
class RunSpec:
    """A run before it starts: the method, the population, and how often it is evaluated.

    Attributes:
        world: the facts known before the first round.
        device_ids: the clients' names in index order.
        layout: where the model's parameters lie.
        initial_weights: makes the initial model.
        selector: who shall take part.
        aggregator: what is learned.
        optimizer: how the model moves.
        uses_control: whether the local objective needs the server's control variate.
        rounds: how many rounds.
        wanted: how many clients a round asks.
        virtual: whether the clock is the virtual one.
        functional: what a participation is worth.
        evaluate_every: evaluate after every so many rounds, and after the last.
        test_every: of these rounds, measure on the test set as well after every so many, and after the last.
        ema: decay of the server's moving average.
        local_lr: the clients' learning rate.
        local_epochs: the clients' number of epochs.
        trusts_latency: whether latencies may steer the selection: measured ones would make a run on the virtual clock
            depend on the machine, seeded ones do not.
        max_idle_rounds: end the run after so many rounds in a row without a valid update.
        deadline: how long a round waits for replies.
        carry: what happens to a vector on its way to the clients.
        repeatable: whether a repetition computes the same; not so where a stopwatch chooses how.
    """

    world: World
    device_ids: Sequence[str]
    layout: Layout
    initial_weights: Callable[[], Vector]
    selector: Selector
    aggregator: Aggregator
    optimizer: ServerOptimizer
    uses_control: bool
    rounds: int
    wanted: int
    virtual: bool
    functional: Functional
    evaluate_every: int
    test_every: int
    ema: float
    local_lr: float
    local_epochs: int
    trusts_latency: bool
    max_idle_rounds: int
    deadline: Deadline = field(default_factory=Deadline)
    carry: Carry = as_it_is
    repeatable: bool = True
