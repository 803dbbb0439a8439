"""Models and data sets of one's own that raise: one line names them; what goes wrong elsewhere is not theirs."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn
from workbenches import config

from parityfl.core.errors import PartError
from parityfl.core.registry import Registry
from parityfl.training.datasets import Dataset, DatasetSource, dataset
from parityfl.training.models import Network, Shape, model
from parityfl.training.workbench import Workbench
from parityfl.workers.jobs import MeasureJob, perform

HERE = r"\(workers/test_blamed_parts\.py:\d+\)$"


class Misfit(Network):
    """Takes images of three pixels."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


class Unbuilt(Network):
    """Cannot be made."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        raise TypeError("no such layer")


def measure(bench: Workbench, weights: Any) -> None:
    perform(MeasureJob("weights", "test", 0, 8), bench, {"weights": weights})  # type: ignore[arg-type]


def test_a_model_that_cannot_compute_is_named(restored: Callable[[Registry[Any]], None]) -> None:
    restored(model)
    model("misfit")(Misfit)
    bench = Workbench(config(model={"name": "misfit"}))
    with pytest.raises(PartError, match=rf"^model 'misfit': RuntimeError: mat1 and mat2 .* {HERE}"):
        measure(bench, bench.initial_weights())


def test_a_job_that_is_wrong_itself_is_not_the_models_fault(restored: Callable[[Registry[Any]], None]) -> None:
    restored(model)
    model("misfit")(Misfit)
    bench = Workbench(config(model={"name": "misfit"}))
    with pytest.raises(AttributeError):
        measure(bench, None)


def test_a_model_that_cannot_be_made_is_named(restored: Callable[[Registry[Any]], None]) -> None:
    restored(model)
    model("unbuilt")(Unbuilt)
    with pytest.raises(PartError, match=rf"^model 'unbuilt': TypeError: no such layer {HERE}"):
        Workbench(config(model={"name": "unbuilt"}))


class Gone(DatasetSource):
    """Its file is not there."""

    def load(self, root: str | None) -> Dataset:
        raise FileNotFoundError("images.npz")


class Nothing(DatasetSource):
    """Forgets to return what it has read."""

    def load(self, root: str | None) -> Dataset:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Gone, rf"FileNotFoundError: images\.npz {HERE}"),
        (Nothing, r"load\(\) returned a NoneType, not a Dataset$"),
    ],
)
def test_a_data_set_that_cannot_be_loaded_is_named(
    restored: Callable[[Registry[Any]], None], source: type[DatasetSource], told: str
) -> None:
    restored(dataset)
    dataset("mine")(source)
    with pytest.raises(PartError, match=rf"^dataset 'mine': {told}"):
        Workbench(config(data={"name": "mine"}, model={"name": "mlp"}))
