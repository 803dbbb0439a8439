"""A workbench: the data, the model and the tools of one process, to train and evaluate any client that it hosts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from math import nan
from threading import Lock

import numpy as np
import torch
from torch import Tensor

import parityfl.training.objectives  # noqa: F401 - registers the objectives' training
from parityfl.allocator import keep_freed_memory
from parityfl.config import Config
from parityfl.core.aggregation import aggregator
from parityfl.core.arrays import Layout
from parityfl.core.blame import is_in
from parityfl.core.objectives import objective
from parityfl.core.seeding import generator, integer
from parityfl.core.types import MAX_LOSS, BoolArray, FloatArray, IntArray, Update, Vector
from parityfl.training.device import choose_device, is_slow_in_bf16, make_deterministic, torch_seeded, use_one_thread
from parityfl.training.examples import Examples, Scale
from parityfl.training.flat import FlatModel
from parityfl.training.holdings import Holdings, Part, PartName, load_holdings
from parityfl.training.local import Learned, LocalTask, Proceed, always, load_training, minimise
from parityfl.training.many import Kernel, ManyModels, ManyTask, in_turn, kernels, side_by_side
from parityfl.training.models import build_model, model


class Workbench:
    """Trains and evaluates the clients of a configuration. Methods may be called from any thread; one runs at a time.

    All processes of a configuration build the same shards and the same initial model, and on machines and versions
    alike get the same bits from the same call, in whatever order clients train.

    Args:
        config: the resolved configuration.
        device: ``auto``, ``cpu`` or ``cuda``; None for the configuration's.
        clients: whose examples to keep in memory, None for all; the others can be neither trained nor evaluated here.
        holdings: the configuration's data, where it is loaded already; `clients` is not looked at then.

    Attributes:
        config: the resolved configuration.
        holdings: the data.
        layout: where each parameter lies in the model vector.
        num_samples: training examples of every client, hosted or not, without its held-out part, shape (N,).
        label_counts: the same by label, shape (N, C).

    Raises:
        ParityflError: the data are missing, or the configuration does not fit them.
    """

    holdings: Holdings
    layout: Layout
    num_samples: IntArray
    label_counts: IntArray

    def __init__(
        self,
        config: Config,
        device: str | None = None,
        clients: Iterable[int] | None = None,
        holdings: Holdings | None = None,
    ) -> None:
        make_deterministic()
        keep_freed_memory()
        use_one_thread()
        self.config = config
        self._objective = config.objective.build()
        load_training(self._objective)
        self._carry = config.transport.build()
        self._travels = torch.bfloat16 if config.transport.dtype == "bf16" else torch.float32
        self._lock = Lock()
        self.holdings = load_holdings(config, clients) if holdings is None else holdings
        self.num_samples, self.label_counts = self.holdings.num_samples, self.holdings.label_counts
        self._build_net(choose_device(config.engine.device if device is None else device))
        self._scale = Scale(self.holdings.mean, self.holdings.std, self._net.device, self._net.memory_format)
        self._train = self._resident(self.holdings.train)

    def _build_net(self, device: torch.device) -> None:
        config = self.config
        with torch_seeded(integer(config.seed, "model"), device):
            module = build_model(config.model.name, self.holdings.shape, self.holdings.num_classes)
        self._net = FlatModel(module, device, bf16=config.engine.precision == "bf16")
        self._initial_weights = self._net.to_vector(self._net.weights)
        self.layout = self._net.layout

    def _resident(self, part: Part) -> Examples:
        return Examples(part, self._scale)

    @cached_property
    def _held(self) -> Examples:
        return self._resident(self.holdings.held)

    @cached_property
    def _test(self) -> Examples:
        """The test set; only a process that evaluates it has it on the device."""
        return self._resident(self.holdings.test)

    @property
    def evaluation_batch(self) -> int:
        """Examples a pass of an evaluation; a span that begins at a multiple of it does not change what is measured."""
        return self._net.evaluation_batch

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._net.device

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that define what is computed here: the model, the objective, and the rule that pools updates."""
        used = [model.get(self.config.model.name), type(self._objective)]
        if self.config.engine.pre_aggregate is not None:
            used.append(aggregator.get(self.config.aggregator.name))
        return tuple(part.__module__ for part in used)

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Blame the model or the objective for what goes wrong in its code, where it is one of another package.

        Raises:
            PartError: (from the context) it raised.
        """
        net, goal = model.get(self.config.model.name), type(self._objective)
        places = (goal.__module__, goal.training or goal.__module__)
        with (
            objective.blaming(goal, spared=lambda error: not any(is_in(error, place) for place in places)),
            model.blaming(net, spared=lambda error: not is_in(error, net.__module__)),
        ):
            yield

    def describe(self) -> str:
        """Return how it computes, for the user."""
        layout = str(self._net.memory_format).removeprefix("torch.")
        precision: str = self.config.engine.precision
        if precision == "bf16" and is_slow_in_bf16(self.device):
            precision = "bf16, slower than float32 on this processor"
        return f"{self.config.model.name} on {self.device}, {layout}, {precision}"

    def initial_weights(self) -> Vector:
        """Return the model before the first round, a pure function of the seed, shape (d,)."""
        return self._initial_weights.copy()

    def train(
        self,
        round: int,
        client: int,
        weights: Vector,
        control: Vector | None = None,
        memory: Vector | None = None,
        *,
        proceed: Proceed = always,
    ) -> tuple[Update, Vector | None]:
        """Train a client by the configured objective.

        Args:
            round: the round's number, which seeds the batches.
            client: the client's index.
            weights: the model that it is sent, float32, shape (d,); not changed.
            control: the server's control variate (`scaffold`), or None.
            memory: what the client kept from the last round that it completed, or None.
            proceed: called before each batch; what it raises is raised here.

        Returns:
            The update as it arrives (`transport.dtype`), and what the client keeps for its next round, or None where
            its objective keeps nothing.
        """
        self._require_hosted(client)
        with self._lock:
            use_one_thread()
            with torch_seeded(integer(self.config.seed, "torch", round, client), self._net.device):
                return self._train_locked(round, client, weights, control, memory, proceed=proceed)

    def _train_locked(
        self,
        round: int,
        client: int,
        weights: Vector,
        control: Vector | None,
        memory: Vector | None,
        *,
        proceed: Proceed,
    ) -> tuple[Update, Vector | None]:
        net, held = self._net, self._held.of(client)
        images, labels = self._train.of(client)
        task = LocalTask(
            images,
            labels,
            settings=self.config.training,
            batches=partial(generator, self.config.seed, "batches", round, client),
            weights=net.arrange(weights),
            control=None if control is None else net.arrange(control),
            memory=None if memory is None else net.arrange(memory),
            travels=self._travels,
            proceed=proceed,
        )
        loss_before, _ = self._measure(task.weights, held)
        learned = minimise(self._objective, net, task)
        loss_after, _ = self._measure(learned.weights, held)
        update = Update(
            client=client,
            delta=self._carry(net.to_vector(learned.weights - task.weights)),
            num_samples=len(labels),
            train_loss=_measurable(float(learned.train_loss)),
            loss_before=loss_before,
            loss_after=loss_after,
            control=None if learned.control is None else self._carry(net.to_vector(learned.control)),
            personal_accuracy=self._personal_accuracy(learned, held),
        )
        return update, None if learned.memory is None else net.to_vector(learned.memory)

    @property
    def kernels(self) -> list[Kernel]:
        """How many clients can be trained at once here; empty on a GPU."""
        return kernels(self._net.module, self.holdings.shape) if self.device.type == "cpu" else []

    def train_many(
        self,
        round: int,
        clients: Sequence[int],
        weights: Sequence[Vector],
        *,
        kernel: Kernel,
        control: Vector | None = None,
        memories: Sequence[Vector] | None = None,
    ) -> list[tuple[Update, Vector | None]]:
        """Train several clients at once, each as `train` would but for the last digits.

        Args:
            round: the round's number.
            clients: the clients' indices.
            weights: the model that each is sent.
            kernel: one of `kernels`.
            control: the server's control variate, or None.
            memories: what each kept, or None where none did.
        """
        with self._lock:
            use_one_thread()
            many = ManyModels(self._net.module, len(clients), kernel, self.config.engine.precision == "bf16")
            images, labels, sizes = self._train.of_all(clients)
            task = ManyTask(
                images,
                labels,
                sizes,
                settings=self.config.training,
                batches=[partial(generator, self.config.seed, "batches", round, client) for client in clients],
                weights=torch.from_numpy(np.stack(weights)),
                control=None if control is None else torch.tensor(control),
                memory=None if memories is None else torch.from_numpy(np.stack(memories)),
                travels=self._travels,
            )
            before, _ = self._measure_many(many, task.weights, clients)
            learned = minimise(self._objective, many, task)
            after, _ = self._measure_many(many, learned.weights, clients)
            personal = [nan] * len(clients)
            if learned.personal is not None:
                personal = self._measure_many(many, learned.personal, clients)[1].tolist()
        delta = (learned.weights - task.weights).numpy()
        return [
            (
                Update(
                    client=client,
                    delta=self._carry(delta[row]),
                    num_samples=sizes[row],
                    train_loss=_measurable(float(learned.train_loss[row])),
                    loss_before=_measurable(float(before[row])),
                    loss_after=_measurable(float(after[row])),
                    control=None if learned.control is None else self._carry(learned.control[row].numpy()),
                    personal_accuracy=personal[row],
                ),
                None if learned.memory is None else learned.memory[row].clone().numpy(),  # not all rows with it
            )
            for row, client in enumerate(clients)
        ]

    def _measure_many(self, many: ManyModels, rows: Tensor, clients: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        images, labels, sizes = self._held.of_all(clients)
        many.weights.copy_(rows)
        return many.measure(side_by_side(images, labels, in_turn(sizes, self.config.training.batch_size)))

    def _personal_accuracy(self, learned: Learned, held: tuple[Tensor, Tensor]) -> float:
        return nan if learned.personal is None else self._measure(learned.personal, held)[1]

    def _measure(self, flat: Tensor, examples: tuple[Tensor, Tensor]) -> tuple[float, float]:
        """Return mean loss and accuracy; nan where there are no examples, a loss also where the model has diverged."""
        images, labels = examples
        if len(labels) == 0:
            return nan, nan
        self._net.weights.copy_(flat)
        losses, hits = self._net.measure(images, labels)
        return _measurable(float(losses.mean())), float(hits.mean())

    def measure(
        self, part: PartName, weights: Vector, start: int = 0, stop: int | None = None
    ) -> tuple[FloatArray, BoolArray]:
        """Return loss and correctness of each example of a part, from `start` to `stop`.

        Spans that begin at multiples of `evaluation_batch` give the same bits as the whole part at once.
        """
        examples = self._held if part == "held" else self._test
        with self._lock:
            use_one_thread()
            self._net.weights.copy_(self._net.arrange(weights))
            return self._net.measure(*examples.span(start, len(examples) if stop is None else stop))

    def evaluate_client(self, client: int, weights: Vector) -> tuple[float, float, int]:
        """Return loss and accuracy on a client's held-out part, nan where it has none, and that part's size.

        The loss is nan as well where it is above `MAX_LOSS`.
        """
        self._require_hosted(client)
        with self._lock:
            use_one_thread()
            images, labels = self._held.of(client)
            return *self._measure(self._net.arrange(weights), (images, labels)), len(labels)

    def evaluate_test(self, weights: Vector) -> tuple[float, float]:
        """Return loss and accuracy on the test set."""
        losses, hits = self.measure("test", weights)
        return float(losses.mean()), float(hits.mean())

    def _require_hosted(self, client: int) -> None:
        if client not in self.holdings.hosted:
            raise ValueError(f"client {client} is not among the clients of this workbench")


def _measurable(loss: float) -> float:
    """Return a loss as it may be told; nan where it is infinite or above `MAX_LOSS`, for then there is none to tell."""
    return loss if loss <= MAX_LOSS else nan
