"""The configuration: pydantic sections, and the layers that fill them."""

from parityfl.config.layers import Layer, describe_preset, layer_of, read_file, read_override
from parityfl.config.sections import (
    AggregatorSection,
    AvailabilitySection,
    Data,
    ObjectiveSection,
    Part,
    Population,
    Rounds,
    Section,
    SelectorSection,
    Training,
)
from parityfl.config.whole import Config, resolve

__all__ = [
    "AggregatorSection",
    "AvailabilitySection",
    "Config",
    "Data",
    "Layer",
    "ObjectiveSection",
    "Part",
    "Population",
    "Rounds",
    "Section",
    "SelectorSection",
    "Training",
    "describe_preset",
    "layer_of",
    "read_file",
    "read_override",
    "resolve",
]
