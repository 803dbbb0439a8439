import numpy as np
import pytest
import torch
from torch import nn

from parityfl.core.arrays import Layout
from parityfl.core.errors import ConfigError
from parityfl.training.device import choose_device, torch_seeded
from parityfl.training.flat import FlatModel
from parityfl.training.local import Batch
from parityfl.training.models import _pool, build_model, layout_of, model

CPU = torch.device("cpu")
SHAPES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28), "cifar": (3, 32, 32)}


def flat(name: str, shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10) -> FlatModel:
    with torch_seeded(1, CPU):
        return FlatModel(build_model(name, shape, num_classes), CPU)


def test_what_is_registered():
    assert {"mlp", "cnn-small", "cnn", "resnet18"} <= set(model.names())
    assert all(model.get(name).source for name in model.names())


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "parameters"),
    [
        ("mlp", SHAPES["digits"], 10, 4_810),
        ("mlp", SHAPES["fashion-mnist"], 10, 50_890),
        ("cnn-small", SHAPES["digits"], 10, 6_090),
        ("cnn-small", SHAPES["fashion-mnist"], 10, 20_490),
        ("cnn-small", SHAPES["cifar"], 10, 25_578),
        ("cnn", SHAPES["fashion-mnist"], 10, 1_663_370),
        ("resnet18", SHAPES["cifar"], 10, 11_173_962),
        ("resnet18", SHAPES["cifar"], 100, 11_220_132),
    ],
)
def test_parameter_counts(name, shape, num_classes, parameters):
    module = build_model(name, shape, num_classes)
    assert layout_of(module).size == parameters
    assert not list(module.buffers())
    with torch.inference_mode():
        assert module(torch.zeros(2, *shape)).shape == (2, num_classes)


def test_the_layout_is_that_of_the_named_parameters():
    """8 x 8 digits: 64 -> 64 -> 10."""
    assert layout_of(build_model("mlp", (1, 8, 8), 10)) == Layout(
        ("hidden.weight", "hidden.bias", "output.weight", "output.bias"), ((64, 64), (64,), (10, 64), (10,))
    )


@pytest.mark.parametrize("name", ["mlp", "cnn-small"])
def test_the_model_vector_is_row_major_in_parameter_order_whatever_the_memory_format(name):
    with torch_seeded(1, CPU):
        module = build_model(name, (1, 8, 8), 10)
    expected = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()]).numpy()
    net = flat(name)
    assert np.array_equal(net.to_vector(net.weights), expected)
    vector = np.arange(net.layout.size, dtype=np.float32)
    assert np.array_equal(net.to_vector(net.arrange(vector)), vector)


def test_a_read_only_vector_is_taken_and_left_alone(recwarn):
    net = flat("cnn-small")
    vector = np.arange(net.layout.size, dtype=np.float32)
    vector.flags.writeable = False
    arranged = net.arrange(vector)
    arranged.zero_()
    assert vector[5] == 5
    assert not recwarn.list


@pytest.mark.parametrize("name", ["mlp", "cnn-small"])
def test_the_flat_gradient_is_that_of_autograd(name):
    with torch_seeded(1, CPU):
        module = build_model(name, (1, 8, 8), 10)
        images, labels = torch.randn(5, 1, 8, 8), torch.arange(5)
    loss = nn.functional.cross_entropy(module(images), labels)
    loss.backward()
    expected = torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])
    net = flat(name)
    for _ in range(2):
        assert torch.allclose(net.backward(Batch(images, labels)), loss)
        assert np.allclose(net.to_vector(net.gradient), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn-small", "cnn"])
def test_the_layers_after_the_convolutions_see_the_channels_innermost(name):
    net = flat(name, SHAPES["cifar"])
    images = torch.randn(5, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    seen = images
    for conv in (net.module.conv1, net.module.conv2):
        seen = torch.relu(nn.functional.max_pool2d(conv(seen), 2))
    expected = torch.stack([torch.cat([image[:, y, x] for y in range(8) for x in range(8)]) for image in seen])
    assert torch.equal(net.module.features(images), expected)


def test_measure_gives_each_example_its_loss_and_hit():
    """An all-zero network gives uniform probabilities: loss log(10), and label 0 wins every tie."""
    net = flat("mlp")
    net.weights.zero_()
    losses, hits = net.measure(torch.ones(600, 1, 8, 8), torch.arange(600) % 10)
    assert losses.dtype == np.float64
    assert np.allclose(losses, np.log(10))
    assert hits.tolist() == [label == 0 for label in np.arange(600) % 10]
    assert [len(part) for part in net.measure(torch.ones(0, 1, 8, 8), torch.arange(0))] == [0, 0]


def test_bf16_is_close_and_leaves_float32_weights():
    with torch_seeded(1, CPU):
        net = FlatModel(build_model("mlp", (1, 8, 8), 10), CPU, bf16=True)
        images, labels = torch.randn(5, 1, 8, 8), torch.arange(5)
    loss = net.backward(Batch(images, labels))
    exact = flat("mlp").backward(Batch(images, labels))
    assert loss.dtype == torch.float32
    assert net.weights.dtype == net.gradient.dtype == torch.float32
    assert loss != exact
    assert torch.allclose(loss, exact, atol=0.05)


def test_a_network_with_buffers_is_refused(restored):
    restored(model)

    @model("test-buffered")
    class Buffered(nn.Module):
        def __init__(self, shape, num_classes):
            super().__init__()
            self.norm = nn.BatchNorm2d(shape[0])

    with pytest.raises(ConfigError, match=r"'norm\.running_mean'.*GroupNorm"):
        build_model("test-buffered", (1, 8, 8), 10)


def test_images_that_are_too_small():
    with pytest.raises(ConfigError, match="3 x 8 are too small"):
        build_model("cnn", (1, 3, 8), 10)


def test_unknown_model():
    with pytest.raises(ConfigError, match="did you mean 'cnn-small'"):
        build_model("cnn-smal", (1, 8, 8), 10)


def test_seeding_is_a_block_and_nothing_outside_it_changes():
    before = torch.random.get_rng_state()
    with torch_seeded(5, CPU):
        first = torch.rand(3)
    with torch_seeded(5, CPU):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_device_is_chosen_by_name():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ConfigError, match="torch sees no GPU here"):
        choose_device("cuda")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 9)])
def test_pooling_for_inference_is_pooling_to_the_bit(shape):
    """Odd sides leave their last row or column out, as torch's pooling does."""
    images = torch.randn(5, *shape).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(_pool(images), torch.nn.functional.max_pool2d(images, 2))
