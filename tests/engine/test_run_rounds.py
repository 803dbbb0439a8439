"""What a run writes, round by round."""

import asyncio
import csv
import errno
import json
import os
import tracemalloc
from dataclasses import dataclass, replace
from hashlib import sha256
from time import sleep
from typing import ClassVar

import numpy as np
import psutil
import pytest
from engine_runs import (
    CLIENTS,
    LAYOUT,
    QuadraticFleet,
    assert_holds,
    checkpoints,
    interrupt,
    make_evaluator,
    make_spec,
    make_world,
    run,
)
from safetensors import safe_open
from safetensors.numpy import load_file

from parityfl.core.aggregation import Aggregator
from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.arrays import Layout, model_hash
from parityfl.core.columns import CLIENT_COLUMNS
from parityfl.core.errors import FolderError, UnfinishedError
from parityfl.core.types import Outcome, Step, Update
from parityfl.engine.fleet import ClientEvaluation, Evaluation, Late
from parityfl.engine.folder import RunFolder
from parityfl.engine.loop import run_rounds

ALWAYS = {"pi": 1.0}


def rows(path, table):
    with (path / f"{table}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@dataclass(frozen=True)
class Recording(Aggregator):
    """FedAvg that notes what it was given."""

    seen: ClassVar[list] = []
    server_lr: float = 1.0

    def aggregate(self, state, context, updates):
        taken = list(updates)
        self.seen.append((context.round, [(update.client, update.staleness) for update in taken]))
        return FedAvg().aggregate(state, context, iter(taken))


@pytest.fixture
def recording():
    Recording.seen.clear()
    return Recording()


def test_a_run_folder_is_complete(tmp_path):
    spec = make_spec()
    summary = run(spec, tmp_path)
    assert_holds(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {
        "config.json", "rounds.csv", "clients.csv", "shortfall.csv", "summary.json", "model.safetensors", "journal",
    }  # fmt: skip
    assert json.loads((tmp_path / "config.json").read_text()) == spec.document
    model = LAYOUT.flatten(load_file(tmp_path / "model.safetensors"))
    assert summary["model_hash"] == model_hash(model)
    assert (summary["status"], summary["deterministic"], summary["rounds_completed"]) == ("done", True, 6)


def test_the_model_is_read_back_in_its_own_order(tmp_path):
    """The file sorts its tensors by name: bias comes before weight."""
    spec = make_spec()
    summary = run(spec, tmp_path)
    layout, weights = RunFolder(tmp_path).read_model()
    assert (layout, model_hash(weights)) == (LAYOUT, summary["model_hash"])
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    with pytest.raises(FolderError, match=r"model\.safetensors cannot be read"):
        RunFolder(tmp_path).read_model()


def test_equal_models_are_equal_bytes(tmp_path):
    """The library orders metadata by chance, anew in every call: ten files agree by chance once in 6^9 times."""
    layout = Layout(("weight", "bias"), ((3,), (1,)))
    for name in map(str, range(10)):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).write_model(
            np.arange(4, dtype=np.float32), layout, {"round": "6", "model_hash": "ab"}
        )
    files = list(tmp_path.glob("*/model.safetensors"))
    assert len(files) == 10
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "numpy") as model:
        assert model.metadata() == {"round": "6", "model_hash": "ab", "parameters": '["weight", "bias"]'}
        assert model.get_tensor("weight").tolist() == [0, 1, 2]


def test_a_model_is_written_with_one_copy_of_it(tmp_path):
    """Two parameters of 4 MB: the file is made in 8 MB and a few KB."""
    layout = Layout(("b", "a"), ((1000, 1000), (1000, 1000)))
    weights = np.arange(layout.size, dtype=np.float32)
    tracemalloc.start()
    try:
        RunFolder(tmp_path).write_model(weights, layout, {"round": "1"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * weights.nbytes
    np.testing.assert_array_equal(layout.flatten(load_file(tmp_path / "model.safetensors")), weights)


ROUNDS_CSV = """
round time_s num_available num_selected num_participated num_late num_failed global_accuracy global_loss
mean_client_accuracy worst10_client_accuracy accuracy_jain utility_cv utility_jain utility_gini
worst10_normalized_utility selection_gap conditional_selection_gap participation_gini label_coverage label_kl
unseen_label_rate low_availability_accuracy ema_global_accuracy net_gain_cv credited_to_net bytes_down bytes_up
select_s train_s aggregate_s evaluate_s round_s rss_bytes
"""
CLIENTS_CSV = """
round client_id available selected participated outcome availability_true availability_estimate availability_low
availability_high inclusion_probability loss_gain accuracy_gain local_gain utility normalized_utility eval_loss
eval_accuracy local_loss_before local_loss_after num_samples staleness surrogate_weight latency_s bytes_up bytes_down
"""


@pytest.mark.parametrize(("table", "promised"), [("rounds", ROUNDS_CSV), ("clients", CLIENTS_CSV)])
def test_the_columns_are_those_of_the_contract(tmp_path, table, promised):
    """Others may stand among them; those that others read are there, in their order."""
    run(make_spec(rounds=1), tmp_path)
    assert [name for name in rows(tmp_path, table)[0] if name in promised.split()] == promised.split()


def test_the_ledger_hash_is_carried_along(tmp_path):
    """At a run's end the file is not read again: here it is gone. `run` compares each run's hash with the file's."""
    folder = RunFolder(tmp_path)
    folder.start_tables()
    marks = folder.marks()
    folder.append({"rounds": "", "clients": "1,h0,torn"})
    again = RunFolder(tmp_path)
    again.rewind(marks, {"rounds": "1\n", "clients": "1,h0,.5,9,9\n1,h1,,9,\n"})
    (tmp_path / "clients.csv").unlink()
    kept = ",".join([name for name in CLIENT_COLUMNS if name not in {"latency_s", "bytes_up", "bytes_down"}])
    assert again.ledger_hash() == sha256(f"{kept}\n1,h0\n1,h1\n".encode()).hexdigest()


def test_floats_are_in_shortest_round_trip_form_and_unknown_is_empty(tmp_path):
    run(make_spec(), tmp_path)
    for table in ("rounds", "clients"):
        for row in rows(tmp_path, table):
            for name, text in row.items():
                assert "nan" not in text
                assert "inf" not in text
                if "." in text:
                    assert repr(float(text)) == text, name


def test_empty_rounds_are_recorded(tmp_path):
    """Nobody is ever there: six rounds of which every count is 0 and every figure of the absent empty."""
    spec = make_spec(make_world(pi=0.0))
    summary = run(spec, tmp_path)
    assert_holds(tmp_path)
    assert summary["status"] == "done"
    for row in rows(tmp_path, "rounds"):
        assert [row[name] for name in ("num_available", "num_selected", "num_participated", "num_failed")] == ["0"] * 4
        assert row["utility_cv"] == row["label_kl"] == row["conditional_selection_gap"] == ""
        assert (row["selection_gap"], row["label_coverage"], row["unseen_label_rate"]) == ("0.0", "0.0", "1.0")
    assert {row["normalized_utility"] for row in rows(tmp_path, "clients")} == {""}
    assert {row["inclusion_probability"] for row in rows(tmp_path, "clients")} == {"0.0"}
    assert summary["num_never_available"] == CLIENTS


def test_each_outcome_is_counted_once(tmp_path):
    run(make_spec(), tmp_path)
    by_round = {}
    for row in rows(tmp_path, "clients"):
        by_round.setdefault(row["round"], []).append(row["outcome"])
    outcomes = [outcome for each in by_round.values() for outcome in each]
    assert {"completed", "late", "failed", "timed_out", ""} == set(outcomes)
    for row in rows(tmp_path, "rounds"):
        each = by_round[row["round"]]
        assert int(row["num_late"]) == each.count("late")
        assert int(row["num_failed"]) == each.count("failed") + each.count("timed_out")
        assert int(row["num_participated"]) == each.count("completed")
        selected = sum(outcome != "" for outcome in each)
        assert (int(row["num_selected"]), int(row["bytes_up"])) == (selected, 100 * selected)


def test_late_updates_enter_the_next_round_first_and_in_client_order(tmp_path, recording):
    """Everybody is late in the odd rounds and completes in the even ones; the fleet hands late ones over backwards."""
    spec = make_spec(make_world(**ALWAYS), aggregate=recording, select="round-robin", rounds=3)
    fleet = QuadraticFleet(spec)

    def alternate(round, _):
        fleet.fates = (Outcome.LATE,) if round % 2 else (Outcome.COMPLETED,)

    fleet.during = alternate
    run(spec, tmp_path, fleet=fleet)
    rounds = dict(recording.seen)
    late = [int(row["client_id"][1:]) for row in rows(tmp_path, "clients") if row["outcome"] == "late"]
    assert rounds[1] == []
    assert [each for each in rounds[2] if each[1] == 1] == [(client, 1) for client in sorted(late[:3])]
    assert rounds[2][:3] == [(client, 1) for client in sorted(late[:3])]
    assert [staleness for _, staleness in rounds[2][3:]] == [0, 0, 0]
    assert rounds[3] == []


def test_a_late_update_is_credited_nothing(tmp_path):
    spec = make_spec(make_world(**ALWAYS), aggregate="fedavg")
    run(spec, tmp_path, fleet=QuadraticFleet(spec, fates=(Outcome.LATE,)))
    assert {row["utility"] for row in rows(tmp_path, "clients")} == {"0.0"}
    assert {row["participated"] for row in rows(tmp_path, "clients")} == {"0"}
    losses = [float(row["global_loss"]) for row in rows(tmp_path, "rounds")]
    assert losses[2] < losses[0]


def test_evaluation_every_other_round(tmp_path):
    """Rounds 2, 4 and the last, 5, are evaluated. A gain needs both ends: only round 5 has round 4 before it, but a
    participant measures the model that it is sent, so its gain is known wherever the round is evaluated."""
    spec = make_spec(functional="local_gain", evaluate_every=2, rounds=5)
    run(spec, tmp_path)
    assert [row["global_loss"] != "" for row in rows(tmp_path, "rounds")] == [False, True, False, True, True]
    for row in rows(tmp_path, "clients"):
        evaluated = row["round"] in {"2", "4", "5"}
        known = row["round"] == "5" or (evaluated and row["participated"] == "1")
        assert (row["eval_loss"] != "") == evaluated
        assert (row["loss_gain"] != "") == known
        assert (row["accuracy_gain"] != "") == (row["round"] == "5")
        assert (row["local_gain"] != "") == (row["participated"] == "1")


def test_the_test_set_every_third_round(tmp_path):
    """It is measured after rounds 3 and 5, the last; the clients are after every round, so all gains are known."""
    run(make_spec(test_every=3, rounds=5), tmp_path)
    for column in ("global_loss", "global_accuracy", "ema_global_accuracy"):
        assert [row[column] != "" for row in rows(tmp_path, "rounds")] == [False, False, True, False, True]
    assert all(row["mean_client_accuracy"] for row in rows(tmp_path, "rounds"))
    assert all(row["eval_loss"] and row["loss_gain"] for row in rows(tmp_path, "clients"))


def test_the_test_set_only_where_the_model_is_evaluated_at_all(tmp_path):
    """Rounds 2, 4, 6 and the last, 7, are evaluated; of these the test set is measured after 6 and 7."""
    run(make_spec(functional="local_gain", evaluate_every=2, test_every=3, rounds=7), tmp_path)
    known = [row["global_accuracy"] != "" for row in rows(tmp_path, "rounds")]
    assert known == [False, False, False, False, False, True, True]


def test_devices_have_rows_from_their_first_registration(tmp_path):
    """h1 registers in round 3 and is there from then on: in round 4 it was available in 2 of 2 rounds."""
    spec = make_spec(make_world(clients=3, **ALWAYS), rounds=4)
    summary = run(spec, tmp_path, fleet=QuadraticFleet(spec, first_round=[1, 3, 99]))
    assert_holds(tmp_path)
    table = rows(tmp_path, "clients")
    assert [row["client_id"] for row in table] == ["h0", "h0", "h0", "h1", "h0", "h1"]
    assert table[-1]["availability_estimate"] == "1.0"
    assert summary["num_clients"] == 2


def test_what_a_late_comer_gained_since_the_initial_model_is_unknown(tmp_path):
    """h1 registers in round 3: its loss of the initial model was never measured, so the gains are those of h0 alone."""
    spec = make_spec(make_world(clients=2, **ALWAYS), rounds=4)
    everyone = make_evaluator(spec)

    async def evaluate(round, *models, **options):
        found = await everyone(round, *models, **options)
        if round < 3:
            found.clients.loss[1] = np.nan
        return found

    run(spec, tmp_path, fleet=QuadraticFleet(spec, first_round=[1, 3]), evaluate=evaluate)
    losses = [float(row["eval_loss"]) for row in rows(tmp_path, "clients") if row["client_id"] == "h1"]
    assert len(set(losses)) > 1, "the model changed for h1"
    assert [row["net_gain_cv"] for row in rows(tmp_path, "rounds")][2:] == ["0.0", "0.0"]


def test_the_control_variate_is_the_mean_of_the_clients_own_when_one_registers_later(tmp_path):
    """Client 0 changes its own by 6, then by 2; client 1 registers in round 2 and changes its own by 4.

    c = 6; sent out in round 2 is (6 + 0) / 2; then c = 3 + (2 + 4) / 2, the mean of 8 and 4, which round 3 is sent.
    """
    spec = make_spec(make_world(clients=2, **ALWAYS), aggregate="fedavg", uses_control=True, rounds=3)
    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,), first_round=[1, 2])
    changes = {(1, 0): 6, (2, 0): 2, (2, 1): 4}

    def update(task, client):
        control = np.full(LAYOUT.size, changes.get((task.round, client), 0), dtype=np.float32)
        return Update(client, np.ones(LAYOUT.size, dtype=np.float32), 10, 0.5, control=control)

    fleet.update = update
    run(spec, tmp_path, fleet=fleet)
    assert [task.control.tolist() for task in fleet.tasks] == [[c] * LAYOUT.size for c in (0, 3, 6)]


def test_what_is_not_finite_is_unknown(tmp_path):
    """A model that has diverged has no loss, and nobody is credited anything."""
    spec = make_spec()
    plain = make_evaluator(spec)

    async def diverged(round, weights, average, **where):
        if round < 2:
            return await plain(round, weights, average, **where)
        loss = np.full(CLIENTS, np.inf)
        return Evaluation(np.inf, 0.1, 0.1, ClientEvaluation(loss, np.full(CLIENTS, 0.1)))

    summary = run(spec, tmp_path, evaluate=diverged)
    assert summary["global_loss"] is None
    assert all(row["global_loss"] == "" for row in rows(tmp_path, "rounds")[1:])
    assert all(row["eval_loss"] == row["loss_gain"] == "" for row in rows(tmp_path, "clients")[CLIENTS:])
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)


def test_a_huge_loss_ends_no_run(tmp_path):
    """What one client measures is finite, and its square, or the difference of two, is not."""
    spec = make_spec(make_world(per_round=CLIENTS, **ALWAYS))
    plain, told = make_evaluator(spec), (1e200, 1.0, 1.7e308, -1.7e308)

    async def wild(round, weights, average, **where):
        measured = await plain(round, weights, average, **where)
        loss = measured.clients.loss.copy()
        loss[0] = told[min(round, 3)]
        return replace(measured, clients=replace(measured.clients, loss=loss))

    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    assert run(spec, tmp_path, evaluate=wild, fleet=fleet)["status"] == "done"
    gains = [row["loss_gain"] for row in rows(tmp_path, "clients") if row["client_id"] == "h0"]
    assert gains == ["1e+200", "-1.7e+308", "", "0.0", "0.0", "0.0"]
    jain = [float(row["utility_jain"]) for row in rows(tmp_path, "rounds")]
    assert jain == pytest.approx([1 / CLIENTS] * 6)  # beside that of h0 the others' utility is nothing


@pytest.mark.parametrize(("rule", "known"), [("fedavg", True), ("fedawe", False)])
def test_a_gain_is_measured_from_the_model_that_the_round_began_with(tmp_path, rule, known):
    """Nobody is evaluated after round 1. In round 2 client 1 trains for the first time: under FedAvg from the global
    model, of which it measures the loss itself, under FedAWE from the initial one, which says nothing of round 2."""
    spec = make_spec(make_world(clients=2, per_round=1, **ALWAYS), select="round-robin", aggregate=rule, rounds=2)
    plain = make_evaluator(spec)

    async def unseen(round, weights, average, **where):
        measured = await plain(round, weights, average, **where)
        nobody = np.full(2, np.nan)
        return replace(measured, clients=ClientEvaluation(nobody, nobody)) if round == 1 else measured

    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    run(spec, tmp_path, evaluate=unseen, fleet=fleet)
    trained = [row for row in rows(tmp_path, "clients") if row["participated"] == "1"]
    assert [row["client_id"] for row in trained] == ["h0", "h1"]
    assert [row["local_loss_before"] != "" for row in trained] == [True, True]
    assert (trained[1]["loss_gain"] != "") == known
    assert (trained[1]["utility"] != "") == known


@dataclass(frozen=True)
class Leap(FedAvg):
    """Goes far, or further than any number."""

    distance: float = float("nan")

    def aggregate(self, state, context, updates):
        step = super().aggregate(state, context, updates)
        return step if context.round < 3 else replace(step, direction=np.full_like(context.weights, self.distance))


def test_a_model_that_would_not_be_finite_ends_the_run_before_it(tmp_path):
    """What stands is the last round's model, and the line says what to lower: of a direction that is not, no step."""
    with pytest.raises(UnfinishedError, match=r"round 3: .*: lower aggregator\.server_lr = 2 or training\.lr = 0\.1"):
        run(make_spec(make_world(**ALWAYS), aggregate=Leap(server_lr=2.0, distance=3e38)), tmp_path / "far")
    with pytest.raises(
        UnfinishedError, match=r"round 3: .*: the direction of aggregator 'Leap' is not; lower training"
    ):
        run(make_spec(make_world(**ALWAYS), aggregate=Leap()), tmp_path / "off")
    for name in ("far", "off"):
        assert len(rows(tmp_path / name, "rounds")) == 2
        assert np.isfinite(load_file(tmp_path / name / "model.safetensors")["weight"]).all()


def test_a_late_update_does_not_replace_a_newer_one(tmp_path):
    """Client 0 has completed round 2 when what is left of its round 1 arrives; client 2 has done nothing since."""
    folded = []

    class Heard(FedAvg):
        def aggregate(self, state, context, updates):
            read = list(updates)
            folded.extend((context.round, update.client) for update in read if update.staleness)
            return super().aggregate(state, context, read)

    spec = make_spec(make_world(clients=3, per_round=3, pi=1.0), aggregate=Heard(), rounds=3)
    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,), first_round=[1, 1, 99])
    late = [Late(Update(client, np.ones(6, dtype=np.float32), 10, 0.5, staleness=2), 3) for client in (2, 0)]
    arrivals = iter([[], late, []])
    fleet.late_updates = lambda: next(arrivals)
    run(spec, tmp_path, fleet=fleet)
    assert folded == [(3, 2)]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_moving_average_is_of_the_models(tmp_path, decay):
    """It begins as the model before the first round; with decay 0 it is the model itself."""
    spec, seen = make_spec(ema=decay), []
    plain = make_evaluator(spec)

    async def evaluate(round, weights, average, **more):
        seen.append((weights.copy(), average.copy()))
        return await plain(round, weights, average, **more)

    run(spec, tmp_path, evaluate=evaluate)
    expected = seen[0][0]
    np.testing.assert_array_equal(seen[0][1], expected)
    for weights, average in seen[1:]:
        expected = decay * expected + (1 - decay) * weights
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)
    assert len(seen) == spec.rounds + 1
    same = [row["global_accuracy"] == row["ema_global_accuracy"] for row in rows(tmp_path, "rounds")]
    assert all(same[1:]) == (decay == 0)


def test_the_last_round_may_be_idle(tmp_path):
    """All rounds are done: that is no failure, however idle they were."""
    spec = make_spec(rounds=3, max_idle_rounds=3)
    assert run(spec, tmp_path, fleet=QuadraticFleet(spec, fates=(Outcome.FAILED,)))["status"] == "done"


def test_a_rule_that_reads_no_update_leaves_no_reply_behind(tmp_path):
    @dataclass(frozen=True)
    class Deaf(Aggregator):
        server_lr: float = 1.0

        def aggregate(self, state, context, updates):
            return Step(None, state)

    run(make_spec(aggregate=Deaf()), tmp_path)
    assert_holds(tmp_path)
    assert sum(int(row["num_participated"]) for row in rows(tmp_path, "rounds")) > 0


def test_the_control_variate_is_moved_by_its_clients(tmp_path):
    """c starts at 0 and each of 3 of 7 clients sends 0.1 way_k - c: after round 1 it is their sum / 7."""
    spec = make_spec(make_world(**ALWAYS), aggregate="fedavg", uses_control=True, rounds=2)
    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    run(spec, tmp_path, fleet=fleet)
    first, second = fleet.tasks
    assert not first.control.any()
    sent = np.sum([fleet.update(first, client).control for client in first.clients.tolist()], axis=0)
    np.testing.assert_allclose(second.control, sent / CLIENTS, rtol=1e-6)


def test_two_checkpoints_and_two_rows_a_client_are_kept(tmp_path):
    interrupt(make_spec(rounds=12), tmp_path, 11)
    assert [file.stem for file in checkpoints(tmp_path)] == ["round-00000010", "round-00000011"]
    for folder in (tmp_path / "journal" / "rows").iterdir():
        assert 1 <= len(list(folder.iterdir())) <= 2


def test_of_a_run_that_is_done_one_checkpoint_is_kept_and_no_rows(tmp_path):
    run(make_spec(rounds=12), tmp_path)
    assert [file.name for file in (tmp_path / "journal").iterdir()] == ["round-00000012.safetensors"]


@pytest.mark.parametrize("clients", [20, 200])
def test_the_journal_of_a_round_is_small(tmp_path, clients):
    """d = 1000 and m = 3: a checkpoint holds a few vectors of d and a few numbers a client, and 3 rows are written."""
    layout = Layout(("weight",), ((1000,),))
    spec = make_spec(make_world(clients, **ALWAYS), layout, select="round-robin", rounds=5)
    interrupt(spec, tmp_path, 4, fleet=QuadraticFleet(spec, fates=(Outcome.COMPLETED,)))
    checkpoint = checkpoints(tmp_path)[-1].stat().st_size
    assert checkpoint < 30_000 + 600 * clients
    written = list((tmp_path / "journal" / "rows").glob("*/4.safetensors"))
    assert len(written) == 3
    assert all(file.stat().st_size < 4 * 1000 + 1000 for file in written)


def test_a_method_without_rows_writes_none(tmp_path):
    interrupt(make_spec(aggregate="fedavg"), tmp_path, 3)
    assert not (tmp_path / "journal" / "rows").exists()


def test_what_selected_and_folded_does_not_depend_on_how_long_replies_took(tmp_path):
    """Latencies differ between fleets and are not part of either hash."""
    spec = make_spec()
    slow = QuadraticFleet(spec)
    one, plain = run(spec, tmp_path / "one"), slow.train

    async def train(task):
        async for reply in plain(task):
            yield replace(reply, latency_s=9.0, bytes_up=1.0)

    slow.train = train
    spec = replace(spec, trusts_latency=False)
    other = run(spec, tmp_path / "other", fleet=slow)
    assert (one["model_hash"], one["ledger_hash"]) == (other["model_hash"], other["ledger_hash"])


def test_times_and_memory_are_measured(tmp_path):
    """Training and evaluation take so long as they sleep, at the least, and the parts are within the round."""
    spec = make_spec()
    slow = {"fleet": QuadraticFleet(spec, during=lambda *_: sleep(0.01))}
    run(spec, tmp_path, evaluate=make_evaluator(spec, during=lambda _: sleep(0.02)), **slow)
    for row in rows(tmp_path, "rounds"):
        parts = {name: float(row[name]) for name in ("select_s", "train_s", "aggregate_s", "evaluate_s")}
        assert all(part >= 0 for part in parts.values())
        assert sum(parts.values()) <= float(row["round_s"])
        assert parts["evaluate_s"] >= 0.02
        assert parts["train_s"] >= 0.01 * int(row["num_selected"])
        assert int(row["rss_bytes"]) > 0
    assert [float(row["time_s"]) for row in rows(tmp_path, "rounds")] == [600.0 * t for t in range(6)]


def test_memory_that_cannot_be_measured_ends_no_run(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/proc/1/statm")

    monkeypatch.setattr(psutil.Process, "memory_info", refuse)
    assert run(make_spec(), tmp_path)["status"] == "done"
    assert {row["rss_bytes"] for row in rows(tmp_path, "rounds")} == {""}


@pytest.mark.parametrize("virtual", [True, False])
def test_a_live_run_forces_what_it_knows_to_the_disk(tmp_path, monkeypatch, virtual):
    """First config.json; per live round the checkpoint, two tables, and a row for each participant.

    An experiment can be repeated.
    """
    forced = []
    monkeypatch.setattr("os.fsync", forced.append)
    run(make_spec(rounds=3, virtual=virtual), tmp_path)
    participations = sum(int(row["num_participated"]) for row in rows(tmp_path, "rounds"))
    assert participations > 0
    assert len(forced) == 1 if virtual else len(forced) >= 2 + 3 * 3 + participations


class PoisonedFleet(QuadraticFleet):
    """Everyone is there and completes; the first client sends the opposite of what it should, ten times as long."""

    def update(self, task, client):
        honest = super().update(task, client)
        return replace(honest, delta=-10 * honest.delta) if client == 0 else honest


def test_a_hostile_client_ruins_the_mean_and_not_what_robust_rules_learn(tmp_path):
    world = make_world(per_round=CLIENTS, **ALWAYS)

    def final_loss(rule, fleet):
        spec = make_spec(world, select="uniform", aggregate=rule, rounds=12)
        summary = run(spec, tmp_path / rule / fleet.__name__, fleet=fleet(spec, fates=(Outcome.COMPLETED,)))
        return summary["global_loss"]

    undisturbed = final_loss("fedavg", QuadraticFleet)
    assert final_loss("fedavg", PoisonedFleet) > 10 * undisturbed
    for rule in ("median", "trimmed-mean", "krum"):
        assert final_loss(rule, PoisonedFleet) < 2 * undisturbed, rule


def test_a_run_that_is_cancelled_in_mid_round_leaves_nothing_behind(tmp_path):
    """Client 0 has replied when the run is cancelled, the next one would never: its fleet hears of it at once."""
    spec, ends, folder = make_spec(), [], RunFolder(tmp_path)
    folder.prepare(spec.document, False)
    fleet = QuadraticFleet(spec, fates=(Outcome.COMPLETED,))
    plain = fleet.train

    async def main():
        waiting = asyncio.Event()

        async def train(task):
            try:
                async for reply in plain(task):
                    yield reply
                    waiting.set()
                    await asyncio.Event().wait()
            finally:
                ends.append(task.round)

        fleet.train = train
        going = asyncio.create_task(run_rounds(spec, fleet, make_evaluator(spec), folder))
        await waiting.wait()
        going.cancel()
        await asyncio.wait({going})
        assert (going.cancelled(), ends) == (True, [1])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_run_that_ends_without_memory_for_its_model_says_what_ended_it(tmp_path):
    class Full(RunFolder):
        def write_model(self, *_):
            raise MemoryError

    spec = make_spec()
    folder = Full(tmp_path / "run")
    folder.prepare(spec.document, resume=False)

    def fail(round):
        if round == 2:
            raise UnfinishedError("out of memory with one worker")

    with pytest.raises(UnfinishedError, match="out of memory with one worker"):
        asyncio.run(run_rounds(spec, QuadraticFleet(spec), make_evaluator(spec, fail), folder))


def test_what_fails_while_the_first_model_is_evaluated_is_not_the_disk(tmp_path):
    def fail(round):
        raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        run(spec := make_spec(), tmp_path, evaluate=make_evaluator(spec, fail))
