"""The layers that networks are made of. Light: no array library.

A network's layers, with the shape of its images, are its one definition. The plan counts weights and FLOP on them, a
pack computes K networks along them, certificates bound along them, Keras builds the same network from them.

A new layer is one class here. What a room does with a layer is a rule in a table of that room: FORWARD (packs), KERAS,
DENSE_FORM, STAGES (certificates), COSTS (plan). A room without a rule for a layer refuses it by name.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, TypeVar

from deltaball.base.errors import InputError

Array, Rule = TypeVar("Array"), TypeVar("Rule")

Shape = tuple[int, ...]  # of what passes through a network, for one image: [height, width, channels], or [numbers]

# What a weight is for. A kernel multiplies its layer's input and can be pruned; a buffer is kept and not trained.
Role = Literal["kernel", "bias", "scale", "buffer"]


class Weight(NamedTuple):
    """One array of a layer's weights."""

    name: str
    shape: tuple[int, ...]
    role: Role


class Layer:
    """One layer, that knows what it does and not what enters it. By default it has no weights and keeps the shape."""

    def output(self, shape: Shape) -> Shape:
        """The shape of what leaves the layer, given that of what enters it. Raises InputError where that cannot be."""
        return shape

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        """The layer's weights in Keras' order and layout, given the shape of what enters it."""
        return ()

    def macs(self, shape: Shape) -> int:
        """Multiply-adds of one image."""
        return 0


@dataclass(frozen=True)
class Dense(Layer):
    """y = x W + b; kernel [inputs, outputs]."""

    outputs: int

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 1)
        return (self.outputs,)

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return Weight("kernel", (*shape, self.outputs), "kernel"), Weight("bias", (self.outputs,), "bias")

    def macs(self, shape: Shape) -> int:
        return shape[0] * self.outputs


@dataclass(frozen=True)
class Conv(Layer):
    """'same' convolution with stride 1; kernel [size, size, channels, filters]."""

    filters: int
    size: int  # side of the kernel, in pixels

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 3)
        return (*shape[:2], self.filters)

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        kernel = (self.size, self.size, shape[2], self.filters)
        return Weight("kernel", kernel, "kernel"), Weight("bias", (self.filters,), "bias")

    def macs(self, shape: Shape) -> int:
        return math.prod(shape) * self.size**2 * self.filters


@dataclass(frozen=True)
class Activation(Layer):
    """Elementwise `name`: relu, tanh or sigmoid."""

    name: str


@dataclass(frozen=True)
class MaxPool(Layer):
    """2×2 maximum with stride 2; an odd last row or column is dropped (Keras' 'valid')."""

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 3)
        height, width, channels = shape
        return (height // 2, width // 2, channels)


@dataclass(frozen=True)
class Flatten(Layer):
    """[height, width, channels] to [height × width × channels], channels fastest (Keras' channels_last)."""

    def output(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@dataclass(frozen=True)
class Layers:
    """The layers of a network, and the shape of the images that enter the first.

    A layer does not know its input, so that the same one can stand anywhere and an architecture need not keep count of
    shapes. Weights, costs and bounds depend on it, so what is handed around is not a bare tuple of layers but this:
    from the images' shape follows what enters every layer, and all else.
    """

    shape: Shape  # of an image: (height, width, channels)
    sequence: tuple[Layer, ...]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.sequence)

    def walk(self) -> Iterator[tuple[Layer, Shape]]:
        """Each layer with the shape of what enters it."""
        return walk(self.sequence, self.shape)

    def with_weights(self, arrays: Sequence[Array]) -> Iterator[tuple[Layer, Shape, Sequence[Array]]]:
        """Each layer with the shape of what enters it and with its own of `arrays`, which has one for each weight."""
        for (layer, shape), own in zip(self._walked, self._own, strict=True):
            yield layer, shape, arrays[own]

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Of all layers, in Keras' order."""
        return tuple(weight for layer, shape in self._walked for weight in layer.weights(shape))

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        return [weight.shape for weight in self.weights]

    @cached_property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    @cached_property
    def flop(self) -> int:
        """Floating-point operations of one forward pass of one image: 2 per multiply-add."""
        return 2 * sum(layer.macs(shape) for layer, shape in self._walked)

    @cached_property
    def activations(self) -> list[int]:
        """How many numbers each layer gives for one image, the image itself first."""
        return [math.prod(self.shape), *(math.prod(layer.output(shape)) for layer, shape in self._walked)]

    @property
    def output(self) -> Shape:
        """The shape of what the last layer gives for one image: (classes,)."""
        layer, shape = self._walked[-1]
        return layer.output(shape)

    @cached_property
    def _walked(self) -> list[tuple[Layer, Shape]]:
        return [*self.walk()]

    @cached_property
    def _own(self) -> list[slice]:
        """Which of the network's weights are each layer's own."""
        counts = (len(layer.weights(shape)) for layer, shape in self._walked)
        return [slice(*pair) for pair in pairwise(accumulate(counts, initial=0))]


def walk(layers: Iterable[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Each layer with the shape of what enters it, where `shape` enters the first."""
    for layer in layers:
        yield layer, shape
        shape = layer.output(shape)


def rule_for(rules: Mapping[type[Layer], Rule] | Mapping[str, Rule], key: type[Layer] | str, what: str) -> Rule:
    """The rule that a room's table has for a type of layer, or for an activation by name.

    Where there is none, raises InputError: there is no `what` for it, but for these.
    """
    if key not in rules:
        kind = "activation" if isinstance(key, str) else "layer"
        raise InputError(f"no {what} for {kind} {_name(key)}; possible: {', '.join(map(_name, rules))}")
    return rules[key]


def _name(key: type[Layer] | str) -> str:
    return key if isinstance(key, str) else key.__name__


def _check(layer: Layer, shape: Shape, axes: int) -> None:
    expected = {1: "[numbers]", 3: "[height, width, channels]"}[axes]
    if len(shape) != axes:
        raise InputError(f"{layer} takes {expected}, and what enters it is {[*shape]}")
