"""Selection without training: who would take part, and who would benefit, if participations had a known worth."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from parityfl.config import Config, Layer, resolve
from parityfl.core.availability import bind
from parityfl.core.conditions import Dropout, dropouts
from parityfl.core.distributions import per_client
from parityfl.core.errors import FolderError
from parityfl.core.fairness import jsonable, parity_figures, ratio
from parityfl.core.ledger import COMPLETED, OUTCOME_CODES, Ledger, RoundRecord, account
from parityfl.core.rounds import Plan, plan_round
from parityfl.core.seeding import generator
from parityfl.core.selection import Selector, asking
from parityfl.core.types import FloatArray, IntArray, Outcome, World
from parityfl.engine.folder import is_empty
from parityfl.engine.stopwatch import Stopwatch
from parityfl.engine.tables import header, lines, text
from parityfl.files import make_folder, replace_file, writing

COLUMNS = (
    "client_id", "pi", "mu", "num_available", "num_selected", "participation_rate", "conditional_rate", "utility",
    "normalized_utility", "mean_inclusion_probability",
)  # fmt: skip
"""The columns of schedule.csv."""

FAILED = OUTCOME_CODES.index(Outcome.FAILED)

COUNTED = ("seed", "method", "population", "rounds", "availability", "selector", "utility", "dropout")
"""The parts of a configuration that a schedule heeds."""

NEUTRAL = {
    "aggregator.name": "fedavg",
    "evaluation.every": 1,
    "rounds.clock": "virtual",
    "rounds.quorum": "none",
}
"""What a schedule does not heed, and what a preset might set so that it does not go with the selector."""

Watch = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Makes, for a number of rounds, what is called after each of them."""


@dataclass(frozen=True)
class Worth:
    """What selections come to: a participation of client k yields mu_k times log-normal noise with mean one.

    Attributes:
        noise: sigma of the factor's logarithm; the factor is exp(sigma z - sigma^2 / 2) with standard normal z.
        dropout: how often a selected client does not deliver, and yields nothing.
    """

    noise: float = 0.0
    dropout: Dropout = field(default_factory=Dropout)

    def outcome(self, plan: Plan, world: World) -> IntArray:
        """Return each client's outcome as its `OUTCOME_CODES` position, shape (N,)."""
        outcome = np.zeros(world.num_clients, dtype=np.int64)
        outcome[plan.selection.clients] = COMPLETED
        if self.dropout.rate != 0.0:
            outcome[plan.selected & dropouts(self.dropout, world, plan.round)] = FAILED
        return outcome

    def credit(self, world: World, round: int) -> FloatArray:
        """Return what each client's participation in `round` would yield, were it selected or not, shape (N,)."""
        assert world.mean_utility is not None
        if self.noise == 0.0:
            return world.mean_utility
        z = generator(world.seed, "utility noise", round).standard_normal(world.num_clients)
        return np.multiply(world.mean_utility, np.exp(self.noise * z - self.noise**2 / 2))


@dataclass(frozen=True)
class Schedule:
    """What a selector did; every array of shape (N,).

    Attributes:
        ledger: the sums over all rounds.
        pi: mean true P(available) over the rounds, nan where the model does not know it.
        mu: mean utility of a participation.
        inclusion: mean inclusion probability over the rounds in which the client was available; nan where there were
            none, and for all clients if the selector did not know its probabilities in some round.
        select_s: seconds a round in the selector: choosing, and remembering what came of it.
        availability_s: seconds a round in the availability model.
        ledger_s: seconds a round in drawing the utilities, and in the record and the ledger.
    """

    ledger: Ledger
    pi: FloatArray
    mu: FloatArray
    inclusion: FloatArray
    select_s: float
    availability_s: float
    ledger_s: float

    def figures(self) -> dict[str, float]:
        """Return the counts, the metrics and the times that the command prints; nan where undefined."""
        ledger = self.ledger
        return {
            "num_clients": len(self.mu),
            "num_never_available": int(np.sum(ledger.available == 0)),
            "num_rounds": ledger.rounds,
            **parity_figures(
                ledger.rounds_present, ledger.available, ledger.selected, ledger.participated, ledger.utility
            ),
            "select_s_per_round": self.select_s,
            "availability_s_per_round": self.availability_s,
            "ledger_s_per_round": self.ledger_s,
        }


def resolve_schedule(layers: Sequence[Layer], overrides: Layer) -> Config:
    """Return the configuration of a schedule: as that of a run, but what only a run needs is neither read nor checked.

    Args:
        layers: the layers, lowest first.
        overrides: values by dotted key, which lie on top.

    Raises:
        ConfigError: a key that counts, or its value, is wrong.
    """
    counted: list[Layer] = [{key: value for key, value in layer.items() if _counts(key)} for layer in layers]
    on_top = {key: value for key, value in overrides.items() if _counts(key.partition(".")[0])}
    return resolve(counted, {**on_top, **NEUTRAL})


def _counts(section: str) -> bool:
    """Return whether a section is read: also one that there is not, which is a mistake here as in a run."""
    return section in COUNTED or section not in Config.model_fields


def run_schedule(config: Config, watch: Watch = lambda _: nullcontext(lambda: None)) -> Schedule:
    """Play the selector of a configuration on its availability model, without data or training.

    What counts: `seed`, `population.clients` and `per_round`, `rounds.count` and `interval_s`, and the sections
    availability, selector, utility (mu, noise) and dropout. Nothing is known of the clients' data: each holds one
    example, of no known label, and no loss is ever measured.

    Args:
        config: the resolved configuration.
        watch: makes what is told of every round.

    Raises:
        ConfigError: a value per client does not fit, or the selector needs what is not known here.
    """
    clients = config.population.clients
    bare = config.world(
        np.ones(clients, dtype=np.int64),
        np.zeros((clients, 0), dtype=np.int64),
        per_client("utility.mu", config.utility.mu, clients, config.seed),
    )
    world = replace(bare, availability=bind(config.availability.build(), bare))
    worth = Worth(config.utility.noise, config.dropout.build())
    with watch(config.rounds.count) as told:
        return play(config.selector.build(), world, config.rounds.count, worth, told)


def play(
    selector: Selector,
    world: World,
    rounds: int,
    worth: Worth = Worth(),
    told: Callable[[], None] = lambda: None,
) -> Schedule:
    """Play rounds of selection.

    Args:
        selector: who shall take part.
        world: the population, with its availability and its mean utilities.
        rounds: how many, at least 1.
        worth: what selections come to.
        told: called after every round.

    Raises:
        PartError: the selector or the availability model is one of another package and fails.
    """
    assert world.availability is not None
    assert world.mean_utility is not None
    process, watch = world.availability, Stopwatch()
    state, ledger = asking.first_state(selector, world), Ledger.empty(world.num_clients)
    everybody, unknown = np.ones(world.num_clients, dtype=bool), np.full(world.num_clients, np.nan)
    inclusion = np.zeros(world.num_clients)
    for _ in range(rounds):
        watch.start()
        time_s = ledger.rounds * world.interval_s
        available, truth = process.available(time_s), world.true_availability(time_s)
        watch.lap("availability")
        plan = plan_round(
            selector,
            state,
            ledger,
            world,
            time_s=time_s,
            registered=everybody,
            available=available,
            wanted=world.per_round,
        )
        watch.lap("select")
        record = _record(plan, world, worth, truth, unknown)
        ledger = account(ledger, record)
        inclusion += record.inclusion_probability
        watch.lap("ledger")
        state = asking.next_state(selector, state, record, world)
        watch.lap("select")
        told()
    return Schedule(
        ledger=ledger,
        pi=_mean_truth(ledger, world.true_availability(0.0)),
        mu=world.mean_utility,
        inclusion=ratio(inclusion, ledger.available),
        select_s=watch.laps["select"] / rounds,
        availability_s=watch.laps["availability"] / rounds,
        ledger_s=watch.laps["ledger"] / rounds,
    )


def write_schedule(schedule: Schedule, config: Config, out: Path) -> Path:
    """Write schedule.csv, a row per client, and schedule.json, the configuration and the figures.

    Returns:
        The path of schedule.csv.

    Raises:
        FolderError: `out` cannot be written.
    """
    path = out / "schedule.csv"
    document = {"config": config.document(), "hash": config.hash, "figures": jsonable(schedule.figures())}
    make_folder(out, f"output folder {out}", remedy="choose another --out")
    with writing(out, remedy="make room, or choose another --out"):
        replace_file(path, (header(COLUMNS) + _lines(schedule, config.device_ids)).encode())
        replace_file(out / "schedule.json", (json.dumps(document, indent=2) + "\n").encode())
    return path


def check_out(out: Path) -> None:
    """Refuse an output folder that is neither absent nor empty.

    Raises:
        FolderError: it is not.
    """
    if not is_empty(out):
        raise FolderError(f"output folder {out} is not empty: choose another --out")


def _record(plan: Plan, world: World, worth: Worth, truth: FloatArray, unknown: FloatArray) -> RoundRecord:
    """Return the record of a round in which nothing was measured but who came, what became of them, and the yield."""
    outcome, probability = worth.outcome(plan, world), plan.selection.probability
    return RoundRecord.unmeasured(
        unknown,
        round=plan.round,
        time_s=plan.time_s,
        registered=plan.registered,
        available=plan.available,
        selected=plan.selected,
        outcome=outcome,
        availability_true=truth,
        inclusion_probability=unknown if probability is None else probability,
        credit=np.where(outcome == COMPLETED, worth.credit(world, plan.round), 0.0),
    )


def _mean_truth(ledger: Ledger, first: FloatArray) -> FloatArray:
    """Return the mean true P(available); where it never moved, as it is, without the rounding of its sum."""
    mean = ledger.expected_available / ledger.rounds
    return np.where(np.abs(mean - first) <= 1e-9, first, mean)


def _lines(schedule: Schedule, device_ids: list[str]) -> str:
    ledger = schedule.ledger
    columns = (
        schedule.pi,
        schedule.mu,
        ledger.available,
        ledger.selected,
        ledger.selected / ledger.rounds,
        ratio(ledger.selected, ledger.available),
        ledger.utility,
        ledger.normalized_utility,
        schedule.inclusion,
    )
    cells = [device_ids, *([text(value) for value in column.tolist()] for column in columns)]
    return lines(cells)
