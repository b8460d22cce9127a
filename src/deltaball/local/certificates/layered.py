"""Which stages the layers of a network make."""

import re
from dataclasses import dataclass

import torch

from deltaball.local.certificates.lines import CURVES
from deltaball.local.certificates.stages import ConvStage, DenseStage, Stage
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layer, Layers, MaxPool, Shape
from deltaball.networks.models import Layered


def stages_of(model: Layered) -> list[Stage]:
    """The stages of all networks together, whose layers are `fused`."""
    assert fused(model.layers), f"no stages: {model.layers}"
    drafts: list[Draft] = []
    for layer, shape, own in model.layers.with_weights(model.weights):
        STAGES[type(layer)](drafts, layer, shape, *own)
    stages: list[Stage] = []
    for draft in drafts:
        stages.append(draft.finished(stages[-1] if stages else None))
    return stages


def fused(layers: Layers) -> bool:
    """Whether layers make stages: convolutions, then dense layers, all but the last with an activation after them, and
    the convolutions with at most a 2×2 max-pool after that."""
    return re.fullmatch("(cap?)*f(da)*d", "".join(map(_letter, layers))) is not None


def _letter(layer: Layer) -> str:
    match layer:
        case Conv(stride=1, padding="same", bias=True):
            return "c"
        case Dense(bias=True):
            return "d"
        case Activation(name) if name in CURVES:
            return "a"
        case Flatten():
            return "f"
    return "p" if layer == MaxPool() else "other"


@dataclass
class Draft:
    """A stage whose layers are not yet all read."""

    kind: type[Stage]
    kernel: torch.Tensor
    bias: torch.Tensor
    entering: Shape
    activation: str | None = None
    pooled: bool = False

    def finished(self, before: Stage | None) -> Stage:
        kernel, bias = (weight.to(torch.float64) for weight in (self.kernel, self.bias))
        return self.kind.of(kernel, bias, self.activation, self.pooled, self.entering, before)


def _dense(drafts: list[Draft], layer: Dense, shape: Shape, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    drafts.append(Draft(DenseStage, kernel, bias, shape))


def _convolution(drafts: list[Draft], layer: Conv, shape: Shape, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    drafts.append(Draft(ConvStage, kernel, bias, shape))


def _activation(drafts: list[Draft], layer: Activation, shape: Shape) -> None:
    drafts[-1].activation = layer.name


def _max_pool(drafts: list[Draft], layer: MaxPool, shape: Shape) -> None:
    drafts[-1].pooled = True


def _flatten(drafts: list[Draft], layer: Flatten, shape: Shape) -> None:
    """Stages are flat; which order a dense layer reads them in, the stage before it knows."""


# What each layer adds to the stages, given the shape of what enters it, the kernel and the bias if it has them.
STAGES = {Dense: _dense, Conv: _convolution, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
