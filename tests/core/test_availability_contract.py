"""Every registered availability model keeps the contract, and the check notices models that do not."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from parityfl.core.availability import AvailabilityModel, availability, bind
from parityfl.core.availability.coins import CoinProcess, constant, fresh_coins
from parityfl.core.errors import PartError
from parityfl.core.types import AvailabilityProcess
from parityfl.testing.availability import check_availability, example_world

VARIANTS = [
    ("gilbert-elliott", {"pi": [0.0, 0.02, 0.5, 0.9, 0.98, 1.0], "mean_on_rounds": 3}),
    ("gilbert-elliott", {"pi": "uniform(0.1,0.9)", "stability": 0.9}),
    ("diurnal", {"pi": 0.6, "time_zones": 3, "stability": 0.8, "amplitude": 1.0, "period_h": 3.0}),
    ("groups", {"pi": 0.3, "groups": [[0, 1, 2], [4, 5]]}),
    ("groups", {"groups": [[0, 5], [1, 2]], "correlation": 0.4}),
    ("copula", {"pi": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "factor": [1, 1, -1, 0.5, 0, 0.9]}),
    ("label-correlated", {"amplitude": 1.0, "rare_labels": True, "period_h": 5.0, "stability": 0.7}),
    ("size-correlated", {"direction": "decreasing", "stability": 0.7}),
    ("trace", {"loop": False, "start_s": -600.0}),
    ("trace", {"require_full_round": True}),
    (
        "mixture",
        {
            "components": [
                {"name": "diurnal", "share": 1},
                {"name": "groups", "pi": 0.5, "groups": [[0, 1, 2, 3]], "share": 3},
            ]
        },
    ),
]
INDEPENDENT = [
    ("always", {}),
    ("bernoulli", {"pi": 0.4}),
    ("gilbert-elliott", {"pi": 0.4}),
    ("diurnal", {"pi": 0.4, "time_zones": 4, "stability": 0.5}),
    ("groups", {"pi": 0.4, "groups": [[0, 2]], "correlation": 0.5}),
    ("copula", {"pi": 0.4, "factor": 0.6}),
    ("trace", {}),
]


def build(name, keys, tmp_path):
    if name == "trace":
        file = tmp_path / "trace.csv"
        file.write_text("client_id,start_s,end_s\na,0,1200\nb,600,3000\na,5000,90000\nc,0,700\n")
        keys = {"path": str(file), **keys}
    return availability.get(name)(**keys)


@pytest.mark.parametrize("name", availability.names())
def test_registered_model_keeps_the_contract(name, tmp_path):
    check_availability(build(name, {}, tmp_path))


@pytest.mark.parametrize(("name", "keys"), VARIANTS)
def test_variants_keep_the_contract(name, keys, tmp_path):
    check_availability(build(name, keys, tmp_path))


@pytest.mark.parametrize("name", availability.names())
def test_registered_model_has_a_row_with_its_keys(name):
    rows = (Path(__file__).parents[2] / "docs" / "availability.md").read_text().splitlines()
    row = next((line for line in rows if line.startswith(f"| `{name}` |")), "")
    assert [f"`{key.name}`" for key in fields(availability.get(name)) if f"`{key.name}`" not in row] == []


@pytest.mark.parametrize(("name", "keys"), INDEPENDENT)
def test_a_client_does_not_depend_on_how_many_there_are(name, keys, tmp_path):
    model = build(name, keys, tmp_path)
    few, many = model.bind(example_world(3)), model.bind(example_world(40))
    for slot in range(60):
        assert np.array_equal(few.available(slot * 600.0), many.available(slot * 600.0)[:3])


def test_two_seeds_differ():
    model = availability.get("bernoulli")(pi=0.5)
    one, two = model.bind(example_world(64, seed=1)), model.bind(example_world(64, seed=2))
    assert not np.array_equal(one.available(0.0), two.available(0.0))


@dataclass(frozen=True)
class Broken(AvailabilityModel):
    """Coins with one fault."""

    fault: str

    def bind(self, world) -> AvailabilityProcess:
        if self.fault == "unbound":
            return None
        return BrokenProcess(self.fault, CoinProcess(fresh_coins(world), constant(np.full(6, 0.5)), 600.0))


class BrokenProcess:
    def __init__(self, fault, honest):
        self.fault, self.honest, self.calls = fault, honest, 0
        self.kept, self.told = honest.available(0.0), honest.probability(0.0)

    def available(self, time_s):
        self.calls += 1
        available = self.honest.available(time_s)
        answers = {
            "counts its calls": lambda: self.honest.available(600.0 * self.calls),
            "shares its memory": lambda: self.kept,
            "integers": lambda: available.astype(np.int64),
            "list": lambda: list(available),
            "short": lambda: available[1:],
            "absent": lambda: available & (np.arange(6) > 0),
            "certain": lambda: np.zeros(6, dtype=np.bool_),
        }
        return answers.get(self.fault, lambda: available)()

    def probability(self, time_s):
        probability = self.honest.probability(time_s)
        answers = {
            "counts its calls in the probability": lambda: probability / (1 + self.calls),
            "shares its probability": lambda: self.told,
            "certain": lambda: np.ones(6),
            "above one": lambda: probability + 1.0,
            "one for all": lambda: probability[:1],
            "biased": lambda: probability + 0.1,
            "does not know": lambda: None,
            "unknown to all": lambda: np.full(6, np.nan),
            "scalar": lambda: 0.5,
            "list of probabilities": lambda: [0.5] * 6,
        }
        return answers.get(self.fault, lambda: probability)()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("counts its calls", "not a pure function of time"),
        ("shares its memory", "not a pure function of time"),
        ("counts its calls in the probability", "probability, is not a pure function of time"),
        ("shares its probability", r"outside \[0, 1\]"),
        ("integers", "is int64, not bool"),
        ("list", "is a list, not an array"),
        ("short", "shape"),
        ("absent", "client 0 is available"),
        ("certain", "probability 1 is not available"),
        ("above one", r"outside \[0, 1\]"),
        ("one for all", r"probability\(\) has shape"),
        ("biased", "chance explains"),
        ("unbound", r"bind\(\) returned a NoneType, which has no method available\(\)"),
        ("unknown to all", "nan for everybody at all times"),
        ("scalar", r"probability\(\) is a float, not an array"),
        ("list of probabilities", r"probability\(\) is a list, not an array"),
    ],
)
def test_the_check_notices(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_availability(Broken(fault))


@pytest.mark.parametrize("fault", ["none", "does not know"])
def test_the_check_accepts(fault):
    check_availability(Broken(fault), replace(example_world(), per_round=3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("integers", r"at 600 s: available\(\) is int64, not bool"),
        ("list", r"at 600 s: available\(\) is a list, not an array"),
        ("short", r"at 600 s: available\(\) has shape \(5,\), not \(6,\)"),
        ("above one", r"at 600 s: probability\(\) has \[1.5 1.5 1.5 1.5 1.5 1.5\], outside \[0, 1\]"),
        ("one for all", r"at 600 s: probability\(\) has shape \(1,\), not \(6,\)"),
        ("scalar", r"at 600 s: probability\(\) is a float, not an array"),
        ("unbound", r"bind\(\): bind\(\) returned a NoneType, which has no method available\(\)"),
    ],
)
def test_a_model_that_answers_wrongly_is_named_where_it_is_used(fault, message):
    line = f"^availability 'Broken', {message}; parityfl.testing.check_availability tells more$"
    with pytest.raises(PartError, match=line):
        asked(Broken(fault))


def asked(model):
    """Return a model's answers at the time of the second round."""
    process = bind(model, example_world())
    return process.available(600.0), process.probability(600.0)


def test_what_a_model_raises_is_named():
    class Raises(Broken):
        def bind(self, world):
            raise KeyError("pi")

    with pytest.raises(PartError, match=r"^availability 'Raises', bind\(\): KeyError: 'pi' \(core/test_av"):
        bind(Raises(""), example_world())


def test_a_component_of_a_mixture_is_checked_too(restored):
    restored(availability)

    @availability("falls-short")
    @dataclass(frozen=True)
    class FallsShort(Broken):
        """One answer is missing."""

        source: ClassVar[str] = "here"
        fault: str = "short"

    mixture = availability.get("mixture")([{"name": "falls-short", "share": 1.0}])
    with pytest.raises(PartError, match=r"^availability 'falls-short', at 0 s: available\(\) has shape"):
        bind(mixture, example_world()).available(0.0)


def test_a_model_that_ships_answers_itself():
    model = availability.get("bernoulli")(pi=0.5)
    assert type(bind(model, example_world())) is type(model.bind(example_world()))
