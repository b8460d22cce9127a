"""Layers that make images of numbers: those of decoders. Light: no array library."""

import math
from dataclasses import dataclass

from deltaball.base.errors import InputError
from deltaball.networks.layers import Layer, Shape, Weight
from deltaball.networks.windows import Windows, windows


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
    """A transposed convolution: each pixel adds a kernel, times its value, to a larger image.

    It is the transpose of a `Conv` with padding 'same' from the large image to the small one: what would lie outside is
    cut. Kernel [size, size, filters, channels], as Keras has it.
    """

    filters: int
    size: int
    stride: int = 1
    sides: tuple[int, int] | None = None  # of the large image; `stride` times those of the small one if left out

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size:
            raise InputError(f"{self}: the stride should be from 1 to the size, so that every pixel is reached")

    def output(self, shape: Shape) -> Shape:
        rows, columns = self.windows(shape)
        return (rows.pixels, columns.pixels, self.filters)

    def windows(self, shape: Shape) -> tuple[Windows, Windows]:
        """Of the convolution from the large image to the small one, along the height and along the width."""
        if len(shape) != 3:
            raise InputError(f"{self} takes [height, width, channels], and what enters it is {[*shape]}")
        large = self.sides or (shape[0] * self.stride, shape[1] * self.stride)
        found = windows(large, self.size, self.stride, "same", False)
        if tuple(side.count for side in found) != shape[:2]:
            raise InputError(f"{self} leads from other sides than those of what enters it, {[*shape]}")
        return found

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        kernel = (self.size, self.size, self.filters, shape[2])
        return (Weight("kernel", kernel, "kernel"), Weight("bias", (self.filters,), "bias"))

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.size**2 * self.filters
