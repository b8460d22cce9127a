"""The graph of a .keras file as layers: a rule for each Keras layer that our layers compute.

Read from the file's JSON alone; weights are asked of the file's own model, by the layers' names, when they are needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltaball.base.errors import InputError
from deltaball.exchange.tracing import (
    NoLayerError,
    Value,
    added,
    affine,
    batch_normalised,
    convolution,
    dense,
    global_average,
    group_normalised,
    on_maps,
    padded,
    pool,
)
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    GroupNorm,
    Layer,
    LeakyReLU,
    MaxPool,
    Subsample,
)

Content = Mapping[str, Any]

Place = tuple[str, ...]  # of a layer: the names of the models around it, and its own

NOTHING: Content = {"args": [], "kwargs": {}}

Weights = Callable[[Place], list[np.ndarray]]


@dataclass
class KerasLayer:
    """A layer of a file and what enters it."""

    kind: str
    config: Content
    entering: Sequence[Value]
    weights: Callable[[], list[np.ndarray]]
    node: Content  # what else enters it, as the file has it

    @property
    def value(self) -> Value:
        if len(self.entering) != 1:
            raise NoLayerError(f"of {len(self.entering)} values")
        return self.entering[0]

    @property
    def channels_first(self) -> bool:
        return self.config.get("data_format") == "channels_first"


@dataclass
class Tracer:
    """Follows the models of a file, which may stand in each other."""

    weights: Weights
    softmax: Place | None  # of the layer whose softmax is taken off
    within: Place = ()

    def follow(self, model: Content, entering: Value) -> Value:
        """What a model makes of a value."""
        if model["class_name"] == "Sequential":
            for layer in model["config"]["layers"]:
                if layer["class_name"] != "InputLayer":
                    entering = self._layer(layer, [entering])
            return entering
        return self._functional(model["config"], entering)

    def _functional(self, config: Content, entering: Value) -> Value:
        known = {only(config["input_layers"]): entering}
        for layer in config["layers"]:
            name = layer["name"]
            if layer["class_name"] == "InputLayer":
                continue
            if len(layer["inbound_nodes"]) != 1:
                raise NoLayerError(f"layer {name}, which is used {len(layer['inbound_nodes'])} times")
            (node,) = layer["inbound_nodes"]
            sources = _tensors(node["args"])
            if any(one not in known for one in sources) or _tensors(node.get("kwargs", {})):
                raise NoLayerError(f"layer {name}, with more than what enters it")
            known[name] = self._layer(layer, [known[one] for one in sources], node)
        return known[only(config["output_layers"])]

    def _layer(self, layer: Content, entering: list[Value], node: Content = NOTHING) -> Value:
        kind, config = layer["class_name"], layer["config"]
        place = (*self.within, config["name"])
        if kind in MODELS:
            if len(entering) != 1:
                raise NoLayerError(f"layer {kind} of several values")
            return Tracer(self.weights, self.softmax, place).follow(layer, entering[0])
        if kind not in RULES:
            raise NoLayerError(f"layer {kind}")
        try:
            found = RULES[kind](KerasLayer(kind, config, entering, lambda: self.weights(place), node))
            return found if place == self.softmax else _activated(found, _activation_name(kind, config))
        except (NoLayerError, InputError) as problem:  # of a layer that cannot be
            raise NoLayerError(f"layer {kind} ({problem})") from None


MODELS = ("Sequential", "Functional")


def only(tensors: Any) -> str:
    """The layer of the only input or output of a model."""
    names = [tensors[0]] if isinstance(tensors[0], str) else [one[0] for one in tensors]
    if len(names) != 1 or not isinstance(names[0], str):
        raise NoLayerError(f"{len(names)} inputs or outputs")
    return names[0]


def last_softmax(model: Content) -> Place | None:
    """The place of the layer that a model ends in, where that is or has a softmax."""
    place: Place = ()
    while model["class_name"] in MODELS:
        layers = model["config"]["layers"]
        if model["class_name"] == "Sequential":
            model = layers[-1]
        else:
            name = only(model["config"]["output_layers"])
            model = next(one for one in layers if one["config"]["name"] == name)
        place = (*place, model["config"]["name"])
    return place if _activation_name(model["class_name"], model["config"]) == "softmax" else None


def _tensors(content: Any) -> Sequence[str]:
    """The layers whose values are named somewhere in the arguments of a layer, in their order."""
    if isinstance(content, dict):
        if content.get("class_name") == "__keras_tensor__":
            return [content["config"]["keras_history"][0]]
        content = list(content.values())
    return [name for one in content for name in _tensors(one)] if isinstance(content, list) else []


def _activation_name(kind: str, config: Content) -> str:
    activation = "softmax" if kind == "Softmax" else config.get("activation")
    return activation if isinstance(activation, str) else "linear" if activation is None else str(activation)


ACTIVATIONS: dict[str, Layer | None] = {
    "linear": None,
    "relu": Activation("relu"),
    "tanh": Activation("tanh"),
    "sigmoid": Activation("sigmoid"),
    "leaky_relu": LeakyReLU(0.2),
    "relu6": Clamp(0.0, 6.0),
}


def _activated(value: Value, name: str) -> Value:
    if name not in ACTIVATIONS:
        raise NoLayerError(f"activation {name}")
    layer = ACTIVATIONS[name]
    return value if layer is None else value.then(layer, places=value.places)


def _dense(layer: KerasLayer) -> Value:
    return dense(layer.value, layer.config["units"], layer.config["use_bias"], layer.weights)


def _convolution(layer: KerasLayer) -> Value:
    config = layer.config
    if config["groups"] != 1 or {*config["dilation_rate"]} != {1}:
        raise NoLayerError("in groups or dilated")
    size, stride = _square(config["kernel_size"]), _square(config["strides"])
    found = Conv(config["filters"], size, stride, config["padding"], config["use_bias"])
    return convolution(layer.value, found, layer.channels_first, layer.weights)


def _square(sides: Sequence[int]) -> int:
    if len({*sides}) != 1:
        raise NoLayerError(f"windows or steps of {'×'.join(map(str, sides))}")
    return sides[0]


def _relu(layer: KerasLayer) -> Value:
    most, slope = layer.config.get("max_value"), layer.config.get("negative_slope") or 0.0
    if layer.config.get("threshold"):
        raise NoLayerError("with a threshold")
    if most is not None and slope:
        raise NoLayerError("with a slope and a largest value")
    found = Clamp(0.0, float(most)) if most is not None else LeakyReLU(slope) if slope else Activation("relu")
    return layer.value.then(found, places=layer.value.places)


def _leaky_relu(layer: KerasLayer) -> Value:
    slope = layer.config.get("negative_slope", layer.config.get("alpha"))
    return layer.value.then(LeakyReLU(float(slope)), places=layer.value.places)


def _pool(layer: KerasLayer) -> Value:
    size, stride = _square(layer.config["pool_size"]), _square(layer.config["strides"] or layer.config["pool_size"])
    kind = MaxPool if layer.kind == "MaxPooling2D" else AveragePool
    return pool(layer.value, kind(size, stride, layer.config["padding"]), layer.channels_first)


def _batch_norm(layer: KerasLayer) -> Value:
    config, value = layer.config, layer.value
    axis = _channel_axis(layer)

    def arrays() -> list[np.ndarray]:
        found = iter(layer.weights())
        gamma = next(found) if config["scale"] else None
        beta = next(found) if config["center"] else None
        mean, variance = found
        return [
            np.ones_like(mean) if gamma is None else gamma,
            np.zeros_like(mean) if beta is None else beta,
            mean,
            variance,
        ]

    return batch_normalised(value, BatchNorm(config["epsilon"], config["momentum"]), axis, arrays)


def _group_norm(layer: KerasLayer) -> Value:
    config, axis = layer.config, _channel_axis(layer)
    channels, last = layer.value.places.shape[axis], layer.value.places.ndim - 1
    if axis not in (0, last):
        raise NoLayerError(f"along axis {config['axis']}")

    def arrays() -> list[np.ndarray]:
        found = iter(layer.weights())
        gamma = next(found) if config["scale"] else np.ones(channels, np.float32)
        return [gamma, next(found) if config["center"] else np.zeros(channels, np.float32)]

    groups = channels if config["groups"] == -1 else config["groups"]
    return group_normalised(layer.value, GroupNorm(groups, config["epsilon"]), axis != last, arrays)


def _channel_axis(layer: KerasLayer) -> int:
    """Of the value of one image, the axis that a normalisation has its numbers along."""
    axis = layer.config["axis"][0] if isinstance(layer.config["axis"], list) else layer.config["axis"]
    return axis - 1 if axis > 0 else axis % layer.value.places.ndim


def _flatten(layer: KerasLayer) -> Value:
    # Keras brings channels that come first to the end before it flattens.
    places = layer.value.places
    first = layer.channels_first and places.ndim == 3
    return layer.value.moved((np.moveaxis(places, 0, -1) if first else places).ravel())


def _rescaling(layer: KerasLayer) -> Value:
    return affine(layer.value, np.asarray(layer.config["scale"]), np.asarray(layer.config["offset"]))


def _normalisation(layer: KerasLayer) -> Value:
    config, value = layer.config, layer.value
    axes = [axis - 1 if axis > 0 else axis % value.places.ndim for axis in np.ravel(config["axis"] or ()).tolist()]
    shape = [size if axis in axes else 1 for axis, size in enumerate(value.places.shape)]
    mean, variance = config.get("mean"), config.get("variance")
    if mean is None:
        mean, variance, *_ = layer.weights()
    mean, variance = (np.broadcast_to(np.asarray(one, np.float64).ravel(), np.prod(shape)) for one in (mean, variance))
    # As Keras does: no deviation is taken to be less than its fuzz factor.
    deviation = np.maximum(np.sqrt(variance), 1e-7).reshape(shape)
    if config.get("invert"):
        return affine(value, deviation, mean.reshape(shape))
    return affine(value, 1 / deviation, -mean.reshape(shape) / deviation)


def _padding(layer: KerasLayer) -> Value:
    (top, bottom), (left, right) = layer.config["padding"]
    return padded(layer.value, (top, bottom, left, right))


def _border(layer: KerasLayer) -> Value:
    """keras.ops.pad of an image's sides, or of its channels, which come last."""
    value, widths = layer.value, layer.config["pad_width"]
    outside = layer.node.get("kwargs", {}).get("constant_values") or 0.0
    if layer.config["mode"] != "constant" or len(widths) != 4 or any(widths[0]):
        raise NoLayerError("with anything but a constant around images")
    _, (top, bottom), (left, right), (before, after) = widths
    if not (before or after):
        return padded(value, (top, bottom, left, right), outside)
    if any((top, bottom, left, right, outside)) or after - before not in (0, 1):
        raise NoLayerError("of channels")
    return on_maps(value, Subsample(1, value.places.shape[-1] + before + after), channels_first=False)


def _clip(layer: KerasLayer) -> Value:
    low, high = layer.config["x_min"], layer.config["x_max"]
    return layer.value.then(Clamp(float(low), float(high)), places=layer.value.places)


def _arithmetic(layer: KerasLayer) -> Value:
    """A value and a constant, or the sum of values."""
    if len(layer.entering) > 1 and layer.kind == "Add":
        return _sum(layer)
    value, first, constant = layer.value, *_constant(layer.node["args"])
    if layer.kind in ("Divide", "TrueDivide"):
        if not first or not constant.all():
            raise NoLayerError("by what depends on the image, or by 0")
        return affine(value, 1 / constant, np.zeros(()))
    if layer.kind == "Multiply":
        return affine(value, constant, np.zeros(()))
    if layer.kind == "Subtract":
        return affine(value, np.ones(()), -constant) if first else affine(value, -np.ones(()), constant)
    return affine(value, np.ones(()), constant)


def _constant(arguments: Sequence[Any]) -> tuple[bool, np.ndarray]:
    """Whether the value comes first of a value and a constant, and the constant, without an axis for the batch."""
    if len(arguments) != 2:
        raise NoLayerError("of several values")
    first = bool(_tensors(arguments[0]))
    other = arguments[1] if first else arguments[0]
    other = other["config"]["value"] if isinstance(other, dict) and "config" in other else other
    if _tensors(other) or not isinstance(other, int | float | list):
        raise NoLayerError("of several values")
    found = np.asarray(other, np.float64)
    return first, found[0] if found.ndim > 1 and len(found) == 1 else found


def _sum(layer: KerasLayer) -> Value:
    first, *others = layer.entering
    for other in others:
        first = added(first, other)
    return first


def _unchanged(layer: KerasLayer) -> Value:
    return layer.value


RULES: dict[str, Callable[[KerasLayer], Value]] = {
    "Activation": _unchanged,
    "Add": _arithmetic,
    "AveragePooling2D": _pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv2D": _convolution,
    "Dense": _dense,
    "Divide": _arithmetic,
    "Dropout": _unchanged,
    "Flatten": _flatten,
    "GaussianDropout": _unchanged,
    "GaussianNoise": _unchanged,
    "GlobalAveragePooling2D": lambda layer: global_average(
        layer.value, layer.channels_first, layer.config.get("keepdims", False)
    ),
    "GroupNormalization": _group_norm,
    "Identity": _unchanged,
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _pool,
    "Multiply": _arithmetic,
    "Normalization": _normalisation,
    "Pad": _border,
    "Permute": lambda layer: layer.value.moved(
        layer.value.places.transpose([axis - 1 for axis in layer.config["dims"]])
    ),
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": lambda layer: layer.value.moved(layer.value.places.reshape(layer.config["target_shape"])),
    "Softmax": _unchanged,
    "SpatialDropout2D": _unchanged,
    "Subtract": _arithmetic,
    "TrueDivide": _arithmetic,
    "ZeroPadding2D": _padding,
}
