from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import fleet_of

from network import LAYOUT, run, small_config
from parityfl.config import Data
from parityfl.coordinator.agreement import Agreement, read_agreement, write_agreement
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.core.arrays import Layout
from parityfl.core.errors import FleetError, FolderError
from parityfl.core.types import World
from parityfl.engine.fleet import Facts, Presence
from parityfl.wire.schemas import DataFormat, Registration

OTHER = Layout(("w",), ((3,),))


def device(name: str = "phone", classes: tuple[str, ...] = ("cat", "dog"), **changes: Any) -> Registration:
    own = DataFormat(classes=list(classes), shape=changes.pop("shape", [1, 4, 4]), dtype=changes.pop("dtype", "uint8"))
    return Registration(**{"device_id": name, "port": 5000, "data": own, **changes})


def test_the_first_device_decides_what_nobody_has_settled() -> None:
    agreed = Agreement(own=True).with_device(device(layout_hash=LAYOUT.digest))
    assert agreed == Agreement(True, ("cat", "dog"), (1, 4, 4), "uint8", LAYOUT.digest)
    assert agreed.with_device(device("tablet", ("dog",), label_counts=[0, 3])) == agreed
    assert agreed.keys == {"classes": ("cat", "dog"), "shape": (1, 4, 4)}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (device("tablet", ("cat", "fox")), "'tablet' has the class 'fox', this run's classes are 'cat', 'dog'"),
        (device("tablet", shape=[3, 4, 4]), "'tablet' has images of 3 x 4 x 4 .*, this run's are 1 x 4 x 4"),
        (device("tablet", dtype="float32"), "'tablet' has pixels of float32, this run's are uint8"),
        (device("tablet", layout_hash=OTHER.digest), "'tablet' has built a model whose parameters"),
        (device("tablet", label_counts=[1, 2, 3]), "'tablet' counts 3 labels, this run has 2 classes"),
        (Registration(device_id="tablet", port=1), "'tablet' brings no data of its own.*--data DIR"),
    ],
)
def test_a_device_that_differs_is_refused_with_the_difference(other: Registration, difference: str) -> None:
    registry = DeviceRegistry(["h0", "h1"], True, 1.0, lambda: 0.0, agreement=Agreement(own=True))
    registry.register(device(layout_hash=LAYOUT.digest), "127.0.0.1")
    with pytest.raises(FleetError, match=difference):
        registry.register(other, "127.0.0.1")
    assert len(registry) == 1


def test_the_configuration_settles_before_any_device() -> None:
    agreed = Agreement.of(Data(name="local", classes=("dog", "cat", "fox"), shape=(1, 4, 4)))
    assert agreed.with_device(device()).classes == ("dog", "cat", "fox")
    with pytest.raises(FleetError, match="'owl'"):
        agreed.with_device(device(classes=("owl",)))


def test_a_run_that_shares_out_a_data_set_takes_no_other() -> None:
    with pytest.raises(FleetError, match="leave out --data"):
        Agreement.of(Data()).with_device(device())
    plain = Registration(device_id="h0", port=1, layout_hash=LAYOUT.digest, label_counts=[1, 2, 3])
    assert Agreement.of(Data()).with_device(plain).layout_hash == LAYOUT.digest


def test_a_device_that_finds_no_place_settles_nothing() -> None:
    registry = DeviceRegistry(["h0"], False, 1.0, lambda: 0.0, agreement=Agreement(own=True))
    with pytest.raises(FleetError, match="no client of this experiment"):
        registry.register(device("stranger"), "127.0.0.1")
    assert registry.agreement.classes is None


def test_a_resumed_run_knows_what_was_agreed(tmp_path: Path) -> None:
    file = tmp_path / "agreement.json"
    assert read_agreement(file) is None
    agreed = Agreement(own=True).with_device(device(layout_hash=LAYOUT.digest))
    write_agreement(file, agreed, durable=True)
    assert read_agreement(file) == agreed
    file.write_text("{")
    with pytest.raises(FolderError, match="restore it"):
        read_agreement(file)


def test_a_late_comer_s_facts_arrive_with_it() -> None:
    """Nothing is known of h1 in round 1: 0 examples, no labels. It has registered before round 2."""

    async def main() -> None:
        config = small_config(data={"name": "local"}, rounds={"clock": "wall", "heartbeat_s": 0.1})
        async with fleet_of(config) as (fleet, _):
            enter = fleet.registry.register
            enter(Registration(device_id="h0", port=1), "127.0.0.1")
            assert told(await fleet.look(1, 0.0)) == ([0, 0, 0, 0], [[]] * 4)
            enter(Registration(device_id="h0", port=1, num_samples=5, label_counts=[2, 3]), "127.0.0.1")
            assert told(await fleet.look(1, 0.0)) == ([5, 0, 0, 0], [[2, 3], [0, 0], [0, 0], [0, 0]])
            enter(Registration(device_id="h1", port=1, num_samples=7, label_counts=[7, 0]), "127.0.0.1")
            assert told(await fleet.look(2, 1.0)) == ([5, 7, 0, 0], [[2, 3], [7, 0], [0, 0], [0, 0]])

    run(main())


def test_the_world_of_a_round_is_a_new_one_where_facts_come_in() -> None:
    nobody = np.zeros(2, dtype=np.int64)
    known = World(0, 2, 1, 1.0, nobody, np.zeros((2, 0), dtype=np.int64))
    here = np.array([True, False])
    assert Presence(here, here).world(known) is known
    told = Presence(here, here, Facts(np.array([3, 0]), np.array([[1, 2], [0, 0]]))).world(known)
    assert told.num_samples.tolist() == [3, 0]
    assert known.num_samples.tolist() == [0, 0]


def told(presence: Presence) -> tuple[list[int], list[list[int]]]:
    """Return the facts as lists."""
    assert presence.facts is not None
    return presence.facts.num_samples.tolist(), presence.facts.label_counts.tolist()
