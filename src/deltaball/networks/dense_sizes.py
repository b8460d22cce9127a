"""How large a network is, written as dense layers and ReLUs alone (`dense_form`). Light: it is asked when planning."""

import math
from itertools import pairwise

from deltaball.base.errors import InputError
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layer, Layers, MaxPool, Shape, rule_for

LARGEST = 2**26  # numbers in the kernels of a network written as dense layers (512 MiB)


def dense_sizes(layers: Layers) -> list[int]:
    """How many numbers enter the first dense layer, and leave each.

    Raises InputError where a layer cannot be written so.
    """
    sizes, outputs = [math.prod(layers.shape)], math.prod(layers.shape)
    before: Layer = Flatten()
    for layer, shape in layers.walk():
        if layer not in _PLAIN.get(type(layer), lambda one: (one,))(layer):
            raise InputError(f"no exact answer for {layer}")
        if isinstance(layer, MaxPool) and before != Activation("relu"):
            raise InputError("no exact answer for a max-pool that does not follow relu")
        before = layer
        ended, outputs = rule_for(SIZES, type(layer), "exact answer")(layer, shape, outputs)
        sizes += ended
    return [*sizes, outputs]


_PLAIN = {
    Dense: lambda one: (Dense(one.outputs),),
    Conv: lambda one: (Conv(one.filters, one.size),),
    MaxPool: lambda one: (MaxPool(),),
}


def too_large(layers: Layers) -> bool:
    """Whether kernels and biases, and what is computed on the way to them, are more than LARGEST numbers."""
    held, sizes = 0, dense_sizes(layers)
    for inputs, outputs in pairwise(sizes):
        held += (inputs + 1) * outputs
        if held + outputs**2 > LARGEST:
            return True
    return False


def _affine(layer: Dense | Conv, shape: Shape, outputs: int) -> tuple[list[int], int]:
    return [], math.prod(layer.output(shape))


def _activation(layer: Activation, shape: Shape, outputs: int) -> tuple[list[int], int]:
    return [outputs], outputs


def _max_pool(layer: MaxPool, shape: Shape, outputs: int) -> tuple[list[int], int]:
    """Two ReLUs, each of the pairs along one axis: of their differences, and of the first of them."""
    height, width, channels = shape
    rows, pools = height // 2 * width * channels, math.prod(layer.output(shape))
    return [2 * rows, 2 * pools], pools


def _flatten(layer: Flatten, shape: Shape, outputs: int) -> tuple[list[int], int]:
    return [], outputs


# For each layer, what leaves the dense layers that end with it, and how many numbers are computed of the last of these.
SIZES = {Dense: _affine, Conv: _affine, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
