"""Layers that make images of numbers: those of decoders. Light: no array library."""

import math
from dataclasses import dataclass

from deltaball.base.errors import InputError
from deltaball.networks.layers import Layer, Shape, Weight


@dataclass(frozen=True)
class Reshape(Layer):
    """[numbers] to `shape` = (height, width, channels), channels fastest: the inverse of Flatten."""

    shape: tuple[int, int, int]

    def output(self, shape: Shape) -> Shape:
        if shape != (math.prod(self.shape),):
            raise InputError(f"{self} takes [{math.prod(self.shape)}], and what enters it is {[*shape]}")
        return self.shape


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """A transposed convolution: each pixel adds a kernel, times its value, to an image `stride` times as large.

    What lies outside is cut, so that it is the transpose of a `Conv` with padding 'same' from the large image to the
    small one (TensorFlow, Keras). Kernel [size, size, filters, channels].
    """

    filters: int
    size: int
    stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size:
            raise InputError(f"{self}: the stride should be from 1 to the size, so that every pixel is reached")

    def output(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise InputError(f"{self} takes [height, width, channels], and what enters it is {[*shape]}")
        return (shape[0] * self.stride, shape[1] * self.stride, self.filters)

    @property
    def before(self) -> int:
        """Rows that are cut above the image, and columns left of it."""
        return (self.size - self.stride) // 2

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        kernel = (self.size, self.size, self.filters, shape[2])
        return (Weight("kernel", kernel, "kernel"), Weight("bias", (self.filters,), "bias"))

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.size**2 * self.filters
