"""A network written as dense layers and activations alone: ReLUs, and tanh and sigmoid where it has them."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

from deltaball.base.errors import InputError
from deltaball.networks.arithmetic import ACTIVATIONS, CONVOLUTIONS, average_pooled
from deltaball.networks.dense_sizes import LARGEST, too_large
from deltaball.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Layers,
    LeakyReLU,
    MaxPool,
    Normalise,
    Residual,
    Scale,
    Shape,
    Subsample,
    rule_for,
)
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack
from deltaball.networks.windows import Round, tournament

SPARSE = 0.1  # share of non-zero weights below which a kernel is stored without its zeros

# How far below 0 a number may be that goes on as it is, and what is allowed for rounding in that bound.
FARTHEST, SLACK = 1e8, 1e-9

Affine = list[tuple[torch.Tensor, torch.Tensor]]  # kernel [inputs, outputs] and bias [outputs] of each dense layer


def as_dense(model: Layered) -> Pack:
    """The first network as dense layers and activations only, in float64: the same function of images in [0, 1].

    What is piecewise linear is written by ReLUs.

    Raises InputError where a layer cannot be written so, and ValueError where the kernels would be too large.
    """
    if too_large(model.layers):
        raise ValueError(f"too large for an exact answer: more than {LARGEST:,} weights as dense layers")
    weights = [weight[0].to(torch.float64) for weight in model.weights]
    form = DenseForm(model.layers.shape, weights[0].device)
    form.through(model.layers, weights)
    return form.finished()


def pools_first(layers: Layers) -> Layers:
    """The same function, with max-pools before the activations that grow with what enters them.

    The largest of several such activations is that of the largest. So a window needs one ReLU, not one for each number
    in it; but it is not known any more that what is surely off is not the largest.
    """
    sequence = [*layers.sequence]
    for place in range(len(sequence) - 1):
        first, second = sequence[place : place + 2]
        if isinstance(first, Activation | LeakyReLU | Clamp) and isinstance(second, MaxPool):
            sequence[place : place + 2] = second, first
    return Layers(layers.shape, tuple(sequence))


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
    """Dense layers and activations, as far as they are written.

    `rows` [units + 1, numbers] are what the network computes of the last activations' outputs (at first, of the
    pixels): a row for each, and one of constants. `beside` is what is needed later and passes by, in the same form.
    What the outputs can be, where pixels are in [0, 1], is between `low` and `high`.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape, self.layers, self.weights = shape, [], []
        self.rows = torch.eye(math.prod(shape) + 1, math.prod(shape), dtype=torch.float64, device=device)
        self.beside: list[torch.Tensor] = []
        self.low, self.high = (torch.full((math.prod(shape),), end).to(self.rows) for end in (0.0, 1.0))

    def through(self, layers: Layers, weights: Sequence[torch.Tensor]) -> None:
        for layer, shape, own in layers.with_weights(weights):
            rule_for(DENSE_FORM, type(layer), "exact answer")(self, layer, shape, *own)

    def relu(self, numbers: torch.Tensor, going_on: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the ReLUs of `numbers`; returns their outputs, and `going_on` in terms of all outputs.

        What goes on, and what passes beside, is written as ReLUs too: x = relu(x - least) + least, where x ≥ least for
        all images.
        """
        going_on = numbers[:, :0] if going_on is None else going_on
        passing = [going_on, *self.beside]
        least = [self._least(some) for some in passing]
        written = [some.clone() for some in passing]
        for some, shift in zip(written, least, strict=True):
            some[-1] -= shift
        outputs = self._write(torch.cat([numbers, *written], 1), "relu")
        relus, going_on, *self.beside = outputs.split([some.shape[1] for some in (numbers, *passing)], 1)
        for some, shift in zip((going_on, *self.beside), least, strict=True):
            some[-1] += shift
        return relus, going_on

    def curved(self, name: str) -> None:
        """Write an activation that nothing can pass by. Raises InputError where something would have to."""
        if self.beside:
            raise InputError(f"no exact answer for activation {name} beside residual sums; possible: relu")
        self.rows = self._write(self.rows, name)

    def finished(self) -> Pack:
        self._dense(self.rows)
        return Pack(Layers(self.shape, (Flatten(), *self.layers)), tuple(self.weights))

    def _write(self, rows: torch.Tensor, activation: str) -> torch.Tensor:
        """Write a dense layer and an activation; returns its outputs, as the next rows are written."""
        ends = self._ends(rows)
        self._dense(rows)
        self.layers.append(Activation(activation))
        self.low, self.high = (ACTIVATIONS[activation](end) for end in ends)
        return torch.eye(len(self.low) + 1, len(self.low)).to(rows)

    def _dense(self, rows: torch.Tensor) -> None:
        self.layers.append(Dense(rows.shape[1]))
        self.weights.extend((rows[None, :-1], rows[None, -1]))

    def _ends(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        positive, negative = rows[:-1].clamp(min=0), rows[:-1].clamp(max=0)
        return tuple(
            ends @ positive + others @ negative + rows[-1]
            for ends, others in ((self.low, self.high), (self.high, self.low))
        )

    def _least(self, rows: torch.Tensor) -> torch.Tensor:
        """A lower bound of numbers, or 0 where that is one. Raises InputError where it is far off."""
        least = self._ends(rows)[0]
        if (least.isfinite() & (least < -FARTHEST)).any():
            raise InputError(f"no exact answer: what may be as low as {least.min():.1e} has no dense form in float64")
        return torch.where(least >= 0, 0.0, least - SLACK * (1 + least.abs()))


def _dense(form: DenseForm, layer: Dense, shape: Shape, kernel: torch.Tensor, *bias: torch.Tensor) -> None:
    form.rows = form.rows @ kernel
    _add(form, *bias)


def _convolution(form: DenseForm, layer: Conv, shape: Shape, kernel: torch.Tensor, *bias: torch.Tensor) -> None:
    maps, sides = form.rows.unflatten(-1, shape), layer.sides(shape)
    form.rows = CONVOLUTIONS["looped"](maps[None], kernel[None], None, layer.stride, sides)[0].flatten(1)
    _add(form, *(one.repeat(form.rows.shape[1] // len(one)) for one in bias))


def _add(form: DenseForm, *constants: torch.Tensor) -> None:
    for one in constants:
        form.rows[-1] += one


def _activation(form: DenseForm, layer: Activation, shape: Shape) -> None:
    rule_for(DENSE_ACTIVATIONS, layer.name, "exact answer")(form)


def _relu(form: DenseForm) -> None:
    form.rows, _ = form.relu(form.rows)


def _leaky_relu(form: DenseForm, layer: LeakyReLU, shape: Shape) -> None:
    """slope · x + (1 - slope) · relu(x)."""
    relus, going_on = form.relu(form.rows, form.rows)
    form.rows = layer.slope * going_on + (1 - layer.slope) * relus


def _clamp(form: DenseForm, layer: Clamp, shape: Shape) -> None:
    """low + relu(x - low) - relu(x - high)."""
    above = [form.rows.clone() for _ in range(2)]
    for rows, end in zip(above, (layer.low, layer.high), strict=True):
        rows[-1] -= end
    relus, _ = form.relu(torch.cat(above, 1))
    over_low, over_high = relus.split(form.rows.shape[1], 1)
    form.rows = over_low - over_high
    form.rows[-1] += layer.low


def _max_pool(form: DenseForm, layer: MaxPool, shape: Shape) -> None:
    """max(a, b) = a + relu(b - a), pair by pair, along one axis and then along the other."""
    maps = form.rows.unflatten(-1, shape)
    for axis, side in zip((1, 2), layer.windows(shape), strict=True):
        rounds, left = tournament(side.pixels_seen)
        for turn in rounds:
            maps = _after(form, maps, axis, turn)
        maps = _chosen(maps, axis, left)
    form.rows = maps.flatten(1)


def _after(form: DenseForm, maps: torch.Tensor, axis: int, turn: Round) -> torch.Tensor:
    """What a round leaves along the axis of maps [units + 1, h, w, c]."""
    first, second = (_chosen(maps, axis, [pair[number] for pair in turn.pairs]) for number in (0, 1))
    going_on = _chosen(maps, axis, turn.going_on)
    relus, passed = form.relu((second - first).flatten(1), going_on.flatten(1))
    relus, passed = relus.unflatten(1, first.shape[1:]), passed.unflatten(1, going_on.shape[1:])
    place = {who: number for number, who in enumerate(turn.going_on)}
    maxima = relus + _chosen(passed, axis, [place[one] for one, _ in turn.pairs])
    return torch.cat([maxima, _chosen(passed, axis, [place[one] for one in turn.alone])], axis)


def _chosen(maps: torch.Tensor, axis: int, places: Sequence[int]) -> torch.Tensor:
    return maps.index_select(axis, torch.tensor(places, dtype=torch.int64, device=maps.device))


def _average_pool(form: DenseForm, layer: AveragePool, shape: Shape) -> None:
    form.rows = average_pooled(form.rows.unflatten(-1, shape), layer).flatten(1)


def _global_average_pool(form: DenseForm, layer: GlobalAveragePool, shape: Shape) -> None:
    form.rows = form.rows.unflatten(-1, shape).mean((1, 2))


def _batch_norm(form: DenseForm, layer: BatchNorm, shape: Shape, *weights: torch.Tensor) -> None:
    gamma, beta, mean, variance = weights
    scale = gamma / (variance + layer.epsilon).sqrt()
    _scale(form, layer, shape, scale, beta - mean * scale)


def _scale(form: DenseForm, layer: Layer, shape: Shape, scale: torch.Tensor, shift: torch.Tensor) -> None:
    repeats = form.rows.shape[1] // len(scale)
    form.rows = form.rows * scale.repeat(repeats)
    _add(form, shift.repeat(repeats))


def _normalise(form: DenseForm, layer: Normalise, shape: Shape) -> None:
    mean, deviation = (form.rows.new_tensor(values) for values in (layer.mean, layer.deviation))
    _scale(form, layer, shape, 1 / deviation, -mean / deviation)


def _subsample(form: DenseForm, layer: Subsample, shape: Shape) -> None:
    maps = form.rows.unflatten(-1, shape)[:, :: layer.stride, :: layer.stride]
    form.rows = functional.pad(maps, layer.added(shape)).flatten(1)


def _residual(form: DenseForm, layer: Residual, shape: Shape, *weights: torch.Tensor) -> None:
    body, shortcut = layer.branches(shape)
    count = len(body.weights)
    form.beside.append(form.rows)
    form.through(body, weights[:count])
    form.rows, form.beside[-1] = form.beside[-1], form.rows
    form.through(shortcut, weights[count:])
    form.rows = form.rows + form.beside.pop()


def _nothing(form: DenseForm, layer: Layer, shape: Shape) -> None:
    pass


# How each layer is written, given the shape of what enters it, and its weights.
DENSE_FORM = {
    Dense: _dense,
    Conv: _convolution,
    Activation: _activation,
    LeakyReLU: _leaky_relu,
    Clamp: _clamp,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    GlobalAveragePool: _global_average_pool,
    BatchNorm: _batch_norm,
    Scale: _scale,
    Dropout: _nothing,
    Normalise: _normalise,
    Subsample: _subsample,
    Residual: _residual,
    Flatten: _nothing,
}
DENSE_ACTIVATIONS: Mapping[str, Callable[[DenseForm], None]] = {
    "relu": _relu,
    "tanh": lambda form: form.curved("tanh"),
    "sigmoid": lambda form: form.curved("sigmoid"),
}
