"""The layers that networks are made of. Light: no array library.

The list of a network's layers is its one definition. The plan counts weights and FLOP on it, a pack computes K networks
along it, certificates bound along it, Keras builds the same network from it on any backend.
"""

import math
from dataclasses import dataclass


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
