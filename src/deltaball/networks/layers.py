"""The layers that networks are made of. Light: no array library.

A network's layers, with the shape of its images, are its one definition. The plan counts weights and FLOP on them, a
pack computes K networks along them, certificates bound along them, Keras builds the same network from them.

A new layer is one class here; it may be made of others (`branches`). What a room does with a layer is a rule in a table
of that room: FORWARD (packs), KERAS, DENSE_FORM, PASSAGES (certificates), COSTS (plan). A room without a rule for a
layer refuses it by name.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, TypeVar

from deltaball.base.errors import InputError
from deltaball.networks.windows import Padding, Sides, Windows, counted, windows

Array, Rule = TypeVar("Array"), TypeVar("Rule")

Shape = tuple[int, ...]  # of what passes through a network, for one image: [height, width, channels], or [numbers]

# What a weight is for. A kernel multiplies its layer's input and can be pruned; a buffer is kept and not trained.
Role = Literal["kernel", "bias", "scale", "buffer"]


class Weight(NamedTuple):
    """One array of a layer's weights."""

    name: str
    shape: tuple[int, ...]
    role: Role
    start: float = 0.0  # before training; kernels are drawn


class Layer:
    """One layer, that knows what it does and not what enters it. By default it has no weights and keeps the shape."""

    def output(self, shape: Shape) -> Shape:
        """The shape of what leaves the layer, given that of what enters it. Raises InputError where that cannot be."""
        return shape

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        """The layer's weights in the order and layout of Keras' layer, given the shape of what enters it."""
        return ()

    def macs(self, shape: Shape) -> int:
        """Multiply-adds of one image."""
        return 0

    def branches(self, shape: Shape) -> "tuple[Layers, ...]":
        """The layers within, given the shape of what enters; a layer that is made of none has no branches."""
        return ()


@dataclass(frozen=True)
class Dense(Layer):
    """y = x W + b; kernel [inputs, outputs]."""

    outputs: int
    bias: bool = True

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 1)
        return (self.outputs,)

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return _affine_weights((*shape, self.outputs), self.bias)

    def macs(self, shape: Shape) -> int:
        return shape[0] * self.outputs


class Windowed(Layer):
    """A layer whose square windows slide over an image."""

    size: int  # side of the windows, in pixels
    stride: int  # pixels from one window to the next
    padding: Padding
    ceil: bool = False

    def windows(self, shape: Shape) -> tuple[Windows, Windows]:
        """Along the height and along the width. Raises InputError where there is none."""
        _check(self, shape, 3)
        found = windows(shape, self.size, self.stride, self.padding, self.ceil)
        if not all(side.count for side in found):
            raise InputError(f"{self} has no window in what enters it, {[*shape]}")
        return found

    def sides(self, shape: Shape) -> Sides:
        """Pixels that the windows see around the image: what is added, and with `ceil` what lies beyond."""
        rows, columns = self.windows(shape)
        return Sides(rows.before, rows.reach, columns.before, columns.reach)


@dataclass(frozen=True)
class Conv(Windowed):
    """A convolution (as everywhere, a cross-correlation), zeros outside; kernel [size, size, channels, filters]."""

    filters: int
    size: int
    stride: int = 1
    padding: Padding = "same"
    bias: bool = True

    def output(self, shape: Shape) -> Shape:
        rows, columns = self.windows(shape)
        return (rows.count, columns.count, self.filters)

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return _affine_weights((self.size, self.size, shape[2], self.filters), self.bias)

    def macs(self, shape: Shape) -> int:
        return math.prod(self.output(shape)) * self.size**2 * shape[2]


@dataclass(frozen=True)
class Activation(Layer):
    """Elementwise `name`: relu, tanh or sigmoid."""

    name: str


RELU = Activation("relu")


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """Elementwise: x where x > 0, `slope` · x elsewhere."""

    slope: float  # in [0, 1)

    def __post_init__(self) -> None:
        _demand(0 <= self.slope < 1, f"{self}: the slope should be in [0, 1)")


@dataclass(frozen=True)
class Clamp(Layer):
    """Elementwise: x, but at least `low` and at most `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _demand(-math.inf < self.low < self.high < math.inf, f"{self}: low should be below high, and both finite")


class Pool(Windowed):
    """A layer that makes one number of each window, channel by channel."""

    def output(self, shape: Shape) -> Shape:
        rows, columns = self.windows(shape)
        if min(rows.seen + columns.seen) < 1:
            raise InputError(f"{self} has a window that sees nothing of what enters it, {[*shape]}")
        return (rows.count, columns.count, shape[2])


@dataclass(frozen=True)
class MaxPool(Pool):
    """The maximum of each window, of what it sees of the image. By default 2×2 with stride 2, an odd last row or column
    dropped. `ceil`: a last window may end outside (ONNX, torch)."""

    size: int = 2
    stride: int = 2
    padding: Padding = "valid"
    ceil: bool = False


@dataclass(frozen=True)
class AveragePool(Pool):
    """The mean of each window, of what it sees of the image, or with `counts_padding` of zeros that were added too.

    What lies beyond them, with `ceil`, never counts (torch).
    """

    size: int = 2
    stride: int = 2
    padding: Padding = "valid"
    ceil: bool = False
    counts_padding: bool = False

    def counts(self, shape: Shape) -> list[int]:
        """How many pixels each window's mean is of, row by row."""
        sides = self.windows(shape)
        return counted(*(side.covered if self.counts_padding else side.seen for side in sides))


@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    """[height, width, channels] to [channels]: the mean of each channel."""

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 3)
        return shape[2:]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation of the last axis (Ioffe & Szegedy 2015): γ (x - mean) / √(variance + epsilon) + β.

    Outside training mean and variance are moving averages, of which a step of training keeps the share `momentum`.
    """

    epsilon: float = 1e-3
    momentum: float = 0.99

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        channels = shape[-1:]
        return (
            Weight("gamma", channels, "scale", 1.0),
            Weight("beta", channels, "bias"),
            Weight("moving_mean", channels, "buffer"),
            Weight("moving_variance", channels, "buffer", 1.0),
        )


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Group normalisation (Wu & He 2018): γ (x - mean) / √(variance + epsilon) + β, mean and variance those of an
    image's own numbers in a group of neighbouring channels, in training and outside."""

    groups: int
    epsilon: float = 1e-3

    def output(self, shape: Shape) -> Shape:
        if shape[-1] % self.groups:
            raise InputError(f"{self} cannot part {shape[-1]} channels evenly")
        return shape

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return Weight("gamma", shape[-1:], "scale", 1.0), Weight("beta", shape[-1:], "bias")


@dataclass(frozen=True)
class Scale(Layer):
    """scale · x + shift, along the last axis: what `folding` leaves of a normalisation that no other layer can take."""

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return Weight("scale", shape[-1:], "scale", 1.0), Weight("shift", shape[-1:], "bias")


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeros a share `rate` of the numbers and divides the others by 1 - rate; else nothing."""

    rate: float  # in [0, 1)

    def __post_init__(self) -> None:
        _demand(0 <= self.rate < 1, f"{self}: the rate should be in [0, 1)")


@dataclass(frozen=True)
class Normalise(Layer):
    """(x - mean) / deviation, along the last axis: constants, of the data."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        _demand(all(0 < one < math.inf for one in self.deviation), f"{self}: deviations should be above 0 and finite")

    def output(self, shape: Shape) -> Shape:
        if not len(self.mean) == len(self.deviation) == shape[-1]:
            raise InputError(f"{self} should have a mean and a deviation for each of {shape[-1]} channels")
        return shape


@dataclass(frozen=True)
class Standardise(Layer):
    """(x - mean) / max(deviation, 1 / √numbers), of an image's own numbers (TensorFlow's per_image_standardization)."""


@dataclass(frozen=True)
class Subsample(Layer):
    """Every stride-th pixel from the first on, and zero channels half before and half after (He et al. 2016, option A).

    Where their number is odd, the one more is after.
    """

    stride: int
    channels: int  # that leave

    def output(self, shape: Shape) -> Shape:
        _check(self, shape, 3)
        if self.channels < shape[2]:
            raise InputError(f"{self} takes at most {self.channels} channels, and what enters it is {[*shape]}")
        return (-(-shape[0] // self.stride), -(-shape[1] // self.stride), self.channels)

    def added(self, shape: Shape) -> tuple[int, int]:
        """Zero channels before and after."""
        missing = self.channels - shape[2]
        return missing // 2, missing - missing // 2


@dataclass(frozen=True)
class Residual(Layer):
    """body(x) + shortcut(x) (He et al. 2016); an empty shortcut is the identity.

    Its weights are the body's and then the shortcut's.
    """

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def branches(self, shape: Shape) -> "tuple[Layers, ...]":
        return _branches(self, shape)

    def output(self, shape: Shape) -> Shape:
        body, shortcut = (branch.output for branch in self.branches(shape))
        if body != shortcut:
            raise InputError(f"the body of a Residual gives {[*body]} and its shortcut {[*shortcut]}; they are added")
        return body

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        return tuple(
            weight._replace(name=f"{name}.{place}.{weight.name}")
            for name, branch in zip(("body", "shortcut"), self.branches(shape), strict=True)
            for place, (layer, entering) in enumerate(branch.walk())
            for weight in layer.weights(entering)
        )

    def macs(self, shape: Shape) -> int:
        return sum(branch.flop // 2 for branch in self.branches(shape))


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

    shape: Shape  # of an image: (height, width, channels); of what enters, where they are a branch of a layer
    sequence: tuple[Layer, ...]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.sequence)

    def walk(self) -> Iterator[tuple[Layer, Shape]]:
        """Each layer with the shape of what enters it."""
        return walk(self.sequence, self.shape)

    def within(self) -> Iterator[tuple[Layer, Shape]]:
        """As `walk`, but before each layer those that it is made of."""
        for layer, shape in self._walked:
            for branch in layer.branches(shape):
                yield from branch.within()
            yield layer, shape

    def with_weights(self, arrays: Sequence[Array]) -> Iterator[tuple[Layer, Shape, Sequence[Array]]]:
        """Each layer with the shape of what enters it and with its own of `arrays`, which has one for each weight."""
        for (layer, shape), own in zip(self._walked, self._own, strict=True):
            yield layer, shape, arrays[own]

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Of all layers, one after the other."""
        return tuple(weight for layer, shape in self._walked for weight in layer.weights(shape))

    @property
    def weight_shapes(self) -> list[tuple[int, ...]]:
        return [weight.shape for weight in self.weights]

    @cached_property
    def parameters(self) -> int:
        """How many numbers are trained: those of all weights but buffers."""
        return sum(math.prod(weight.shape) for weight in self.weights if weight.role != "buffer")

    @cached_property
    def flop(self) -> int:
        """Floating-point operations of one forward pass of one image: 2 per multiply-add."""
        return 2 * sum(layer.macs(shape) for layer, shape in self._walked)

    @cached_property
    def activations(self) -> list[int]:
        """How many numbers each layer gives for one image, the image itself first; those within a layer too."""
        return [math.prod(self.shape), *(math.prod(layer.output(shape)) for layer, shape in self.within())]

    @property
    def output(self) -> Shape:
        """The shape of what the last layer gives for one image: (classes,)."""
        if not self.sequence:
            return self.shape
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


@lru_cache(maxsize=1024)
def _branches(layer: Residual, shape: Shape) -> tuple[Layers, Layers]:
    return Layers(shape, layer.body), Layers(shape, layer.shortcut)


def _affine_weights(kernel: tuple[int, ...], bias: bool) -> tuple[Weight, ...]:
    return (Weight("kernel", kernel, "kernel"), Weight("bias", kernel[-1:], "bias"))[: 1 + bias]


def _demand(holds: bool, problem: str) -> None:
    if not holds:
        raise InputError(problem)


def _check(layer: Layer, shape: Shape, axes: int) -> None:
    expected = {1: "[numbers]", 3: "[height, width, channels]"}[axes]
    if len(shape) != axes:
        raise InputError(f"{layer} takes {expected}, and what enters it is {[*shape]}")
