"""The workbench: what it says of the clients, and that every way of asking gives the same bits."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
import torch
import workbench_answers
from workbench_answers import measured

from parityfl.config import Config
from parityfl.core.errors import ConfigError
from parityfl.core.rounding import to_bfloat16
from parityfl.training.workbench import Workbench

MODELS = ["mlp", "cnn-small"]


def config(model: str = "mlp", **changes) -> Config:
    sections = {
        "seed": 3,
        "data": {"name": "digits"},
        "model": {"name": model},
        "population": {"clients": 4, "per_round": 2, "samples_per_client": 40},
        "training": {"epochs": 2, "batch_size": 16},
    }
    return Config(**{**sections, **changes})


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return Workbench(config())


@pytest.fixture(scope="module")
def weights(bench) -> np.ndarray:
    return bench.initial_weights()


def digest(bench: Workbench, clients: list[int]) -> str:
    """A hash over updates of two rounds and over all evaluation numbers."""
    weights = bench.initial_weights()
    updates = {(r, k): bench.train(r, k, weights)[0] for r in (1, 2) for k in clients}
    found = [
        (updates[key].delta.tobytes(), updates[key].train_loss, updates[key].loss_after) for key in sorted(updates)
    ]
    found += [[array.tobytes() for array in measured(bench, weights)], bench.evaluate_test(weights)]
    found += [bench.evaluate_client(k, weights) for k in sorted(clients)]
    return sha256(repr(found).encode()).hexdigest()


def test_what_it_says_of_the_clients(bench):
    """40 examples, 8 held out: 4 of each of the two labels."""
    assert bench.num_samples.tolist() == [32] * 4
    assert bench.label_counts.shape == (4, 10)
    assert sorted(bench.label_counts[0].tolist()) == [0] * 8 + [16, 16]
    assert bench.layout.size == 4_810


@pytest.mark.parametrize(("capability", "said"), [("AVX2", True), ("AVX512", False)])
def test_it_says_where_bfloat16_is_slow(monkeypatch: pytest.MonkeyPatch, capability: str, said: bool):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    engine = {"precision": "bf16", "device": "cpu"}
    bench = Workbench(Config(method="fedavg", population={"clients": 2, "per_round": 1}, engine=engine))
    assert ("slower than float32" in bench.describe()) == said


def test_the_initial_model_is_a_function_of_the_seed(bench, weights):
    assert weights.dtype == np.float32
    assert np.array_equal(weights, Workbench(config()).initial_weights())
    assert not np.array_equal(weights, Workbench(config(seed=4)).initial_weights())
    weights_again = bench.initial_weights()
    weights_again[:] = 0
    assert np.array_equal(bench.initial_weights(), weights)


def test_a_model_that_has_diverged_has_no_loss(bench, weights):
    """Its cross-entropy is some 1e20 nats: too much to be told, and unknown by whichever way it was measured."""
    wild = weights * np.float32(1e12)
    loss, accuracy, size = bench.evaluate_client(0, wild)
    assert np.isnan(loss)
    assert 0 <= accuracy <= 1
    assert size == 8
    alone, _ = bench.train(1, 0, wild)
    assert np.isnan([alone.train_loss, alone.loss_before]).all()
    for kernel in bench.kernels:
        (together, _), *_ = bench.train_many(1, [0, 1], [wild, wild], kernel=kernel)
        assert np.isnan([together.train_loss, together.loss_before]).all()


def test_training_helps_the_client_and_changes_nothing_that_was_given(bench, weights):
    before = weights.copy()
    update, memory = bench.train(1, 2, weights)
    assert np.array_equal(weights, before)
    assert memory is None
    assert (update.client, update.num_samples, update.control) == (2, 32, None)
    assert update.delta.dtype == np.float32
    assert update.delta.shape == (bench.layout.size,)
    assert np.isnan(update.personal_accuracy)
    loss, accuracy, size = bench.evaluate_client(2, weights)
    assert update.loss_before == loss
    assert update.loss_after == pytest.approx(bench.evaluate_client(2, weights + update.delta)[0], rel=1e-6)
    assert update.loss_after < loss
    assert 0 <= accuracy <= 1
    assert size == 8


def test_rounds_and_clients_have_batches_of_their_own(bench, weights):
    assert not np.array_equal(bench.train(1, 0, weights)[0].delta, bench.train(2, 0, weights)[0].delta)


def test_all_clients_at_once_are_each_of_them(bench, weights):
    loss, accuracy = measured(bench, weights)
    assert loss.shape == accuracy.shape == (4,)
    for client in range(4):
        one_loss, one_accuracy, _ = bench.evaluate_client(client, weights)
        assert loss[client] == pytest.approx(one_loss, rel=1e-6)
        assert accuracy[client] == one_accuracy


def test_the_test_set(bench, weights):
    """A network of zeros: uniform probabilities, every image taken for a nought."""
    loss, accuracy = bench.evaluate_test(np.zeros_like(weights))
    assert loss == pytest.approx(np.log(10))
    assert accuracy == pytest.approx(0.1, abs=0.01)


def test_a_process_may_host_some_clients_only(bench, weights):
    some = Workbench(config(), clients=[1])
    assert np.array_equal(some.num_samples, bench.num_samples)
    assert np.array_equal(some.label_counts, bench.label_counts)
    assert some.train(1, 1, weights)[0].delta.tobytes() == bench.train(1, 1, weights)[0].delta.tobytes()
    assert some.evaluate_client(1, weights) == bench.evaluate_client(1, weights)
    assert np.isnan(measured(some, weights)[0]).tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="client 0 is not among the clients"):
        some.train(1, 0, weights)


def test_without_held_out_parts_nobody_has_measured():
    bench = Workbench(config(population={"clients": 4, "per_round": 2, "holdout": 0.0, "partition": "iid"}))
    weights = bench.initial_weights()
    update, _ = bench.train(1, 0, weights)
    assert np.isnan([update.loss_before, update.loss_after, *bench.evaluate_client(0, weights)[:2]]).all()
    assert np.isnan(measured(bench, weights)).all()
    assert bench.num_samples.sum() == 1438


def test_ditto_reports_the_accuracy_of_the_personal_model(weights):
    bench = Workbench(config(objective={"name": "ditto"}))
    first, memory = bench.train(1, 0, weights)
    assert memory.shape == weights.shape
    assert first.personal_accuracy == bench.evaluate_client(0, memory)[1]
    second, later = bench.train(2, 0, weights, memory=memory)
    assert not np.array_equal(memory, later)
    assert second.personal_accuracy >= first.personal_accuracy


def test_scaffold_sends_the_change_of_its_control(weights):
    bench = Workbench(config("cnn-small", objective={"name": "scaffold"}))
    weights = bench.initial_weights()
    first, memory = bench.train(1, 0, weights)
    assert np.array_equal(first.control, memory)
    second, later = bench.train(2, 0, weights, control=memory / 4, memory=memory)
    assert np.allclose(memory + second.control, later, atol=1e-6)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "at once"])
def test_scaffold_keeps_the_change_as_it_arrives(together):
    """Two rounds: what is kept is the sum of what was sent, each rounded to bfloat16."""
    bench = Workbench(config("cnn-small", objective={"name": "scaffold"}, transport={"dtype": "bf16"}))
    weights, control, memory = bench.initial_weights(), None, None
    kept = np.zeros_like(weights)
    for number in (1, 2):
        if together:
            memories = None if memory is None else [memory]
            kernel = bench.kernels[0]
            ((update, memory),) = bench.train_many(
                number, [0], [weights], kernel=kernel, control=control, memories=memories
            )
        else:
            update, memory = bench.train(number, 0, weights, control=control, memory=memory)
        kept += update.control
        assert np.array_equal(update.control, to_bfloat16(update.control))
        assert np.array_equal(memory, kept)
        control = to_bfloat16(memory / 4)


def test_a_mistake_in_the_population_is_named():
    with pytest.raises(ConfigError, match=r"population\.labels_per_client = 11"):
        Workbench(config(population={"clients": 4, "labels_per_client": 11}))


def test_no_global_random_state_is_touched(weights):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    bench = Workbench(config("cnn-small"))
    bench.train(1, 0, bench.initial_weights())
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("model", MODELS)
def test_order_and_thread_do_not_matter(model):
    bench = Workbench(config(model))
    expected = digest(bench, [0, 1, 2, 3])
    assert digest(bench, [3, 1, 0, 2]) == expected
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(lambda _: digest(bench, [2, 3, 0, 1]), range(3))) == {expected}


def test_every_thread_that_trains_computes_on_one_thread(bench, weights):
    """Also where the thread, or the process before, had asked for more."""

    def train_and_count() -> int:
        torch.set_num_threads(2)
        bench.train(1, 0, weights)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train_and_count).result() == 1


def test_another_process_agrees_to_the_bit_whatever_it_hosts():
    """It hosts all devices and trains them backwards, then two of them; this process hosts all of them in order."""
    asked = [(config(model).document(), hosted) for model in MODELS for hosted in ([3, 2, 1, 0], [2, 1])]
    command = [sys.executable, workbench_answers.__file__, json.dumps(asked)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for model, everyone, some in zip(MODELS, found[::2], found[1::2], strict=True):
        expected = workbench_answers.answers(config(model).document(), [0, 1, 2, 3])
        assert everyone == expected
        del some["clients"], expected["clients"]
        expected["devices"] = {client: expected["devices"][client] for client in ("1", "2")}
        assert some == expected
