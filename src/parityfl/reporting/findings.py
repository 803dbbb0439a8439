"""What a run says in words: its headline figures and its warnings."""

from dataclasses import dataclass
from math import ceil
from shlex import quote

import polars as pl

from parityfl.core.left_behind import LITTLE_BENEFIT, MANY_DUE, MANY_MISSED
from parityfl.core.wording import listed
from parityfl.reporting.load import RunData, last_known, unfinished
from parityfl.reporting.netgain import lost_in_the_end
from parityfl.reporting.tables import UNKNOWN, number

OFTEN_LATE = 0.5
MANY_SELECTIONS = 3
"""A client is often late that was in this share of its selections, and was selected so often."""

_LEFT_BEHIND = {
    "never available": "The server never saw them: the figures of utility and the conditional "
    "selection gap leave them out, and no model learned from them.",
    "never selected": f"The average client would have been chosen {MANY_DUE} times or more in as many "
    "opportunities, and these never were.",
    "never completed a round": "Chosen, and never delivered: the outcomes tell why.",
    "no longer completes rounds": f"Chosen {MANY_MISSED} times or more since they last delivered: the "
    "outcomes tell why.",
    "little benefit": f"At most {LITTLE_BENEFIT:.0%} of the median utility, in total and per opportunity.",
}


@dataclass(frozen=True)
class Finding:
    """A headline figure or a warning.

    Attributes:
        title: what it is about.
        value: the figure, ready to print; '' for a warning.
        text: a sentence on what it means.
    """

    title: str
    value: str
    text: str


def headlines(run: RunData, clients: pl.DataFrame) -> list[Finding]:
    """Return a run's headline figures; `clients` is its `standing`."""
    return [
        _global_accuracy(run),
        _worst_clients(run, clients),
        _low_availability(run, clients),
        *_spread(run),
        *_personal(run),
        _selection_gap(run, clients),
        _utility(run),
        _reach(clients),
    ]


def warnings(run: RunData, clients: pl.DataFrame) -> list[Finding]:
    """Return what qualifies a run's figures; `clients` is its `standing`."""
    found = [
        _unfinished(run),
        _not_deterministic(run),
        _unmeasured(run, clients),
        _lost(run),
        *_left_behind(clients),
        _often_late(run),
        _refused(run),
        _empty_rounds(run),
    ]
    return [warning for warning in found if warning]


def _clients(count: int) -> str:
    return f"{count} {'client' if count == 1 else 'clients'}"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def _global_accuracy(run: RunData) -> Finding:
    average = _percent(last_known(run.rounds, "ema_global_accuracy"))
    rounds, measured = run.rounds["round"].to_list(), run.rounds.drop_nulls("global_accuracy")["round"].to_list()
    final = measured[-1:] in ([], rounds[-1:])
    model = "the final model" if final else f"the model after round {measured[-1]}, the last that was measured"
    text = f"of the test set is classified correctly by {model}; by the server's moving average, {average}."
    return Finding("Global accuracy", _percent(last_known(run.rounds, "global_accuracy")), text)


def _worst_clients(run: RunData, clients: pl.DataFrame) -> Finding:
    title, column = "Worst 10 % of the clients", "worst10_client_accuracy"
    measured = _clients_then(run, column)["eval_accuracy"].count()
    if measured == 0:
        return Finding(title, UNKNOWN, f"no client was measured on held-out data of its own{_without_holdout(run)}.")
    whom = _clients(measured) if measured == clients.height else f"the {_clients(measured)} measured then"
    mean = _percent(last_known(run.rounds, "mean_client_accuracy"))
    text = (
        f"is the mean accuracy of the {ceil(measured / 10)} worst-off of {whom} on their own held-out data; "
        f"the mean over all {measured} is {mean}."
    )
    return Finding(title, _percent(last_known(run.rounds, column)), text)


def _low_availability(run: RunData, clients: pl.DataFrame) -> Finding:
    title, column = "Low-availability half", "low_availability_accuracy"
    there = _clients_then(run, column)
    measured = there["eval_accuracy"].count()
    if measured == 0:
        nobody = f"nobody of the half that is available least often was measured{_without_holdout(run)}."
        return Finding(title, UNKNOWN, nobody)
    only = "" if measured == clients.height else f", as far as they are among the {_clients(measured)} measured then"
    text = f"is the mean accuracy of the {_clients(there.height // 2)} that are available least often{only}."
    return Finding(title, _percent(last_known(run.rounds, column)), text)


def _spread(run: RunData) -> list[Finding]:
    deviation = last_known(run.rounds, "client_accuracy_std")
    if deviation is None:
        return []
    weighted = _percent(last_known(run.rounds, "weighted_client_accuracy_std"))
    measured = _clients_then(run, "client_accuracy_std")["eval_accuracy"].count()
    text = (
        f"is the standard deviation of the accuracies of the {_clients(measured)} measured (0 is parity); with each "
        f"client weighed by its examples, {weighted}."
    )
    return [Finding("Spread of the clients' accuracy", _percent(deviation), text)]


def _clients_then(run: RunData, column: str) -> pl.DataFrame:
    """Return the clients' rows of the round that the column's last known value is of; none where it was never known."""
    return run.clients.join(run.rounds.drop_nulls(column).tail(1), on="round", how="semi")


def _without_holdout(run: RunData) -> str:
    return " (population.holdout = 0)" if _keeps_nothing_back(run) else ""


def _keeps_nothing_back(run: RunData) -> bool:
    """Return whether the clients train on all that they have, and so can measure nothing."""
    return bool(run.config.get("population", {}).get("holdout") == 0)


def _personal(run: RunData) -> list[Finding]:
    mean = last_known(run.rounds, "mean_personal_accuracy")
    if mean is None:
        return []
    worst = _percent(last_known(run.rounds, "worst10_personal_accuracy"))
    text = f"is the mean accuracy of the clients' personal models on their own data; of the worst 10 %, {worst}."
    return [Finding("Personal models", _percent(mean), text)]


def _selection_gap(run: RunData, clients: pl.DataFrame) -> Finding:
    """Name the two clients that it is between, of equal rates those with the most opportunities."""
    most, least = (_first(clients, descending=[highest, True]) for highest in (True, False))
    text = (
        f"is the share of its opportunities in which the most favoured client{most} was selected, minus the least "
        f"favoured's{least}; 0 is parity, 1 is the worst, and of few opportunities it says little."
    )
    return Finding("Conditional selection gap", number(last_known(run.rounds, "conditional_selection_gap")), text)


def _utility(run: RunData) -> Finding:
    known = {
        column: number(last_known(run.rounds, column)) for column in ("utility_cv", "credited_to_net", "net_gain_cv")
    }
    text = (
        "is the spread of utility per opportunity (0 is parity), which means little alone: credited / net "
        f"{known['credited_to_net']}, net-gain CV {known['net_gain_cv']}; and see the worst 10 % and the "
        "low-availability half."
    )
    return Finding("Utility CV", known["utility_cv"], text)


def _first(clients: pl.DataFrame, descending: list[bool]) -> str:
    """Return how often the first one by rate and opportunities was selected; '' where none was ever available."""
    seen = clients.drop_nulls("conditional_rate")
    rows = seen.sort("conditional_rate", "opportunities", descending=descending, maintain_order=True).head(1).to_dicts()
    return "".join(f" ({row['client_id']}: {row['selected']} of {row['opportunities']})" for row in rows)


def left_out(clients: pl.DataFrame) -> str:
    """Return how many clients have no utility per opportunity, and so no bar, and why; '' where all have one."""
    unknown = clients.filter(pl.col("normalized_utility").is_null())
    unseen = unknown.filter(pl.col("opportunities") == 0).height
    unmeasured = unknown.height - unseen
    reasons = [f"{unseen} never available"] if unseen else []
    reasons += [f"{unmeasured} whose utility nobody measured"] if unmeasured else []
    return f"Left out are {unknown.height} of {_clients(clients.height)}: {', '.join(reasons)}." if reasons else ""


def _reach(clients: pl.DataFrame) -> Finding:
    reached = int((clients["participated"] > 0).sum())
    unseen = int((clients["opportunities"] == 0).sum())
    text = f"clients took part at least once; {unseen or 'none'} {'was' if unseen == 1 else 'were'} never available."
    return Finding("Clients reached", f"{reached} of {clients.height}", text)


def _unfinished(run: RunData) -> Finding | None:
    if run.finished:
        return None
    command = "coordinator" if run.live else "run"
    resumed = f"parityfl {command} {quote(str(run.path / 'config.json'))} --out {quote(str(run.path))} --resume"
    again = f"{resumed} (with the address and the credentials that it had)" if run.live else resumed
    remedy = f"Go on with: {again}" if run.summary else f"If it has ended, go on with: {again}"
    return Finding(
        "The run did not finish",
        "",
        f"It is {unfinished(run)}; the figures are the last that were measured by then. {remedy}",
    )


def _not_deterministic(run: RunData) -> Finding | None:
    if run.summary.get("deterministic", True):
        return None
    if run.config.get("engine", {}).get("mode") == "batched":
        text = "Batched mode trains by what was fastest at its start: a repetition may add up in another order."
    else:
        text = (
            "A time-out, a lost worker or a broken client decided an outcome: a repetition with the same seed may end "
            "otherwise."
        )
    return Finding("The run is not deterministic", "", text)


def _unmeasured(run: RunData, clients: pl.DataFrame) -> Finding | None:
    """Name those who took part and whose gain nobody ever knew: whether they are worse off cannot be told."""
    took_part = clients.filter(pl.col("participated") > 0)
    unknown = took_part.filter(pl.col("utility").is_null())["client_id"].to_list()
    if not unknown:
        return None
    gain = run.config.get("utility", {}).get("functional", "loss_gain")
    empty = "with population.holdout = 0 there are no held-out examples to measure it on"
    why = empty if _keeps_nothing_back(run) else "nobody measured it on held-out examples"
    who = "" if len(unknown) == took_part.height else f" of {_clients(len(unknown))}"
    text = f"{listed(unknown)}. In no round that they took part in is their {gain} known: {why}. No figure counts them."
    return Finding(f"The utility{who} was not measured", "", text)


def _lost(run: RunData) -> Finding | None:
    """Say why the figures of net gain are missing."""
    if not lost_in_the_end(run):
        return None
    mean = number(last_known(run.rounds, "mean_net_gain"))
    text = f"{mean} nats on average: net-gain CV and credited / net, which divide by that, are left out."
    return Finding("The clients lost more than they gained", "", text)


def _left_behind(clients: pl.DataFrame) -> list[Finding]:
    grouped = {
        reason: clients.filter(pl.col("left_behind") == reason)["client_id"].to_list() for reason in _LEFT_BEHIND
    }
    return [
        Finding(f"{_clients(len(found))}: {reason}", "", f"{listed(found)}. {text}")
        for (reason, found), text in zip(grouped.items(), _LEFT_BEHIND.values(), strict=True)
        if found
    ]


def _often_late(run: RunData) -> Finding | None:
    """Name those whom the deadline or the quorum shuts out, an adaptive deadline in particular."""
    asked = run.clients.filter(pl.col("selected") == 1).group_by("client_id", maintain_order=True)
    late = asked.agg(share=(pl.col("outcome") == "late").mean(), times=pl.len())
    found = late.filter((pl.col("share") >= OFTEN_LATE) & (pl.col("times") >= MANY_SELECTIONS))["client_id"].to_list()
    if not found:
        return None
    who = "1 client was late in half of its" if len(found) == 1 else f"{len(found)} clients were late in half of their"
    title = f"{who} selections or more"
    text = f"{listed(found)}. The deadline or the quorum shuts them out: what they learn comes late or never counts."
    return Finding(title, "", text)


def _refused(run: RunData) -> Finding | None:
    """Name those whose updates were not taken, which most often hold numbers that are not finite, or far too large."""
    refused = run.clients.filter(pl.col("outcome") == "invalid")
    if refused.is_empty():
        return None
    selections = int(run.clients["selected"].sum())
    found = refused["client_id"].unique(maintain_order=True).to_list()
    text = (
        f"{listed(found)}. They held numbers that are not finite, were longer than security.max_update_norm, or did "
        "not fit the model: a smaller training.lr is the usual remedy where it is so for many."
    )
    return Finding(f"{refused.height} of {selections} updates asked for were refused", "", text)


def _empty_rounds(run: RunData) -> Finding | None:
    empty = int((run.rounds["num_participated"] == 0).sum())
    if empty == 0:
        return None
    title = f"{empty} of {run.rounds.height} rounds had no participant"
    late = run.config.get("rounds", {}).get("late", "discard") == "next-round"
    stayed = "The model stayed as it was in these rounds"
    return Finding(title, "", f"{stayed}, unless updates of the round before came late." if late else f"{stayed}.")
