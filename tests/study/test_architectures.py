from typing import Any

import numpy as np
import pytest

from deltaball.base.errors import InputError
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import (
    Activation,
    Conv,
    Dense,
    Flatten,
    Layer,
    Layers,
    MaxPool,
)
from deltaball.study import architectures
from deltaball.study.architectures import layers

FCN = {"depth": 2, "width": 64, "activation": "relu"}
CNN = {"fc_depth": 1, "fc_width": 128, "activation": "tanh", "filters": 5, "kernel": 3, "conv_depth": 2}
VGG = {"fc_depth": 2, "fc_width": 32, "activation": "relu", "filters": 4, "kernel": 5, "conv_depth": 1}
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)


def test_fcn_by_hand():
    found = layers("fcn", FCN, MNIST, 10)
    assert found.parameters == (784 * 64 + 64) + (64 * 64 + 64) + (64 * 10 + 10) == 55_050
    assert found.flop == 2 * (784 * 64 + 64 * 64 + 64 * 10) == 109_824


def test_cnn_by_hand():
    # 28×28×1 → conv 5 → 28×28×5 → pool → 14×14×5 → conv 5 → pool → 7×7×5 = 245 → 128 → 10
    found = layers("cnn", CNN, MNIST, 10)
    assert found.parameters == (9 * 1 * 5 + 5) + (9 * 5 * 5 + 5) + (245 * 128 + 128) + (128 * 10 + 10) == 33_058
    assert found.flop == 2 * (28 * 28 * 9 * 5 + 14 * 14 * 9 * 5 * 5 + 245 * 128 + 128 * 10) == 224_040


def test_vgg_by_hand():
    # 32×32×3 → conv 4 → conv 4 → pool → 16×16×4 = 1024 → 32 → 32 → 10
    found = layers("vgg", VGG, CIFAR, 10)
    convolutions = (25 * 3 * 4 + 4) + (25 * 4 * 4 + 4)
    assert found.parameters == convolutions + (1024 * 32 + 32) + (32 * 32 + 32) + (32 * 10 + 10) == 34_894
    macs = 32 * 32 * 25 * (3 * 4 + 4 * 4) + 1024 * 32 + 32 * 32 + 32 * 10
    assert found.flop == 2 * macs == 1_501_824


def test_an_odd_row_or_column_is_dropped_by_each_pool():
    # 15×9 → 7×4 → 3×2 → 1×1, so the first dense layer has one input per filter.
    found = layers("cnn", {**CNN, "conv_depth": 3}, (15, 9, 2), 3)
    entering = {layer: [shape for one, shape in found.walk() if one == layer] for layer in found}
    assert entering[Conv(5, 3)] == [(15, 9, 2), (7, 4, 5), (3, 2, 5)]
    assert entering[Dense(128)] == [(5,)]


@pytest.mark.parametrize(
    ("shape", "fits"), [((28, 28, 1), 4), ((32, 32, 3), 5), ((15, 9, 2), 3), ((64, 2, 1), 1), ((1, 1, 1), 0)]
)
@pytest.mark.parametrize("architecture", ["cnn", "vgg"])
def test_as_many_pools_as_leave_a_pixel(architecture: str, shape: tuple[int, int, int], fits: int):
    for depth in range(1, fits + 1):
        layers(architecture, {**CNN, "conv_depth": depth}, shape, 10)
    with pytest.raises(InputError, match=rf"conv_depth = {fits + 1} halves .* at most {fits} fits"):
        layers(architecture, {**CNN, "conv_depth": fits + 1}, shape, 10)


CASES = [
    ("fcn", FCN, MNIST, 10),
    ("fcn", {**FCN, "depth": 4, "width": 7}, (5, 3, 2), 3),
    ("cnn", CNN, MNIST, 10),
    ("cnn", {**CNN, "conv_depth": 3, "kernel": 4}, (15, 9, 2), 3),
    ("vgg", VGG, CIFAR, 10),
    ("vgg", {**VGG, "conv_depth": 3, "kernel": 7}, (9, 17, 1), 2),
]


@pytest.mark.parametrize(("architecture", "axes", "shape", "classes"), CASES)
def test_keras_builds_the_same_network(architecture: str, axes: dict[str, Any], shape: tuple, classes: int):
    found = layers(architecture, axes, shape, classes)
    model = keras_model(found)
    assert model.count_params() == found.parameters
    assert [tuple(weight.shape) for weight in model.weights] == found.weight_shapes
    assert model.output_shape == (None, classes)
    assert all(layer.padding == "same" for layer in model.layers if hasattr(layer, "padding") and layer.weights)
    for weight, shape_ in zip(model.get_weights(), found.weight_shapes, strict=True):
        if len(shape_) == 1:
            assert not weight.any()
        else:
            limit = np.float32(np.sqrt(6 / (np.prod(shape_[:-2]) * (shape_[-2] + shape_[-1]))))
            assert 0.5 * limit < np.abs(weight).max() <= limit


GOLDEN: dict[str, tuple[int, tuple[Layer, ...], dict[str, Any], tuple[int, int, int]]] = {
    "fcn": (
        1,
        (
            Flatten(),
            Dense(64),
            Activation("relu"),
            Dense(64),
            Activation("relu"),
            Dense(10),
        ),
        FCN,
        MNIST,
    ),
    "cnn": (
        1,
        (
            Conv(5, 3),
            Activation("tanh"),
            MaxPool(),
            Conv(5, 3),
            Activation("tanh"),
            MaxPool(),
            Flatten(),
            Dense(128),
            Activation("tanh"),
            Dense(10),
        ),
        CNN,
        MNIST,
    ),
    "vgg": (
        1,
        (
            Conv(4, 5),
            Activation("relu"),
            Conv(4, 5),
            Activation("relu"),
            MaxPool(),
            Flatten(),
            Dense(32),
            Activation("relu"),
            Dense(32),
            Activation("relu"),
            Dense(10),
        ),
        VGG,
        CIFAR,
    ),
}


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES)
def test_a_version_means_these_layers(architecture: str):
    """If the layers change, raise the version: ids then change too, and no stored weights pass for another's."""
    version, expected, axes, shape = GOLDEN[architecture]
    assert architectures.ARCHITECTURES[architecture].VERSION == version
    assert layers(architecture, axes, shape, 10) == Layers(shape, expected)
