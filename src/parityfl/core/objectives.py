"""Local objectives: what a client minimises. Their keys and what they keep; the training itself is in `training`."""

from dataclasses import dataclass
from typing import ClassVar

from parityfl.core.keys import between
from parityfl.core.registry import Registry
from parityfl.core.types import MOST_STEP


class Objective:
    """A local objective: a frozen dataclass whose fields are its configuration keys.

    Attributes:
        keeps_memory: the client keeps a vector of its own between rounds (a personal model, a control variate).
        uses_control: the server keeps a control variate, sends it along and adds up the clients' changes of theirs.
        training: for objectives of other packages: the module that registers the local training with
            `parityfl.training.local.minimise`, imported where clients train and nowhere else, since it needs torch.
    """

    source: ClassVar[str] = ""
    keeps_memory: ClassVar[bool] = False
    uses_control: ClassVar[bool] = False
    training: ClassVar[str] = ""


objective: Registry[Objective] = Registry("objective", "parityfl.objectives", Objective)


@objective("plain")
@dataclass(frozen=True)
class Plain(Objective):
    """The client's own mean cross-entropy."""

    source: ClassVar[str] = "McMahan et al., AISTATS 2017"


@objective("fedprox")
@dataclass(frozen=True)
class FedProx(Objective):
    """The client's loss plus (mu / 2) ||w - w_t||^2, which holds it near the model that it was sent.

    Attributes:
        mu: strength of the pull, 0 to `MOST_STEP`; 0 is `plain`.
    """

    source: ClassVar[str] = "Li et al., MLSys 2020"

    mu: float = 0.01

    def __post_init__(self) -> None:
        between("objective.mu", self.mu, 0, MOST_STEP)


@objective("ditto")
@dataclass(frozen=True)
class Ditto(Objective):
    """Train a personal model v_k beside the global one: v -= lr (grad F_k(v) + strength (v - w_t)).

    The global path is that of `plain`. The personal model stays with the client; its accuracy is reported.

    Attributes:
        strength: lambda, how strongly the personal model is pulled to the global one, 0 to `MOST_STEP`.
    """

    source: ClassVar[str] = "Li et al., ICML 2021"
    keeps_memory: ClassVar[bool] = True

    strength: float = 0.1

    def __post_init__(self) -> None:
        between("objective.strength", self.strength, 0, MOST_STEP)


@objective("scaffold")
@dataclass(frozen=True)
class Scaffold(Objective):
    """Correct every local step by control variates: y -= lr (grad F_k(y) - c_k + c).

    Option II of the paper: c_k <- c_k - c + (w_t - y) / (steps x lr); c <- c + mean over participants of the change
    of c_k times |S| / N. Under intermittent availability c_k is as old as the client's last participation. A client
    whose update came late goes on from the c_k before it, so that c, the mean of c_k, leaves its change out.
    """

    source: ClassVar[str] = "Karimireddy et al., ICML 2020"
    keeps_memory: ClassVar[bool] = True
    uses_control: ClassVar[bool] = True
