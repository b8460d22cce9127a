from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import grid, network_ids

from deltaball.base.errors import InputError
from deltaball.data.catalogue import CATALOGUE
from deltaball.networks.keras_models import keras_model
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Residual,
    Subsample,
)
from deltaball.study import architectures
from deltaball.study.architectures import layers
from deltaball.study.grids import grid_model

FCN = {"depth": 2, "width": 64, "activation": "relu"}
CNN = {"fc_depth": 1, "fc_width": 128, "activation": "tanh", "filters": 5, "kernel": 3, "conv_depth": 2}
VGG = {"fc_depth": 2, "fc_width": 32, "activation": "relu", "filters": 4, "kernel": 5, "conv_depth": 1}
NIN, RESNET, CONV5 = {"width": 192, "dropout": 0.5}, {"width": 16}, {"filters": 128, "fc_width": 1024}
RELU, NORM = Activation("relu"), BatchNorm(1e-5, 0.9)
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


@pytest.mark.parametrize(
    ("architecture", "axes", "shape", "parameters"),
    [
        ("lenet", {"conv_activation": "none"}, MNIST, 431_080),
        ("lenet", {"conv_activation": "relu"}, MNIST, 431_080),
        ("nin", NIN, CIFAR, 966_986),
        ("resnet20", RESNET, CIFAR, 269_722),
        ("mnist_c_cnn", {}, MNIST, 1_199_882),
        # 28 → 14 → 7 → 4, so that 4·4·128 numbers enter the dense layer.
        ("conv5", CONV5, MNIST, 25 * 128 * (1 + 2 * 128) + 3 * 2 * 128 + 2049 * 1024 + 1025 * 10),
    ],
)
def test_parameters_are_those_of_the_papers(
    architecture: str, axes: dict[str, Any], shape: tuple[int, int, int], parameters: int
):
    found = layers(architecture, axes, shape, 10)
    assert found.parameters == parameters
    assert found.output == (10,)


def test_pools_of_nin_round_up():
    entering = [shape for layer, shape in layers("nin", NIN, CIFAR, 10).walk() if isinstance(layer, Conv)]
    assert [shape[0] for shape in entering] == [32] * 3 + [16] * 3 + [8] * 3
    assert entering[3] == (16, 16, 96)


def test_clamped_logits_are_an_axis_that_enters_no_id():
    for architecture in ("fcn", "cnn"):
        plain, clamped = network_ids(grid(architecture)), network_ids(grid(architecture, output=["linear", "clamp"]))
        assert set(plain) < set(clamped)
        assert len(clamped) == 2 * len(plain)
    assert layers("fcn", {**FCN, "output": "clamp"}, MNIST, 10).sequence[-1] == Clamp(-100, 100)


def test_images_that_a_network_leaves_nothing_of_are_refused():
    facts = CATALOGUE["mnist5k"]
    for architecture in architectures.ARCHITECTURES:
        model = grid_model(architecture, "sgd").model_validate(grid(architecture))
        model.check_images(facts)
    with pytest.raises(InputError, match=r"architecture: no 'lenet' of images \[4, 4, 1\]: .* has no window"):
        grid_model("lenet", "sgd").model_validate(grid("lenet")).check_images(replace(facts, shape=(4, 4, 1)))


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


def residual(filters: int, halves: bool = False) -> tuple[Layer, ...]:
    """A block of ResNet20."""
    first = Conv(filters, 3, 2, (1, 1, 1, 1), bias=False) if halves else Conv(filters, 3, bias=False)
    body = (first, NORM, RELU, Conv(filters, 3, bias=False), NORM)
    return (Residual(body, (Subsample(2, filters),) if halves else ()), RELU)


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
    "lenet": (
        1,
        (
            Conv(20, 5, padding="valid"),
            MaxPool(ceil=True),
            Conv(50, 5, padding="valid"),
            MaxPool(ceil=True),
            Flatten(),
            Dense(500),
            RELU,
            Dense(10),
        ),
        {},
        MNIST,
    ),
    "nin": (
        1,
        (
            *(Conv(192, 5), RELU, Conv(160, 1), RELU, Conv(96, 1), RELU),
            *(MaxPool(3, 2, "same"), Dropout(0.5)),
            *(Conv(192, 5), RELU, Conv(192, 1), RELU, Conv(192, 1), RELU),
            *(AveragePool(3, 2, "same"), Dropout(0.5)),
            *(Conv(192, 3), RELU, Conv(192, 1), RELU, Conv(10, 1), RELU),
            GlobalAveragePool(),
        ),
        NIN,
        CIFAR,
    ),
    "resnet20": (
        1,
        (
            *(Conv(16, 3, bias=False), NORM, RELU),
            *residual(16) * 3,
            *residual(32, halves=True),
            *residual(32) * 2,
            *residual(64, halves=True),
            *residual(64) * 2,
            GlobalAveragePool(),
            Dense(10),
        ),
        RESNET,
        CIFAR,
    ),
    "conv5": (
        1,
        (
            *(Conv(128, 5, 2, bias=False), NORM, LeakyReLU(0.1)) * 3,
            Flatten(),
            Dense(1024),
            LeakyReLU(0.1),
            Dense(10),
        ),
        CONV5,
        MNIST,
    ),
    "mnist_c_cnn": (
        1,
        (
            *(Conv(32, 3, padding="valid"), RELU, Conv(64, 3, padding="valid"), RELU, MaxPool(), Dropout(0.25)),
            *(Flatten(), Dense(128), RELU, Dropout(0.5), Dense(10)),
        ),
        {},
        MNIST,
    ),
}


@pytest.mark.parametrize("architecture", architectures.TRAINED)
def test_a_version_means_these_layers(architecture: str):
    """If the layers change, raise the version: ids then change too, and no stored weights pass for another's."""
    version, expected, axes, shape = GOLDEN[architecture]
    assert architectures.ARCHITECTURES[architecture].VERSION == version
    assert layers(architecture, axes, shape, 10) == Layers(shape, expected)
