"""Which stages the layers of a network make."""

from dataclasses import dataclass

import torch

from deltaball.base.errors import InputError
from deltaball.local.certificates.stages import ConvStage, DenseStage, Stage
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, MaxPool, Shape, rule_for
from deltaball.networks.models import Layered


def stages_of(model: Layered) -> list[Stage]:
    """The stages of all networks together. Raises InputError where a layer has no rule in STAGES."""
    drafts: list[Draft] = []
    for layer, shape, own in model.layers.with_weights(model.weights):
        rule = rule_for(STAGES, type(layer), "certificate")
        if layer not in PLAIN.get(type(layer), lambda own: [own])(layer):
            raise InputError(f"no certificate for {layer}")
        rule(drafts, layer, shape, *own)
    stages: list[Stage] = []
    for draft in drafts:
        stages.append(draft.finished(stages[-1] if stages else None))
    _demand(stages[-1].activation is None, "a network ends in an affine layer")
    return stages


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
    _demand(drafts and not drafts[-1].activation, "an activation follows an affine layer")
    drafts[-1].activation = layer.name


def _max_pool(drafts: list[Draft], layer: MaxPool, shape: Shape) -> None:
    _demand(drafts and drafts[-1].activation and not drafts[-1].pooled, "a max-pool follows an activation")
    drafts[-1].pooled = True


def _flatten(drafts: list[Draft], layer: Flatten, shape: Shape) -> None:
    """Stages are flat; which order a dense layer reads them in, the stage before it knows."""


def _demand(holds: object, rule: str) -> None:
    if not holds:
        raise InputError(f"no certificate: {rule}")


# Which of these layers the rules below are for.
PLAIN = {
    Dense: lambda own: [Dense(own.outputs)],
    Conv: lambda own: [Conv(own.filters, own.size)],
    MaxPool: lambda own: [MaxPool()],
}

# What each layer adds to the stages, given the shape of what enters it, the kernel and the bias if it has them.
STAGES = {Dense: _dense, Conv: _convolution, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
