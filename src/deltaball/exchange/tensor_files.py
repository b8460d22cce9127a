"""Networks in .safetensors files, whose layers a YAML file beside them lists.

Kernels lie as PyTorch lays them (tensors NAME.weight) or as Keras does (NAME.kernel).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from deltaball.base.errors import InputError, alternatives
from deltaball.exchange.conventions import Convention, laid_out
from deltaball.exchange.described import Description
from deltaball.exchange.files import NetworkFile
from deltaball.exchange.tracing import (
    NoLayerError,
    Value,
    added,
    batch_normalised,
    convolution,
    dense,
    global_average,
    group_normalised,
    on_maps,
    pool,
    traced,
)
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    GroupNorm,
    LeakyReLU,
    MaxPool,
    Standardise,
    Subsample,
)

Tensors = Mapping[str, np.ndarray]


def read(path: Path, shape: tuple[int, int, int], convention: Convention, description: Description) -> NetworkFile:
    """The network of a .safetensors file for images [height, width, channels]. Raises InputError with what is wrong."""
    beside = path.with_suffix(".yaml")
    if not description.layers:
        raise InputError(f"holds weights alone; write its layers in {beside}")
    try:
        tensors = load(path.read_bytes())
    except OSError as problem:
        raise InputError(f"cannot be read ({problem.strerror})") from None
    except (SafetensorError, ValueError, KeyError) as problem:
        raise InputError(f"not a readable .safetensors file ({problem}); save it again") from None
    layout = convention.layout or "channels_last"
    height, width, channels = shape
    order = (channels, height, width) if layout == "channels_first" else shape
    tracer = Tracer(tensors, layout == "channels_first")
    try:
        value = tracer.follow(description.layers, laid_out(convention.entering(shape), layout, order))
        layers, arrays = traced(value)
    except NoLayerError as problem:
        raise InputError(f"{beside}: {problem}") from None
    unused = sorted(set(tensors) - tracer.used)
    if unused:
        raise InputError(f"has tensors that no layer of {beside} names: {', '.join(unused[:5])}")
    return NetworkFile(path, shape, convention, layers.output[0], layers, arrays=arrays)


class Tracer:
    """Follows the entries of a description with the tensors that they name."""

    def __init__(self, tensors: Tensors, channels_first: bool) -> None:
        self.tensors, self.channels_first, self.used = tensors, channels_first, set()

    def follow(self, entries: Sequence[Any], value: Value) -> Value:
        for entry in entries:
            try:
                value = RULES[entry.layer](self, entry, value)
            except (NoLayerError, InputError) as problem:  # of a layer that cannot be
                named = f" {entry.name}" if hasattr(entry, "name") else ""
                raise NoLayerError(f"layer {entry.layer}{named}: {problem}") from None
        return value

    def tensor(self, name: str, axes: int) -> np.ndarray:
        """A tensor that must be there, of so many axes."""
        if name not in self.tensors:
            raise NoLayerError(f"there is no tensor '{name}'; {alternatives(name, self.tensors)}")
        found = self.tensors[name]
        if found.ndim != axes:
            raise NoLayerError(f"tensor '{name}' has the shape {[*found.shape]}; it should have {axes} axes")
        self.used.add(name)
        return found.astype(np.float32)

    def kernel(self, name: str, order: tuple[int, ...]) -> list[np.ndarray]:
        """The kernel of a layer as ours, PyTorch's with its axes in that order, and the bias if there is one."""
        if f"{name}.kernel" in self.tensors:
            kernel = self.tensor(f"{name}.kernel", len(order))
        else:
            kernel = self.tensor(f"{name}.weight", len(order)).transpose(order)
        return [kernel, *([self.tensor(f"{name}.bias", 1)] if f"{name}.bias" in self.tensors else [])]


def _dense(tracer: Tracer, entry: Any, value: Value) -> Value:
    arrays = tracer.kernel(entry.name, (1, 0))
    return dense(value, arrays[0].shape[1], len(arrays) == 2, lambda: arrays)


def _conv(tracer: Tracer, entry: Any, value: Value) -> Value:
    arrays = tracer.kernel(entry.name, (2, 3, 1, 0))
    height, width, _, filters = arrays[0].shape
    if height != width:
        raise NoLayerError(f"its kernel is {height}×{width}; it should be square")
    layer = Conv(filters, height, entry.stride, entry.padding, len(arrays) == 2)
    return convolution(value, layer, tracer.channels_first, lambda: arrays)


# Scale, shift, mean and variance as PyTorch and as Keras call them.
BATCH_NORM = (
    ("weight", "bias", "running_mean", "running_var"),
    ("gamma", "beta", "moving_mean", "moving_variance"),
)


def _batch_norm(tracer: Tracer, entry: Any, value: Value) -> Value:
    torch, keras = BATCH_NORM
    names = keras if f"{entry.name}.{keras[2]}" in tracer.tensors else torch
    arrays = [tracer.tensor(f"{entry.name}.{name}", 1) for name in names]
    tracer.used.add(f"{entry.name}.num_batches_tracked")
    axis = 0 if tracer.channels_first else value.places.ndim - 1
    return batch_normalised(value, BatchNorm(entry.epsilon), axis, lambda: arrays)


def _group_norm(tracer: Tracer, entry: Any, value: Value) -> Value:
    names = ("gamma", "beta") if f"{entry.name}.gamma" in tracer.tensors else ("weight", "bias")
    arrays = [tracer.tensor(f"{entry.name}.{name}", 1) for name in names]
    layer = GroupNorm(entry.groups, entry.epsilon)
    return group_normalised(value, layer, tracer.channels_first, lambda: arrays)


def _pool(kind: Callable[..., Any], tracer: Tracer, entry: Any, value: Value) -> Value:
    layer = kind(entry.size, entry.stride, entry.padding, entry.ceil)
    return pool(value, layer, tracer.channels_first)


def _elementwise(layer: Callable[[Any], Any]) -> Callable[[Tracer, Any, Value], Value]:
    return lambda tracer, entry, value: value.then(layer(entry), places=value.places)


def _residual(tracer: Tracer, entry: Any, value: Value) -> Value:
    return added(tracer.follow(entry.body, value), tracer.follow(entry.shortcut, value))


RULES: dict[str, Callable[[Tracer, Any, Value], Value]] = {
    "dense": _dense,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(("relu", "tanh", "sigmoid"), _elementwise(lambda entry: Activation(entry.layer))),
    "leaky_relu": _elementwise(lambda entry: LeakyReLU(entry.slope)),
    "clamp": _elementwise(lambda entry: Clamp(entry.low, entry.high)),
    "max_pool": partial(_pool, MaxPool),
    "average_pool": partial(_pool, AveragePool),
    "global_average_pool": lambda tracer, entry, value: global_average(value, tracer.channels_first, kept=False),
    "flatten": lambda tracer, entry, value: value.moved(value.places.ravel()),
    "standardise": lambda tracer, entry, value: on_maps(value, Standardise(), tracer.channels_first),
    "subsample": lambda tracer, entry, value: on_maps(
        value, Subsample(entry.stride, entry.channels), tracer.channels_first
    ),
    "residual": _residual,
}
