"""The graph of an .onnx file on torch, for networks with operators that are no layers here: attacks need gradients."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn import functional

from deltaball.base.errors import InputError

Settings = Mapping[str, Any]
Rule = Callable[..., torch.Tensor]


class Graph:
    """Computes the graph's only output of its input, differentiably."""

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        unknown = next((node.op_type for node in model.graph.node if node.op_type not in {*RULES, "Constant"}), None)
        if unknown:
            raise InputError(f"operator {unknown}: there is no layer of it, and it cannot be run on torch here either")
        self.nodes, self.device = model.graph.node, device
        (self.leaving,) = (one.name for one in model.graph.output)
        self.constants = {one.name: self._tensor(one) for one in model.graph.initializer}
        self.settings = [
            {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute} for node in self.nodes
        ]

    def _tensor(self, written: onnx.TensorProto) -> torch.Tensor:
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(written))).to(self.device)

    def __call__(self, entering: Mapping[str, torch.Tensor]) -> torch.Tensor:
        known: dict[str, torch.Tensor | None] = {**self.constants, **entering, "": None}
        for node, settings in zip(self.nodes, self.settings, strict=True):
            if node.op_type == "Constant":
                (value,) = settings.values()
                whole = self._tensor(value) if isinstance(value, onnx.TensorProto) else torch.tensor(value)
                known[node.output[0]] = whole.to(self.device)
            else:
                known[node.output[0]] = RULES[node.op_type](settings, *(known[name] for name in node.input))
        return known[self.leaving]


def _numbers(tensor: torch.Tensor | Sequence[int] | None) -> list[int] | None:
    return tensor.tolist() if isinstance(tensor, torch.Tensor) else None if tensor is None else list(tensor)


def _around(settings: Settings, x: torch.Tensor, window: Sequence[int], value: float) -> torch.Tensor:
    """With the border that a convolution or a pool asks for."""
    automatic = settings.get("auto_pad", b"NOTSET").decode()
    strides = settings.get("strides", [1] * len(window))
    sides: list[int] = []
    for axis, size in enumerate(window):
        before, after = 0, 0
        if automatic == "NOTSET" and "pads" in settings:
            before, after = settings["pads"][axis], settings["pads"][axis + len(window)]
        elif automatic.startswith("SAME"):
            length = x.shape[axis + 2]
            total = max((-(-length // strides[axis]) - 1) * strides[axis] + size - length, 0)
            before, after = (total // 2, -(-total // 2)) if automatic == "SAME_UPPER" else (-(-total // 2), total // 2)
        sides = [before, after, *sides]
    return functional.pad(x, sides, value=value) if any(sides) else x


def _conv(settings: Settings, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    window = [1 + (size - 1) * by for size, by in zip(kernel.shape[2:], _dilations(settings, kernel), strict=True)]
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(window)]
    return function(
        _around(settings, x, window, 0.0),
        kernel,
        bias,
        stride=tuple(settings.get("strides", [1] * len(window))),
        dilation=_dilations(settings, kernel),
        groups=settings.get("group", 1),
    )


def _dilations(settings: Settings, kernel: torch.Tensor) -> tuple[int, ...]:
    return tuple(settings.get("dilations", [1] * (kernel.ndim - 2)))


def _gemm(settings: Settings, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    x, kernel = (x.T if settings.get("transA") else x), (kernel.T if settings.get("transB") else kernel)
    product = settings.get("alpha", 1.0) * (x @ kernel)
    return product if bias is None else product + settings.get("beta", 1.0) * bias


def _max_pool(settings: Settings, x: torch.Tensor) -> torch.Tensor:
    window = settings["kernel_shape"]
    return functional.max_pool2d(
        _around(settings, x, window, -torch.inf),
        window,
        settings.get("strides", [1, 1]),
        dilation=settings.get("dilations", 1),
        ceil_mode=bool(settings.get("ceil_mode", 0)),
    )


def _average_pool(settings: Settings, x: torch.Tensor) -> torch.Tensor:
    window, strides, ceil = (
        settings["kernel_shape"],
        settings.get("strides", [1, 1]),
        bool(settings.get("ceil_mode", 0)),
    )
    sums = functional.avg_pool2d(_around(settings, x, window, 0.0), window, strides, ceil_mode=ceil)
    if settings.get("count_include_pad", 0):
        return sums
    return sums / functional.avg_pool2d(
        _around(settings, torch.ones_like(x), window, 0.0), window, strides, ceil_mode=ceil
    )


def _reshape(settings: Settings, x: torch.Tensor, shape: torch.Tensor | None = None) -> torch.Tensor:
    wanted = _numbers(settings.get("shape") if shape is None else shape)
    if not settings.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if wanted[0] == 1 and len(wanted) > 1:  # a graph that was made for one image
        wanted[0] = len(x)
    return x.reshape(wanted)


def _reduced(function: Callable[..., torch.Tensor]) -> Rule:
    def rule(settings: Settings, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        along = _numbers(settings.get("axes") if axes is None else axes)
        return function(x, [*range(x.ndim)] if along is None else along, bool(settings.get("keepdims", 1)))

    return rule


def _pad(
    settings: Settings,
    x: torch.Tensor,
    pads: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    widths = _numbers(settings.get("pads") if pads is None else pads)
    along = [*range(x.ndim)] if axes is None else _numbers(axes)
    sides = [0] * (2 * x.ndim)
    for place, axis in enumerate(along):
        at = 2 * (x.ndim - 1 - axis % x.ndim)
        sides[at : at + 2] = widths[place], widths[place + len(along)]
    mode = settings.get("mode", b"constant").decode()
    if mode == "constant":
        return functional.pad(x, sides, value=0.0 if value is None else float(value))
    return functional.pad(x, sides[:4], {"reflect": "reflect", "edge": "replicate"}[mode])


def _slice(
    settings: Settings,
    x: torch.Tensor,
    starts: torch.Tensor | None = None,
    ends: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    begin, end = (
        _numbers(settings.get(name) if one is None else one) for name, one in (("starts", starts), ("ends", ends))
    )
    along = _numbers(settings.get("axes") if axes is None else axes) or [*range(len(begin))]
    index = [slice(None)] * x.ndim
    for place, axis in enumerate(along):
        index[axis] = slice(begin[place], end[place], 1 if steps is None else int(steps[place]))
    return x[tuple(index)]


def _gather(settings: Settings, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = settings.get("axis", 0) % x.ndim
    picked = x.index_select(axis, indices.reshape(-1).to(x.device) % x.shape[axis])
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _unsqueeze(settings: Settings, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    along = _numbers(settings.get("axes") if axes is None else axes)
    for axis in sorted(axis % (x.ndim + len(along)) for axis in along):
        x = x.unsqueeze(axis)
    return x


def _squeeze(settings: Settings, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    along = _numbers(settings.get("axes") if axes is None else axes)
    return x.squeeze(tuple(along)) if along else x.squeeze()


def _clip(settings: Settings, x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    return x.clamp(settings.get("min") if low is None else low, settings.get("max") if high is None else high)


def _layer_norm(
    settings: Settings, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    shape = x.shape[settings.get("axis", -1) % x.ndim :]
    return functional.layer_norm(x, shape, scale.expand(shape), bias, settings.get("epsilon", 1e-5))


def _batch_norm(settings: Settings, x: torch.Tensor, *arrays: torch.Tensor) -> torch.Tensor:
    scale, bias, mean, variance = arrays
    return functional.batch_norm(x, mean, variance, scale, bias, eps=settings.get("epsilon", 1e-5))


def _group_norm(settings: Settings, x: torch.Tensor, *arrays: torch.Tensor) -> torch.Tensor:
    return functional.group_norm(x, settings["num_groups"], *arrays, settings.get("epsilon", 1e-5))


def _shape(settings: Settings, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.shape[settings.get("start", 0) : settings.get("end")])


def _plain(function: Callable[..., torch.Tensor]) -> Rule:
    """Of an operator without settings."""
    return lambda settings, *entering: function(*entering)


RULES: dict[str, Rule] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda settings, x: x if x.is_floating_point() else x.float() if settings["to"] == 1 else x,
    "Clip": _clip,
    "Concat": lambda settings, *parts: torch.cat(parts, settings["axis"]),
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Dropout": lambda settings, x, *others: x,
    "Elu": lambda settings, x: functional.elu(x, settings.get("alpha", 1.0)),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": lambda settings, x, shape: x * torch.ones(_numbers(shape), dtype=x.dtype, device=x.device),
    "Flatten": lambda settings, x: x.flatten(settings.get("axis", 1)),
    "Gather": _gather,
    "Gelu": lambda settings, x: functional.gelu(x, approximate=settings.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(lambda x: x.mean((2, 3), keepdim=True)),
    "GlobalMaxPool": _plain(lambda x: x.amax((2, 3), keepdim=True)),
    "GroupNormalization": _group_norm,
    "HardSigmoid": lambda settings, x: (settings.get("alpha", 0.2) * x + settings.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _plain(functional.hardswish),
    "Identity": _plain(lambda x: x),
    "InstanceNormalization": lambda settings, x, scale, bias: functional.instance_norm(
        x, weight=scale, bias=bias, eps=settings.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda settings, x: functional.leaky_relu(x, settings.get("alpha", 0.01)),
    "Log": _plain(torch.log),
    "LogSoftmax": lambda settings, x: x.log_softmax(settings.get("axis", -1)),
    "MatMul": _plain(torch.matmul),
    "Max": _plain(lambda first, *others: torch.stack(torch.broadcast_tensors(first, *others)).amax(0)),
    "MaxPool": _max_pool,
    "Min": _plain(lambda first, *others: torch.stack(torch.broadcast_tensors(first, *others)).amin(0)),
    "Mish": _plain(functional.mish),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _plain(lambda x, slope: torch.where(x >= 0, x, slope * x)),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Selu": _plain(functional.selu),
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda settings, x: x.softmax(settings.get("axis", -1)),
    "Softplus": _plain(functional.softplus),
    "Softsign": _plain(functional.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": lambda settings, x: x.permute(settings.get("perm", [*range(x.ndim)][::-1])),
    "Unsqueeze": _unsqueeze,
}
