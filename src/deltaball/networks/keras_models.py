"""The Keras model of a network's layers."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
    GroupNorm,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Pool,
    Residual,
    Shape,
    Standardise,
    Subsample,
    rule_for,
)
from deltaball.networks.transposed import ConvTranspose, Reshape
from deltaball.networks.windows import Sides

if TYPE_CHECKING:
    import keras

# Below what float32 can tell from it, and finite: JSON has no infinity.
LOWEST = float(np.finfo(np.float32).min)

Step = Callable[[Any], Any]  # a Keras layer, or a function of a Keras tensor


def keras_model(layers: Layers) -> "keras.Model":
    """The network as a Keras model from images [n, *shape] in [0, 1] to logits [n, classes].

    Built on the backend that KERAS_BACKEND names (torch if unset); Glorot-uniform kernels and zero biases. Keras has an
    order of its own for weights: `set_weights` and `get_weights` have the layers'.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    # Whatever ~/.keras/keras.json says.
    keras.config.set_floatx("float32")
    steps, images = _steps(keras, layers, ""), keras.Input(layers.shape)
    if all(isinstance(step, keras.Layer) for step in steps):
        return keras.Sequential([images, *steps])
    return keras.Model(images, _through(steps, images))


def set_weights(model: "keras.Model", layers: Layers, weights: Sequence[np.ndarray]) -> None:
    """Give the Keras model of these layers its weights, in the layers' order."""
    for variable, weight in zip(_variables(model, layers), weights, strict=True):
        variable.assign(weight)


def get_weights(model: "keras.Model", layers: Layers) -> list[np.ndarray]:
    """The weights of the Keras model of these layers, in the layers' order."""
    return [variable.numpy() for variable in _variables(model, layers)]


def _variables(model: "keras.Model", layers: Layers) -> list[Any]:
    return [variable for name in _names(layers, "") for variable in model.get_layer(name).weights]


def _names(layers: Layers, prefix: str) -> Iterator[str]:
    """What the Keras layers with weights are called, in the order of the layers' weights."""
    for place, (layer, shape) in enumerate(layers.walk()):
        name = _name(prefix, place, layer)
        for branch, inner in zip(("body", "shortcut"), layer.branches(shape), strict=False):
            yield from _names(inner, f"{name}_{branch}_")
        if layer.weights(shape) and not layer.branches(shape):
            yield name


def _name(prefix: str, place: int, layer: Layer) -> str:
    return f"{prefix}{place}_{type(layer).__name__.lower()}"


def _steps(keras: Any, layers: Layers, prefix: str) -> list[Step]:
    return [
        step
        for place, (layer, shape) in enumerate(layers.walk())
        for step in rule_for(KERAS, type(layer), "Keras model")(keras, layer, shape, _name(prefix, place, layer))
    ]


def _through(steps: Sequence[Step], x: Any) -> Any:
    for step in steps:
        x = step(x)
    return x


def _dense(keras: Any, layer: Dense, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.Dense(layer.outputs, use_bias=layer.bias, name=name)]


def _convolution(keras: Any, layer: Conv, shape: Shape, name: str) -> list[Step]:
    padding, around = ("same", []) if layer.padding == "same" else ("valid", _zeros(keras, layer.sides(shape)))
    how = {"strides": layer.stride, "padding": padding, "use_bias": layer.bias, "data_format": "channels_last"}
    return [*around, keras.layers.Conv2D(layer.filters, layer.size, name=name, **how)]


def _activation(keras: Any, layer: Activation, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.Activation(layer.name, name=name)]


def _leaky_relu(keras: Any, layer: LeakyReLU, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.LeakyReLU(negative_slope=layer.slope, name=name)]


def _clamp(keras: Any, layer: Clamp, shape: Shape, name: str) -> list[Step]:
    return [lambda x: keras.ops.clip(x, layer.low, layer.high)]


def _max_pool(keras: Any, layer: MaxPool, shape: Shape, name: str) -> list[Step]:
    if layer.padding == "same":
        return [_pool(keras.layers.MaxPooling2D, layer, "same", name)]
    sides, pool = layer.sides(shape), _pool(keras.layers.MaxPooling2D, layer, "valid", name)
    return [*([_surrounded(keras, sides, LOWEST)] if any(sides) else []), pool]


def _average_pool(keras: Any, layer: AveragePool, shape: Shape, name: str) -> list[Step]:
    # Keras' own padding "same" is not used: with an odd number of pixels its torch backend repeats the border.
    counts = np.array(layer.counts(shape), np.float32).reshape(1, *layer.output(shape)[:2], 1)
    steps = [*_zeros(keras, layer.sides(shape)), _pool(keras.layers.AveragePooling2D, layer, "valid", name)]
    factors = layer.size**2 / counts
    return steps if (factors == 1).all() else [*steps, lambda x: keras.ops.multiply(x, factors)]


def _pool(kind: Any, layer: Pool, padding: str, name: str) -> Step:
    return kind(layer.size, layer.stride, padding, data_format="channels_last", name=name)


def _zeros(keras: Any, sides: Sides) -> list[Step]:
    top, bottom, left, right = sides
    around = ((top, bottom), (left, right))
    return [keras.layers.ZeroPadding2D(around, data_format="channels_last")] if any(sides) else []


def _surrounded(keras: Any, sides: Sides, value: float) -> Step:
    top, bottom, left, right = sides
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    return lambda x: keras.ops.pad(x, around, constant_values=value)


def _global_average_pool(keras: Any, layer: GlobalAveragePool, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.GlobalAveragePooling2D(data_format="channels_last", name=name)]


def _batch_norm(keras: Any, layer: BatchNorm, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon, name=name)]


def _group_norm(keras: Any, layer: GroupNorm, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.GroupNormalization(layer.groups, epsilon=layer.epsilon, name=name)]


def _dropout(keras: Any, layer: Dropout, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.Dropout(layer.rate, name=name)]


def _normalise(keras: Any, layer: Normalise, shape: Shape, name: str) -> list[Step]:
    variance = [deviation**2 for deviation in layer.deviation]
    return [keras.layers.Normalization(mean=list(layer.mean), variance=variance, name=name)]


def _standardise(keras: Any, layer: Standardise, shape: Shape, name: str) -> list[Step]:
    sides, least = (1, 2, 3), 1 / math.prod(shape)

    def standardised(x: Any) -> Any:
        mean, variance = keras.ops.moments(x, sides, keepdims=True)
        return (x - mean) * keras.ops.rsqrt(keras.ops.maximum(variance, least))

    return [standardised]


def _subsample(keras: Any, layer: Subsample, shape: Shape, name: str) -> list[Step]:
    around = ((0, 0), (0, 0), (0, 0), layer.added(shape))
    # Of windows of one pixel the maximum is the pixel.
    chosen = keras.layers.MaxPooling2D(1, layer.stride, data_format="channels_last", name=name)
    return [chosen, *([lambda x: keras.ops.pad(x, around)] if any(around[-1]) else [])]


def _residual(keras: Any, layer: Residual, shape: Shape, name: str) -> list[Step]:
    body, shortcut = (
        _steps(keras, inner, f"{name}_{branch}_")
        for branch, inner in zip(("body", "shortcut"), layer.branches(shape), strict=True)
    )
    return [lambda x: keras.layers.Add(name=name)([_through(body, x), _through(shortcut, x)])]


def _flatten(keras: Any, layer: Flatten, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.Flatten(data_format="channels_last", name=name)]


def _reshape(keras: Any, layer: Reshape, shape: Shape, name: str) -> list[Step]:
    return [keras.layers.Reshape(layer.shape, name=name)]


def _transposed(keras: Any, layer: ConvTranspose, shape: Shape, name: str) -> list[Step]:
    how = {"strides": layer.stride, "padding": "valid", "data_format": "channels_last"}
    whole = [(side.count - 1) * layer.stride + layer.size for side in layer.windows(shape)]
    cut = [
        (side.before, one - side.before - side.pixels) for one, side in zip(whole, layer.windows(shape), strict=True)
    ]
    cropped = keras.layers.Cropping2D(tuple(cut), data_format="channels_last")
    return [keras.layers.Conv2DTranspose(layer.filters, layer.size, name=name, **how), cropped]


# What Keras calls each layer: Keras layers, or functions of its tensors, one after the other. Keras is an argument, for
# whoever imports this may still choose a backend.
KERAS = {
    Dense: _dense,
    Conv: _convolution,
    Activation: _activation,
    LeakyReLU: _leaky_relu,
    Clamp: _clamp,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    GlobalAveragePool: _global_average_pool,
    BatchNorm: _batch_norm,
    GroupNorm: _group_norm,
    Dropout: _dropout,
    Normalise: _normalise,
    Standardise: _standardise,
    Subsample: _subsample,
    Residual: _residual,
    Flatten: _flatten,
    Reshape: _reshape,
    ConvTranspose: _transposed,
}
