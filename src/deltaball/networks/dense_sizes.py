"""How large a network is, written as dense layers and activations alone (`dense_form`). Light: planning asks for it."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

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
    Normalise,
    Residual,
    Scale,
    Shape,
    Subsample,
    rule_for,
)
from deltaball.networks.windows import tournament

LARGEST = 2**26  # numbers in the kernels of a network written as dense layers (512 MiB)


def dense_sizes(layers: Layers) -> list[int]:
    """How many numbers enter the first dense layer, and leave each.

    Raises InputError where a layer cannot be written so.
    """
    return [math.prod(layers.shape), *_relus(layers), math.prod(layers.output)]


def too_large(layers: Layers) -> bool:
    """Whether kernels and biases, and what is computed on the way to them, are more than LARGEST numbers."""
    held, sizes = 0, dense_sizes(layers)
    for inputs, outputs in pairwise(sizes):
        held += (inputs + 1) * outputs
        if held + outputs**2 > LARGEST:
            return True
    return False


def _relus(layers: Layers) -> list[int]:
    """Of each layer of ReLUs, how many there are."""
    return [
        size for layer, shape in layers.walk() for size in rule_for(SIZES, type(layer), "exact answer")(layer, shape)
    ]


def _affine(layer: Layer, shape: Shape) -> list[int]:
    return []


def _activation(layer: Activation, shape: Shape) -> list[int]:
    return [math.prod(shape)]


def _two_each(layer: LeakyReLU | Clamp, shape: Shape) -> list[int]:
    return [2 * math.prod(shape)]


def _max_pool(layer: MaxPool, shape: Shape) -> list[int]:
    """Rounds along one axis and then along the other: of pairs' differences, and of what goes on beside them."""
    rows, columns = ([*_sizes(side.pixels_seen)] for side in layer.windows(shape))
    height, _, channels = layer.output(shape)
    return [size * shape[1] * channels for size in rows] + [size * height * channels for size in columns]


def _sizes(groups: list[list[int]]) -> list[int]:
    return [len(turn.pairs) + len(turn.going_on) for turn in tournament(groups)[0]]


def _residual(layer: Residual, shape: Shape) -> list[int]:
    """What enters passes beside the body's ReLUs, and what the body gives beside the shortcut's."""
    body, shortcut = layer.branches(shape)
    beside = math.prod(shape), math.prod(body.output)
    return [size + beside[0] for size in _relus(body)] + [size + beside[1] for size in _relus(shortcut)]


# For each layer, given the shape of what enters it, the sizes of the layers of ReLUs that it is written as.
SIZES: Mapping[type[Layer], Callable[[Any, Shape], list[int]]] = {
    Dense: _affine,
    Conv: _affine,
    Activation: _activation,
    LeakyReLU: _two_each,
    Clamp: _two_each,
    MaxPool: _max_pool,
    AveragePool: _affine,
    GlobalAveragePool: _affine,
    BatchNorm: _affine,
    Scale: _affine,
    Dropout: _affine,
    Normalise: _affine,
    Subsample: _affine,
    Residual: _residual,
    Flatten: _affine,
}
