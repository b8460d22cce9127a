"""Group normalisation in files, as Keras has it, as torch exports it and as ONNX writes it."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import torch
from exchange_cases import CLASSES, COLOURED, images, logits, node, opened, random, save_keras
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from deltaball.exchange.files import NetworkFile
from deltaball.networks.layers import GroupNorm


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.maps = nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6, 1e-3)
        self.each, self.last = nn.InstanceNorm2d(6, affine=True), nn.Linear(6 * 4 * 3, 8)
        self.numbers, self.out = nn.GroupNorm(4, 8), nn.Linear(8, CLASSES)
        for one in (self.maps, self.each, self.numbers):
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.each(torch.relu(self.maps(self.first(x)))))
        return self.out(torch.relu(self.numbers(self.last(maps.flatten(1)))))


def normalisations(file: NetworkFile) -> list[tuple[int, float]]:
    """Groups and epsilon of each."""
    return [(layer.groups, pytest.approx(layer.epsilon)) for layer in file.layers if isinstance(layer, GroupNorm)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [18, 21])
def test_torch_exports_it(opset: int, tmp_path: Path):
    network, path = Network().eval(), tmp_path / "grouped.onnx"
    example = (torch.rand(2, *COLOURED[2:], *COLOURED[:2]),)
    torch.onnx.export(network, example, path, dynamic_shapes=({0: "n"},), opset_version=opset, verbose=False)
    file = opened(path, COLOURED)
    assert normalisations(file) == [(3, 1e-3), (6, 1e-5), (4, 1e-5)]
    with torch.no_grad():
        expected = network(images(COLOURED).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits(file), expected, rtol=1e-4, atol=1e-4)


def test_onnx_has_an_operator_of_it(tmp_path: Path):
    constants = {"k": random(6, 3, 3, 3), "g": random(6) + 1, "s": random(6, seed=1), "w": random(72, CLASSES)}
    nodes = [
        node("Conv", "x k", "a", kernel_shape=[3, 3]),
        node("GroupNormalization", "a g s", "b", num_groups=3),
        node("Relu", "b", "c"),
        node("Flatten", "c", "d"),
        node("MatMul", "d w", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 6, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "grouped.onnx")
    file = opened(tmp_path / "grouped.onnx", COLOURED)
    assert normalisations(file) == [(3, 1e-5)]
    logits(file)  # compared with ONNX's own


@pytest.mark.parametrize("settings", [{"groups": 2}, {"groups": -1, "scale": False}, {"groups": 1, "center": False}])
def test_keras_has_a_layer_of_it(settings: dict, tmp_path: Path):
    path = save_keras(
        tmp_path / "grouped.keras",
        keras.layers.Conv2D(4, 3),
        keras.layers.GroupNormalization(**settings),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(6),
        keras.layers.GroupNormalization(3),
        keras.layers.Dense(CLASSES),
        shape=COLOURED,
    )
    file = opened(path, COLOURED)
    groups = 4 if settings["groups"] == -1 else settings["groups"]
    assert normalisations(file) == [(groups, 1e-3), (3, 1e-3)]
    model = keras.saving.load_model(path)
    with torch.no_grad():
        expected = model(images(COLOURED).numpy()).numpy()
    # Of pairs of numbers a deviation may be small, and what is divided by it has lost digits.
    np.testing.assert_allclose(logits(file), expected, rtol=1e-3, atol=1e-3)


def test_weights_alone_with_a_list_of_layers(tmp_path: Path):
    network = Network().eval()
    save_file(network.state_dict(), tmp_path / "grouped.safetensors")
    (tmp_path / "grouped.yaml").write_text(
        """
input: {layout: channels_first}
layers:
  - {layer: conv, name: first}
  - {layer: group_norm, name: maps, groups: 3, epsilon: 0.001}
  - relu
  - {layer: group_norm, name: each, groups: 6}
  - relu
  - flatten
  - {layer: dense, name: last}
  - {layer: group_norm, name: numbers, groups: 4}
  - relu
  - {layer: dense, name: out}
"""
    )
    with torch.no_grad():
        expected = network(images(COLOURED).permute(0, 3, 1, 2)).numpy()
    file = opened(tmp_path / "grouped.safetensors", COLOURED)
    np.testing.assert_allclose(logits(file), expected, rtol=1e-4, atol=1e-4)
