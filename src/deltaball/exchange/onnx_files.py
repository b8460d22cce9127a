"""Networks in .onnx files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from deltaball.base.errors import InputError
from deltaball.exchange.conventions import Convention, Layout, arranged, laid_out, presented
from deltaball.exchange.files import SOFTMAX_TAKEN_OFF, NetworkFile
from deltaball.exchange.onnx_graphs import Tracer
from deltaball.exchange.tracing import NoLayerError, nothing, traced
from deltaball.networks.layers import Shape

if TYPE_CHECKING:
    import torch

    from deltaball.exchange.files import Forward

TAKEN_OFF = ("Softmax", "LogSoftmax")


def read(path: Path, shape: tuple[int, int, int], convention: Convention) -> NetworkFile:
    """The network of an .onnx file for images [height, width, channels]. Raises InputError with what is wrong."""
    model = _loaded(path)
    entering, sizes = _input(model)
    layout, order = arranged(shape, sizes, convention.layout)
    remarks = (SOFTMAX_TAKEN_OFF,) if _without_softmax(model) else ()
    (leaving,) = (one.name for one in model.graph.output)
    tracer = Tracer(_opset(model), {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer})
    tracer.known[entering] = laid_out(convention.entering(shape), layout, order)
    layers, arrays, lacking = None, nothing, ""
    try:
        for node in model.graph.node:
            tracer.follow(node)
        layers, arrays = traced(tracer.known[leaving])
    except NoLayerError as problem:
        lacking = str(problem)
    runtime = partial(_evaluated, model, convention, layout, order)
    classes = layers.output[0] if layers else runtime(np.zeros((1, *shape), np.float32)).shape[1]
    forward = partial(_on_torch, model, convention, layout, order)
    return NetworkFile(path, shape, convention, classes, layers, lacking, arrays, runtime, forward, remarks)


def companions(path: Path) -> list[Path]:
    """The files beside an .onnx file in which it keeps its weights."""
    model = _parsed(path)
    names: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {one.value for one in tensor.external_data if one.key == "location"}
    return [path.parent / name for name in sorted(names)]


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as problem:
        raise InputError(f"cannot be read ({problem.strerror})") from None
    except Exception:  # protobuf's, whose class depends on its implementation
        raise InputError("not a readable .onnx file; export it again") from None
    if not model.graph.node:
        raise InputError("not a readable .onnx file: it has no graph; export it again")
    return model


def _loaded(path: Path) -> onnx.ModelProto:
    """The checked model, with its weights and without functions of its own."""
    _parsed(path)
    try:
        onnx.checker.check_model(path)
        model = onnx.load(path)
    except Exception as problem:  # of the checker and of weights in other files, which are many
        raise InputError(f"not a valid .onnx file: {_line(problem)}") from None
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx", *(one.domain for one in model.functions)}
    if foreign:
        raise InputError(f"has operators of the domain '{min(foreign)}', which are not ONNX's own; export it without")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def _opset(model: onnx.ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def _input(model: onnx.ModelProto) -> tuple[str, Sequence[int | None]]:
    """The name of what enters the graph, and the sizes of its axes but the batch's."""
    own = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in own]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InputError(f"has {len(inputs)} inputs and {len(model.graph.output)} outputs; it should have one of each")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(f"takes numbers of type {kind}; it should take FLOAT (export it in float32)")
    sizes = [one.dim_value or None for one in tensor.shape.dim]
    if len(sizes) < 2:
        raise InputError("does not say the shape of its images; export it with one")
    return inputs[0].name, sizes[1:]


def _without_softmax(model: onnx.ModelProto) -> bool:
    """Take off a softmax that the graph ends in; whether there was one."""
    (leaving,) = model.graph.output
    last = next((node for node in model.graph.node if leaving.name in node.output), None)
    while last is not None and last.op_type == "Identity":
        last = next((node for node in model.graph.node if last.input[0] in node.output), None)
    if last is None or last.op_type not in TAKEN_OFF:
        return False
    logits = last.input[0]
    model.graph.node.remove(last)
    leaving.name = logits
    return True


def _evaluated(
    model: onnx.ModelProto, convention: Convention, layout: Layout, order: Shape, images: np.ndarray
) -> np.ndarray:
    """Logits [n, classes] by ONNX's own reference, image by image, for a graph may be made for one alone."""
    evaluator = ReferenceEvaluator(model)
    entering, _ = _input(model)
    shown = presented(convention.shown(images), layout, order)
    try:
        found = [evaluator.run(None, {entering: one[None]})[0] for one in shown]
    except Exception as problem:  # whatever numpy or the reference raises of a graph that does not fit together
        raise InputError(f"cannot be computed: {_line(problem)}") from None
    logits = np.concatenate(found)
    if logits.ndim != 2 or len(logits) != len(images):
        raise InputError(f"gives {[*found[0].shape]} for one image; it should give one number for each class")
    return logits


def _on_torch(model: onnx.ModelProto, convention: Convention, layout: Layout, order: Shape, device: str) -> "Forward":
    from deltaball.exchange.onnx_torch import Graph

    entering, _ = _input(model)
    graph = Graph(model, device)

    def forward(images: "torch.Tensor") -> "torch.Tensor":
        scale, shift = (images.new_tensor(one) for one in convention.constants())
        shown = images * scale + shift
        moved = shown.movedim(-1, 1) if layout == "channels_first" else shown
        return graph({entering: moved.reshape(len(images), *order)})

    return forward
