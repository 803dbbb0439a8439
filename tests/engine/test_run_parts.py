"""Parts of one's own that answer wrongly or raise: a run ends with one line that names them, and can be resumed."""

import json
import re
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from engine_runs import QuadraticFleet, assert_same_end, make_spec, make_world, run

from parityfl.core.aggregation.fedavg import FedAvg
from parityfl.core.errors import PartError, UnfinishedError
from parityfl.core.selection.uniform import Uniform
from parityfl.core.types import Step

ALWAYS = make_world(pi=1.0)


@dataclass(frozen=True)
class Answers(FedAvg):
    """Learns as FedAvg, but answers with something else in round 2."""

    spoil: object = None

    def aggregate(self, state, context, updates):
        step = super().aggregate(state, context, updates)
        return step if context.round < 2 else self.spoil(step, context)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda step, context: None, "NoneType is no Step"),
        (lambda step, context: step.direction, "ndarray is no Step"),
        (lambda step, context: replace(step, direction=np.float32(1)), "Step.direction is a float32, not an array"),
        (lambda step, context: replace(step, direction=step.direction[1:]), r"direction has shape \(5,\), not \(6,\)"),
        (lambda step, context: replace(step, direction=step.direction[None]), r"direction has shape \(1, 6\)"),
        (lambda step, context: replace(step, direction=step.direction.astype(object)), "direction is object"),
        (lambda step, context: replace(step, direction=step.direction.astype(complex)), "direction is complex128"),
        (lambda step, context: replace(step, client_weight=np.ones(1)), r"client_weight has shape \(1,\), not \(7,\)"),
        (lambda step, context: replace(step, state=None), "the state is a NoneType"),
        (lambda step, context: replace(step, state={"memory": [0.0]}), "state 'memory' is a list, not an array"),
        (lambda step, context: replace(step, state={"memory": np.array(["a"])}), "'memory' holds <U1, not numbers"),
        (lambda step, context: replace(step, notes={"rate": "high"}), "note 'rate' is 'high', not a number"),
    ],
)
def test_a_wrong_step_ends_the_run_and_is_named(tmp_path, spoil, fault):
    with pytest.raises(PartError, match=f"^aggregator 'Answers', round 2: .*{fault}.*check_aggregator tells") as caught:
        run(make_spec(ALWAYS, aggregate=Answers(spoil=spoil)), tmp_path)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "summary.json").read_text())["rounds_completed"] == 1


@dataclass(frozen=True)
class Raises(FedAvg):
    """Learns as FedAvg, but raises where it is asked something."""

    where: str = ""

    def init(self, world, size):
        return self.fail("init") or {}

    def start(self, state, client, weights):
        return self.fail("start") or weights

    def aggregate(self, state, context, updates):
        if context.round == 2:
            self.fail("aggregate")
        return super().aggregate(state, context, updates)

    def fail(self, where):
        if where == self.where:
            raise RuntimeError("my own bug\nwith more of it")


@pytest.mark.parametrize(("where", "told"), [("init", r"init\(\)"), ("start", "round 1"), ("aggregate", "round 2")])
def test_what_an_aggregator_raises_is_one_line_that_says_where(tmp_path, where, told):
    with pytest.raises(PartError) as caught:
        run(make_spec(ALWAYS, aggregate=Raises(where=where)), tmp_path)
    line = rf"aggregator 'Raises', {told}: RuntimeError: my own bug \(engine/test_run_parts.py:\d+\)"
    assert re.fullmatch(line, str(caught.value))
    assert isinstance(caught.value.__cause__, RuntimeError)


@dataclass(frozen=True)
class Choosy(Uniform):
    """Selects as uniform does, but raises where it is asked something."""

    where: str = ""
    mended: list = field(default_factory=list)

    def init(self, world):
        return self.fail("init") or {}

    def select(self, state, view, rng):
        if view.round == 3:
            self.fail("select")
        return super().select(state, view, rng)

    def observe(self, state, record, world):
        if record.round == 3:
            self.fail("observe")
        return state

    def notes(self, state):
        self.fail("notes")
        return {"rate": np.float32(0.25)}

    def fail(self, where):
        if where == self.where and not self.mended:
            raise KeyError("rate")


@pytest.mark.parametrize(
    ("where", "told"), [("init", "init()"), ("select", "round 3"), ("observe", "round 3"), ("notes", "notes()")]
)
def test_a_selector_that_raises_can_be_repaired_and_the_run_goes_on(tmp_path, where, told):
    whole = run(make_spec(ALWAYS, select=Choosy()), tmp_path / "whole")
    rule = Choosy(where=where)
    with pytest.raises(PartError) as caught:
        run(make_spec(ALWAYS, select=rule, document={**make_spec().document}), tmp_path / "run")
    assert str(caught.value).startswith(f"selector 'Choosy', {told}: KeyError: 'rate' (engine/test_run_parts.py:")
    rule.mended.append(True)
    resumed = run(make_spec(ALWAYS, select=rule, document={**make_spec().document}), tmp_path / "run", resume=True)
    assert_same_end(whole, resumed)


def test_notes_of_any_number_are_kept(tmp_path):
    class Noted(FedAvg):
        def aggregate(self, state, context, updates):
            return replace(
                super().aggregate(state, context, updates), notes={"kept": np.float32(0.5), "n": np.int64(3)}
            )

    summary = run(make_spec(ALWAYS, select=Choosy(), aggregate=Noted()), tmp_path)
    assert summary["notes"] == {"rate": 0.25, "kept": 0.5, "n": 3.0}


def test_notes_of_text_are_one_line(tmp_path):
    class Wordy(Uniform):
        def notes(self, state):
            return {"rate": "high"}

    with pytest.raises(PartError, match=r"^selector 'Wordy', notes\(\): note 'rate' is 'high', not a number; "):
        run(make_spec(ALWAYS, select=Wordy()), tmp_path)


def test_a_state_that_a_selector_forgets_is_named(tmp_path):
    class Forgetful(Uniform):
        def observe(self, state, record, world):
            return None

    with pytest.raises(PartError, match=r"^selector 'Forgetful', round 1: the state is a NoneType, not named arrays"):
        run(make_spec(ALWAYS, select=Forgetful()), tmp_path)


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (np.zeros(5, dtype=np.float32), r"has shape \(5,\), not \(6,\)"),
        (np.full(6, np.nan, dtype=np.float32), "is not finite"),
        (None, "is a NoneType, not an array"),
    ],
)
def test_a_wrong_start_is_named_before_anybody_is_asked(tmp_path, model, fault):
    class Starts(FedAvg):
        def start(self, state, client, weights):
            return model

    fleet = QuadraticFleet(make_spec(ALWAYS))
    with pytest.raises(PartError, match=rf"^aggregator 'Starts', round 1: the model that start\(\) gives {fault}; "):
        run(make_spec(ALWAYS, aggregate=Starts()), tmp_path, fleet=fleet)
    assert fleet.tasks == []


def writes_the_model(context):
    context.weights[:] = 0


def writes_history(context):
    context.ledger.selected[:] = 0


def writes_who_was_there(context):
    context.available[:] = True


@pytest.mark.parametrize("write", [writes_the_model, writes_history, writes_who_was_there])
def test_an_aggregator_cannot_write_what_it_is_told(tmp_path, write):
    class Forger(FedAvg):
        def aggregate(self, state, context, updates):
            write(context)
            return Step(None, state)

    with pytest.raises(PartError, match=r"^aggregator 'Forger', round 1: ValueError: .*read-only"):
        run(make_spec(ALWAYS, aggregate=Forger()), tmp_path)


def test_a_selector_cannot_write_a_record(tmp_path):
    class Forger(Uniform):
        def observe(self, state, record, world):
            record.eval_loss[:] = 0
            return state

    with pytest.raises(PartError, match=r"^selector 'Forger', round 1: ValueError: .*read-only"):
        run(make_spec(ALWAYS, select=Forger()), tmp_path)


def test_what_the_fleet_raises_is_not_the_aggregators_fault(tmp_path):
    class Mine(FedAvg):
        pass

    def breaks(round, client):
        raise RuntimeError("the machine is on fire")

    spec = make_spec(ALWAYS, aggregate=Mine())
    with pytest.raises(RuntimeError, match=r"^the machine is on fire$"):
        run(spec, tmp_path, fleet=QuadraticFleet(spec, during=breaks))


def test_what_goes_wrong_in_a_part_that_ships_keeps_its_type(tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(FedAvg, "aggregate", broken)
    with pytest.raises(RuntimeError, match=r"^a bug of ours$") as caught:
        run(make_spec(ALWAYS, aggregate=FedAvg()), tmp_path)
    assert not isinstance(caught.value, UnfinishedError)
