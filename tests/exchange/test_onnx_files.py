"""Networks in .onnx files: written node by node in three layouts, and by torch."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exchange_cases import CLASSES, COLOURED, SHAPE, altered, images, logits, node, opened, random, save_onnx
from torch import nn

from deltaball.base.errors import InputError
from deltaball.exchange import checking, reading
from deltaball.exchange.conventions import Convention
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
)
from deltaball.networks.packs import Pack

CONVOLVED = {
    "k": random(4, 3, 3, 3),
    "b": random(4),
    "gamma": random(4) + 1,
    "beta": random(4, seed=1),
    "mean": random(4, seed=2),
    "variance": random(4, seed=3) ** 2 + 0.5,
    "w": random(CLASSES, 4 * 3 * 2),
    "c": random(CLASSES),
}


def convolved(path: Path) -> Path:
    """Channels first, as torch lays them."""
    nodes = [
        node("Conv", "x k b", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a gamma beta mean variance", "d"),
        node("LeakyRelu", "d", "e", alpha=0.1),
        node("MaxPool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
        node("Dropout", "f", "g"),
        node("Flatten", "g", "h"),
        node("Gemm", "h w c", "y", transB=1),
    ]
    return save_onnx(path, nodes, CONVOLVED, ["n", 3, 6, 5])


def transposed(path: Path) -> Path:
    """Channels last around operators that want them first, as converters from TensorFlow write it."""
    constants = {
        "k": CONVOLVED["k"],
        "b": CONVOLVED["b"].reshape(1, 4, 1, 1),
        "flat": np.array([-1, 4 * 3 * 2], np.int64),
        "w": random(4 * 3 * 2, CLASSES),
        "c": CONVOLVED["c"],
    }
    nodes = [
        node("Transpose", "x", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first k", "a", auto_pad=b"SAME_UPPER", strides=[1, 1]),
        node("Add", "a b", "d"),
        node("Relu", "d", "e"),
        node("AveragePool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "f", "last", perm=[0, 2, 3, 1]),
        node("Reshape", "last flat", "g"),
        node("MatMul", "g w", "h"),
        node("Add", "h c", "y"),
    ]
    return save_onnx(path, nodes, constants, ["n", 6, 5, 3])


def flat(path: Path) -> Path:
    """Images as rows of numbers."""
    constants = {
        "k": random(90, 7),
        "b": random(7),
        "w": random(7, CLASSES),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    nodes = [
        node("Gemm", "x k b", "a"),
        node("Clip", "a low high", "d"),
        node("MatMul", "d w", "e"),
        node("Softmax", "e", "y", axis=1),
    ]
    return save_onnx(path, nodes, constants, ["n", 90])


def residual(path: Path) -> Path:
    constants = {"k": random(3, 3, 3, 3), "s": random(3, 3, 1, 1), "w": random(3, CLASSES)}
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "a", "d"),
        node("Conv", "x s", "short", strides=[2, 2]),
        node("Add", "d short", "e"),
        node("Conv", "e k", "f", pads=[1, 1, 1, 1]),
        node("Add", "e f", "g"),
        node("Relu", "g", "h"),
        node("GlobalAveragePool", "h", "i"),
        node("Flatten", "i", "j"),
        node("MatMul", "j w", "y"),
    ]
    return save_onnx(path, nodes, constants, ["n", 3, 6, 5])


LAYERS = {
    convolved: [Conv, BatchNorm, LeakyReLU, MaxPool, Flatten, Dense],
    transposed: [Conv, Activation, AveragePool, Flatten, Dense],
    flat: [Flatten, Dense, Clamp, Dense],
    residual: [Residual, Residual, Activation, GlobalAveragePool, Dense],
}


@pytest.mark.parametrize("write", LAYERS)
def test_layouts_become_layers_that_compute_what_onnx_does(write, tmp_path: Path):
    file = opened(write(tmp_path / "a.onnx"), COLOURED, Convention("channels_last"))
    assert [type(layer) for layer in file.layers] == LAYERS[write]
    assert isinstance(checking.model(file, "cpu"), Pack)
    np.testing.assert_allclose(logits(file), file.runtime(images(COLOURED).numpy()), rtol=1e-4, atol=1e-4)


def test_numbers_in_a_row_need_a_layout_where_there_are_colours(tmp_path: Path):
    path = flat(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"a\.onnx: takes images of shape \[90\], whose order .* channels_first or"):
        opened(path, COLOURED)
    first, last = (logits(opened(path, COLOURED, Convention(one))) for one in ("channels_first", "channels_last"))
    assert not np.allclose(first, last)


def test_a_softmax_at_the_end_is_taken_off_and_said(tmp_path: Path):
    file = opened(flat(tmp_path / "a.onnx"), COLOURED, Convention("channels_last"))
    assert "softmax is taken off" in file.remarks[0]
    assert not np.allclose(logits(file).sum(1), 1)
    assert not opened(residual(tmp_path / "b.onnx"), COLOURED).remarks


def test_constants_at_the_input_are_a_normalisation(tmp_path: Path):
    constants = {"m": np.float32([[[0.1]], [[0.2]], [[0.3]]]), "s": np.float32(0.25), "w": random(90, CLASSES)}
    nodes = [
        node("Sub", "x m", "a"),
        node("Div", "a s", "d"),
        node("Flatten", "d", "e"),
        node("MatMul", "e w", "y"),
    ]
    file = opened(save_onnx(tmp_path / "a.onnx", nodes, constants, ["n", 3, 6, 5]), COLOURED)
    first, *_ = file.layers
    assert isinstance(first, Normalise)
    np.testing.assert_allclose(first.mean, [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(first.deviation, 0.25)
    logits(file)


def test_shapes_that_a_graph_computes_are_known(tmp_path: Path):
    """x.view(x.size(0), -1) as an exporter writes it."""
    constants = {"zero": np.array(0, np.int64), "axes": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    nodes = [
        node("Shape", "x", "a"),
        node("Gather", "a zero", "d", axis=0),
        node("Unsqueeze", "d axes", "e"),
        node("Concat", "e rest", "f", axis=0),
        node("Reshape", "x f", "g"),
        node("MatMul", "g w", "y"),
    ]
    file = opened(save_onnx(tmp_path / "a.onnx", nodes, {**constants, "w": random(30, CLASSES)}, ["n", 1, 6, 5]))
    assert [type(layer) for layer in file.layers] == [Flatten, Dense]
    logits(file)


def test_torch_exports_are_read_with_their_weights_beside_them(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(3 * 2 * 2, 300),
        nn.Tanh(),
        nn.Linear(300, CLASSES),
    ).eval()
    path = tmp_path / "a.onnx"
    torch.onnx.export(network, (torch.rand(2, 1, 6, 5),), path, dynamic_shapes=({0: "n"},), verbose=False)
    assert (tmp_path / "a.onnx.data").stat().st_size > 0
    file = opened(path)
    expected = network(images(SHAPE).movedim(-1, 1)).detach().numpy()
    np.testing.assert_allclose(logits(file), expected, rtol=1e-4, atol=1e-5)
    before = reading.digest(path)
    (tmp_path / "a.onnx.data").write_bytes(bytes(len((tmp_path / "a.onnx.data").read_bytes())))
    assert reading.digest(path) != before


@pytest.fixture
def erf(tmp_path: Path) -> Path:
    constants = {"w": random(30, 7), "v": random(7, CLASSES)}
    nodes = [
        node("Flatten", "x", "a"),
        node("MatMul", "a w", "d"),
        node("Erf", "d", "e"),
        node("MatMul", "e v", "y"),
    ]
    return save_onnx(tmp_path / "erf.onnx", nodes, constants, ["n", 1, 6, 5])


def test_an_operator_without_a_layer_is_run_by_torch_with_gradients(erf: Path):
    file = opened(erf)
    assert file.layers is None
    assert file.lacking == "operator Erf"
    model = checking.model(file, "cpu")
    x = images(SHAPE).requires_grad_()
    model(x)[0].sum().backward()
    assert x.grad.abs().min() > 0
    np.testing.assert_allclose(logits(file), file.runtime(images(SHAPE).numpy()), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"no layer for operator Erf.*measure-file"):
        reading.layers(erf, SHAPE, CLASSES)


def test_weights_that_compute_something_else_than_the_file_are_refused(tmp_path: Path):
    file = opened(convolved(tmp_path / "a.onnx"), COLOURED)
    wrong = replace(file, arrays=lambda: [array * 1.01 for array in file.arrays()])
    with pytest.raises(InputError, match=r"a\.onnx: its own runtime and deltaball differ by 0\.\d+ on random images"):
        checking.weights(wrong)


def with_nan(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    constant = next(one for one in model.graph.initializer if one.name == "c")
    constant.CopyFrom(onnx.numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), "c"))
    return model.SerializeToString()


def of_another_domain(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    model.graph.node[2].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    return model.SerializeToString()


REFUSED = {
    "truncated": (lambda content: content[: len(content) // 2], "not a readable .onnx file"),
    "empty": (lambda content: b"", "it has no graph"),
    "another format": (lambda content: b"\x89PNG\r\n" + content, "not a readable .onnx file"),
    "no number": (with_nan, "has a bias with weights that are no finite numbers"),
    "another domain": (of_another_domain, "operators of the domain 'com.example'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_gets_one_line(name: str, tmp_path: Path):
    change, reason = REFUSED[name]
    path = altered(convolved(tmp_path / "a.onnx"), change)
    with pytest.raises(InputError, match=re.escape(reason)) as problem:
        checking.weights(opened(path, COLOURED))
    assert str(problem.value).startswith(f"{path}: ")
    assert "\n" not in str(problem.value)


def test_images_and_classes_must_be_those_of_the_data_set(tmp_path: Path):
    path = convolved(tmp_path / "a.onnx")
    with pytest.raises(
        InputError, match=r"takes images of shape \[3, 6, 5\], and those of the data set are \[6, 5, 1\]"
    ):
        opened(path)
    with pytest.raises(InputError, match="has 4 classes, and the data set has 5"):
        opened(path, COLOURED, classes=5)
    whole = save_onnx(
        tmp_path / "b.onnx", [node("Flatten", "x", "y")], {}, ["n", 1, 6, 5], ("y", 30), onnx.TensorProto.DOUBLE
    )
    with pytest.raises(InputError, match="takes numbers of type DOUBLE; it should take FLOAT"):
        opened(whole)
