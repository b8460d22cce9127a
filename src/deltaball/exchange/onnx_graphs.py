"""The graph of an .onnx file as layers: a rule for each operator that our layers compute."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from deltaball.base.errors import InputError
from deltaball.exchange.tracing import (
    NoLayerError,
    Sides,
    Value,
    added,
    affine,
    batch_normalised,
    convolution,
    dense,
    global_average,
    group_by_group,
    group_normalised,
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
)

Known = Value | np.ndarray | None  # what enters a node: of the image, a constant, or left out


@dataclass
class Node:
    """An operator with what enters it, for a batch of one image."""

    kind: str
    entering: Sequence[Known]
    settings: dict[str, Any]
    outputs: int = 1

    @property
    def value(self) -> Value:
        if not isinstance(self.entering[0], Value):
            raise NoLayerError("of constants")
        return self.entering[0]

    def constant(self, place: int, name: str = "", default: Any = None) -> Any:
        """A constant that enters, or in older versions is a setting."""
        if len(self.entering) > place and self.entering[place] is not None:
            found = self.entering[place]
            if isinstance(found, Value):
                raise NoLayerError("with what depends on the image where a constant is known")
            return found
        return self.settings.get(name, default)


@dataclass
class Tracer:
    """Follows a graph node by node."""

    opset: int
    known: dict[str, Known] = field(default_factory=dict)

    def follow(self, node: onnx.NodeProto) -> None:
        """What a node gives joins what is known. Raises NoLayerError that names the operator."""
        entering = [self.known[name] if name else None for name in node.input]
        if not any(isinstance(one, Value) for one in entering):
            self.known.update(zip(node.output, self._computed(node, entering), strict=True))
            return
        settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        written = Node(node.op_type, entering, settings, sum(map(bool, node.output)))
        if node.op_type not in RULES or node.domain not in ("", "ai.onnx"):
            raise NoLayerError(f"operator {node.op_type}")
        try:
            found = RULES[node.op_type](written)
        except (NoLayerError, InputError) as problem:  # of a layer that cannot be
            raise NoLayerError(f"operator {node.op_type} ({problem})") from None
        self.known[node.output[0]] = found

    def _computed(self, node: onnx.NodeProto, entering: Sequence[Known]) -> list[np.ndarray]:
        """What a node makes of constants alone, by ONNX's own reference."""
        names = [name for name in node.input if name]
        inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in names]
        outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
        graph = onnx.helper.make_graph([node], "constants", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)])
        given = {name: one for name, one in zip(node.input, entering, strict=True) if name}
        return ReferenceEvaluator(model).run(None, given)


def _floats(*arrays: np.ndarray | None) -> list[np.ndarray]:
    return [np.asarray(array, np.float32) for array in arrays if array is not None]


def _sides(node: Node, value: Value, window: Sequence[int], strides: Sequence[int]) -> Sides:
    """The zeros around an image, top, bottom, left, right."""
    automatic = node.settings.get("auto_pad", b"NOTSET").decode()
    if automatic in ("NOTSET", "VALID"):
        top, left, bottom, right = node.settings.get("pads", (0, 0, 0, 0)) if automatic == "NOTSET" else (0, 0, 0, 0)
        return top, bottom, left, right
    sides: list[int] = []
    for size, one, stride in zip(value.places.shape[1:], window, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + one - size, 0)
        less, more = total // 2, total - total // 2
        sides += [less, more] if automatic == "SAME_UPPER" else [more, less]
    return tuple(sides)


def _window(node: Node, value: Value, shape: Sequence[int]) -> tuple[int, int, Sides]:
    """Side, stride and zeros of the window of a convolution or a pool."""
    strides = node.settings.get("strides", [1] * len(shape))
    if len(shape) != 2 or len({*shape}) != 1 or len({*strides}) != 1:
        raise NoLayerError(f"windows of {'×'.join(map(str, shape))} at steps of {'×'.join(map(str, strides))}")
    if any(one != 1 for one in node.settings.get("dilations", [1])):
        raise NoLayerError("dilated")
    if value.places.ndim != 3:
        raise NoLayerError("of what is not an image")
    return shape[0], strides[0], _sides(node, value, shape, strides)


def _conv(node: Node) -> Value:
    kernel, bias = node.constant(1), node.constant(2)
    if node.settings.get("group", 1) != 1:
        raise NoLayerError("in groups")
    size, stride, sides = _window(node, node.value, kernel.shape[2:])
    layer = Conv(len(kernel), size, stride, sides if any(sides) else "valid", bias is not None)
    return convolution(node.value, layer, True, lambda: _floats(kernel.transpose(2, 3, 1, 0), bias))


def _gemm(node: Node) -> Value:
    kernel, bias = node.constant(1), node.constant(2)
    if node.settings.get("transA"):
        raise NoLayerError("of a transposed batch")
    kernel = node.settings.get("alpha", 1.0) * (kernel.T if node.settings.get("transB") else kernel)
    outputs = kernel.shape[1]
    if bias is not None:
        bias = node.settings.get("beta", 1.0) * np.broadcast_to(bias, (1, outputs))[0]
    return dense(node.value, outputs, bias is not None, lambda: _floats(kernel, bias))


def _matmul(node: Node) -> Value:
    kernel = node.constant(1)
    if kernel.ndim != 2:
        raise NoLayerError("of more than two axes")
    return dense(node.value, kernel.shape[1], False, lambda: _floats(kernel))


def _add(node: Node) -> Value:
    if all(isinstance(one, Value) for one in node.entering):
        return added(*node.entering)
    value, constant = _with_constant(node)
    return affine(value, np.ones(()), constant)


def _sub(node: Node) -> Value:
    value, constant = _with_constant(node)
    if value is node.entering[0]:
        return affine(value, np.ones(()), -constant)
    return affine(value, -np.ones(()), constant)


def _mul(node: Node) -> Value:
    value, constant = _with_constant(node)
    return affine(value, constant, np.zeros(()))


def _div(node: Node) -> Value:
    value, constant = _with_constant(node)
    if value is not node.entering[0] or not constant.all():
        raise NoLayerError("by what depends on the image, or by 0")
    return affine(value, 1 / constant.astype(np.float64), np.zeros(()))


def _with_constant(node: Node) -> tuple[Value, np.ndarray]:
    """What depends on the image, and the constant without its axis for the batch."""
    value, constant = sorted(node.entering, key=lambda one: isinstance(one, np.ndarray))
    if not isinstance(constant, np.ndarray):
        raise NoLayerError("of two values that both depend on the image")
    if constant.ndim > value.places.ndim:
        if constant.shape[0] != 1:
            raise NoLayerError("with constants that differ from image to image")
        constant = constant[0]
    return value, constant


def _elementwise(layer: Callable[[Node], Layer]) -> Callable[[Node], Value]:
    return lambda node: node.value.then(layer(node), places=node.value.places)


def _clip(node: Node) -> Layer:
    low, high = (node.constant(place, name) for place, name in ((1, "min"), (2, "max")))
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    if (low, high) == (0, math.inf):
        return Activation("relu")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NoLayerError("on one side alone")
    return Clamp(low, high)


def _pool(node: Node) -> Value:
    if node.outputs != 1:
        raise NoLayerError("with the places of the maxima")
    size, stride, sides = _window(node, node.value, node.settings["kernel_shape"])
    padding, ceil = sides if any(sides) else "valid", bool(node.settings.get("ceil_mode", 0))
    value, counts = node.value, any(sides) and bool(node.settings.get("count_include_pad", 0))
    if node.kind == "MaxPool":
        return pool(value, MaxPool(size, stride, padding, ceil), True)
    return pool(value, AveragePool(size, stride, padding, ceil, counts), True)


def _mean(node: Node) -> Value:
    axes = node.constant(1, "axes")
    axes = sorted(axis % (node.value.places.ndim + 1) for axis in np.ravel(() if axes is None else axes).tolist())
    if axes not in ([1, 2], [2, 3]):
        raise NoLayerError(f"along axes {axes}")
    return global_average(node.value, axes == [2, 3], bool(node.settings.get("keepdims", 1)))


def _batch_norm(node: Node) -> Value:
    if node.settings.get("training_mode", 0):
        raise NoLayerError("in training mode")
    arrays = [node.constant(place) for place in range(1, 5)]
    layer = BatchNorm(node.settings.get("epsilon", 1e-5))
    return batch_normalised(node.value, layer, 0, lambda: _floats(*arrays))


def _group_norm(node: Node) -> Value:
    layer = GroupNorm(node.settings["num_groups"], node.settings.get("epsilon", 1e-5))
    arrays = [node.constant(place) for place in (1, 2)]
    return group_normalised(node.value, layer, True, lambda: _floats(*arrays))


def _instance_norm(node: Node) -> Value:
    """What lies along the first axis are channels, or groups of them (as torch writes group normalisation)."""
    value, scale, shift = node.value, node.constant(1), node.constant(2)
    layer = GroupNorm(len(scale), node.settings.get("epsilon", 1e-5))
    arrays = [np.repeat(one, value.shape[-1] // len(scale)) for one in (scale, shift)]
    return group_by_group(value, layer, lambda: _floats(*arrays))


def _dropout(node: Node) -> Value:
    if node.constant(2) is not None and bool(node.constant(2)):
        raise NoLayerError("in training mode")
    return node.value


def _rearranged(node: Node, places: np.ndarray) -> Value:
    """A value whose places, with an axis for the batch, were moved."""
    if places.ndim == 0 or len(places) != 1:
        raise NoLayerError("that moves the images of a batch")
    return node.value.moved(places[0])


def _reshape(node: Node) -> Value:
    batch = node.value.places[None]
    wanted = np.asarray(node.constant(1, "shape")).tolist()
    if not node.settings.get("allowzero", 0):
        wanted = [batch.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return _rearranged(node, batch.reshape(wanted))


def _flatten(node: Node) -> Value:
    if node.settings.get("axis", 1) != 1:
        raise NoLayerError("of the batch")
    return node.value.moved(node.value.places.ravel())


def _transpose(node: Node) -> Value:
    batch = node.value.places[None]
    order = node.settings.get("perm", [*range(batch.ndim)][::-1])
    if order[0] != 0:
        raise NoLayerError("that moves the images of a batch")
    return _rearranged(node, batch.transpose(order))


def _squeeze(node: Node) -> Value:
    axes, batch = node.constant(1, "axes"), node.value.places[None]
    return _rearranged(node, batch.squeeze(tuple(np.ravel(axes).tolist()) if axes is not None else None))


def _unsqueeze(node: Node) -> Value:
    axes = tuple(np.ravel(node.constant(1, "axes")).tolist())
    return _rearranged(node, np.expand_dims(node.value.places[None], axes))


def _pad(node: Node) -> Value:
    pads, constant = node.constant(1, "pads"), node.constant(2, "value", 0.0)
    if node.settings.get("mode", b"constant") != b"constant" or node.constant(3) is not None:
        raise NoLayerError("with anything but a constant")
    before, after = np.reshape(pads, (2, -1)).tolist()
    if len(before) != 4 or before[0] or after[0]:
        raise NoLayerError("of what is not an image")
    for axes, channels in (((2, 3), 1), ((1, 2), 3)):
        if not before[channels] and not after[channels]:
            top, left = (before[axis] for axis in axes)
            bottom, right = (after[axis] for axis in axes)
            return padded(node.value, (top, bottom, left, right), float(np.ravel(constant)[0]))
    raise NoLayerError("of channels")


def _cast(node: Node) -> Value:
    if node.settings["to"] not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        raise NoLayerError("to numbers that are no float32")
    return node.value


def _shape(node: Node) -> np.ndarray:
    whole = (1, *node.value.places.shape)
    return np.asarray(whole[node.settings.get("start", 0) : node.settings.get("end")], np.int64)


RULES: dict[str, Callable[[Node], Known]] = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _elementwise(_clip),
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node: global_average(node.value, True, True),
    "GroupNormalization": _group_norm,
    "Identity": lambda node: node.value,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": _elementwise(lambda node: LeakyReLU(node.settings.get("alpha", 0.01))),
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _mul,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _elementwise(lambda node: Activation("relu")),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _elementwise(lambda node: Activation("sigmoid")),
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Tanh": _elementwise(lambda node: Activation("tanh")),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
