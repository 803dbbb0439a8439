"""The coordinator's figures for Prometheus, read at the moment of the scrape from what the coordinator knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from parityfl.core.left_behind import REASONS
from parityfl.core.types import Outcome

if TYPE_CHECKING:
    from parityfl.coordinator.service import Coordinator

PREFIX = "parityfl"


class RunCollector(Collector):
    """Turns the state of one coordinator into metrics.

    Every column of rounds.csv is a gauge ``parityfl_<column>``; nan where unknown.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        coordinator = self._coordinator
        yield _gauge("rounds_planned", "Rounds that the run will have", coordinator.config.rounds.count)
        yield _gauge("rounds_done", "Rounds that are closed", coordinator.rounds_done)
        for name, value in coordinator.figures.items():
            yield _gauge(name, f"Column {name} of rounds.csv in the latest round", value)
        yield _labelled_gauge(
            "devices", "Devices by state", "state", Counter(m.state for m in coordinator.registry.members)
        )
        behind = {reason: coordinator.left_behind.count(reason) for reason in REASONS}
        yield _labelled_gauge("devices_left_behind", "Devices left behind, by why", "reason", behind)
        yield _outcomes(coordinator.outcomes)


def exposition(coordinator: Coordinator) -> bytes:
    """Return the text that Prometheus reads."""
    return generate_latest(RunCollector(coordinator))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _labelled_gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _outcomes(counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_outcomes", "Selected clients by outcome", labels=["outcome"])
    for outcome in Outcome:
        family.add_metric([outcome.value], counts.get(outcome.value, 0))
    return family
