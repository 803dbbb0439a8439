"""Availability models, one file each."""

from parityfl.core.availability.always import Always
from parityfl.core.availability.answer import bind
from parityfl.core.availability.base import AvailabilityModel, availability
from parityfl.core.availability.bernoulli import Bernoulli
from parityfl.core.availability.check import SelfCheck, describe_check, self_check
from parityfl.core.availability.copula import Copula
from parityfl.core.availability.diurnal import Diurnal
from parityfl.core.availability.gilbert_elliott import GilbertElliott
from parityfl.core.availability.groups import Groups
from parityfl.core.availability.label_correlated import LabelCorrelated
from parityfl.core.availability.mixture import Mixture
from parityfl.core.availability.size_correlated import SizeCorrelated
from parityfl.core.availability.trace import Trace

__all__ = [
    "Always",
    "AvailabilityModel",
    "Bernoulli",
    "Copula",
    "Diurnal",
    "GilbertElliott",
    "Groups",
    "LabelCorrelated",
    "Mixture",
    "SelfCheck",
    "SizeCorrelated",
    "Trace",
    "availability",
    "bind",
    "describe_check",
    "self_check",
]
