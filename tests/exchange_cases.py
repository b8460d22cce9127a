"""Networks in files as users have them, and the data set that they are for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from deltaball.exchange import checking, reading
from deltaball.exchange.conventions import Convention
from deltaball.exchange.files import NetworkFile

SHAPE, COLOURED, CLASSES = (6, 5, 1), (6, 5, 3), 4

Image = tuple[int, int, int]


def opened(
    path: Path, shape: Image = SHAPE, convention: Convention | None = None, classes: int = CLASSES
) -> NetworkFile:
    return reading.opened(path, shape, classes, convention)


def images(shape: Image, count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).random((count, *shape), np.float32))


def logits(file: NetworkFile) -> np.ndarray:
    """Of `images` by the model that is measured."""
    with torch.no_grad():
        return checking.model(file, "cpu")(images(file.shape))[0].numpy()


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(0, 0.5, shape).astype(np.float32)


def save_keras(path: Path, *layers: keras.Layer, shape: tuple[int, ...] = SHAPE) -> Path:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *layers])
    model.set_weights([random(*one.shape, seed=place) ** 2 for place, one in enumerate(model.get_weights())])
    model.save(path)
    return path


def save_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    entering: list[int | str],
    leaving: tuple[str, int] = ("y", CLASSES),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """A graph from x, of a shape with its batch, to what leaves it, checked by ONNX."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, entering)],
        [helper.make_tensor_value_info(leaving[0], TensorProto.FLOAT, ["n", leaving[1]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def node(kind: str, entering: str, leaving: str, **settings: object) -> onnx.NodeProto:
    return helper.make_node(kind, entering.split(), leaving.split(), **settings)


def altered(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a file with other content."""
    copy = path.with_name(f"altered{path.suffix}")
    shutil.copy(path, copy)
    copy.write_bytes(change(copy.read_bytes()))
    return copy
