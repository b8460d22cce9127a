"""Bare weights with their layers in a YAML file beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exchange_cases import CLASSES, COLOURED, images, logits, opened, random
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from deltaball.base.errors import InputError
from deltaball.exchange import checking, reading
from deltaball.networks.layers import Activation, AveragePool, BatchNorm, Conv, Dense, Flatten, Normalise, Residual

YAML = """
input: {layout: channels_first, mean: [0.4, 0.5, 0.6], std: 0.25}
layers:
  - {layer: conv, name: first, padding: [1, 1, 1, 1]}
  - {layer: batch_norm, name: norm}
  - relu
  - layer: residual
    body:
      - {layer: conv, name: inner, padding: same}
      - {layer: leaky_relu, slope: 0.1}
  - {layer: average_pool, size: 2, stride: 2}
  - flatten
  - {layer: dense, name: last}
"""


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.inner, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 3 * 2, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first((x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.25)))
        x = x + functional.leaky_relu(self.inner(x), 0.1)
        return self.last(functional.avg_pool2d(x, 2).flatten(1))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = Network()
    made.norm.running_mean.copy_(torch.rand(4))
    return made.eval()


@pytest.fixture
def path(network: Network, tmp_path: Path) -> Path:
    save_file({name: value.numpy() for name, value in network.state_dict().items()}, tmp_path / "a.safetensors")
    (tmp_path / "a.yaml").write_text(YAML)
    return tmp_path / "a.safetensors"


def test_a_state_of_torch_with_its_layers(path: Path, network: Network):
    file = opened(path, COLOURED)
    kinds = [Normalise, Conv, BatchNorm, Activation, Residual, AveragePool, Flatten, Dense]
    assert [type(layer) for layer in file.layers] == kinds
    expected = network(images(COLOURED).movedim(-1, 1)).detach().numpy()
    np.testing.assert_allclose(logits(file), expected, rtol=1e-4, atol=1e-5)


def test_kernels_as_keras_lays_them(tmp_path: Path):
    kernel, bias = random(90, CLASSES), random(CLASSES)
    save_file({"last.kernel": kernel, "last.bias": bias}, tmp_path / "a.safetensors")
    (tmp_path / "a.yaml").write_text("layers: [flatten, {layer: dense, name: last}]")
    file = opened(tmp_path / "a.safetensors", COLOURED)
    np.testing.assert_allclose(logits(file), images(COLOURED).flatten(1).numpy() @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_the_yaml_is_part_of_the_content(path: Path):
    before = reading.digest(path)
    beside = path.with_suffix(".yaml")
    beside.write_text(YAML.replace("0.25", "0.5"))
    assert reading.digest(path) != before


REFUSED = {
    "no layers": (lambda text: "input: {}", "holds weights alone; write its layers in"),
    "a wrong name": (
        lambda text: text.replace("name: last", "name: lsat"),
        "there is no tensor 'lsat.weight'; did you",
    ),
    "a layer left out": (
        lambda text: text.replace("  - {layer: batch_norm, name: norm}\n", ""),
        "has tensors that no layer of",
    ),
    "an unknown layer": (lambda text: text.replace("- relu", "- rleu"), "layers.2"),
    "an unknown key": (lambda text: text.replace("slope", "slop"), "slop"),
    "no YAML": (lambda text: "layers: [", "not valid YAML"),
    "a wrong order": (lambda text: text.replace("  - flatten\n", ""), "layer dense last: a product along one axis"),
    "a wrong range": (
        lambda text: text.replace("mean:", "range: 255, mean:"),
        "range '255': should be as 0..1, 0..255",
    ),
    "wrong channels": (lambda text: text.replace("0.5, 0.6]", "0.5]"), "images have 3 channels; give 1 number or 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_gets_one_line(name: str, path: Path):
    change, reason = REFUSED[name]
    beside = path.with_suffix(".yaml")
    beside.write_text(change(YAML))
    with pytest.raises(InputError) as problem:
        checking.weights(opened(path, COLOURED))
    assert reason in str(problem.value)
    assert str(problem.value).startswith(str(path.with_suffix("")))
    assert "\n" not in str(problem.value)


def test_a_truncated_file(path: Path):
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.safetensors: not a readable \.safetensors file"):
        opened(path, COLOURED)
