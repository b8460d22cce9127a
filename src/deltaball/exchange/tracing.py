"""The graph of a file followed until it is layers.

A file lays numbers out in an order of its own: channels first, transposed, flat. So what is followed of a value are
not numbers but *places*: in the shape that the file gives a value of one image, for each of its numbers the place that
it has in the value of our layers, flattened. Transposing and reshaping move places; what they did ends as the order of
a kernel's rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from deltaball.base.errors import InputError
from deltaball.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    Layers,
    MaxPool,
    Normalise,
    Pool,
    Residual,
    Scale,
    Shape,
    Windowed,
)

Arrays = Callable[[], list[np.ndarray]]

Sides = tuple[int, int, int, int]  # top, bottom, left, right

# What is no larger is less than any pixel: writers of files avoid the infinite.
LOWEST = -1e30


class NoLayerError(Exception):
    """An operator that none of our layers computes; the message names it."""


def nothing() -> list[np.ndarray]:
    return []


class Step(NamedTuple):
    """A layer, and its weights in the order and layout of the layer, made when they are asked for."""

    layer: Layer
    arrays: Arrays = nothing


@dataclass(frozen=True, eq=False)
class Value:
    """What a file computes of one image at one place of its graph, as steps after a value before it."""

    shape: Shape  # as our layers have it
    places: np.ndarray  # integers, in the shape that the file gives it
    step: Step | None = None
    before: "Value | None" = None
    padding: Sides = (0, 0, 0, 0)  # around, that the next layer is to add
    outside: float = 0.0  # what is there

    def then(self, layer: Layer, arrays: Arrays = nothing, places: np.ndarray | None = None) -> "Value":
        """After one layer more; its numbers lie as our layers lay them, unless `places` says otherwise."""
        self.check_unpadded()
        try:
            shape = layer.output(self.shape)
        except InputError as problem:
            raise NoLayerError(str(problem)) from None
        return Value(shape, _in_order(shape) if places is None else places, Step(layer, arrays), self)

    def moved(self, places: np.ndarray) -> "Value":
        """The same numbers at other places of the file's shape."""
        self.check_unpadded()
        return replace(self, places=places)

    def check_unpadded(self) -> None:
        if any(self.padding):
            raise NoLayerError("a border around images elsewhere than before a convolution or a pool")

    def since(self, ancestor: "Value") -> list[Step]:
        """The steps from an ancestor up to this value."""
        steps, value = [], self
        # Of one value there may be several, that differ in places and borders alone.
        while value.step is not ancestor.step:
            steps.append(value.step)
            value = value.before
        return steps[::-1]

    def ancestors(self) -> list["Value"]:
        """The image first, and this value last."""
        found, value = [self], self
        while value.before is not None:
            value = value.before
            found.append(value)
        return found[::-1]


def _in_order(shape: Shape) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


def image(shape: Shape) -> Value:
    """The image [height, width, channels] itself."""
    return Value(shape, _in_order(shape))


def traced(value: Value) -> tuple[Layers, Arrays]:
    """The layers that end in a value, which is the logits; and all their weights."""
    if value.places.ndim == 1 and len(value.shape) == 3:
        value = flattened(value)
    if not np.array_equal(value.places, np.arange(value.places.size)):
        raise NoLayerError("logits that are not one number after another")
    start = value.ancestors()[0]
    steps = value.since(start)
    return Layers(start.shape, tuple(step.layer for step in steps)), lambda: _all_arrays(steps)


def _all_arrays(steps: Sequence[Step]) -> list[np.ndarray]:
    return [array for step in steps for array in step.arrays()]


def flattened(value: Value) -> Value:
    """As numbers, where our layers still have an image."""
    return value.then(Flatten(), places=value.places) if len(value.shape) == 3 else value


def dense(value: Value, outputs: int, bias: bool, arrays: Arrays) -> Value:
    """A product with the file's kernel [inputs, outputs], and its bias [outputs] if it has one: `arrays`."""
    if value.places.ndim != 1:
        raise NoLayerError(f"a product along one axis of {[*value.places.shape]}")
    value = flattened(value)
    places = value.places

    def arranged() -> list[np.ndarray]:
        kernel, *others = arrays()
        ours = np.empty_like(kernel)
        ours[places] = kernel
        return [ours, *others]

    return value.then(Dense(outputs, bias), arranged)


def on_maps(value: Value, layer: Layer, channels_first: bool, arrays: Arrays = nothing) -> Value:
    """A layer that sees an image's neighbourhoods, where the file has its channels first or last."""
    maps = np.moveaxis(value.places, 0, -1) if channels_first and value.places.ndim == 3 else value.places
    if maps.shape != value.shape or not np.array_equal(maps, _in_order(value.shape)):
        raise NoLayerError(f"{type(layer).__name__} of what is not an image")
    found = value.then(layer, arrays)
    if len(found.shape) == 3 and channels_first:
        return found.moved(np.moveaxis(found.places, -1, 0))
    return found


def convolution(value: Value, layer: Conv, channels_first: bool, arrays: Arrays) -> Value:
    """A convolution, with the zeros that were added before it."""
    return on_maps(*_with_border(value, layer, 0.0), channels_first, arrays)


def pool(value: Value, layer: Pool, channels_first: bool) -> Value:
    """A pool, with the border that was added before it: zeros that count, or less than any pixel."""
    outside = -math.inf if isinstance(layer, MaxPool) else 0.0
    if any(value.padding) and isinstance(layer, AveragePool):
        layer = replace(layer, counts_padding=True)
    return on_maps(*_with_border(value, layer, outside), channels_first)


def _with_border(value: Value, layer: Windowed, outside: float) -> tuple[Value, Windowed]:
    """A value without the border that was added to it, and the layer that adds it instead."""
    if not any(value.padding):
        return value, layer
    if value.outside != outside:
        raise NoLayerError(f"a border of {value.outside:g}")
    own = (0, 0, 0, 0) if layer.padding == "valid" else layer.padding
    if isinstance(own, str):
        raise NoLayerError(f"a border, and padding '{own}'")
    sides = tuple(one + other for one, other in zip(value.padding, own, strict=True))
    return replace(value, padding=(0, 0, 0, 0), outside=0.0), replace(layer, padding=sides)


def padded(value: Value, sides: Sides, outside: float = 0.0) -> Value:
    """A border around an image, for the layer that comes next."""
    value.check_unpadded()
    if value.places.ndim != 3 or min(sides) < 0:
        raise NoLayerError("a border around what is not an image")
    return replace(value, padding=sides, outside=-math.inf if outside <= LOWEST else outside) if any(sides) else value


def global_average(value: Value, channels_first: bool, kept: bool) -> Value:
    """The mean of each channel; `kept`: as an image of one pixel."""
    found = on_maps(value, GlobalAveragePool(), channels_first)
    if not kept:
        return found
    return found.moved(found.places[:, None, None] if channels_first else found.places[None, None])


def batch_normalised(value: Value, layer: BatchNorm, axis: int, arrays: Arrays) -> Value:
    """Batch normalisation of the file's channels, which lie along `axis`."""
    if value.places.ndim == 3:
        return on_maps(value, layer, axis == 0, arrays)
    value, places = flattened(value), value.places
    return value.then(layer, lambda: [_at(places, array) for array in arrays()], places)


def group_normalised(value: Value, layer: GroupNorm, channels_first: bool, arrays: Arrays) -> Value:
    """Group normalisation of the file's channels, with a scale and a shift for each."""
    if value.places.ndim == 3:
        return on_maps(value, layer, channels_first, arrays)
    value, places = flattened(value), value.places
    return group_by_group(value, layer, lambda: [_at(places, array) for array in arrays()])


def group_by_group(value: Value, layer: GroupNorm, arrays: Arrays) -> Value:
    """Group normalisation where the groups follow each other along the file's first axis; `arrays` are ours."""
    layer.output(value.shape)
    channels, places = value.shape[-1], value.places
    groups = np.sort((places % channels // (channels // layer.groups)).reshape(layer.groups, -1))
    if (groups != np.arange(layer.groups)[:, None]).any():
        raise NoLayerError("groups of channels that are no neighbours")
    return value.then(layer, arrays, places)


def _at(places: np.ndarray, array: np.ndarray) -> np.ndarray:
    ours = np.empty_like(array)
    ours[places] = array
    return ours


def affine(value: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
    """Times constants, plus constants, as they broadcast against the file's shape of one image.

    They join the dense layer, the convolution or the group normalisation before them; else they are a normalisation, or
    a scale.
    """
    value.check_unpadded()
    if _undoes_border(value, scale, shift):
        step = Step(replace(value.step.layer, counts_padding=False))
        return replace(value, step=step)
    scale, shift = (_per_channel(value, np.asarray(each, np.float64)) for each in (scale, shift))
    step = value.step
    if step is not None and isinstance(step.layer, Dense | Conv | GroupNorm):
        layer = step.layer if isinstance(step.layer, GroupNorm) else replace(step.layer, bias=True)
        return replace(value, step=Step(layer, lambda: _scaled(step, scale, shift)))
    if (scale <= 0).any():
        arrays = [scale.astype(np.float32), shift.astype(np.float32)]
        return value.then(Scale(), lambda: arrays, value.places)
    mean, deviation = -shift / scale, 1 / scale
    if step is not None and isinstance(step.layer, Normalise):
        first = np.asarray(step.layer.deviation)
        mean, deviation = np.asarray(step.layer.mean) + first * mean, first * deviation
        value = replace(value.before, places=value.places)
    # Of a division by 255 after a product with it, rounding is all that is left.
    if np.allclose(mean, 0, atol=1e-7) and np.allclose(deviation, 1, rtol=1e-6, atol=0):
        return value
    return value.then(Normalise(tuple(mean.tolist()), tuple(deviation.tolist())), places=value.places)


def _undoes_border(value: Value, scale: np.ndarray, shift: np.ndarray) -> bool:
    """Whether factors of the means of windows leave out zeros around the image that these counted."""
    layer = value.step.layer if value.step else None
    if not (isinstance(layer, AveragePool) and layer.counts_padding) or np.any(shift):
        return False
    counts = np.reshape(replace(layer, counts_padding=False).counts(value.before.shape), (*value.shape[:2], 1))
    try:
        wanted = np.broadcast_to(layer.size**2 / counts, value.shape).ravel()[value.places]
        return np.allclose(np.broadcast_to(scale, value.places.shape), wanted)
    except ValueError:
        return False


def _per_channel(value: Value, constants: np.ndarray) -> np.ndarray:
    """Constants by our last axis. Raises NoLayerError where they differ along others."""
    try:
        each = np.broadcast_to(constants, value.places.shape)
    except ValueError:
        raise NoLayerError("constants of another shape than what they are added to or multiplied with") from None
    ours = _at(value.places.ravel(), each.ravel()).reshape(-1, value.shape[-1])
    if (ours != ours[:1]).any():
        raise NoLayerError("constants that differ from pixel to pixel")
    return ours[0]


def _scaled(step: Step, scale: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    kernel, *bias = step.arrays()  # or γ and β
    moved = shift + (scale * bias[0] if bias else 0)
    return [(kernel * scale).astype(np.float32), moved.astype(np.float32)]


def added(one: Value, other: Value) -> Value:
    """The sum of two values: from the last value that both come from, one is the body and the other the shortcut."""
    for each in (one, other):
        each.check_unpadded()
    if not (one.shape == other.shape and np.array_equal(one.places, other.places)):
        raise NoLayerError("a sum of what lies in different orders")
    pairs = zip(one.ancestors(), other.ancestors(), strict=False)
    *_, (common, _) = takewhile(lambda pair: pair[0].step is pair[1].step, pairs)
    body, shortcut = sorted((one.since(common), other.since(common)), key=len, reverse=True)
    if not body:
        raise NoLayerError("a sum of a value with itself")
    layer = Residual(tuple(step.layer for step in body), tuple(step.layer for step in shortcut))
    return common.then(layer, lambda: [*_all_arrays(body), *_all_arrays(shortcut)], one.places)
