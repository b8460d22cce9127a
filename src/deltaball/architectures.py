"""What a network is: a list of layers, and the Keras model built from that list.

The list is the one definition. The plan counts weights and FLOP on it, a pack computes K networks along it,
Keras builds the same network from it on any backend. Importing this room imports no array library.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltaball.errors import InputError

if TYPE_CHECKING:
    import keras

# Raise a version when `layers` starts to mean another network under the same hyper-parameters:
# the version is part of every id (version 1 is silent), so that stored weights are never taken for another's.
VERSIONS = {"fcn": 1, "cnn": 1, "vgg": 1}


@dataclass(frozen=True)
class Dense:
    """y = x W + b; kernel [inputs, outputs]."""

    inputs: int
    outputs: int

    @property
    def kernel(self) -> tuple[int, ...]:
        return (self.inputs, self.outputs)

    def macs(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Conv:
    """'same' convolution with stride 1 on [height, width, inputs]; kernel [size, size, inputs, outputs]."""

    height: int
    width: int
    size: int
    inputs: int
    outputs: int

    @property
    def kernel(self) -> tuple[int, ...]:
        return (self.size, self.size, self.inputs, self.outputs)

    def macs(self) -> int:
        return self.height * self.width * math.prod(self.kernel)


@dataclass(frozen=True)
class Activation:
    """Elementwise `name`: relu, tanh or sigmoid."""

    name: str


@dataclass(frozen=True)
class MaxPool:
    """2×2 maximum with stride 2; an odd last row or column is dropped (Keras' 'valid')."""


@dataclass(frozen=True)
class Flatten:
    """[height, width, channels] to [height × width × channels], channels fastest (Keras' channels_last)."""


Layer = Dense | Conv | Activation | MaxPool | Flatten
Layers = tuple[Layer, ...]


def layers(architecture: str, axes: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Layers:
    """The layers of a network from images `shape` = (height, width, channels) to `classes` logits.

    Paper 004, Appendix B. ``fcn``: `depth` hidden layers of `width`. ``cnn``: `conv_depth` times (convolution of
    `filters`, activation, 2×2 max-pool), then `fc_depth` hidden layers of `fc_width`. ``vgg``: the same with two
    convolutions, each with its activation, before each pool (B.5). Every network ends in a linear layer.

    Raises InputError when pooling would leave no pixel.
    """
    activation = Activation(axes["activation"])
    if architecture == "fcn":
        return (Flatten(), *_dense(math.prod(shape), axes["depth"], axes["width"], activation, classes))
    height, width, channels = shape
    found: list[Layer] = []
    for _ in range(axes["conv_depth"]):
        for _ in range(2 if architecture == "vgg" else 1):
            found += [Conv(height, width, axes["kernel"], channels, axes["filters"]), activation]
            channels = axes["filters"]
        found.append(MaxPool())
        height, width = height // 2, width // 2
    if not (height and width):
        raise InputError(
            f"conv_depth = {axes['conv_depth']} halves images of {shape[0]}×{shape[1]} to nothing; "
            f"at most {int(math.log2(min(shape[:2])))} fits"
        )
    flat = height * width * channels
    return (*found, Flatten(), *_dense(flat, axes["fc_depth"], axes["fc_width"], activation, classes))


def _dense(inputs: int, depth: int, width: int, activation: Activation, classes: int) -> list[Layer]:
    found: list[Layer] = []
    for _ in range(depth):
        found += [Dense(inputs, width), activation]
        inputs = width
    return [*found, Dense(inputs, classes)]


def weight_shapes(network: Layers) -> list[tuple[int, ...]]:
    """Kernel and bias shapes in Keras' order: kernel, bias, kernel, bias…"""
    return [shape for layer in network if isinstance(layer, Dense | Conv) for shape in (layer.kernel, (layer.outputs,))]


def parameters(network: Layers) -> int:
    """How many weights and biases a network has."""
    return sum(math.prod(shape) for shape in weight_shapes(network))


def forward_flop(network: Layers) -> int:
    """Floating-point operations of one forward pass of one image: 2 per multiply-add of dense and conv layers."""
    return 2 * sum(layer.macs() for layer in network if isinstance(layer, Dense | Conv))


def activations(network: Layers, shape: tuple[int, int, int]) -> list[int]:
    """How many numbers each layer gives for one image of `shape`, the image itself first."""
    sizes = [math.prod(shape)]
    for layer in network:
        match layer:
            case Dense():
                sizes.append(layer.outputs)
            case Conv():
                height, width = layer.height, layer.width
                sizes.append(height * width * layer.outputs)
            case MaxPool():
                channels = sizes[-1] // (height * width)
                height, width = height // 2, width // 2
                sizes.append(height * width * channels)
            case _:
                sizes.append(sizes[-1])
    return sizes


def keras_model(network: Layers, shape: tuple[int, int, int]) -> "keras.Model":
    """The network as a Keras model from images [n, *shape] in [0, 1] to logits [n, classes].

    Built on the backend that KERAS_BACKEND names (torch if unset); Glorot-uniform kernels and zero biases.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    model = keras.Sequential([keras.Input(shape)])
    for layer in network:
        match layer:
            case Dense():
                model.add(keras.layers.Dense(layer.outputs))
            case Conv():
                model.add(keras.layers.Conv2D(layer.outputs, layer.size, padding="same", data_format="channels_last"))
            case Activation():
                model.add(keras.layers.Activation(layer.name))
            case MaxPool():
                model.add(keras.layers.MaxPooling2D(2, data_format="channels_last"))
            case Flatten():
                model.add(keras.layers.Flatten(data_format="channels_last"))
    return model
