"""A network written as dense layers and ReLUs alone."""

import math

import torch
from torch.nn import functional

from deltaball.networks.dense_sizes import LARGEST, too_large
from deltaball.networks.layers import Activation, Conv, Dense, Flatten, Layers, MaxPool, Shape, rule_for
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack

SPARSE = 0.1  # share of non-zero weights below which a kernel is stored without its zeros

Affine = list[tuple[torch.Tensor, torch.Tensor]]  # kernel [inputs, outputs] and bias [outputs] of each dense layer


def as_dense(model: Layered) -> Pack:
    """The first network as dense layers and ReLUs only, in float64, from the same images.

    Raises InputError where a layer cannot be written so, and ValueError where the kernels would be too large.
    """
    if too_large(model.layers):
        raise ValueError(f"too large for an exact answer: more than {LARGEST:,} weights as dense layers")
    weights = [weight[0].to(torch.float64) for weight in model.weights]
    form = DenseForm(model.layers.shape, weights[0].device)
    for layer, shape, own in model.layers.with_weights(weights):
        rule_for(DENSE_FORM, type(layer), "exact answer")(form, layer, shape, *own)
    return form.finished()


def affine_layers(dense: Pack) -> Affine:
    """Layer by layer. A kernel that was a convolution or a max-pool is mostly zeros, and so a sparse tensor."""
    affine = []
    for _, _, own in dense.layers.with_weights(dense.weights):
        if own:
            kernel, bias = (weight[0] for weight in own)
            sparse = kernel.count_nonzero() < SPARSE * kernel.numel()
            affine.append((kernel.to_sparse() if sparse else kernel, bias))
    return affine


class DenseForm:
    """Dense layers and ReLUs, as far as they are written.

    `rows` [units + 1, numbers] are what the network computes of the last ReLU's outputs (at first, of the pixels): a
    row for each, and one of constants.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape, self.layers, self.weights = shape, [], []
        self.rows = torch.eye(math.prod(shape) + 1, math.prod(shape), dtype=torch.float64, device=device)

    def end_layer(self) -> None:
        """Write what was computed since the last ReLU as a dense layer."""
        inputs = len(self.rows) - 1
        self.layers.append(Dense(self.rows.shape[1]))
        self.weights.extend((self.rows[None, :inputs], self.rows[None, inputs]))

    def relu(self, after: torch.Tensor) -> None:
        """Write a ReLU of what was computed, and go on with its outputs times `after` [outputs, numbers]."""
        self.end_layer()
        self.layers.append(Activation("relu"))
        self.rows = functional.pad(after.to(self.rows), (0, 0, 0, 1))

    def finished(self) -> Pack:
        self.end_layer()
        return Pack(Layers(self.shape, (Flatten(), *self.layers)), tuple(self.weights))


def _dense(form: DenseForm, layer: Dense, shape: Shape, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    form.rows = form.rows @ kernel
    form.rows[-1] += bias


def _convolution(form: DenseForm, layer: Conv, shape: Shape, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    maps = form.rows.unflatten(-1, shape).permute(0, 3, 1, 2)
    maps = functional.conv2d(maps, kernel.permute(3, 2, 0, 1), padding="same").permute(0, 2, 3, 1)
    maps[-1] += bias
    form.rows = maps.flatten(1)


def _activation(form: DenseForm, layer: Activation, shape: Shape) -> None:
    rule_for(DENSE_ACTIVATIONS, layer.name, "exact answer")(form)


def _relu(form: DenseForm) -> None:
    form.relu(torch.eye(form.rows.shape[1]))


def _max_pool(form: DenseForm, layer: MaxPool, shape: Shape) -> None:
    """max(a, b) = a + relu(b - a) along one axis and then along the other. relu(a) = a, for a ReLU's output is ≥ 0."""
    for axis in (1, 2):
        maps = form.rows.unflatten(-1, shape)
        even, odd = (torch.arange(start, shape[axis - 1] // 2 * 2, 2, device=maps.device) for start in (0, 1))
        first, second = maps.index_select(axis, even), maps.index_select(axis, odd)
        shape = first.shape[1:]
        form.rows = torch.cat([(second - first).flatten(1), first.flatten(1)], 1)
        form.relu(torch.eye(math.prod(shape)).repeat(2, 1))


def _flatten(form: DenseForm, layer: Flatten, shape: Shape) -> None:
    pass


# How each layer is written, given the shape of what enters it, the kernel and the bias if it has them.
DENSE_FORM = {Dense: _dense, Conv: _convolution, Activation: _activation, MaxPool: _max_pool, Flatten: _flatten}
DENSE_ACTIVATIONS = {"relu": _relu}
